"""Lookup: any int8 function by a table of 256 entries; tanh is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from puffer_edge.errors import BundleError, RangeError
from puffer_edge.integer.ops import Array, Header, Op, Reader, packed
from puffer_edge.spaces import Floats


@dataclass(frozen=True, eq=False)
class Lookup(Op):
    """``table[x + 128]``.

    Attributes:
        table: (256,) int8.
        width: number of values.
    """

    KIND: ClassVar[int] = 3

    table: Array
    width: int

    @property
    def n_in(self) -> int:
        return self.width

    @property
    def n_out(self) -> int:
        return self.width

    @property
    def lookups(self) -> int:
        return self.width

    def check(self) -> None:
        if self.table.shape != (256,):
            raise RangeError(f"a lookup table has 256 entries, not {self.table.shape}")

    def run(self, x: Array) -> Array:
        result: Array = self.table[x.astype(np.int64) + 128]
        return result

    def pack(self) -> bytes:
        return packed(Header(self.KIND, 0, self.width, self.width, 0, -128, 127), ("i1", self.table))

    @staticmethod
    def unpack(h: Header, reader: Reader) -> Lookup:
        """The rest of a packed lookup."""
        if h.n_in != h.n_out or h.flags:
            raise BundleError("a lookup's header is inconsistent")
        return Lookup(reader.array("i1", 256), h.n_in)

    @staticmethod
    def of(function: Callable[[Floats], Floats], scale: float, zero: int, out: float, out_zero: int, width: int) -> Lookup:
        """Any function of ``scale · (x − zero)``, in steps of ``out`` around ``out_zero``: float64, half away from zero."""
        y = function(scale * (np.arange(-128, 128, dtype=np.float64) - zero)) / out
        table = np.clip(np.sign(y) * np.floor(np.abs(y) + 0.5) + out_zero, -128, 127).astype(np.int8)
        return Lookup(table, width)

    @staticmethod
    def settled(entries: Callable[[float], Floats], scale: float) -> float:
        """The first scale from ``scale`` up, a float32 number, at which no entry of a table lies within 2^-12 of a rounding boundary.

        There every way to compute the function gives the same table: another libm, or TFLite-Micro's own.

        Args:
            entries: the table in steps, not yet rounded, at a scale.
            scale: a float32 number.
        """
        while True:
            y = entries(scale)
            if np.abs(y - np.floor(y) - 0.5).min() > 2.0**-12:
                return scale
            scale = float(np.float32(scale * (1 + 2.0**-10)))

    @staticmethod
    def tanh_scale(scale: float) -> float:
        """``settled`` for the tanh table: its input's scale."""
        return Lookup.settled(lambda s: np.tanh(s * np.arange(1, 129, dtype=np.float64)) * 128.0, scale)

    @staticmethod
    def tanh(scale: float, width: int) -> Lookup:
        """tanh of ``scale · x`` with results in units of 1/128."""
        return Lookup.of(np.tanh, scale, 0, 1 / 128, 0, width)
