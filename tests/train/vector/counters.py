"""A living environment that counts, and does whatever else it is told: raises, hangs, dies, forgets its shape."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs import living
from puffer_edge.envs.environment import Environment

CONTRACT = Contract(
    "counter",
    (ObservationChannel("count", "1", 0.0, 64.0), ObservationChannel("seed", "1", 0.0, 1.0), ObservationChannel("pushed", "1", -1.0, 1.0)),
    (ActionChannel("push", "1", -1.0, 1.0, safe=0.0, initial=0.0),),
    "clip",
    rate_hz=10.0,
)


class Counter:
    """Counts to 5 + seed mod 7; pays what is pushed."""

    def __init__(self, fault: str, at: int, pause_s: float) -> None:
        self.fault, self.at, self.pause_s = fault, at, pause_s
        self.count = self.end = self.steps = 0
        if fault == "make":
            raise RuntimeError("no licence")

    def reset(self, seed: int, seen: Any, allowed: Any) -> None:
        self.count, self.end, self.first = 0, 5 + seed % 7, (seed % 1024) / 1024
        seen[0] = 0.0, self.first, 0.0

    def step(self, action: Any, seen: Any, reward: Any, cost: Any, terminated: Any, alive: Any, allowed: Any) -> bool:
        self.count += 1
        self.steps += 1
        if self.pause_s:
            time.sleep(self.pause_s)
        if self.steps == self.at:
            self._fail(seen)
        seen[0] = self.count, self.first, action[0, 0]
        if self.steps == self.at and self.fault == "nan":
            seen[0, 1] = np.nan
        reward[0], cost[0], terminated[0], alive[0] = action[0, 0], 0.25, self.count >= self.end, True
        return False

    def _fail(self, seen: Any) -> None:
        if self.fault == "raise":
            raise ZeroDivisionError("the plant divided by nought")
        if self.fault == "hang":
            time.sleep(1000.0)
        if self.fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "exit":
            raise SystemExit(3)
        if self.fault == "shape":
            seen[0] = np.zeros(4)

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Make:
    """A factory that another process can have."""

    fault: str = ""
    at: int = -1
    pause_s: float = 0.0

    def __call__(self) -> Counter:
        return Counter(self.fault, self.at, self.pause_s)


def counting(fault: str = "", at: int = -1, pause_s: float = 0.0) -> Environment:
    """The environment."""
    return living.of_contract(CONTRACT, Make(fault, at, pause_s), max_steps=9)
