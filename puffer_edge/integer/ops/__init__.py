"""One file per operation: its fields, shape and range checks, numpy definition, cost, and packed form.

The packed form begins with 12 bytes that all operations share (``docs/image.md``); ``KIND`` numbers the operation.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import BundleError, RangeError

Array = npt.NDArray[Any]
HEADER = struct.Struct("<BBHHhhh")
INT32 = (-(2**31), 2**31 - 1)


@dataclass(frozen=True)
class Header:
    """The 12 bytes that begin every packed operation."""

    kind: int
    flags: int
    n_in: int
    n_out: int
    zero: int = 0
    low: int = 0
    high: int = 0

    def pack(self) -> bytes:
        """12 bytes."""
        return HEADER.pack(self.kind, self.flags, self.n_in, self.n_out, self.zero, self.low, self.high)


class Op(Protocol):
    """What every operation offers."""

    KIND: ClassVar[int]

    @property
    def n_in(self) -> int:
        """Values that go in."""
        ...

    @property
    def n_out(self) -> int:
        """Values that come out."""
        ...

    @property
    def macs(self) -> int:
        """Multiply-accumulates a run."""
        ...

    @property
    def out_bytes(self) -> int:
        """Bytes of one output value."""
        ...

    def check(self) -> None:
        """Raise where a shape is wrong or an accumulator could overflow."""
        ...

    def run(self, x: Array) -> Array:
        """The definition: (rows, n_in) to (rows, n_out), integers throughout."""
        ...

    def pack(self) -> bytes:
        """The packed form, a multiple of 4 bytes."""
        ...


class Reader:
    """Takes arrays off an untrusted byte string, in order.

    Args:
        data: the operations section.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def header(self) -> Header:
        """The next operation's first 12 bytes."""
        return Header(*HEADER.unpack(self._take(HEADER.size)))

    def array(self, dtype: str, *shape: int) -> Array:
        """The next array, padded to 4 bytes; padding must be zero."""
        kind = np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        values = np.frombuffer(self._take(size), kind).reshape(shape)
        if any(self._take(-size % 4)):
            raise BundleError(f"padding before byte {self.at} of the operations is not zero")
        return values

    def _take(self, size: int) -> bytes:
        if self.at + size > len(self.data):
            raise BundleError(f"the operations section of {len(self.data)} bytes is cut short at byte {self.at}")
        self.at += size
        return self.data[self.at - size : self.at]


def packed(header: Header, *arrays: tuple[str, Array]) -> bytes:
    """A header and arrays, each padded to 4 bytes."""
    parts = [header.pack()]
    for dtype, values in arrays:
        data = np.ascontiguousarray(values).astype(dtype).tobytes()
        parts.append(data + bytes(-len(data) % 4))
    return b"".join(parts)


def check_scale(what: str, multiplier: Array, shift: Array, lowest_shift: int) -> None:
    """Raise unless every multiplier and shift is one that ``requantise`` takes."""
    if ((multiplier != 0) & ((multiplier < 2**30) | (multiplier > 2**31 - 1))).any():
        raise RangeError(f"{what}: multipliers must be 0 or in [2^30, 2^31)")
    if ((shift < lowest_shift) | (shift > 31)).any():
        raise RangeError(f"{what}: shifts must lie in {lowest_shift} … 31, these reach from {shift.min()} to {shift.max()}")


def check_int32(what: str, low: Array, high: Array) -> None:
    """Raise unless an interval stays within int32."""
    if low.min() < INT32[0] or high.max() > INT32[1]:
        raise RangeError(f"{what} may reach [{low.min()}, {high.max()}], beyond int32")
