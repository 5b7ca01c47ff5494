"""Dense layer: int8 or int16 times int8 or 4-bit weights into int32, rescaled to int8 or int16; ReLU is the lower clamp."""

from __future__ import annotations

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
    exact_dot,
    pack_rows,
    packed,
    reach_of,
    read_rows,
)
from puffer_edge.integer.rounding import clamp, multiplier_and_shift, rescale
from puffer_edge.spaces import Floats

WIDE = 1
LIFT = 7
"""An int16 output is computed from ``accumulator · 2^7``: the bits that TFLite's QUANTIZE int8 → int16 and 16×8 layer give."""


@dataclass(frozen=True, eq=False)
class Scales:
    """Real values of one integer step, each a float32 number: what the multipliers were made from.

    Attributes:
        input: of the int8 input.
        weight: (outputs,) of each row of weights.
        output: of the result.
    """

    input: float
    weight: Floats
    output: float

    def multipliers(self, wide: bool) -> tuple[Array, Array]:
        """Multipliers and right shifts by TFLite's rule, from products of doubles."""
        step = self.input / (1 << LIFT) if wide else self.input
        pairs = [multiplier_and_shift(step * float(w) / self.output) for w in self.weight]
        return np.array([m for m, _ in pairs], np.int32), np.array([s for _, s in pairs], np.int64)

    def shifts(self, wide: bool) -> tuple[Array, Array]:
        """No multipliers, and right shifts, where every scale is a power of two."""
        step = self.input / (1 << LIFT) if wide else self.input
        return np.zeros(0, np.int32), np.rint(np.log2(self.output / (step * self.weight))).astype(np.int64)

    def settled(self, wide: bool) -> Scales:
        """These scales, where a single weight scale goes down by a few float32 steps until both rules in use give one multiplier.

        For a single scale some interpreters take the product in float32 and others in double; for several, all in double.
        """
        if len(self.weight) > 1:
            return self
        step = self.input / (1 << LIFT) if wide else self.input
        weight = np.float32(self.weight[0])
        while multiplier_and_shift(step * float(weight) / self.output) != multiplier_and_shift(float(np.float32(step) * weight) / self.output):
            weight = np.nextafter(weight, np.float32(0))
        return Scales(self.input, np.array([float(weight)]), self.output)


@dataclass(frozen=True, eq=False)
class Dense(Op):
    """``clamp(rescale(bias + weight @ x) + zero, low, high)``.

    Attributes:
        weight: (outputs, inputs) int8.
        bias: (outputs,) int32, with the input's zero point folded in.
        multiplier: (outputs,) int32; empty where all scales are powers of two.
        shift: (outputs,) right shifts, not negative.
        zero: zero point of the result.
        low: lowest result; equal to ``zero`` for a ReLU.
        high: highest result.
        wide: int8 input, int16 output from the lifted accumulator.
        zero_in: zero point of the input, already folded into the bias; kept for formats that write it out.
        scales: what the multipliers were made from, for the same formats; not packed, so None in a program that was read back.
        x16: int16 input and output.
        bits: of a packed weight, 8 or 4.
    """

    KIND: ClassVar[int] = 2

    weight: Array
    bias: Array
    multiplier: Array
    shift: Array
    zero: int
    low: int
    high: int
    wide: bool = False
    zero_in: int = 0
    scales: Scales | None = None
    x16: bool = False
    bits: int = 8

    @property
    def n_in(self) -> int:
        return int(self.weight.shape[1])

    @property
    def n_out(self) -> int:
        return int(self.weight.shape[0])

    @property
    def macs(self) -> int:
        return self.n_in * self.n_out

    @property
    def requantises(self) -> int:
        return self.n_out

    @property
    def in_bytes(self) -> int:
        return 2 if self.x16 else 1

    @property
    def out_bytes(self) -> int:
        return 2 if self.wide or self.x16 else 1

    def check(self) -> None:
        check_scale("dense layer", self.multiplier, self.shift, 0)
        if self.bits not in (4, 8) or (self.bits == 4 and (self.x16 or np.abs(self.weight.astype(int)).max() > 7)) or (self.wide and self.x16):
            raise RangeError("a dense layer has weights of 8 bits, or of 4 (-7 to 7) on int8 input, and either int16 input or a lifted sum")
        low, high = reach_of(self.weight, self.bias, INT16_RANGE if self.x16 else INT8_RANGE)
        lift = LIFT if self.wide else 0
        check_int32("the accumulator of a dense layer", low << lift, high << lift)

    def run(self, x: Array) -> Array:
        total = exact_dot(x, self.weight) + self.bias
        total = total << LIFT if self.wide else total
        result = clamp(rescale(total, self.multiplier, self.shift) + self.zero, self.low, self.high)
        narrow: Array = result.astype(np.int16 if self.out_bytes == 2 else np.int8)
        return narrow

    def pack(self) -> bytes:
        flags = (WIDE if self.wide else 0) | (X16 if self.x16 else 0) | (INT4 if self.bits == 4 else 0) | (0 if len(self.multiplier) else SHIFT)
        header = Header(self.KIND, flags, self.n_in, self.n_out, self.zero, self.low, self.high)
        return packed(header, ("<i4", self.bias), ("<i4", self.multiplier), ("u1", self.shift), ("i1", pack_rows(self.weight, self.bits)))

    @staticmethod
    def unpack(h: Header, reader: Reader) -> Dense:
        """The rest of a packed dense layer."""
        wide, x16, bits = bool(h.flags & WIDE), bool(h.flags & X16), 4 if h.flags & INT4 else 8
        bound = 32768 if wide or x16 else 128
        if h.flags & ~(WIDE | X16 | INT4 | SHIFT) or not -bound <= h.low <= h.high < bound or not -bound <= h.zero < bound:
            raise BundleError("a dense layer's header is inconsistent")
        bias, multiplier = reader.array("<i4", h.n_out), reader.array("<i4", 0 if h.flags & SHIFT else h.n_out)
        shift = reader.array("u1", h.n_out).astype(np.int64)
        weight = read_rows(reader, h.n_out, h.n_in, bits)
        return Dense(weight, bias, multiplier, shift, h.zero, h.low, h.high, wide, x16=x16, bits=bits)
