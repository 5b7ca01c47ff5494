"""The numbers of a quantisation: profiles, ranges, scales, and what calibration observations become on their way through a program."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import RangeError
from puffer_edge.integer.ops import Array, Op
from puffer_edge.spaces import Bools, Floats

MARGIN = 1.25
"""Observations, and what reaches a head, up to this factor beyond the calibration's do not saturate."""
RANGES = {"minmax": 0.0, "percentile": 5e-4, "tight": 5e-3}
"""How a range is read off the calibration: the share of it, at either end, that may saturate. A few freaks must not cost everybody precision."""
TANH_REACH = 4.0
"""tanh beyond ±4 is ±1 to within one step of int8: finer steps inside are worth more."""
BIAS_LIMIT = 2**22
"""Keeps a row's bias small enough for the lifted accumulator of the head."""
HIDDEN_LIMIT = 2**28
"""Largest bias beside products of int16 values: their steps are so small that a limit of 2^22 would coarsen the weights beside every bias."""
SMALLEST_SCALE, LARGEST_SCALE = 2.0**-60, 2.0**60
"""Weights of a scale outside are zeros, or a training that diverged; no output has a smaller step either."""


@dataclass(frozen=True)
class Profile:
    """What the integers of a program are like.

    Attributes:
        name: "int8", "int16x8", "int4" or "shift".
        x16: activations of 16 bits.
        bits: of a weight of a dense layer or convolution; recurrent layers keep 8.
        powers: scales of dense layers and convolutions are powers of two, so that a device rescales by a shift.
    """

    name: str
    x16: bool = False
    bits: int = 8
    powers: bool = False

    @property
    def top(self) -> int:
        """Largest activation."""
        return 32767 if self.x16 else 127

    @property
    def input_scale(self) -> float:
        """Real value of one step of the input."""
        return 2.0 ** -(15 if self.x16 else 7) if self.powers else float(np.float32(1 / self.top))

    @property
    def per_unit(self) -> float:
        """Steps of the input in one."""
        return 1 / self.input_scale if self.powers else float(self.top)

    def settled(self, scale: float) -> float:
        """A scale as a float32 number, or the next power of two."""
        return 2.0 ** math.ceil(math.log2(scale)) if self.powers else float(np.float32(scale))


PROFILES = {p.name: p for p in (Profile("int8"), Profile("int16x8", x16=True), Profile("int4", bits=4), Profile("shift", powers=True))}


@dataclass(frozen=True, eq=False)
class Seen:
    """What a layer receives from the calibration observations, in float and as the integers so far.

    Attributes:
        x: (N, width) float, in the policy's order.
        codes: (N, width) int8 or int16, in the program's order.
        scale: real value of one step.
        zero: zero point.
        order: (width,) float column of every integer column; empty for the same.
        starts: (N,) whether a row begins an episode.
        sound: (N,) rows whose values the integers of everything before could hold.
    """

    x: Floats
    codes: Array
    scale: float
    zero: int
    order: npt.NDArray[np.int64]
    starts: Bools
    sound: Bools

    @property
    def coded(self) -> Floats:
        """(N, width) what the codes stand for, in the program's order."""
        values: Floats = (self.codes.astype(np.float64) - self.zero) * self.scale
        return values

    @cached_property
    def held(self) -> Bools:
        """(N,) rows whose values the codes, and those before them, can hold to a step; all rows where there is none.

        Biases are corrected on these alone: a value far outside its range, which clamps, must not move the mean of all others.
        """
        about = np.iinfo(self.codes.dtype)
        low, high = ((bound - self.zero) * self.scale for bound in (int(about.min) - 1, int(about.max) + 1))
        inside: Bools = self.sound & ((self.x >= low) & (self.x <= high)).all(1)
        return inside if bool(inside.any()) else ~inside

    @property
    def values(self) -> Floats:
        """(N, width) what the codes stand for, in the policy's order."""
        return self.coded[:, np.argsort(self.order)] if len(self.order) else self.coded

    def columns(self, weight: Floats) -> Floats:
        """The columns of a weight in the program's order."""
        result: Floats = weight[:, self.order] if len(self.order) else weight
        return result


