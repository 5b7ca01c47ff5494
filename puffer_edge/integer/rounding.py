"""The one rounding of the integer rules: TFLite-Micro's double rounding, without a division."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import RangeError

Wide = npt.NDArray[np.int64]


def requantise(a: Wide, multiplier: npt.ArrayLike, shift: npt.ArrayLike) -> Wide:
    """``a · multiplier / 2^(31 + shift)``, rounded twice.

    Args:
        a: int64 values within int32 (after the left shift, where ``shift`` is negative).
        multiplier: 0, or in [2^30, 2^31).
        shift: right shift in -30 … 31; a negative one shifts ``a`` left first.
    """
    m, s = np.asarray(multiplier, np.int64), np.asarray(shift, np.int64)
    right = np.maximum(s, 0)
    high = ((a << np.maximum(-s, 0)) * m + (1 << 30)) >> 31
    half = np.where(right > 0, np.int64(1) << np.maximum(right - 1, 0), 0)
    result: Wide = np.where(right > 0, (high + half - (high < 0)) >> right, high)
    return result


def requantise_once(a: Wide, factor: npt.ArrayLike) -> Wide:
    """``a · factor`` to the nearest integer, halves away from zero: single rounding, for comparison with LiteRT alone; no device computes it.

    LiteRT 2.3's reference FULLY_CONNECTED gives these bits: it multiplies by the real factor, not by one of 31 bits.

    Args:
        a: int64 values within int32.
        factor: not negative, float64.
    """
    product = a.astype(np.float64) * np.asarray(factor, np.float64)
    result: Wide = (np.sign(product) * np.floor(np.abs(product) + 0.5)).astype(np.int64)
    return result


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
