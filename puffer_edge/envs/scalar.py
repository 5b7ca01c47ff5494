"""What the scalar functions of an environment may call: the same bits as plain Python, compiled by numba, and printed as JavaScript.

A scalar function works on one row: float64 numbers, arrays that it reads and writes by index, and the functions of this file and of
``draw``. Arithmetic is Python's own, in the order in which it is written; ``x * x`` is a product and ``power(x, 2.0)`` is libm's, which
may differ in the last bit. ``where`` and ``|``, ``&`` in the place of ``if`` and ``or``, ``and`` let the WebAssembly export print it too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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


def wrap(angle: Number) -> Number:
    """An angle in rad, up to a turn beyond ±π, in ±π."""
    return where(angle > math.pi, angle - 2.0 * math.pi, where(angle < -math.pi, angle + 2.0 * math.pi, angle))


def runge_kutta(accelerations: Callable[..., Any], period_s: float) -> Callable[..., Any]:
    """One classical Runge–Kutta step of two coordinates, whose accelerations depend on the second, on both speeds and on what drives them.

    Args:
        accelerations: ``(second, first_speed, second_speed, drive, parameters)`` → those of the first and of the second.
        period_s: length of the step.

    Returns:
        ``(first, second, first_speed, second_speed, drive, parameters)`` → the four numbers after the step.
    """
    half, sixth = period_s / 2.0, period_s / 6.0

    def advance(x: Number, a: Number, v: Number, w: Number, drive: Number, parameters: Row) -> tuple[Number, Number, Number, Number]:
        v1, w1 = accelerations(a, v, w, drive, parameters)
        v2, w2 = accelerations(a + half * w, v + half * v1, w + half * w1, drive, parameters)
        v3, w3 = accelerations(a + half * (w + half * w1), v + half * v2, w + half * w2, drive, parameters)
        v4, w4 = accelerations(a + period_s * (w + half * w2), v + period_s * v3, w + period_s * w3, drive, parameters)
        x, a = x + period_s * v + period_s * sixth * (v1 + v2 + v3), a + period_s * w + period_s * sixth * (w1 + w2 + w3)
        return x, a, v + sixth * (v1 + 2.0 * v2 + 2.0 * v3 + v4), w + sixth * (w1 + 2.0 * w2 + 2.0 * w3 + w4)

    return advance
