"""Input step: fixed-point observations to int8 or int16, with the normaliser folded in, and reordered where images come in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from puffer_edge.errors import BundleError, InvalidInput
from puffer_edge.integer.ops import X16, Array, Header, Op, Reader, check_int32, check_scale, packed
from puffer_edge.integer.rounding import clamp, requantise
from puffer_edge.spaces import OBSERVATION_LIMIT

ORDERED = 1


@dataclass(frozen=True, eq=False)
class Input(Op):
    """``clamp(requantise(clamp(x[order] − mean, ±(2^30 − 1))) + zero, low, high)``.

    Attributes:
        mean: (n,) int32, fixed point.
        multiplier: (n,) int32.
        shift: (n,) int8 right shifts; negative ones shift left.
        zero: zero point of the result.
        low: lowest result.
        high: highest result.
        x16: int16 results.
        order: (n,) which observation each result is made of; empty for the same order.
    """

    KIND: ClassVar[int] = 1
    in_bytes = 4

    mean: Array
    multiplier: Array
    shift: Array
    zero: int = 0
    low: int = -128
    high: int = 127
    x16: bool = False
    order: tuple[int, ...] = ()

    @property
    def n_in(self) -> int:
        return len(self.mean)

    @property
    def n_out(self) -> int:
        return len(self.mean)

    @property
    def out_bytes(self) -> int:
        return 2 if self.x16 else 1

    @property
    def requantises(self) -> int:
        return self.n_in

    def check(self) -> None:
        check_scale("input step", self.multiplier, self.shift, -30)
        if self.order and sorted(self.order) != list(range(self.n_in)):
            raise InvalidInput(f"the input step's order is no permutation of {self.n_in} observations")

    def check_range(self, low: Array, high: Array) -> None:
        """Raise where a left shift of an observation within [low, high] could overflow.

        Args:
            low: (n,) int32 lowest legal observation.
            high: (n,) int32 highest legal observation.
        """
        low, high = self._ordered(low), self._ordered(high)
        reach = np.maximum(np.abs(low.astype(np.int64) - self.mean), np.abs(high.astype(np.int64) - self.mean))
        bound = np.minimum(reach, OBSERVATION_LIMIT) << np.maximum(-self.shift.astype(np.int64), 0)
        worst = int(bound.argmax())
        which = self.order[worst] if self.order else worst
        check_int32(f"observation {which} after the input step's left shift (use more fraction bits, or a narrower range)", -bound, bound)

    def run(self, x: Array) -> Array:
        centred = clamp(self._ordered(x).astype(np.int64) - self.mean, -OBSERVATION_LIMIT, OBSERVATION_LIMIT)
        result = clamp(requantise(centred, self.multiplier, self.shift) + self.zero, self.low, self.high)
        narrow: Array = result.astype(np.int16 if self.x16 else np.int8)
        return narrow

    def pack(self) -> bytes:
        n, flags = self.n_in, (ORDERED if self.order else 0) | (X16 if self.x16 else 0)
        arrays = [("<i4", self.mean), ("<i4", self.multiplier), ("i1", self.shift)]
        arrays += [("<u2", np.array(self.order, np.uint16))] if self.order else []
        return packed(Header(self.KIND, flags, n, n, self.zero, self.low, self.high), *arrays)

    @staticmethod
    def unpack(h: Header, reader: Reader) -> Input:
        """The rest of a packed input step."""
        bound = 32768 if h.flags & X16 else 128
        if h.n_in != h.n_out or not -bound <= h.low <= h.high < bound or not -bound <= h.zero < bound or h.flags & ~(ORDERED | X16):
            raise BundleError("the input step's header is inconsistent")
        arrays = reader.array("<i4", h.n_in), reader.array("<i4", h.n_in), reader.array("i1", h.n_in)
        order = tuple(int(k) for k in reader.array("<u2", h.n_in)) if h.flags & ORDERED else ()
        return Input(*arrays, h.zero, h.low, h.high, bool(h.flags & X16), order)

    def _ordered(self, x: Array) -> Array:
        result: Array = x[..., list(self.order)] if self.order else x
        return result
