"""The arrays that N living environments write into: one text for this process and for shared memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.envs.environment import Environment
from puffer_edge.envs.living import seed_of
from puffer_edge.envs.world import Living, raised
from puffer_edge.errors import PufferEdgeError, Unsupported, WorkerFailed

ALIGNED = 64
KEPT = ("seen", "reward", "cost", "terminated", "alive", "allowed", "cut", "seed", "steps")
"""Arrays of ``Rows`` that are saved: the others hold what is only passing."""


@dataclass(frozen=True)
class Sizes:
    """What rows of an environment hold.

    Attributes:
        name: of the environment, for messages.
        environments: N.
        agents: A.
        observations: n, of one agent.
        actions: m, of one agent.
        outputs: choices that may be masked.
    """

    name: str
    environments: int
    agents: int
    observations: int
    actions: int
    outputs: int

    @staticmethod
    def of(environment: Environment, n: int) -> Sizes:
        """Of n environments."""
        c = environment.contract
        return Sizes(environment.name, n, environment.agents, c.n_observations, c.n_actions, c.n_outputs)

    def shapes(self) -> dict[str, tuple[tuple[int, ...], npt.DTypeLike]]:
        """Shape and type of every array of ``Rows``."""
        each, agents = (self.environments,), (self.environments, self.agents)
        return {
            "action": ((*agents, self.actions), np.float64),
            "seen": ((*agents, self.observations), np.float64),
            "reward": (agents, np.float64),
            "cost": (agents, np.float64),
            "terminated": (agents, np.bool_),
            "alive": (agents, np.bool_),
            "allowed": ((*agents, self.outputs), np.bool_),
            "cut": (each, np.bool_),
            "seed": (each, np.uint32),
            "fresh": (each, np.bool_),
            "origin": (each, np.uint64),
            "episode": (each, np.int64),
            "stride": (each, np.int64),
            "begun": (each, np.bool_),
            "first": ((*agents, self.observations), np.float64),
            "choices": ((*agents, self.outputs), np.bool_),
            "steps": (each, np.int64),
        }


@dataclass(eq=False)
class Rows:
    """N environments' arrays; see ``puffer_edge.envs.world``.

    Attributes:
        action: (N, A, m) what is done next.
        seen: (N, A, n).
        reward: (N, A).
        cost: (N, A).
        terminated: (N, A).
        alive: (N, A).
        allowed: (N, A, outputs).
        cut: (N,).
        seed: (N,) of the episode that each is in.
        fresh: (N,) where an episode is to be started.
        steps: (N,) made in it.
        origin: (N,) seed of all episodes.
        episode: (N,) number of the one that each is in.
        stride: (N,) how much further on the number of the next one is expected; 0 where that is not known.
        begun: (N,) where the next one has begun already; its beginning waits in ``first`` and ``choices`` until it is asked for.
        first: (N, A, n) seen there.
        choices: (N, A, outputs) allowed there.
    """

    action: Any
    seen: Any
    reward: Any
    cost: Any
    terminated: Any
    alive: Any
    allowed: Any
    cut: Any
    seed: Any
    fresh: Any
    steps: Any
    origin: Any
    episode: Any
    stride: Any
    begun: Any
    first: Any
    choices: Any

    @staticmethod
    def place(sizes: Sizes, buffer: Any = None) -> Rows:
        """Arrays in a buffer of ``bytes_of`` bytes, one behind the other, or in new memory."""
        buffer = bytearray(bytes_of(sizes)) if buffer is None else buffer
        found, at = {}, 0
        for name, (shape, dtype) in sizes.shapes().items():
            found[name] = np.ndarray(shape, dtype, buffer, at)
            at += _room(shape, dtype)
        return Rows(**found)

    def clear(self) -> None:
        """Before the first episode."""
        for f in fields(self):
            getattr(self, f.name)[...] = 0
        self.allowed[...] = self.alive[...] = True

    def save(self) -> dict[str, npt.NDArray[Any]]:
        """Copies of all that has been written, by name."""
        return {name: getattr(self, name).copy() for name in KEPT}

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write what ``save`` gave.

        Raises:
            Unsupported: an array is missing or has another shape.
        """
        for name, held in self.save().items():
            if name not in arrays or arrays[name].shape != held.shape:
                raise Unsupported(f"the saved {name} of the environments is missing or has another shape")
        for name in KEPT:
            getattr(self, name)[...] = arrays[name]
        self.stride[...] = self.begun[...] = 0

    def start(self, environment: Living, k: int) -> None:
        """Start environment k from its seed."""
        self.steps[k] = 0
        environment.reset(int(self.seed[k]), self.seen[k], self.allowed[k])
        self.fresh[k] = False

    def begin(self, environment: Living, k: int) -> None:
        """Start environment k, whose episode has ended, in the one that is expected next; what it was seen to end with stays."""
        self.episode[k] += self.stride[k]
        self.seed[k], self.steps[k] = seed_of(int(self.origin[k]), int(self.episode[k])), 0
        self.first[k], self.choices[k] = self.seen[k], self.allowed[k]  # an environment may leave in place what does not change
        environment.reset(int(self.seed[k]), self.first[k], self.choices[k])
        self.begun[k] = True

    @cached_property
    def _each(self) -> list[tuple[Any, ...]]:
        """Of every environment what its ``step`` takes: to look it up once saves a tenth of the time of a quick one."""
        return list(zip(self.action, self.seen, self.reward, self.cost, self.terminated, self.alive, self.allowed))

    def step(self, environment: Living, k: int) -> None:
        """Step environment k."""
        self.steps[k] += 1
        self.cut[k] = environment.step(*self._each[k])


def bytes_of(sizes: Sizes) -> int:
    """Memory of the arrays."""
    return sum(_room(shape, dtype) for shape, dtype in sizes.shapes().values())


def _room(shape: tuple[int, ...], dtype: npt.DTypeLike) -> int:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return -(-size // ALIGNED) * ALIGNED


def guarded(work: Callable[[Living, int], None], living: Living, rows: Rows, k: int, name: str) -> None:
    """Start or step one environment.

    Raises:
        PufferEdgeError: as it is, where the environment says what is wrong.
        WorkerFailed: it raised something else; the message says which row, episode and step.
    """
    try:
        work(living, k)
    except PufferEdgeError:
        raise
    except (Exception, SystemExit) as error:
        raise WorkerFailed(f"{name} {where(rows, k)} {raised(error)}") from error


def where(rows: Rows, k: int) -> str:
    """A row, its episode and its step, for messages."""
    return f"(row {k}, seed {int(rows.seed[k])}, step {int(rows.steps[k])})"
