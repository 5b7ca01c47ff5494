"""Environments: a file of this folder is one, under the file's name, if it defines ``ENVIRONMENT``."""

from __future__ import annotations

import importlib

from puffer_edge import find
from puffer_edge.envs.environment import Environment

_AROUND = ("check", "closed_loop", "compiled", "environment", "plant", "scalar")
"""Files of this folder that are no environment, but what is put around one."""


def names() -> tuple[str, ...]:
    """Names of the environments that exist, sorted."""
    return tuple(name for name in find.names(__name__, ".py") if name not in _AROUND)


def load(name: str) -> Environment:
    """The environment of that name.

    Raises:
        InvalidInput: there is none.
    """
    environment: Environment = importlib.import_module(f"{__name__}.{find.choose('environment', name, names())}").ENVIRONMENT
    return environment
