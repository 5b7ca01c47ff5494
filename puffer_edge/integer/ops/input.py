"""Input step: fixed-point observations to int8, with the normaliser folded in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from puffer_edge.errors import BundleError
from puffer_edge.integer.ops import Array, Header, Reader, check_int32, check_scale, packed
from puffer_edge.integer.rounding import clamp, requantise
from puffer_edge.spaces import OBSERVATION_LIMIT


@dataclass(frozen=True, eq=False)
class Input:
    """``clamp(requantise(clamp(x − mean, ±(2^30 − 1))) + zero, low, high)``.

    Attributes:
        mean: (n,) int32, fixed point.
        multiplier: (n,) int32.
        shift: (n,) int8 right shifts; negative ones shift left.
        zero: zero point of the result.
        low: lowest result.
        high: highest result.
    """

    KIND: ClassVar[int] = 1

    mean: Array
    multiplier: Array
    shift: Array
    zero: int = 0
    low: int = -128
    high: int = 127

    @property
    def n_in(self) -> int:
        return len(self.mean)

    @property
    def n_out(self) -> int:
        return len(self.mean)

    @property
    def macs(self) -> int:
        return 0

    @property
    def out_bytes(self) -> int:
        return 1

    def check(self) -> None:
        check_scale("input step", self.multiplier, self.shift, -30)

    def check_range(self, low: Array, high: Array) -> None:
        """Raise where a left shift of an observation within [low, high] could overflow.

        Args:
            low: (n,) int32 lowest legal observation.
            high: (n,) int32 highest legal observation.
        """
        reach = np.maximum(np.abs(low.astype(np.int64) - self.mean), np.abs(high.astype(np.int64) - self.mean))
        bound = np.minimum(reach, OBSERVATION_LIMIT) << np.maximum(-self.shift.astype(np.int64), 0)
        check_int32("an observation after the input step's left shift (use more fraction bits)", -bound, bound)

    def run(self, x: Array) -> Array:
        centred = clamp(x.astype(np.int64) - self.mean, -OBSERVATION_LIMIT, OBSERVATION_LIMIT)
        result: Array = clamp(requantise(centred, self.multiplier, self.shift) + self.zero, self.low, self.high).astype(np.int8)
        return result

    def pack(self) -> bytes:
        n = self.n_in
        return packed(Header(self.KIND, 0, n, n, self.zero, self.low, self.high), ("<i4", self.mean), ("<i4", self.multiplier), ("i1", self.shift))

    @staticmethod
    def unpack(h: Header, reader: Reader) -> Input:
        """The rest of a packed input step."""
        if h.n_in != h.n_out or not -128 <= h.low <= h.high <= 127 or not -128 <= h.zero <= 127 or h.flags:
            raise BundleError("the input step's header is inconsistent")
        return Input(reader.array("<i4", h.n_in), reader.array("<i4", h.n_in), reader.array("i1", h.n_in), h.zero, h.low, h.high)
