"""Environments: a file of this folder, or of ``sanity``, is one, under the file's name, if it defines ``ENVIRONMENT``."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from puffer_edge import find
from puffer_edge.envs import frames, gym
from puffer_edge.envs.environment import Environment
from puffer_edge.errors import InvalidInput

_AROUND = (
    "check",
    "closed_loop",
    "composition",
    "draw",
    "dynamics",
    "entries",
    "environment",
    "frames",
    "gym",
    "library",
    "native",
    "plant",
    "rewire",
    "rows",
    "scalar",
    "world",
)
"""Files of this folder that are no environment, but what is put around one, or what it is made of."""


def names() -> tuple[str, ...]:
    """Names of the control tasks that exist, sorted."""
    return tuple(name for name in find.names(__name__, ".py") if name not in _AROUND)


def sanity_names() -> tuple[str, ...]:
    """Names of the sanity set, sorted: small tasks that each prove one feature of a trainer."""
    return find.names(f"{__name__}.sanity", ".py")


def load(name: str) -> Environment:
    """The environment of that name, or ``module:NAME`` for one of your own.

    Args:
        name: a control task, one of the sanity set, or a module that Python can import (the working folder counts), a colon and the name
            of an ``Environment`` in it; what comes back bears that name. The module is imported, nothing in it is called: runs and bundles
            name environments too, and they may come from anywhere. ``NAME-frames4`` stacks the last four observations of any of them;
            ``gym:ID`` is Gymnasium's of that ID.

    Raises:
        InvalidInput: there is none, or what the module holds is none.
        Unsupported: a Gymnasium environment with other spaces than vectors of numbers.
    """
    base, count = frames.named(name)
    if count > 1 or base != name:
        return frames.stack(load(base), count)
    if ":" in name:
        return _own(*name.split(":", 1))
    if name in sanity_names():
        environment: Environment = importlib.import_module(f"{__name__}.sanity.{name}").ENVIRONMENT
    else:
        environment = importlib.import_module(f"{__name__}.{find.choose('environment', name, names())}").ENVIRONMENT
    return environment


def _own(module: str, attribute: str) -> Environment:
    where = f"{module}:{attribute}"
    if module == "gym":
        return gym.wrap(attribute)
    if not module or not all(part.isidentifier() for part in [*module.split("."), attribute]):
        raise InvalidInput(f"{where!r} names no environment of your own: write my_module:MY_ENVIRONMENT, without .py and slashes")
    held = getattr(_import(module, where), attribute, None)
    if held is None:
        found = [name for name, value in vars(sys.modules[module]).items() if isinstance(value, Environment)]
        raise InvalidInput(f"the module {module} has no {attribute!r}; environments in it: {', '.join(found) or 'none'}")
    if not isinstance(held, Environment):
        raise InvalidInput(f"{where} is of type {type(held).__name__}: it must be a puffer_edge.envs.environment.Environment")
    return replace(held, name=where)  # so that whoever reads the name in a run finds it again


def _import(module: str, where: str) -> Any:
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)  # as ``python -m`` does: a console script leaves the working folder out
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise InvalidInput(f"{where}: the module was found, but it imports {error.name!r}, which is not installed") from error
        raise InvalidInput(f"{where}: there is no module {error.name!r} in {here} or among the installed packages") from None
    except Exception as error:
        raise InvalidInput(f"{where}: importing the module raised {type(error).__name__}: {error}") from error
    finally:
        if added:
            sys.path.remove(here)
