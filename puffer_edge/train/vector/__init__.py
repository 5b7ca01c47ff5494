"""Stepping many living environments: in this process, or in several. Environments made of functions need neither."""

from __future__ import annotations

import pickle
import time
from dataclasses import dataclass

import numpy as np

from puffer_edge.envs.environment import Environment
from puffer_edge.envs.world import World
from puffer_edge.train.settings import cores
from puffer_edge.train.vector.processes import STEP_TIMEOUT_S, Processes
from puffer_edge.train.vector.serial import Serial

__all__ = ["Processes", "Serial", "Spec", "make"]

DEAR_S = 1e-3
"""Where a step of all rows takes longer in this process, and there are cores, "auto" takes processes: a hand-over costs some 0.1 ms."""


@dataclass(frozen=True)
class Spec:
    """How environments are stepped.

    Attributes:
        vector: "serial", "processes", "asynchronous" (processes, twice as many), or "auto": processes where a step of all rows is dear.
        workers: processes; 0: one for each core.
        timeout_s: for one step of a worker's rows.
    """

    vector: str = "auto"
    workers: int = 0
    timeout_s: float = STEP_TIMEOUT_S


def make(environment: Environment, n: int, spec: Spec) -> tuple[World | None, str]:
    """The world of n rows that live; None for an environment made of functions, which a plant steps itself.

    Returns:
        the world; in words what "auto" would have chosen but for an obstacle, empty where there was none.

    Raises:
        InvalidInput: more workers than rows, or processes for an environment whose factory cannot be pickled.
        WorkerFailed: an environment raised something while it was made.
    """
    if environment.world is not None:
        return environment.world(n), ""
    if environment.living is None:
        return None, ""
    if spec.vector == "processes":
        return Processes(environment, n, spec.workers, spec.timeout_s), ""
    if spec.vector == "asynchronous":
        return Processes(environment, n, spec.workers or min(2 * cores(), n), spec.timeout_s), ""
    alone = min(spec.workers or cores(), n) == 1
    if spec.vector == "serial" or alone or n * _seconds(environment) < DEAR_S:
        return Serial(environment, n), ""
    try:
        pickle.dumps(environment.living)
    except Exception as error:
        return Serial(environment, n), f"its steps are dear, but one process makes them all: it cannot be made in another ({error})"
    return Processes(environment, n, spec.workers, spec.timeout_s), ""


def _seconds(environment: Environment) -> float:
    """Seconds of one step of one row, the second best of five."""
    world, c = Serial(environment, 1), environment.contract
    try:
        world.start(np.zeros(1, np.int64), 0, np.zeros(1, np.int64))
        still = c.physical_action(c.action_initial)
        action = np.broadcast_to(still, (1, environment.agents, c.n_actions))
        found = []
        for _ in range(5):
            began = time.perf_counter()
            world.step(action)
            found.append(time.perf_counter() - began)
            if world.cut.any() or world.terminated.all():
                world.start(np.zeros(1, np.int64), 0, np.ones(1, np.int64))
        return sorted(found)[1]
    finally:
        world.close()
