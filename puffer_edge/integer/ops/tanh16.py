"""tanh on int16: Q3.12 to Q0.15, TFLite's definition; the activation of int16 layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from puffer_edge.errors import BundleError
from puffer_edge.integer.ops import Array, Header, Op, Reader, packed
from puffer_edge.integer.squash import tanh16


@dataclass(frozen=True, eq=False)
class Tanh16(Op):
    """``squash.tanh16(x)``.

    Attributes:
        width: number of values.
    """

    KIND: ClassVar[int] = 12
    in_bytes = 2
    out_bytes = 2

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
        """There is nothing that could be wrong."""

    def run(self, x: Array) -> Array:
        result: Array = tanh16(x).astype(np.int16)
        return result

    def pack(self) -> bytes:
        return packed(Header(self.KIND, 0, self.width, self.width, 0, -32768, 32767))

    @staticmethod
    def unpack(h: Header, reader: Reader) -> Tanh16:
        """A packed tanh has no data."""
        if h.n_in != h.n_out or h.flags:
            raise BundleError("a tanh's header is inconsistent")
        return Tanh16(h.n_in)
