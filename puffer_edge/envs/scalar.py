"""What the scalar functions of an environment may call: the same bits as plain Python, compiled by numba, and printed as JavaScript.

A scalar function works on one row: float64 numbers, arrays that it reads and writes by index, and the functions of this file and of
``draw``. Arithmetic is Python's own, in the order in which it is written; ``x * x`` is a product and ``power(x, 2.0)`` is libm's, which
may differ in the last bit. ``where`` and ``|``, ``&`` in the place of ``if`` and ``or``, ``and`` let the WebAssembly export print it too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Row = Any
"""A float64 array, or what stands for one while a function is traced."""
Number = Any
"""A float64 number, or what stands for one while a function is traced."""


def sin(x: Number) -> Number:
    """Sine of an angle in rad, libm's; NaN of an infinity."""
    return np.float64(math.sin(x) if math.isfinite(x) else math.nan)


def cos(x: Number) -> Number:
    """Cosine of an angle in rad, libm's; NaN of an infinity."""
    return np.float64(math.cos(x) if math.isfinite(x) else math.nan)


def log(x: Number) -> Number:
    """Natural logarithm, libm's; −∞ of 0 and NaN below."""
    return np.float64(math.log(x) if x > 0.0 else -math.inf if x == 0.0 else math.nan)


def sqrt(x: Number) -> Number:
    """Square root, NaN below 0."""
    return np.float64(math.sqrt(x) if x >= 0.0 else math.nan)


def power(x: Number, y: float) -> Number:
    """x to the power y by libm's ``pow``, as numpy's scalars compute ``x ** 2``; not a product, which may differ in the last bit."""
    try:
        return np.float64(math.pow(x, y))
    except OverflowError:
        return np.float64(math.inf if x > 0.0 or math.fmod(y, 2.0) == 0.0 else -math.inf)
    except ValueError:
        return np.float64(math.inf if x == 0.0 else math.nan)


def power_single(x: Number, y: float) -> Number:
    """x to the power y in float32 by libm's ``powf``, as numpy's float32 scalars compute ``x ** 2``; not a rounded product."""
    return np.float64(np.float32(x) ** np.float32(y))


def single(x: Number) -> Number:
    """x rounded to float32 and back: Gymnasium's arithmetic in float32 is float64's, rounded after each operation."""
    return np.float64(np.float32(x))


def rint(x: Number) -> Number:
    """The nearest whole number, the even one where two are as near."""
    return np.rint(x)


def clip(x: Number, low: Number, high: Number) -> Number:
    """x limited to [low, high]; NaN stays NaN."""
    return low if x < low else high if x > high else x


def where(condition: Any, a: Number, b: Number) -> Number:
    """``a`` where the condition holds, else ``b``; both are computed."""
    return a if condition else b
