"""Worlds: rows of environments that live somewhere, in this process or in others, behind one face that a plant steps.

A row of a world is one environment with its agents, A of them; from outside rows are environment × agent. Two kinds exist: functions of a
state (``Environment``), and ``Living`` environments, which go forward only: Gymnasium's, PettingZoo's, a simulator of your own.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from puffer_edge.spaces import Bools, Floats

FRAMES = 2
"""Innermost lines of a traceback that a message repeats."""


class Living(Protocol):
    """One environment that lives: it can be started and stepped, not put back. All arrays are written in place.

    ``seen`` is (A, n) float64 in the contract's units, ``reward`` and ``cost`` (A,), ``terminated`` and ``alive`` (A,) bool, ``allowed``
    (A, n_outputs) bool: the choices that may be taken next, all True where the environment has no notion of it.

    What it is can be saved if its attributes, and those of the objects that it holds, are plain values (``puffer_edge.envs.snapshot``), or if
    it has ``get_state()``, which gives such, and ``set_state(value)``.
    """

    def reset(self, seed: int, seen: Floats, allowed: Bools) -> None:
        """Start an episode."""
        ...

    def step(self, action: Floats, seen: Floats, reward: Floats, cost: Floats, terminated: Bools, alive: Bools, allowed: Bools) -> bool:
        """One step of (A, m) physical actions; whether a clock of its own ended the episode.

        ``alive`` says which agents acted in this step. One that did not gets reward 0, cost 0 and terminated True, its action is not looked
        at, and it may act again later; if it will in the next step, terminated False says so, and keeps an episode going in which all others
        have ended. The episode is over when all have terminated, or at the clock.
        """
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


def over(terminated: Bools, alive: Bools, cut: Bools) -> Bools:
    """(N,) whose episode has ended: all agents have terminated, in a step in which one acted, or at a clock of the environment's own."""
    ended: Bools = terminated.all(-1) & alive.any(-1) | cut  # a step in which nobody acted, as one that only resets, ends nothing
    return ended


def raised(error: BaseException) -> str:
    """An error in a line or three: its type and text, and the innermost lines that led to it, outside this folder where there are such."""
    here = str(Path(__file__).parent)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    theirs = [frame for frame in frames if not frame.filename.startswith(here)] or frames
    lines = "".join(f"\n  {frame.filename}, line {frame.lineno}: {frame.line or ''}" for frame in theirs[-FRAMES:])
    return f"{type(error).__name__}: {error}{lines}"


def shown(gave: Any) -> str:
    """What a method gave, in a few words: the types of its parts, and small numbers as they are."""
    if not isinstance(gave, tuple):
        return f"one {type(gave).__name__}"
    return f"{len(gave)} values ({', '.join(map(word, gave))})"


def word(part: Any) -> str:
    """A small number as it is, of anything else the type."""
    return repr(part) if isinstance(part, (bool, int, float)) or part is None else type(part).__name__


class World(Protocol):
    """N environments side by side. Whoever steps them starts a row whose episode has ended before its next step.

    Attributes:
        seen: (N, A, n) float64 what each agent sees now: after ``step`` the true observation that followed, before any new start.
        reward: (N, A) of the last step.
        cost: (N, A).
        terminated: (N, A) bool.
        cut: (N,) bool: a clock of the environment's own ended the episode in the last step.
        alive: (N, A) bool: who acted in the last step.
        allowed: (N, A, n_outputs) bool, the choices that may be taken next; None where there is no notion of it.
    """

    seen: Floats
    reward: Floats
    cost: Floats
    terminated: Bools
    cut: Bools
    alive: Bools
    allowed: Bools | None

    def start(self, rows: npt.NDArray[np.int64], seed: int, episodes: npt.NDArray[np.int64]) -> None:
        """Start these rows in these episodes of a seed: equal seed and episode, equal start."""
        ...

    def step(self, action: Floats) -> None:
        """One step of every row: (N, A, m) physical actions."""
        ...

    def save_state(self) -> dict[str, npt.NDArray[Any]]:
        """Everything that changes, as arrays by name.

        Raises:
            Unsupported: it cannot be had, or what goes on from it would not be the same; the message says why.
        """
        ...

    def load_state(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what ``save_state`` gave.

        Raises:
            Unsupported: it cannot; all rows must be started then.
        """
        ...

    def close(self) -> None:
        """Give back processes and memory."""
        ...
