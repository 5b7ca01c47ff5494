"""Global pooling over an image, channels last: the average by TFLite's rounding, or the largest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from puffer_edge.errors import BundleError, RangeError
from puffer_edge.integer.ops import X16, Array, Header, Op, Reader, packed

MAX = 32


@dataclass(frozen=True, eq=False)
class Pool(Op):
    """A number a channel: the largest, or the sum divided by the count, halves away from zero. Scale and zero point stay.

    Attributes:
        positions: height times width.
        channels: numbers at each position.
        largest: the maximum in place of the average.
        x16: int16 values.
    """

    KIND: ClassVar[int] = 8

    positions: int
    channels: int
    largest: bool = False
    x16: bool = False

    @property
    def n_in(self) -> int:
        return self.positions * self.channels

    @property
    def n_out(self) -> int:
        return self.channels

    @property
    def in_bytes(self) -> int:
        return 2 if self.x16 else 1

    @property
    def out_bytes(self) -> int:
        return self.in_bytes

    @property
    def lookups(self) -> int:
        return self.n_in

    def check(self) -> None:
        if not 1 <= self.positions <= 4096:
            raise RangeError(f"a pool covers 1 to 4096 positions, not {self.positions}")

    def run(self, x: Array) -> Array:
        image = x.reshape(len(x), self.positions, self.channels).astype(np.int64)
        if self.largest:
            result = image.max(1)
        else:
            total = image.sum(1)
            result = np.sign(total) * ((np.abs(total) + self.positions // 2) // self.positions)
        narrow: Array = result.astype(x.dtype)
        return narrow

    def pack(self) -> bytes:
        return packed(Header(self.KIND, (MAX if self.largest else 0) | (X16 if self.x16 else 0), self.n_in, self.n_out))

    @staticmethod
    def unpack(h: Header, reader: Reader) -> Pool:
        """A packed pool has no data."""
        if h.flags & ~(MAX | X16) or h.n_in % h.n_out:
            raise BundleError("a pool's header is inconsistent")
        return Pool(h.n_in // h.n_out, h.n_out, bool(h.flags & MAX), bool(h.flags & X16))
