"""Fixed point: how physical numbers become the integers that devices see, and back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import RangeError

OBSERVATION_LIMIT = 2**30 - 1
"""Largest legal magnitude of an observation: MicroPython's 31-bit small integers hold it."""

ACTION_LIMIT = 2**28 - 1
"""Largest legal magnitude of an action: leaves a shield two bits to add and subtract in."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


def fixed(value: float, fraction_bits: int, limit: int, what: str) -> int:
    """One physical constant as a fixed-point integer.

    Args:
        value: physical value.
        fraction_bits: number of fraction bits.
        limit: largest legal magnitude of the result.
        what: name used in the error.

    Raises:
        RangeError: the result is not finite or exceeds ``limit``.
    """
    if not abs(value) < 1e300:
        raise RangeError(f"{what} is {value}: every bound of a contract must be finite; declare the range the sensor really has")
    scaled = float(value) * 2.0**fraction_bits
    if not abs(scaled) <= limit:
        raise RangeError(f"{what} = {value:g} with {fraction_bits} fraction bits is {scaled:.10g}, beyond ±{limit}: use fewer fraction bits")
    return round(scaled)


def to_fixed(values: npt.ArrayLike, fraction_bits: Ints, low: Ints, high: Ints) -> tuple[Ints, Bools, Bools]:
    """Physical values to fixed point: float64, round half to even, saturate.

    Args:
        values: (..., n) physical values.
        fraction_bits: (n,) fraction bits per channel.
        low: (n,) lowest legal integer per channel.
        high: (n,) highest legal integer per channel.

    Returns:
        (..., n) int32; (...,) whether a channel saturated; (...,) whether a channel was NaN or infinite.
        An invalid row is all zeros: nothing may be computed from it.
    """
    x = np.asarray(values, np.float64)
    invalid = np.asarray(~np.isfinite(x).all(-1))
    with np.errstate(over="ignore"):  # beyond float64 is beyond the range, and saturates
        scaled = np.rint(np.where(invalid[..., None], 0.0, x) * np.exp2(fraction_bits))
    clipped = np.clip(scaled, low, high)
    clipped = np.where(invalid[..., None], 0.0, clipped)
    saturated = np.asarray((clipped != scaled).any(-1) & ~invalid)
    return clipped.astype(np.int32), saturated, invalid


def from_fixed(values: npt.NDArray[np.int32], fraction_bits: Ints) -> Floats:
    """Fixed-point integers back to physical values.

    Args:
        values: (..., n) integers.
        fraction_bits: (n,) fraction bits per channel.
    """
    result: Floats = np.asarray(values, np.float64) * np.exp2(-np.asarray(fraction_bits, np.float64))
    return result
