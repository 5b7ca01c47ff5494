"""Dense layer: int8 × int8 into int32, requantised to int8, or to int16 in front of a head; ReLU is the lower clamp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from puffer_edge.errors import BundleError
from puffer_edge.integer.ops import Array, Header, Reader, check_int32, check_scale, packed
from puffer_edge.integer.rounding import clamp, multiplier_and_shift, requantise
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
class Dense:
    """``clamp(requantise(bias + weight @ x) + zero, low, high)``.

    Attributes:
        weight: (outputs, inputs) int8.
        bias: (outputs,) int32, with the input's zero point folded in.
        multiplier: (outputs,) int32.
        shift: (outputs,) right shifts, not negative.
        zero: zero point of the result.
        low: lowest result; equal to ``zero`` for a ReLU.
        high: highest result.
        wide: int16 output from the lifted accumulator.
        zero_in: zero point of the input, already folded into the bias; kept for formats that write it out.
        scales: what the multipliers were made from, for the same formats; not packed, so None in a program that was read back.
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
    def out_bytes(self) -> int:
        return 2 if self.wide else 1

    @property
    def stride(self) -> int:
        """Bytes of a packed row of weights: the inputs rounded up to 4."""
        return -(-self.n_in // 4) * 4

    def check(self) -> None:
        check_scale("dense layer", self.multiplier, self.shift, 0)
        w = self.weight.astype(np.int64)
        high = self.bias + np.maximum(w * 127, w * -128).sum(1)
        low = self.bias + np.minimum(w * 127, w * -128).sum(1)
        lift = LIFT if self.wide else 0
        check_int32("the accumulator of a dense layer", low << lift, high << lift)

    def run(self, x: Array) -> Array:
        # float64 products and sums below 2^53 are exact integers, and fast
        total = (x.astype(np.float64) @ self.weight.astype(np.float64).T).astype(np.int64) + self.bias
        total = total << LIFT if self.wide else total
        result = clamp(requantise(total, self.multiplier, self.shift) + self.zero, self.low, self.high)
        narrow: Array = result.astype(np.int16 if self.wide else np.int8)
        return narrow

    def pack(self) -> bytes:
        rows = np.zeros((self.n_out, self.stride), np.int8)
        rows[:, : self.n_in] = self.weight
        header = Header(self.KIND, WIDE if self.wide else 0, self.n_in, self.n_out, self.zero, self.low, self.high)
        return packed(header, ("<i4", self.bias), ("<i4", self.multiplier), ("u1", self.shift), ("i1", rows))

    @staticmethod
    def unpack(h: Header, reader: Reader) -> Dense:
        """The rest of a packed dense layer."""
        bound = 32768 if h.flags & WIDE else 128
        if h.flags & ~WIDE or not -bound <= h.low <= h.high < bound or not -bound <= h.zero < bound:
            raise BundleError("a dense layer's header is inconsistent")
        bias, multiplier = reader.array("<i4", h.n_out), reader.array("<i4", h.n_out)
        shift = reader.array("u1", h.n_out).astype(np.int64)
        rows = reader.array("i1", h.n_out, -(-h.n_in // 4) * 4)
        if rows[:, h.n_in :].any():
            raise BundleError("a dense layer's padding is not zero")
        return Dense(rows[:, : h.n_in], bias, multiplier, shift, h.zero, h.low, h.high, bool(h.flags & WIDE))
