"""Environments as scalar functions: the words they are written in, and their numpy face.

The functions of an environment say what happens to one row. They take and give tuples of numbers, branch on nothing (``where`` chooses), and
call numpy's functions of numbers and the words below. So the same text runs on columns of many rows in numpy, is compiled row by row by
numba for the native trainer (``puffer_edge/envs/compiled.py``), and is traced into JavaScript (``export/javascript.py``). One that does
branch still runs in all but JavaScript, in numpy row by row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from puffer_edge.spaces import Bools, Floats

Numbers = tuple[Any, ...]


def uniform(random: Any, low: Any, high: Any) -> Any:
    """A number in [low, high), drawn from what ``reset`` was given."""
    return random.uniform(low, high)


def where(condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, b elsewhere."""
    return np.where(condition, a, b)


def single(x: Any) -> Any:
    """Rounded to float32, in which what follows is computed."""
    return x.astype(np.float32) if hasattr(x, "astype") else np.float32(x)


def limited(x: Any, low: Any, high: Any) -> Any:
    """x, but at least low and at most high."""
    return np.minimum(np.maximum(x, low), high)


@dataclass(frozen=True, eq=False)
class Scalar:
    """The functions of one row.

    Attributes:
        reset: ``random → state``; numbers are drawn by ``uniform(random, low, high)`` and nothing else.
        observe: ``state → observation`` in the contract's units.
        step: ``state, action in physical units → state, reward, cost, terminated``.
    """

    reset: Callable[[Any], Numbers]
    observe: Callable[[Numbers], Numbers]
    step: Callable[[Numbers, Numbers], tuple[Numbers, Any, Any, Any]]


class Columns:
    """A generator that gives a column at a time."""

    def __init__(self, rng: Any, rows: int) -> None:
        self._rng, self._rows = rng, rows

    def uniform(self, low: Any, high: Any) -> Any:
        """(rows,) numbers in [low, high)."""
        return self._rng.uniform(low, high, self._rows)


@dataclass(frozen=True, eq=False)
class Faces:
    """The numpy functions that ``Environment`` asks for, made of scalar ones.

    Attributes:
        scalar: what they are made of.
    """

    scalar: Scalar

    def reset(self, rng: np.random.Generator, n: int) -> Floats:
        """(n, S) start states."""
        state: Floats = _stacked(self.scalar.reset(Columns(rng, n)), n)
        return state

    def observe(self, state: Floats) -> Floats:
        """(n, n_observations) of (n, S)."""
        try:
            observation: Floats = _stacked(self.scalar.observe(tuple(state.T)), len(state))
        except ValueError as error:
            _branches(error)
            observation = np.array([self.scalar.observe(tuple(row)) for row in state], np.float64)
        return observation

    def step(self, state: Floats, action: Floats) -> tuple[Floats, Floats, Floats, Bools]:
        """(n, S) and (n, m) to state (n, S), reward, cost and terminated (n,)."""
        n = len(state)
        try:
            following, reward, cost, terminated = self.scalar.step(tuple(state.T), tuple(action.T))
        except ValueError as error:
            _branches(error)
            rows = [self.scalar.step(tuple(s), tuple(a)) for s, a in zip(state, action)]
            numbers = (np.array([row[k] for row in rows], np.float64) for k in (0, 1, 2))
            return *numbers, np.array([row[3] for row in rows], bool)  # type: ignore[return-value]
        reward, cost, terminated = (_column(x, n) for x in (reward, cost, terminated))
        return _stacked(following, n), reward.astype(np.float64), cost.astype(np.float64), terminated.astype(np.bool_)


def _branches(error: ValueError) -> None:
    """Let an error through that is not a branch on a column."""
    if "truth value of an array" not in str(error):
        raise error


def _column(x: Any, n: int) -> Any:
    """A number for every row, where it is the same for all."""
    return x if getattr(x, "ndim", 0) else np.full(n, x)


def _stacked(columns: Numbers, n: int) -> Any:
    stacked = np.stack([_column(column, n) for column in columns], -1)
    return stacked.astype(np.float64)
