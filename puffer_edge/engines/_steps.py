"""Vectors for comparing engines: random observations, slow walks and edges, with misses, invalid readings and resets among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from puffer_edge.contract import Contract
from puffer_edge.device.board import Board
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer.image import Image
from puffer_edge.integer.reference import Runner, Tick


@dataclass(frozen=True, eq=False)
class Steps:
    """Sequences of ticks, each beginning with a reset.

    Attributes:
        observation: (sequences, length, n) int32.
        flags: (sequences, length) uint32 step flags.
    """

    observation: npt.NDArray[np.int32]
    flags: npt.NDArray[np.uint32]

    @property
    def count(self) -> int:
        """Ticks in all."""
        return self.flags.size


@dataclass(frozen=True)
class Difference:
    """How two results of the same steps differ.

    Attributes:
        steps: steps with a bit that differs, in proposal, action, outcome or state digest.
        largest: largest difference of a proposed or applied action, in fixed-point steps.
    """

    steps: int
    largest: float


def make_steps(c: Contract, count: int, seed: int, sequences: int = 1000) -> Steps:
    """At least ``count`` steps.

    Args:
        c: the contract.
        count: how many, rounded up to whole sequences.
        seed: of everything random.
        sequences: how many at most; of about 50 steps or more.
    """
    rng = np.random.default_rng(seed)
    sequences = min(sequences, max(count // 50, 1))
    shape = (sequences, -(-count // sequences), c.n_observations)
    low, high = c.observation_low.astype(np.int64), c.observation_high.astype(np.int64)
    observation = rng.integers(low, high, shape, endpoint=True)
    middle, half = (low + high) / 2, (high - low) / 2
    walks = np.cumsum(rng.normal(0, 0.02, (len(observation[1::3]), *shape[1:])), 1) * half + middle
    observation[1::3] = np.clip(walks, middle - 1.1 * half, middle + 1.1 * half).astype(np.int64)
    edges = np.stack([low, high, low - 1, high + 1, low + 1, high - 1, 0 * low, 0 * low - 2**31, 0 * low + 2**31 - 1])
    edge = rng.random(shape) < 0.05
    observation[edge] = edges[rng.integers(0, len(edges), int(edge.sum())), np.nonzero(edge)[2]]
    flags = rng.choice([0, protocol.STEP_MISSED, protocol.STEP_INVALID, protocol.STEP_RESET], shape[:2], p=[0.88, 0.09, 0.02, 0.01])
    flags[:, 0] |= protocol.STEP_RESET
    return Steps(np.clip(observation, -(2**31), 2**31 - 1).astype(np.int32), flags.astype(np.uint32))


def by_reference(image: Image, steps: Steps) -> Tick:
    """The definition, all sequences side by side; results in the order of one long sequence."""
    runner = Runner(image.program, image.shield, len(steps.flags))
    ticks = [runner.tick(steps.observation[:, t], steps.flags[:, t]) for t in range(steps.flags.shape[1])]
    columns = (np.stack([getattr(t, name) for t in ticks], 1) for name in ("raw", "applied", "outcome", "state"))
    return Tick(*(column.reshape(steps.count, *column.shape[2:]) for column in columns))


def by_board(board: Board, steps: Steps) -> Tick:
    """A board, step by step over the link."""
    observations, flags = steps.observation.reshape(steps.count, -1), steps.flags.reshape(-1)
    replies = [board.replay(o, int(f)) for o, f in zip(observations, flags)]
    words = (np.array([getattr(r, name) for r in replies], np.uint32) for name in ("outcome", "state"))
    return Tick(np.stack([r.raw for r in replies]), np.stack([r.applied for r in replies]), *words)


def difference(a: Tick, b: Tick) -> Difference:
    """Compare bit by bit."""
    differs = (a.raw != b.raw).any(1) | (a.applied != b.applied).any(1) | (a.outcome != b.outcome) | (a.state != b.state)
    apart = [np.abs(x.astype(np.int64) - y).max() for x, y in ((a.raw, b.raw), (a.applied, b.applied))]
    return Difference(int(differs.sum()), float(max(apart)))
