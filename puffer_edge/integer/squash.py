"""Logistic and tanh on int16, as TensorFlow Lite defines them: a table of 256 points of the logistic function, linear between them.

Inputs are Q3.12 (a step is 2^-12), results Q0.15. The same functions serve the gates of GRU and LSTM and the tanh of int16 layers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Wide = npt.NDArray[np.int64]

_S = 1.0 / (1.0 + np.exp(-np.arange(256) / 24.0))
TABLE: Wide = np.floor(65536.0 * (_S + _S * (1.0 - _S) * (2.0 * _S - 1.0) / (16.0 * 24.0**2)) + 0.5).astype(np.int64)
TABLE[255] = 65535
"""Entry k is the logistic function of k/24 in units of 2^-16, raised by half of the chord's largest error, ``−σ''/(16·24²)``, so that
the straight line between two entries errs both ways; the last is one step below 1. A test holds the SHA-256 of all."""


def _interpolated(magnitude: Wide, bits: int, beyond: int) -> Wide:
    """The table at ``magnitude / 2^bits``, with ``bits`` more bits of fraction; ``beyond`` past its end."""
    k = np.minimum(magnitude >> bits, 254)
    base, rise = TABLE[k], TABLE[k + 1] - TABLE[k]
    result: Wide = np.where(magnitude >> bits >= 255, beyond, (base << bits) + (magnitude & ((1 << bits) - 1)) * rise)
    return result


def logistic16(x: npt.ArrayLike) -> Wide:
    """int16 in Q3.12 to 0 … 32767 in Q0.15."""
    v = 3 * np.asarray(x, np.int64)
    y = _interpolated(np.abs(v), 9, 0x7FFF << 10)
    result: Wide = np.where(v >= 0, y + (1 << 9), (1 << 25) - y + (1 << 9) - 1) >> 10
    return result


def tanh16(x: npt.ArrayLike, up: int = 0) -> Wide:
    """int16 in Q(3 + up).(12 − up) to −32768 … 32767 in Q0.15.

    Args:
        x: int16 values.
        up: left shift that brings ``x`` to Q3.12, 0 … 12.
    """
    v = np.asarray(x, np.int64) * (3 << up)
    y = _interpolated(np.abs(v), 8, 0xFFFF << 8)
    result: Wide = np.where(v >= 0, y - (1 << 23) + (1 << 7), -y + (1 << 23) + (1 << 7) - 1) >> 8
    return result
