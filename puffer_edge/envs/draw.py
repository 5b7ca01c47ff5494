"""Counter-based random numbers: Philox4x32-10, for one row in a scalar function or for many rows in numpy, with the same bits.

Salmon, Moraes, Dror and Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3". Key (seed, stream), counter (draw, environment, step);
``pe_env.h`` says what they mean. A number depends on nothing else, so episodes are paired whoever acts, and rows may be split among threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.envs.scalar import cos, log, sqrt
from puffer_edge.errors import InvalidInput
from puffer_edge.spaces import Floats

Row = Any
UInts = npt.NDArray[np.uint64]

STREAM = 0
"""The environment's stream; 1 and 2 are the trainer's, for actions and shuffles."""

DRAW = 6
"""Words of a ``draw``: key, number of the draw, environment, step; a scalar function's scratch follows, if it asked for some."""

ON_RESET = 2**31
"""First draw of a reset: the step that follows it has the same counter otherwise, and begins at 0."""

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_5, _6, _1 = np.uint64(5), np.uint64(6), np.uint64(1)
TWO_PI = 6.283185307179586


def philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> tuple[Any, Any, Any, Any]:
    """Ten rounds of Philox4x32 on one counter, or on arrays of counters.

    Args:
        c0: … c3: the counter's four words, uint64 below 2^32.
        k0: … k1: the key's two words.

    Returns:
        four random words, uint64 below 2^32.
    """
    for _ in range(10):
        left, right = _M0 * c0, _M1 * c2
        c0, c2 = (right >> _HALF) ^ c1 ^ k0, (left >> _HALF) ^ c3 ^ k1
        c1, c3 = right & _LOW, left & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3


def unit(a: Any, b: Any) -> Any:
    """Two words as a number in [0, 1) with 53 random bits."""
    return ((a >> _5) * 67108864.0 + (b >> _6)) / 9007199254740992.0


def begin(draw: Row, key: Any, environment: Any, step: Any, first: Any) -> None:
    """Set the uint64 ``draw`` to the first draw of one call for one environment."""
    draw[0], draw[1] = key[0], key[1]
    draw[2], draw[3] = first, environment
    draw[4], draw[5] = step & _LOW, step >> _HALF


def uniform(draw: Row, low: float, high: float) -> Any:
    """A number uniform in [low, high); one draw."""
    a, b, _, _ = philox(draw[2], draw[3], draw[4], draw[5], draw[0], draw[1])
    draw[2] += _1
    return low + (high - low) * unit(a, b)


def normal(draw: Row) -> Any:
    """A number from the standard normal distribution, by Box and Muller (1958); one draw."""
    a, b, c, d = philox(draw[2], draw[3], draw[4], draw[5], draw[0], draw[1])
    draw[2] += _1
    return sqrt(-2.0 * log(1.0 - unit(a, b))) * cos(TWO_PI * unit(c, d))


@dataclass(eq=False)
class Draws:
    """Where many rows' random numbers come from: what ``draw`` is to a scalar function.

    Attributes:
        seed: first word of the key, below 2^32.
        environment: (n,) what tells the rows apart: the number of the environment, or of the episode.
        step: (n,) steps that each has made.
        count: draws made so far in this call.

    Raises:
        InvalidInput: the seed or an environment's number does not fit into 32 bits.
    """

    seed: int
    environment: npt.NDArray[np.int64]
    step: UInts
    count: int = 0
    key: npt.NDArray[np.uint32] = field(init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise InvalidInput(f"a seed of random numbers lies in 0 … 2^32 − 1, not {self.seed}")
        self.key = np.array([self.seed, STREAM], np.uint32)
        self.environment = np.asarray(self.environment, np.int64)
        self.step = np.ascontiguousarray(self.step, np.uint64)
        if len(self.environment) and not 0 <= self.environment.min() <= self.environment.max() < 2**32:
            raise InvalidInput("environments and episodes are numbered from 0 to 2^32 − 1")

    @staticmethod
    def of_episodes(seed: int, episodes: Sequence[int] | npt.NDArray[np.int64]) -> Draws:
        """The draws that episodes begin with: the same for float, integer and device, however many run at once."""
        numbers = np.asarray(episodes, np.int64)
        return Draws(seed, numbers, np.zeros(len(numbers), np.uint64), ON_RESET)

    def __len__(self) -> int:
        return len(self.environment)

    def uniform(self, low: npt.ArrayLike = 0.0, high: npt.ArrayLike = 1.0, columns: int = 1) -> Floats:
        """(n, columns) numbers uniform in [low, high); the next draws of every row, in the order of the columns.

        Args:
            low: one bound, or (columns,) bounds.
            high: likewise.
            columns: numbers a row.
        """
        number = (np.uint64(self.count) + np.arange(columns, dtype=np.uint64))[None]
        self.count += columns
        c1, step = self.environment.astype(np.uint64)[:, None], self.step[:, None]
        k0, k1 = self.key.astype(np.uint64)
        a, b, _, _ = philox(number, c1, step & _LOW, step >> _HALF, k0, k1)
        lowest = np.asarray(low, np.float64)
        result: Floats = lowest + (np.asarray(high, np.float64) - lowest) * unit(a, b)
        return result
