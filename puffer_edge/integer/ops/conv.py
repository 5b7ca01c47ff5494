"""Convolution over an image, channels last, dense or depthwise; outside the image lies the input's zero point."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from puffer_edge.errors import BundleError, RangeError
from puffer_edge.integer.ops import (
    INT4,
    INT8_RANGE,
    INT16_RANGE,
    SHIFT,
    X16,
    Array,
    Header,
    Op,
    Reader,
    check_int32,
    check_scale,
    pack_rows,
    packed,
    reach_of,
    read_rows,
)
from puffer_edge.integer.ops.dense import Scales
from puffer_edge.integer.rounding import clamp, rescale

DEPTHWISE = 16
GEOMETRY = struct.Struct("<7Hh6BH")


@dataclass(frozen=True)
class Geometry:
    """Sizes of a convolution.

    Attributes:
        height: of the input.
        width: of the input.
        channels: of the input.
        filters: channels of the output.
        out_height: of the output.
        out_width: of the output.
        kernel: (height, width).
        stride: (down, right).
        padding: rows above and columns to the left that lie outside the image; what lies outside below and right follows.
    """

    height: int
    width: int
    channels: int
    filters: int
    out_height: int
    out_width: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class Conv(Op):
    """``clamp(rescale(bias + Σ weight·x) + zero, low, high)`` at every position; x outside the image is ``zero_in``.

    Attributes:
        weight: (filters, kernel height, kernel width, channels) int8; (…, 1) if depthwise, filter f on channel ``f // (filters/channels)``.
        bias: (filters,) int32, with the input's zero point folded in.
        multiplier: (filters,) int32; empty where all scales are powers of two.
        shift: (filters,) right shifts, not negative.
        geometry: sizes.
        zero: zero point of the result.
        low: lowest result; equal to ``zero`` for a ReLU.
        high: highest result.
        zero_in: zero point of the input.
        x16: int16 values.
        bits: of a packed weight, 8 or 4.
        depthwise: every filter sees one channel.
        scales: what the multipliers were made from, for formats that write them out; not packed.
    """

    KIND: ClassVar[int] = 7

    weight: Array
    bias: Array
    multiplier: Array
    shift: Array
    geometry: Geometry
    zero: int
    low: int
    high: int
    zero_in: int = 0
    x16: bool = False
    bits: int = 8
    depthwise: bool = False
    scales: Scales | None = None

    @property
    def n_in(self) -> int:
        g = self.geometry
        return g.height * g.width * g.channels

    @property
    def n_out(self) -> int:
        g = self.geometry
        return g.out_height * g.out_width * g.filters

    @property
    def in_bytes(self) -> int:
        return 2 if self.x16 else 1

    @property
    def out_bytes(self) -> int:
        return self.in_bytes

    @property
    def macs(self) -> int:
        return self.geometry.out_height * self.geometry.out_width * int(self.weight.size)

    @property
    def requantises(self) -> int:
        return self.n_out

    def check(self) -> None:
        g = self.geometry
        check_scale("convolution", self.multiplier, self.shift, 0)
        if self.weight.shape != (g.filters, *g.kernel, 1 if self.depthwise else g.channels) or (self.depthwise and g.filters % g.channels):
            raise RangeError(f"weights of shape {self.weight.shape} do not belong to {g}")
        if self.weight[0].size > 65535:
            raise RangeError(f"a filter has at most 65,535 weights, not {self.weight[0].size:,}")
        down, across = (g.out_height - 1) * g.stride[0] - g.padding[0], (g.out_width - 1) * g.stride[1] - g.padding[1]
        if min(g.stride) < 1 or min(g.out_height, g.out_width) < 1 or g.padding[0] >= g.kernel[0] or g.padding[1] >= g.kernel[1]:
            raise RangeError(f"a convolution's stride is at least 1 and its padding smaller than its kernel, not as in {g}")
        if down >= g.height or across >= g.width:
            raise RangeError(f"the last position of a convolution lies outside the image: {g}")
        if self.bits not in (4, 8) or (self.bits == 4 and (self.x16 or np.abs(self.weight.astype(int)).max() > 7)):
            raise RangeError("a convolution has weights of 8 bits, or of 4 (-7 to 7) on int8 input")
        low, high = reach_of(self.weight.reshape(g.filters, -1), self.bias, INT16_RANGE if self.x16 else INT8_RANGE)
        check_int32("the accumulator of a convolution", low, high)

    def run(self, x: Array) -> Array:
        g = self.geometry
        (kernel_height, kernel_width), (down, right), (top, left) = g.kernel, g.stride, g.padding
        height, width = (g.out_height - 1) * down + kernel_height, (g.out_width - 1) * right + kernel_width
        image = np.full((len(x), max(height, top + g.height), max(width, left + g.width), g.channels), self.zero_in, np.int64)
        image[:, top : top + g.height, left : left + g.width] = x.reshape(len(x), g.height, g.width, g.channels)
        total = np.zeros((len(x), g.out_height, g.out_width, g.filters), np.int64) + self.bias
        for i in range(kernel_height):
            for j in range(kernel_width):
                seen = image[:, i : i + (g.out_height - 1) * down + 1 : down, j : j + (g.out_width - 1) * right + 1 : right]
                weight = self.weight[:, i, j].astype(np.int64)
                total += np.repeat(seen, g.filters // g.channels, 3) * weight[:, 0] if self.depthwise else seen @ weight.T
        result = clamp(rescale(total, self.multiplier, self.shift) + self.zero, self.low, self.high)
        narrow: Array = result.reshape(len(x), -1).astype(np.int16 if self.x16 else np.int8)
        return narrow

    def pack(self) -> bytes:
        g = self.geometry
        flags = (
            (X16 if self.x16 else 0) | (INT4 if self.bits == 4 else 0) | (0 if len(self.multiplier) else SHIFT) | (DEPTHWISE if self.depthwise else 0)
        )
        sizes = GEOMETRY.pack(
            g.height, g.width, g.channels, g.filters, g.out_height, g.out_width, 0, self.zero_in, *g.kernel, *g.stride, *g.padding, 0
        )  # fmt: skip
        rows = pack_rows(self.weight.reshape(g.filters, -1), self.bits)
        header = Header(self.KIND, flags, self.n_in, self.n_out, self.zero, self.low, self.high)
        arrays = [("u1", np.frombuffer(sizes, np.uint8)), ("<i4", self.bias), ("<i4", self.multiplier), ("u1", self.shift), ("i1", rows)]
        return packed(header, *arrays)

    @staticmethod
    def unpack(h: Header, reader: Reader) -> Conv:
        """The rest of a packed convolution."""
        height, width, channels, filters, out_height, out_width, spare, zero_in, *sizes, last = GEOMETRY.unpack(
            reader.array("u1", GEOMETRY.size).tobytes()
        )
        x16, bits, depthwise = bool(h.flags & X16), 4 if h.flags & INT4 else 8, bool(h.flags & DEPTHWISE)
        bound = 32768 if x16 else 128
        known = h.flags & ~(X16 | INT4 | SHIFT | DEPTHWISE) == 0 and spare == 0 and last == 0 and -bound <= zero_in < bound
        if not known or not -bound <= h.low <= h.high < bound or not -bound <= h.zero < bound:
            raise BundleError("a convolution's header is inconsistent")
        if (height * width * channels, out_height * out_width * filters) != (h.n_in, h.n_out):
            raise BundleError(f"a convolution's sizes do not make {h.n_in} and {h.n_out} values")
        g = Geometry(height, width, channels, filters, out_height, out_width, tuple(sizes[0:2]), tuple(sizes[2:4]), tuple(sizes[4:6]))
        bias, multiplier = reader.array("<i4", filters), reader.array("<i4", 0 if h.flags & SHIFT else filters)
        shift, seen = reader.array("u1", filters).astype(np.int64), 1 if depthwise else channels
        weight = read_rows(reader, filters, g.kernel[0] * g.kernel[1] * seen, bits).reshape(filters, *g.kernel, seen)
        return Conv(weight, bias, multiplier, shift, g, h.zero, h.low, h.high, zero_in, x16, bits, depthwise)
