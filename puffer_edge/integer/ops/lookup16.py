"""Lookup on int16: 513 entries and linear interpolation, as TFLite's int16 tables; the tanh head is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from puffer_edge.errors import BundleError, RangeError
from puffer_edge.integer.ops import Array, Header, Op, Reader, packed
from puffer_edge.spaces import Floats

TANH_SCALE = 2.0**-12
"""Scale of the int16 that goes into the tanh head: ±8 covers it to one part in 2^15."""


@dataclass(frozen=True, eq=False)
class Lookup16(Op):
    """``b + (((table[k + 1] − b)·(x & 127) + 64) >> 7)`` with ``k = (x >> 7) + 256`` and ``b = table[k]``.

    Attributes:
        table: (513,) int16.
        width: number of values.
    """

    KIND: ClassVar[int] = 4
    in_bytes = 2
    out_bytes = 2

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
        if self.table.shape != (513,):
            raise RangeError(f"an int16 lookup table has 513 entries, not {self.table.shape}")

    def run(self, x: Array) -> Array:
        wide, table = x.astype(np.int64), self.table.astype(np.int64)
        k = (wide >> 7) + 256
        result: Array = np.clip(table[k] + (((table[k + 1] - table[k]) * (wide & 127) + 64) >> 7), -32768, 32767).astype(np.int16)
        return result

    def pack(self) -> bytes:
        return packed(Header(self.KIND, 0, self.width, self.width, 0, -32768, 32767), ("<i2", self.table))

    @staticmethod
    def unpack(h: Header, reader: Reader) -> Lookup16:
        """The rest of a packed int16 lookup."""
        if h.n_in != h.n_out or h.flags:
            raise BundleError("an int16 lookup's header is inconsistent")
        return Lookup16(reader.array("<i2", 513), h.n_in)

    @staticmethod
    def of(function: Callable[[Floats], Floats], scale: float, out: float, width: int) -> Lookup16:
        """Any function of ``scale · x``, in steps of ``out``: float64 at the points of the table, half away from zero."""
        y = function(scale * 128.0 * np.arange(-256, 257, dtype=np.float64)) / out
        table = np.clip(np.sign(y) * np.floor(np.abs(y) + 0.5), -32768, 32767).astype(np.int16)
        return Lookup16(table, width)

    @staticmethod
    def tanh(width: int) -> Lookup16:
        """tanh of ``x · 2^-12`` in units of 2^-15."""
        return Lookup16.of(np.tanh, TANH_SCALE, 2.0**-15, width)
