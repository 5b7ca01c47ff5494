"""Continuous head: int16 outputs to fixed-point actions, clamped to the contract's range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from puffer_edge.errors import BundleError, RangeError
from puffer_edge.integer.ops import Array, Header, Op, Reader, check_int32, check_scale, packed
from puffer_edge.integer.rounding import clamp, requantise
from puffer_edge.spaces import ACTION_LIMIT


@dataclass(frozen=True, eq=False)
class Affine(Op):
    """``clamp(requantise(x) + offset, low, high)``.

    Attributes:
        multiplier: (m,) int32.
        shift: (m,) int8 right shifts; negative ones shift left.
        offset: (m,) int32.
        low: (m,) int32 lowest action.
        high: (m,) int32 highest action.
    """

    KIND: ClassVar[int] = 6
    in_bytes = 2
    out_bytes = 4

    multiplier: Array
    shift: Array
    offset: Array
    low: Array
    high: Array

    @property
    def n_in(self) -> int:
        return len(self.offset)

    @property
    def n_out(self) -> int:
        return len(self.offset)

    @property
    def requantises(self) -> int:
        return self.n_in

    def check(self) -> None:
        check_scale("action map", self.multiplier, self.shift, -15)
        bound = np.left_shift(np.int64(32768), np.maximum(-self.shift.astype(np.int64), 0))
        check_int32("the action map's left shift", -bound, bound)
        for values in (self.offset, self.low, self.high):
            if (np.abs(values.astype(np.int64)) > ACTION_LIMIT).any():
                raise RangeError(f"an offset or bound of the action map is beyond ±{ACTION_LIMIT}")
        reach = requantise(bound, self.multiplier, np.maximum(self.shift, 0)) + np.abs(self.offset.astype(np.int64))
        check_int32("the action map", -reach, reach)
        if (self.low > self.high).any():
            raise RangeError("the action map's low is above its high")

    def run(self, x: Array) -> Array:
        result: Array = clamp(requantise(x.astype(np.int64), self.multiplier, self.shift) + self.offset, self.low, self.high).astype(np.int32)
        return result

    def pack(self) -> bytes:
        n = self.n_in
        arrays = (("<i4", self.multiplier), ("i1", self.shift), ("<i4", self.offset), ("<i4", self.low), ("<i4", self.high))
        return packed(Header(self.KIND, 0, n, n), *arrays)

    @staticmethod
    def unpack(h: Header, reader: Reader) -> Affine:
        """The rest of a packed action map."""
        if h.n_in != h.n_out or h.flags:
            raise BundleError("an action map's header is inconsistent")
        n = h.n_in
        return Affine(reader.array("<i4", n), reader.array("i1", n), reader.array("<i4", n), reader.array("<i4", n), reader.array("<i4", n))
