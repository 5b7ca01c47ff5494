"""Stepping without waiting for the slowest: whoever is ready first gets its next actions, while the others still step.

Every worker's rows are a plant of their own, with episodes of their own, and go through the horizon at their own pace. An update begins when
all have filled theirs; each has by then been sent its next actions, which it steps while the networks learn: those samples were drawn by
the policy before the update, lag 1, and keep the probability with which they were drawn. So no two runs are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.envs.environment import Environment
from puffer_edge.envs.interventions import Interventions
from puffer_edge.envs.plant import Plant, StepResult
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.integer.shield import Shield
from puffer_edge.spaces import Bools, Floats
from puffer_edge.train.vector.processes import Processes

Act = Callable[[Floats, "Bools | None"], tuple[npt.NDArray[Any], Any, Floats]]
"""(rows, n) observations and their masks → sampled actions, their log-probabilities, and (rows, m) physical proposals."""


UNORDERED = "rows that do not wait for each other take no order that could be repeated"


class Block:
    """The rows of one worker, which keep ``world.World``."""

    def __init__(self, world: Processes, index: int) -> None:
        self.world, self.index = world, index
        self.first, self.last = world.blocks[index]
        for name in ("seen", "reward", "cost", "terminated", "cut", "alive"):
            setattr(self, name, getattr(world, name)[self.first : self.last])
        self.allowed = None if world.allowed is None else world.allowed[self.first : self.last]

    seen: Floats
    reward: Floats
    cost: Floats
    terminated: Bools
    cut: Bools
    alive: Bools

    def start(self, rows: npt.NDArray[np.int64], seed: int, episodes: npt.NDArray[np.int64]) -> None:
        """Start these rows of the block."""
        self.world.start(rows + self.first, seed, episodes, self.last - self.first)

    def step(self, action: Floats) -> None:
        """One step of every row, waiting for it."""
        self.world.send(self.index, action)
        self.world.receive({self.index}, 1)

    def save_state(self) -> dict[str, npt.NDArray[Any]]:
        """Raises Unsupported: going on from it would not be the same."""
        raise Unsupported(UNORDERED)

    def load_state(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Raises Unsupported."""
        raise Unsupported(UNORDERED)

    def close(self) -> None:
        """All blocks close together, with their processes."""


class Sent:
    """What a worker was sent last: what was seen and sampled, and under which update."""

    def __init__(self, observation: Floats, allowed: Bools | None, action: Any, log_prob: Any, applied: Any, stages: Any, update: int) -> None:
        self.observation, self.allowed, self.action, self.log_prob = observation, allowed, action, log_prob
        self.applied, self.stages, self.update = applied, stages, update


class Fleet:
    """Plants of one worker each, which step at their own pace; stands where a ``Plant`` would.

    Args:
        environment: the task, which lives.
        seed: of the episodes; each plant has its own from it.
        shield: between proposal and actuator.
        world: the processes.
        batch: workers to wait for before the policy acts for them; 0: half of them, so that the others step meanwhile.
        interventions: as in ``Plant``.

    Raises:
        InvalidInput: there are fewer workers than that.
    """

    def __init__(
        self, environment: Environment, seed: int, shield: Shield, world: Processes, batch: int = 0, interventions: Interventions | None = None
    ) -> None:
        workers = len(world.blocks)
        if not 0 <= batch <= workers:
            raise InvalidInput(f"{workers} workers cannot be waited for {batch} at a time: batch lies in 1 … {workers}, or is 0 for half of them")
        self.world, self.batch, self.updates = world, batch or -(-workers // 2), 0
        seeds = np.random.SeedSequence(seed).generate_state(workers)
        blocks = [Block(world, k) for k in range(workers)]
        self.plants = [Plant(environment, b.last - b.first, int(s), shield, b, interventions) for b, s in zip(blocks, seeds)]
        edges = np.cumsum([0, *(plant.rows for plant in self.plants)])
        self.rows = [slice(int(a), int(b)) for a, b in zip(edges[:-1], edges[1:])]
        self._sent: dict[int, Sent] = {}
        self._seen = [(environment.contract.physical_observation(plant.last), plant.allowed) for plant in self.plants]

    def collect(self, horizon: int, act: Act, write: Callable[[int, slice, Sent, int, Plant, StepResult], None]) -> None:
        """Fill a horizon of every row.

        Args:
            horizon: steps.
            act: the policy.
            write: takes each worker's step: its index in the horizon, its rows, what was sent, its lag in updates, plant and result.
        """
        done = [0] * len(self.plants)
        for k in range(len(self.plants)):
            if k not in self._sent:
                self._send(k, act)
        while unfinished := {k for k, t in enumerate(done) if t < horizon}:
            for k in sorted(self.world.receive(unfinished, min(self.batch, len(unfinished)))):
                sent, plant = self._sent.pop(k), self.plants[k]
                result = plant.take(sent.applied, sent.stages)
                write(done[k], self.rows[k], sent, self.updates - sent.update, plant, result)
                self._seen[k] = result.observation, result.allowed
                done[k] += 1
                self._send(k, act)
        self.updates += 1

    @property
    def forgets(self) -> str:
        """Why the environments' states are not saved."""
        return UNORDERED

    def _send(self, k: int, act: Act) -> None:
        observation, allowed = self._seen[k]
        action, log_prob, proposal = act(observation, allowed)
        applied, stages, physical = self.plants[k].propose(proposal)
        self._sent[k] = Sent(observation, allowed, action, log_prob, applied, stages, self.updates)
        self.world.send(k, physical)

    def save_state(self) -> dict[str, npt.NDArray[Any]]:
        """What plants know of themselves, without their environments; see ``forgets``."""
        return {f"{k}.{name}": value for k, plant in enumerate(self.plants) for name, value in plant.save_state().items()}

    def load_state(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on with the next episodes.

        Raises:
            InvalidInput: saved for another number of workers or rows.
        """
        if self._sent:
            self.world.receive(set(self._sent), len(self._sent))
            self._sent = {}
        for k, plant in enumerate(self.plants):
            own = {name.split(".", 1)[1]: value for name, value in arrays.items() if name.startswith(f"{k}.")}
            plant.load_state(own)
            self._seen[k] = plant.environment.contract.physical_observation(plant.last), plant.allowed
