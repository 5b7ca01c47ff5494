"""The one rounding of the integer rules: TFLite-Micro's double rounding, without a division."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import RangeError

Wide = npt.NDArray[np.int64]
_ONCE: ContextVar[bool] = ContextVar("round once", default=False)


def requantise(a: Wide, multiplier: npt.ArrayLike, shift: npt.ArrayLike) -> Wide:
    """``a · multiplier / 2^(31 + shift)``, rounded twice.

    Args:
        a: int64 values within int32 (after the left shift, where ``shift`` is negative).
        multiplier: 0, or in [2^30, 2^31).
        shift: right shift in -30 … 31; a negative one shifts ``a`` left first.
    """
    m, s = np.asarray(multiplier, np.int64), np.asarray(shift, np.int64)
    if _ONCE.get():
        once: Wide = (a * m + (np.int64(1) << (30 + s))) >> (31 + s)
        return once
    right = np.maximum(s, 0)
    high = ((a << np.maximum(-s, 0)) * m + (1 << 30)) >> 31
    half = np.where(right > 0, np.int64(1) << np.maximum(right - 1, 0), 0)
    result: Wide = np.where(right > 0, (high + half - (high < 0)) >> right, high)
    return result


@contextmanager
def single_rounding() -> Iterator[None]:
    """Inside, ``requantise`` rounds once, halves up: ``floor(a · multiplier / 2^(31 + shift) + 1/2)``, as LiteRT's reference kernels do.

    For a comparison with LiteRT alone: no device computes this, and a program's bits are those outside.
    """
    before = _ONCE.set(True)
    try:
        yield
    finally:
        _ONCE.reset(before)


def rescale(a: Wide, multiplier: npt.ArrayLike, shift: npt.ArrayLike) -> Wide:
    """``requantise``; or, without multipliers (an empty array: scales that are powers of two), its second rounding alone.

    Args:
        a: int64 values within ±(2^31 − 1).
        multiplier: as of ``requantise``, or empty.
        shift: right shifts; in 0 … 31 where there are no multipliers.
    """
    if np.size(multiplier):
        return requantise(a, multiplier, shift)
    s = np.asarray(shift, np.int64)
    half = np.where(s > 0, np.int64(1) << np.maximum(s - 1, 0), 0)
    result: Wide = np.where(s > 0, (a + half - (a < 0)) >> s, a)
    return result


def multiplier_and_shift(factor: float) -> tuple[int, int]:
    """A positive real factor as multiplier and right shift (TFLite's QuantizeMultiplier).

    Returns:
        multiplier in [2^30, 2^31) and the right shift, negative where the factor is 1 or more; (0, 0) below 2^-32.

    Raises:
        RangeError: the factor is negative, NaN or infinite.
    """
    if not (math.isfinite(factor) and factor >= 0):
        raise RangeError(f"a scale factor must be finite and not negative, not {factor}")
    fraction, exponent = math.frexp(factor)
    multiplier = math.floor(fraction * 2**31 + 0.5)
    if multiplier == 2**31:
        multiplier, exponent = 2**30, exponent + 1
    return (0, 0) if exponent < -31 or multiplier == 0 else (multiplier, -exponent)


def clamp(values: Any, low: Any, high: Any) -> Any:
    """Limit to [low, high]."""
    return np.minimum(np.maximum(values, low), high)
