"""Environments: a file of this folder, or of ``sanity``, is one, under the file's name, if it defines ``ENVIRONMENT``."""

from __future__ import annotations

import importlib
from functools import partial

from puffer_edge import find
from puffer_edge.envs import frames, gym, gym_vector, own, zoo
from puffer_edge.envs.environment import Environment
from puffer_edge.errors import InvalidInput

_FAMILIES = {"gym": gym.wrap, "gymvec": gym_vector.wrap, "pettingzoo": zoo.wrap}
"""What stands before the colon of environments from elsewhere."""


def names() -> tuple[str, ...]:
    """Names of the control tasks that exist, sorted."""
    return tuple(name for name in find.names(__name__, ".py") if "\nENVIRONMENT = " in (find.folder(__name__) / f"{name}.py").read_text("utf-8"))


def sanity_names() -> tuple[str, ...]:
    """Names of the sanity set, sorted: small tasks that each prove one feature of a trainer."""
    return find.names(f"{__name__}.sanity", ".py")


def load(name: str) -> Environment:
    """The environment of that name, or ``module:NAME`` for one of your own.

    Args:
        name: a control task, one of the sanity set, or a module that Python can import (the working folder counts), a colon and the name
            of an ``Environment`` in it, or of a class or function that makes one of Gymnasium or PettingZoo; what comes back bears that
            name. ``own.load`` says what of a module is called. ``NAME-frames4`` stacks the last four observations of any of them; ``gym:ID``
            is Gymnasium's of that ID, ``gymvec:ID`` its vector environment, ``pettingzoo:MODULE`` PettingZoo's of that module.

    Raises:
        InvalidInput: there is none, what the module holds is none, or it raised while it was made and tried.
        Unsupported: its spaces cannot be those of a policy.
        MissingExtra: its package is not installed.
    """
    base, count = frames.named(name)
    if count > 1 or base != name:
        return frames.stack(load(base), count)
    family, colon, rest = name.partition(":")
    if colon:
        if family not in _FAMILIES and not rest.isidentifier() and (hint := find.hint(family, _FAMILIES)):
            raise InvalidInput(f"there is no family of environments {family!r}{hint}, and {name!r} names none of your own: my_module:MY_ENVIRONMENT")
        given: Environment = own.called(partial(_FAMILIES[family], rest) if family in _FAMILIES else partial(own.load, name), name)
        return given
    if name in sanity_names():
        environment: Environment = importlib.import_module(f"{__name__}.sanity.{name}").ENVIRONMENT
    else:
        environment = importlib.import_module(f"{__name__}.{find.choose('environment', name, names())}").ENVIRONMENT
    return environment
