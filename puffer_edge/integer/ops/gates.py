"""What GRU and LSTM share: rows of weights whose sums become int16 gate inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from puffer_edge.integer.ops import Array, Reader, check_int32, check_scale, exact_dot, pack_rows, reach_of, read_rows
from puffer_edge.integer.rounding import clamp, requantise


def sat16(x: Array) -> Array:
    """Limit to int16; the array stays int64."""
    result: Array = clamp(x, -32768, 32767)
    return result


@dataclass(frozen=True, eq=False)
class Gates:
    """``sat16(requantise(bias + weight @ x))``, in Q3.12.

    Attributes:
        weight: (rows, columns) int8.
        bias: (rows,) int32, with the input's zero point folded in.
        multiplier: (rows,) int32.
        shift: (rows,) right shifts; negative ones shift left.
    """

    weight: Array
    bias: Array
    multiplier: Array
    shift: Array

    def check(self, what: str, values: tuple[int, int]) -> None:
        """Raise unless every sum stays within int32, after a left shift too, for inputs within ``values``."""
        check_scale(what, self.multiplier, self.shift, -15)
        low, high = reach_of(self.weight, self.bias, values)
        up = np.maximum(-self.shift.astype(np.int64), 0)
        check_int32(f"the accumulator of {what}", low << up, high << up)

    def run(self, x: Array) -> Array:
        """(n, columns) to (n, rows) int64 within int16."""
        return sat16(requantise(exact_dot(x, self.weight) + self.bias, self.multiplier, self.shift))

    def arrays(self) -> list[tuple[str, Array]]:
        """What ``packed`` takes."""
        return [("<i4", self.bias), ("<i4", self.multiplier), ("i1", self.shift), ("i1", pack_rows(self.weight))]

    @staticmethod
    def read(reader: Reader, rows: int, columns: int) -> Gates:
        """The next packed gates."""
        bias, multiplier, shift = reader.array("<i4", rows), reader.array("<i4", rows), reader.array("i1", rows)
        return Gates(read_rows(reader, rows, columns), bias, multiplier, shift)
