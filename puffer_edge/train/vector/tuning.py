"""How to step an environment fastest on this machine: each way is tried for a while, with random actions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.contract import Contract
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.plant import Plant
from puffer_edge.errors import Unsupported
from puffer_edge.integer.shield import Shield
from puffer_edge.spaces import Bools, Floats
from puffer_edge.train.settings import cores
from puffer_edge.train.vector.asynchronous import Fleet
from puffer_edge.train.vector.processes import Processes
from puffer_edge.train.vector.serial import Serial

HORIZON = 16


@dataclass(frozen=True)
class Way:
    """One way to step, and what it reached.

    Attributes:
        vector: the setting of that name.
        workers: likewise.
        batch: likewise.
        steps_per_s: environment steps a second, fixed point and shield included.
    """

    vector: str
    workers: int
    batch: int
    steps_per_s: float

    @property
    def flags(self) -> str:
        """What to type after ``puffer-edge train NAME``."""
        shared = f" --workers {self.workers}" if self.vector != "serial" else ""
        return f"--vector {self.vector}{shared}{f' --batch {self.batch}' if self.vector == 'asynchronous' else ''}"


def ways(rows: int) -> list[tuple[str, int, int]]:
    """Vector, workers and batch of what is tried for so many rows."""
    numbers = sorted({w for w in (2, cores(), 2 * cores()) if 1 < w <= rows})
    found = [("serial", 1, 0)] + [("processes", w, 0) for w in numbers]
    return found + [("asynchronous", w, b) for w in numbers for b in sorted({1, w // 2})]


def tune(environment: Environment, rows: int, seconds: float) -> Iterator[Way]:
    """Try all ways; each is given when it has been measured.

    Args:
        environment: the task, which lives.
        rows: environments side by side, as the setting.
        seconds: for each way, beyond starting it.

    Raises:
        Unsupported: it is made of functions, which a plant steps itself.
        WorkerFailed: it failed.
    """
    if environment.living is None:
        raise Unsupported(f"{environment.name} is made of functions: the native engine steps it, there is nothing to tune")
    shield = Shield.build(environment.contract, environment.shield)
    for vector, workers, batch in ways(rows):
        yield Way(vector, workers, batch, _measure(environment, shield, rows, (vector, workers, batch), seconds))


def _measure(environment: Environment, shield: Shield, rows: int, way: tuple[str, int, int], seconds: float) -> float:
    vector, workers, batch = way
    world = Serial(environment, rows) if vector == "serial" else Processes(environment, rows, workers)
    try:
        draw = _Random(environment.contract)
        plant = Fleet(environment, 0, shield, world, batch) if vector == "asynchronous" and isinstance(world, Processes) else None
        other = Plant(environment, rows, 0, shield, world) if plant is None else None
        steps, began = 0, time.perf_counter()
        while steps == 0 or time.perf_counter() - began < seconds:
            if plant is not None:
                plant.collect(HORIZON, draw.act, lambda *_: None)
            elif other is not None:
                seen = environment.contract.physical_observation(other.last)
                for _ in range(HORIZON):
                    seen = other.step(draw.act(seen, other.allowed)[2]).observation
            steps += HORIZON * rows
        return steps / (time.perf_counter() - began)
    finally:
        world.close()


class _Random:
    """A policy that draws what is allowed."""

    def __init__(self, contract: Contract) -> None:
        self.contract, self.rng = contract, np.random.default_rng(0)

    def act(self, observation: Floats, allowed: Bools | None) -> tuple[npt.NDArray[Any], Any, Floats]:
        """As ``asynchronous.Act``."""
        c, n = self.contract, len(observation)
        if c.head not in ("discrete", "multi_discrete"):
            drawn = self.rng.uniform([a.low for a in c.actions], [a.high for a in c.actions], (n, c.n_actions))
            return drawn, None, drawn
        scores = self.rng.random((n, c.n_outputs)) + (0.0 if allowed is None else allowed)
        picks = np.stack([part.argmax(1) for part in np.split(scores, np.cumsum(c.groups)[:-1], 1)], 1)
        if c.head == "discrete":
            return picks, None, np.asarray(c.levels, np.float64)[picks[:, 0]]
        return picks, None, np.stack([np.asarray(level, np.float64)[picks[:, j]] for j, level in enumerate(c.levels)], 1)
