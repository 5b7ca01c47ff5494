"""Test vectors: sequences of ticks with every bit that must come out, replayed by boards, engines and tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from puffer_edge.contract import Contract
from puffer_edge.errors import BundleError
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer.program import Program
from puffer_edge.integer.reference import Runner
from puffer_edge.integer.shield import Shield
from puffer_edge.spaces import Ints

INT32 = (-(2**31), 2**31 - 1)
SELF_TEST_STEPS = 16
"""Of the vectors that an image holds, and a board replays when it loads it."""


@dataclass(frozen=True, eq=False)
class Vectors:
    """Steps of one row, in order; a step whose flags hold STEP_RESET begins a sequence.

    Attributes:
        flags: (steps,) uint32 step flags.
        observation: (steps, n) int32.
        raw: (steps, m) int32.
        applied: (steps, m) int32.
        outcome: (steps,) uint32.
        state: (steps,) uint32.
    """

    flags: npt.NDArray[np.uint32]
    observation: Ints
    raw: Ints
    applied: Ints
    outcome: npt.NDArray[np.uint32]
    state: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.flags)

    def head(self, steps: int) -> Vectors:
        """The first steps."""
        return Vectors(*(getattr(self, name)[:steps] for name in ("flags", "observation", "raw", "applied", "outcome", "state")))

    @staticmethod
    def row_bytes(contract: Contract) -> int:
        """Bytes of one packed step."""
        return 4 * (3 + contract.n_observations + 2 * contract.n_actions)

    def pack(self) -> bytes:
        """The packed form of ``docs/image.md``."""
        columns = [self.flags[:, None], self.observation, self.raw, self.applied, self.outcome[:, None], self.state[:, None]]
        return np.concatenate([c.astype("<u4") for c in columns], 1).tobytes()

    @staticmethod
    def unpack(contract: Contract, data: bytes) -> Vectors:
        """Read packed steps.

        Raises:
            BundleError: the length is not a whole number of steps.
        """
        n, m, size = contract.n_observations, contract.n_actions, Vectors.row_bytes(contract)
        if len(data) % size:
            raise BundleError(f"{len(data)} bytes of vectors are no whole number of steps of {size} bytes")
        rows = np.frombuffer(data, "<u4").reshape(-1, size // 4)
        ints = rows.astype(np.int32)
        return Vectors(rows[:, 0], ints[:, 1 : 1 + n], ints[:, 1 + n : 1 + n + m], ints[:, 1 + n + m : 1 + n + 2 * m], rows[:, -2], rows[:, -1])


def record(program: Program, shield: Shield, observation: Ints, flags: npt.NDArray[np.uint32]) -> Vectors:
    """Run the reference over a list of steps.

    Args:
        program: the policy in integers.
        shield: its shield.
        observation: (steps, n) int32.
        flags: (steps,) step flags.
    """
    runner = Runner(program, shield)
    ticks = [runner.tick(o[None], f) for o, f in zip(observation, flags)]
    return Vectors(
        flags=np.asarray(flags, np.uint32),
        observation=np.asarray(observation, np.int32),
        raw=np.concatenate([t.raw for t in ticks]),
        applied=np.concatenate([t.applied for t in ticks]),
        outcome=np.concatenate([t.outcome for t in ticks]),
        state=np.concatenate([t.state for t in ticks]),
    )


def make(program: Program, shield: Shield, rollout: Ints, seed: int = 0, steps: int = 256, length: int = 16) -> Vectors:
    """Test vectors in sequences: real observations, random ones, edges, saturation, misses and invalid readings.

    Args:
        program: the policy in integers.
        shield: its shield.
        rollout: (N, n) int32 observations of the policy's own rollouts; may be empty.
        seed: of the random part.
        steps: least number of steps; rounded up to whole sequences.
        length: steps of a sequence.
    """
    c = program.contract
    rng = np.random.default_rng(seed)
    sequences = -(-steps // length)
    observation = rng.integers(c.observation_low, c.observation_high, (sequences * length, c.n_observations), endpoint=True)
    flags = np.zeros(sequences * length, np.uint32)
    for k in range(sequences):
        rows = slice(k * length, (k + 1) * length)
        if k % 2 == 0 and len(rollout) >= length:
            start = rng.integers(0, len(rollout) - length + 1)
            observation[rows] = rollout[start : start + length]
        elif k % 4 == 1:
            observation[rows] = _edges(c, rng, length)
        if k % 4 == 3:
            flags[rows] = rng.choice([0, protocol.STEP_MISSED, protocol.STEP_INVALID], length, p=[0.4, 0.45, 0.15])
        flags[rows.start] |= protocol.STEP_RESET
    return record(program, shield, observation.astype(np.int32), flags)


def own(v: Vectors) -> npt.NDArray[np.bool_]:
    """(steps,) whether a step of ``make``'s vectors is of the policy's own rollouts: every other sequence is."""
    sequence = np.cumsum((v.flags & protocol.STEP_RESET) != 0) - 1
    result: npt.NDArray[np.bool_] = sequence % 2 == 0
    return result


def _edges(c: Contract, rng: np.random.Generator, rows: int) -> npt.NDArray[np.int64]:
    """(rows, n) observations at, near and beyond the bounds."""
    low, high = c.observation_low.astype(np.int64), c.observation_high.astype(np.int64)
    choices = np.stack(
        [low, high, low - 1, high + 1, low + 1, high - 1, np.zeros_like(low), np.full_like(low, INT32[0]), np.full_like(low, INT32[1])]
    )
    picked = rng.integers(0, len(choices), (rows, c.n_observations))
    return np.clip(np.take_along_axis(choices, picked, 0), *INT32)
