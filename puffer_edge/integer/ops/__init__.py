"""One file per operation: its fields, shape and range checks, numpy definition, cost, and packed form.

The packed form begins with 12 bytes that all operations share (``docs/image.md``); ``KIND`` numbers the operation.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, ClassVar

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


X16, INT4, SHIFT = 2, 4, 8
"""Flags that several operations share: int16 values in and out; weights of four bits; scales that are powers of two."""
INT8_RANGE, INT16_RANGE = (-128, 127), (-32768, 32767)


class Op:
    """What every operation offers; the defaults are those of a memoryless operation on int8 without products."""

    KIND: ClassVar[int]

    @property
    def in_bytes(self) -> int:
        """Bytes of one input value: 4 for observations, 1 or 2 inside the network."""
        return 1

    @property
    def out_bytes(self) -> int:
        """Bytes of one output value: 1 or 2 inside the network, 4 for actions."""
        return 1

    @property
    def work_bytes(self) -> int:
        """Bytes that one output value takes in the activation buffer while it is computed."""
        return self.out_bytes

    @property
    def memory(self) -> int:
        """Numbers, int16, kept from one run to the next."""
        return 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates a run."""
        return 0

    @property
    def requantises(self) -> int:
        """Roundings by multiplier and shift, a run."""
        return 0

    @property
    def lookups(self) -> int:
        """Table reads, with or without interpolation, a run."""
        return 0

    @property
    def n_in(self) -> int:
        """Values that go in."""
        raise NotImplementedError

    @property
    def n_out(self) -> int:
        """Values that come out."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise where a shape is wrong or an accumulator could overflow."""
        raise NotImplementedError

    def run(self, x: Array) -> Array:
        """The definition: (rows, n_in) to (rows, n_out), integers throughout; an operation with memory starts from zeros."""
        return self.step(x, np.zeros((len(x), self.memory), np.int16))[0]

    def step(self, x: Array, memory: Array) -> tuple[Array, Array]:
        """The definition with (rows, memory) int16: the outputs and the next memory."""
        return self.run(x), memory

    def pack(self) -> bytes:
        """The packed form, a multiple of 4 bytes."""
        raise NotImplementedError


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


def pack_rows(weight: Array, bits: int = 8) -> Array:
    """Rows of weights as bytes: int8, each row padded with zeros to 4 bytes; or of 4 bits, the first of a pair in the low half.

    Args:
        weight: (rows, columns) integers that fit.
        bits: 8 or 4.
    """
    rows, columns = weight.shape
    per_byte = 8 // bits
    padded = np.zeros((rows, -(-columns // (4 * per_byte)) * 4 * per_byte), np.int8)
    padded[:, :columns] = weight
    if bits == 8:
        return padded
    halves = padded.astype(np.uint8) & 15
    result: Array = (halves[:, ::2] | halves[:, 1::2] << 4).view(np.int8)
    return result


def read_rows(reader: Reader, rows: int, columns: int, bits: int = 8) -> Array:
    """(rows, columns) int8 weights that ``pack_rows`` packed; the padding must be zero."""
    per_byte = 8 // bits
    data = reader.array("i1", rows, -(-columns // (4 * per_byte)) * 4)
    if bits == 4:
        halves = np.stack([data & 15, data >> 4 & 15], -1).reshape(rows, -1)
        data = ((halves ^ 8) - 8).astype(np.int8)
    if data[:, columns:].any():
        raise BundleError("the padding of a row of weights is not zero")
    if bits == 4 and (data == -8).any():
        raise BundleError("a weight of 4 bits is -8: they reach from -7 to 7")
    return data[:, :columns]


def reach_of(weight: Array, bias: Array, values: tuple[int, int]) -> tuple[Array, Array]:
    """(rows,) lowest and highest ``bias + weight @ x`` for (rows, columns) weights and every x within ``values``."""
    w, (low, high) = weight.astype(np.int64), values
    base = np.asarray(bias, np.int64)
    return base + np.minimum(w * high, w * low).sum(1), base + np.maximum(w * high, w * low).sum(1)


def exact_dot(x: Array, weight: Array) -> Array:
    """(…, columns) times (rows, columns): (…, rows) int64. Sums of float64 products below 2^53 are exact integers, and fast."""
    result: Array = (x.astype(np.float64) @ weight.astype(np.float64).T).astype(np.int64)
    return result


def check_scale(what: str, multiplier: Array, shift: Array, lowest_shift: int) -> None:
    """Raise unless every multiplier and shift is one that ``requantise`` takes."""
    if len(multiplier) not in (0, len(shift)):
        raise RangeError(f"{what}: {len(multiplier)} multipliers for {len(shift)} shifts")
    if ((multiplier != 0) & ((multiplier < 2**30) | (multiplier > 2**31 - 1))).any():
        raise RangeError(f"{what}: multipliers must be 0 or in [2^30, 2^31)")
    if ((shift < lowest_shift) | (shift > 31)).any():
        raise RangeError(f"{what}: shifts must lie in {lowest_shift} … 31, these reach from {shift.min()} to {shift.max()}")


def check_int32(what: str, low: Array, high: Array) -> None:
    """Raise unless an interval stays within ±(2^31 − 1)."""
    if low.min() <= INT32[0] or high.max() > INT32[1]:
        raise RangeError(f"{what} may reach [{low.min()}, {high.max()}], beyond int32")
