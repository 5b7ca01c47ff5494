"""Living environments that can be saved, and such that cannot, each for a reason of its own."""

from __future__ import annotations

import random
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from puffer_edge.envs import living
from puffer_edge.envs.environment import Environment
from tests.train.vector.counters import CONTRACT


class Arm:
    """Has parts that hold each other."""

    def __init__(self, owner: Keeper) -> None:
        self.owner, self.angles = owner, np.zeros(3, np.float32)


class Keeper:
    """A walk whose state lies in numbers, arrays, containers, objects and generators of two kinds."""

    shared: ClassVar[list[float]] = []

    def __init__(self, kind: str) -> None:
        self.kind, self.rng, self.dice = kind, np.random.default_rng(0), random.Random(0)
        self.arm = Arm(self)
        self.past: deque[float] = deque(maxlen=3)
        if kind == "lock":
            self.gate = {"inner": [threading.Lock()]}

    def reset(self, seed: int, seen: Any, allowed: Any) -> None:
        self.rng, self.k, self.end = np.random.default_rng(seed), 0, 5 + seed % 7
        self.dice.seed(seed)
        self.past.clear()
        self.x = np.float32(self.rng.uniform(-0.5, 0.5))
        self.arm.angles = np.asfortranarray(self.rng.normal(size=(2, 3)))
        self.alias = self.arm.angles
        if self.kind == "many":
            self.bodies = [Arm(self) for _ in range(1 + seed % 3)]
        Keeper.shared.clear()
        self._see(seen)

    def step(self, action: Any, seen: Any, reward: Any, cost: Any, terminated: Any, alive: Any, allowed: Any) -> bool:
        self.k += 1
        self.alias *= 0.9  # in place: what else is that array changes too
        self.past.append(float(self.x))
        noise = np.random.normal() if self.kind == "global" else self.rng.normal()
        self.x = np.float32(np.clip(0.9 * self.x + 0.1 * action[0, 0] + 0.02 * noise + 0.01 * self.dice.random(), -1, 1))
        Keeper.shared.append(float(self.x))
        self._see(seen)
        reward[0], cost[0], terminated[0], alive[0] = self.x + self.arm.angles.sum() + sum(self.past), 0.0, self.k >= self.end, True
        if self.kind == "class":
            reward[0] += len(Keeper.shared)
        return False

    def _see(self, seen: Any) -> None:
        seen[0] = self.k, (self.end % 8) / 8, self.x

    def close(self) -> None:
        pass


class Telling(Keeper):
    """Says itself what its state is, and hides it from everybody else."""

    def __init__(self, kind: str) -> None:
        super().__init__("lock")
        self.wrong = kind == "forgetful"

    def get_state(self) -> Any:
        return {
            "x": self.x,
            "k": self.k,
            "end": self.end,
            "past": list(self.past),
            "angles": self.arm.angles.copy(order="F"),
            "dice": self.dice.getstate(),
        }

    def set_state(self, state: Any) -> None:
        self.x, self.k, self.end = state["x"], state["k"], state["end"]
        self.past.clear()
        self.past.extend([0.0, 0.0, 0.0] if self.wrong else state["past"])
        self.arm.angles = self.alias = state["angles"]
        self.dice.setstate(state["dice"])


@dataclass(frozen=True)
class Make:
    """A factory that another process can have."""

    kind: str

    def __call__(self) -> Keeper:
        return Telling(self.kind) if self.kind in ("telling", "forgetful") else Keeper(self.kind)


def keeping(kind: str = "") -> Environment:
    """The environment."""
    return living.of_contract(CONTRACT, Make(kind), max_steps=9)