def channels_last(shape: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    """(channels · height · width,) where each value of an image with channels last stands in one with channels first; empty for the same."""
    order: npt.NDArray[np.int64] = np.arange(math.prod(shape)).reshape(shape).transpose(1, 2, 0).ravel()
    return order if (order != np.arange(len(order))).any() else order[:0]


def over_time(step: Callable[[Array, Array], tuple[Array, Array]], x: Array, starts: Bools, memory: Array) -> Array:
    """Rows in order of time through something with memory.

    Args:
        step: ``(rows, width), (rows, memory)`` to outputs and the next memory.
        x: (N, width).
        starts: (N,) where memory is cleared; the first row always begins.
        memory: (1, memory) cleared memory.

    Returns:
        (N, outputs).
    """
    begin = np.flatnonzero(np.asarray(starts) | (np.arange(len(x)) == 0))
    length = np.diff(np.append(begin, len(x)))
    kept = np.repeat(memory, len(begin), 0)
    result: Array | None = None
    for t in range(int(length.max())):
        alive = np.flatnonzero(length > t)
        y, kept[alive] = step(x[begin[alive] + t], kept[alive])
        if result is None:
            result = np.zeros((len(x), y.shape[1]), y.dtype)
        result[begin[alive] + t] = y
    assert result is not None
    return result


def run_op(op: Op, x: Array, starts: Bools) -> Array:
    """(N, n_in) to (N, n_out) of an operation, rows in order of time."""
    return over_time(op.step, x, starts, np.zeros((1, op.memory), np.int16)) if op.memory else op.run(x)


def extent(y: Floats, outliers: float) -> tuple[float, float]:
    """Lowest and highest of (N, width) outputs, 0 among them, but for the share of outliers."""
    low, high = np.quantile(y.min(1), outliers), np.quantile(y.max(1), 1 - outliers)
    return min(float(low), 0.0), max(float(high), 0.0)


def bias_limit(columns: int, profile: Profile) -> int:
    """Largest bias of a row of so many weights, in steps of the sum: what the products, at their largest, leave of int32."""
    return min(HIDDEN_LIMIT, max(BIAS_LIMIT, 2**31 - (columns + 8) * 2**22)) if profile.x16 else BIAS_LIMIT


def weight_scales(weight: Floats, bias: Floats, scale_in: float, profile: Profile, limit: int) -> Floats:
    """(rows,) scale of each row of weights; a row of zeros takes the smallest of the others, so that it costs them nothing.

    Raises:
        RangeError: weights or biases are as large as only a training that diverged makes them.
    """
    scale = np.maximum(np.abs(weight).max(1) / (7.0 if profile.bits == 4 else 127.0), np.abs(bias) / (scale_in * limit))
    if scale.max() > LARGEST_SCALE:
        raise RangeError(f"a layer has weights or biases up to {scale.max() * 127:g}: the training diverged, or the numbers need another unit")
    alive = scale > SMALLEST_SCALE
    scale = np.where(alive, scale, scale[alive].min() if alive.any() else SMALLEST_SCALE)
    result: Floats = np.exp2(np.ceil(np.log2(scale))) if profile.powers else np.float32(scale).astype(np.float64)
    return result


def whole_bias(bias: Floats, step: Floats, folded: Array) -> npt.NDArray[np.int32]:
    """(rows,) biases in steps of the sums, less what the input's zero point adds.

    Args:
        bias: (rows,) real values.
        step: (rows,) real value of one step of each row's sum.
        folded: (rows,) zero point times the sum of each row's weights.

    Raises:
        RangeError: one is beyond int32.
    """
    whole = np.rint(bias / step) - folded
    if not np.abs(whole).max() <= 2**31 - 1:
        raise RangeError(
            f"a bias of {np.abs(bias).max():g} is {np.abs(whole).max():g} steps of its sum, beyond int32: its weights are too small for it"
        )
    return whole.astype(np.int32)


def output_scale(wanted: float, floor: float, profile: Profile) -> float:
    """A layer's step, not below ``floor``, where its multiplier would reach 1.

    Raises:
        RangeError: the outputs are as large as only a training that diverged makes them.
    """
    scale = max(wanted, floor, SMALLEST_SCALE)
    if not scale <= LARGEST_SCALE:
        raise RangeError(f"a layer's outputs reach {scale * 127:g}: the training diverged, or the numbers need another unit")
    return profile.settled(scale)
