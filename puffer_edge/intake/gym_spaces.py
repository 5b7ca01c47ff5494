"""Gymnasium spaces out of the records of a pickle: what a training declared about its observations and actions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.intake import pickles
from puffer_edge.intake.archives import short
from puffer_edge.intake.draft import check_observations
from puffer_edge.spaces import Floats


@dataclass(frozen=True, eq=False)
class Box:
    """Numbers in ranges.

    Attributes:
        shape: as declared; everything here is flat.
        low: (n,) lowest values, −∞ where open.
        high: (n,) highest values.
        image: whether Stable-Baselines3 takes it for an image and divides by 255.
        parts: names and sizes of a dictionary's parts in order; empty for a plain box.
    """

    shape: tuple[int, ...]
    low: Floats
    high: Floats
    image: bool = False
    parts: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Choices:
    """One choice, or several.

    Attributes:
        counts: number of choices of each.
        single: whether it is one plain choice (Discrete).
        binary: whether it came as MultiBinary, whose networks have one output a choice.
    """

    counts: tuple[int, ...]
    single: bool = False
    binary: bool = False


def space(value: Any, what: str) -> Box | Choices:
    """A space of gymnasium or of the older gym.

    Raises:
        InvalidInput: it is none, or damaged.
        Unsupported: a kind that has no place in a contract.
    """
    name, state = pickles.class_name(value), pickles.mapping(value)
    package, _, kind = name.rpartition(".")
    if not package.startswith(("gymnasium.spaces", "gym.spaces")):
        raise InvalidInput(f"the {what} is a {name or type(value).__name__}, not a space of gymnasium")
    if kind == "Box":
        return _box(state, what)
    if kind == "Discrete":
        return Choices((_count(state.get("n"), what),), single=True)
    if kind == "MultiDiscrete":
        return Choices(tuple(_count(n, what) for n in pickles.array(state.get("nvec"), f"nvec of the {what}").reshape(-1).tolist()))
    if kind == "MultiBinary":
        return Choices((2,) * _count(math.prod(_shape(state, what)), what), binary=True)
    if kind == "Dict":
        return _dict(state, what)
    raise Unsupported(f"the {what} is a {kind}: a contract has channels of numbers (Box, or a Dict of them) and choices (Discrete, MultiDiscrete)")


def _shape(state: Any, what: str) -> tuple[int, ...]:
    shape = state.get("_shape", state.get("shape"))
    if not isinstance(shape, tuple) or any(type(n) is not int or not 0 <= n < 2**24 for n in shape):
        raise InvalidInput(f"the {what} has no shape")
    return shape


def _count(value: Any, what: str) -> int:
    count = pickles.plain(value, f"the number of choices of the {what}")
    if not 1 <= count <= 2**24:
        raise InvalidInput(f"the {what} has {count:g} choices")
    return int(count)


def _box(state: Any, what: str) -> Box:
    shape = _shape(state, what)
    low, high = (np.asarray(pickles.array(state.get(k), f"{k} of the {what}"), np.float64).reshape(-1) for k in ("low", "high"))
    if not low.size == high.size == math.prod(shape) or np.isnan(low).any() or np.isnan(high).any() or not (low <= high).all():
        raise InvalidInput(f"the {what} says shape {short(shape)} and has {low.size} lows and {high.size} highs, or they cross")
    dtype = state.get("dtype")
    whole = isinstance(dtype, pickles.Made) and dtype.arguments[:1] == ("u1",)
    image = whole and len(shape) == 3 and low.size > 0 and bool((low == 0).all() and (high == 255).all())
    return Box(shape, low, high, image)


def _dict(state: Any, what: str) -> Box:
    """A dictionary of boxes, flat, in the order that gymnasium keeps: sorted keys, unless it was given an ordered one."""
    parts: list[tuple[str, Box]] = []
    for key, value in pickles.mapping(state.get("spaces")).items():
        part = space(value, f"part {short(key)} of the {what}")
        if not isinstance(part, Box) or part.parts:
            raise Unsupported(f"part {short(key)} of the {what} is not a Box: a contract has one number a channel")
        if part.image:
            check_observations(part.low.size, f"part {short(key)} of the {what}", part.shape)
            raise Unsupported(f"part {short(key)} of the {what} is an image, which a convolution of Stable-Baselines3 reads")
        parts.append((str(key), part))
    if not parts:
        raise InvalidInput(f"the {what} is a Dict without parts")
    low, high = (np.concatenate([getattr(part, k) for _, part in parts]) for k in ("low", "high"))
    return Box((low.size,), low, high, parts=tuple((key, part.low.size) for key, part in parts))
