"""Environments of your own, ``my_module:NAME``: what a module holds under that name, and what of it may be called."""

from __future__ import annotations

import importlib
import inspect
import sys
import typing
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from puffer_edge import find
from puffer_edge.envs import gym, gym_vector, zoo
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.world import raised
from puffer_edge.errors import InvalidInput, PufferEdgeError, Unsupported

_EXTRAS = {"gymnasium": "train", "torch": "train", "numba": "train", "pettingzoo": "multiagent", "mujoco": "mujoco"}
"""Which extra brings a package."""
_LIMITS = ("max_episode_steps", "max_cycles")
"""Attributes under which environments keep the length of an episode."""


def load(where: str) -> Environment:
    """The environment under ``module:NAME``.

    The module is imported. Called is only what says by its type that it is made for it, because runs and bundles name environments too, and
    may come from anywhere: a class that derives from ``gymnasium.Env``, its ``VectorEnv``, or PettingZoo's ``ParallelEnv`` or ``AECEnv``, or
    a function annotated to return one; without arguments, and a ``VectorEnv`` with ``num_envs``.

    Raises:
        InvalidInput: the module or the name is not there, importing or making it raised, or it is none of these.
        Unsupported: its spaces cannot be those of a policy.
    """
    held = _held(where)
    if isinstance(held, Environment):
        return replace(held, name=where)  # so that whoever reads the name in a run finds it again
    gives = _gives(held)
    if gives is None:
        what = f"the class {held.__name__}" if isinstance(held, type) else f"of type {type(held).__name__}"
        raise InvalidInput(
            f"{where} is {what}: it must be a puffer_edge.envs.environment.Environment, a class that derives from gymnasium.Env or PettingZoo's "
            "ParallelEnv or AECEnv, or a function annotated to return one (def make() -> gymnasium.Env)"
        )
    if issubclass(gives, gym.classes()[1:]):
        return gym_vector.of_factory(gym_vector.VectorFactory(where, partial(make_rows, where)))
    again = partial(make, where)
    env = again()
    if issubclass(gives, gym.classes()):
        return gym.of_env(gym.GymFactory(where, again), gym.GymLiving(env, where), episode_steps(env))
    return zoo.of_env(zoo.ZooFactory(where, again), env, episode_steps(env))


def make(where: str, render_mode: str | None = None, **about: Any) -> Any:
    """Call the class or function under ``module:NAME`` that ``load`` found.

    Args:
        where: the name.
        render_mode: handed on where it takes one; it may also always make its environment in this one.
        about: what else it gets.

    Raises:
        InvalidInput: it raised.
        Unsupported: it makes the environment in another render mode.
    """
    held = partial(_held(where), **about)
    if render_mode is None:
        return called(held, where)
    takes = inspect.signature(held).parameters.values()
    given = any(p.name == "render_mode" or p.kind is p.VAR_KEYWORD for p in takes)
    env = called(partial(held, render_mode=render_mode) if given else held, where)
    if (found := getattr(env, "render_mode", None)) != render_mode:
        raise Unsupported(
            f"{where} cannot be filmed: its render_mode is {found!r}, not {render_mode!r}; let it take an argument render_mode=None, and keep it "
            "under that name"
        )
    return env


def make_rows(where: str, n: int, **how: Any) -> Any:
    """Call what makes a vector environment, under ``module:NAME``, for n rows; see ``make``."""
    return make(where, num_envs=n, **how)


def called(held: Callable[[], Any], where: str) -> Any:
    """What it returns.

    Raises:
        InvalidInput: it raised.
    """
    try:
        return held()
    except PufferEdgeError:
        raise
    except (Exception, SystemExit) as error:
        raise InvalidInput(f"{where}: making the environment raised {raised(error)}") from error


def episode_steps(env: Any) -> int | None:
    """How long an environment says its episodes are at most, None where it says nothing."""
    found = getattr(getattr(env, "spec", None), "max_episode_steps", None)
    for name in _LIMITS:
        found = found or getattr(getattr(env, "unwrapped", env), name, None)
    return int(found) if isinstance(found, (int, float)) and found >= 1 else None


def imported(module: str, where: str) -> Any:
    """A module, looked for in the working folder too.

    Raises:
        InvalidInput: there is none, or importing it raised; the message has the innermost lines of the traceback.
    """
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)  # as ``python -m`` does: a console script leaves the working folder out
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            hint = f": pip install 'puffer-edge[{_EXTRAS[error.name]}]'" if error.name in _EXTRAS else ""
            raise InvalidInput(f"{where}: the module was found, but it imports {error.name!r}, which is not installed{hint}") from error
        raise InvalidInput(f"{where}: there is no module {error.name!r} in {here} or among the installed packages") from None
    except (Exception, SystemExit) as error:
        raise InvalidInput(f"{where}: importing the module raised {raised(error)}") from error
    finally:
        if added:
            sys.path.remove(here)


def _held(where: str) -> Any:
    module, _, attribute = where.partition(":")
    if not module or not all(part.isidentifier() for part in [*module.split("."), attribute]):
        raise InvalidInput(f"{where!r} names no environment of your own: write my_module:MY_ENVIRONMENT, without .py and slashes")
    held = getattr(imported(module, where), attribute, None)
    if held is None:
        found = [name for name, value in vars(sys.modules[module]).items() if isinstance(value, Environment) or _gives(value) is not None]
        raise InvalidInput(f"the module {module} has no {attribute!r}{find.hint(attribute, found)}; environments in it: {', '.join(found) or 'none'}")
    return held


def _gives(held: Any) -> type | None:
    """The class of what a name makes when it is called; None where it may not be."""
    known = (*gym.classes(), *zoo.classes())
    if isinstance(held, type):
        return held if issubclass(held, known) and held not in known else None
    try:
        gives = typing.get_type_hints(held).get("return") if callable(held) else None
    except Exception:  # an annotation that names nothing
        return None
    gives = typing.get_origin(gives) or gives
    return gives if isinstance(gives, type) and issubclass(gives, known) else None
