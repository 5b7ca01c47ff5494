"""GRU and LSTM layers in integers: gates in steps of 2^-12, weights by rows for the GRU, by gates for the LSTM, as TFLite has them."""

from __future__ import annotations

import math

import numpy as np

from puffer_edge.errors import RangeError
from puffer_edge.integer.ops.dense import Scales
from puffer_edge.integer.ops.gates import Gates
from puffer_edge.integer.ops.gru import Gru
from puffer_edge.integer.ops.lstm import Lstm
from puffer_edge.integer.rounding import multiplier_and_shift
from puffer_edge.integer.scales import HIDDEN_LIMIT, MARGIN, PROFILES, Profile, Seen, bias_limit, over_time, run_op, weight_scales, whole_bias
from puffer_edge.layers import Recurrent
from puffer_edge.spaces import Floats

GATE_SCALE = 2.0**-12
PLAIN = PROFILES["int8"]
"""Recurrent weights keep 8 bits and free scales in every profile."""


def recurrent(layer: Recurrent, seen: Seen, profile: Profile) -> tuple[Gru | Lstm, Seen]:
    """A cell, and what it makes of the calibration."""
    before = np.concatenate([layer.weight_ih, layer.weight_hh], 1)
    if not np.abs(before).max() <= 2.0**20:
        raise RangeError(f"a {layer.kind} has weights up to {np.abs(before).max():g}: the training diverged, or the numbers need another unit")
    states = over_time(lambda x, m: (layer.step(x, m)[1],) * 2, seen.x, seen.starts, np.zeros((1, layer.memory)))
    hidden = _hidden_before(states[:, : layer.n_out], seen)
    op = _gru(layer, seen, hidden, profile) if layer.kind == "gru" else _lstm(layer, seen, hidden, states[:, layer.n_out :], profile)
    codes = run_op(op, seen.codes, seen.starts)
    return op, Seen(states[:, : layer.n_out], codes, 2.0**-15 if profile.x16 else 2.0**-7, 0, seen.order[:0], seen.starts, seen.held)


def _hidden_before(hidden: Floats, seen: Seen) -> Floats:
    """(N, hidden) what every step begins with."""
    before = np.roll(hidden, 1, 0)
    before[np.asarray(seen.starts)] = 0
    before[0] = 0
    return before


def _gates(weight: Floats, bias: Floats, wanted: Floats, values: Floats, scale_in: float, scale_w: Floats, zero: int) -> Gates:
    """Rows whose mean error on the calibration is zero, as of ``quantize``'s dense layers.

    Args:
        weight: (rows, columns), in the program's order.
        bias: (rows,).
        wanted: (N, rows) float sums.
        values: (N, columns) what the integer inputs stand for, in the program's order.
        scale_in: step of the input.
        scale_w: (rows,) steps of the weights.
        zero: zero point of the input.
    """
    whole = np.clip(np.rint(weight / scale_w[:, None]), -127, 127).astype(np.int8)
    corrected = (wanted - values @ (whole * scale_w[:, None]).T).mean(0)
    folded = whole_bias(corrected, scale_in * scale_w, zero * whole.astype(np.int64).sum(1))
    pairs = [multiplier_and_shift(scale_in * float(w) / GATE_SCALE) for w in scale_w]
    multiplier, shift = np.array([m for m, _ in pairs], np.int32), np.array([s for _, s in pairs], np.int8)
    if shift.min() < -15:
        raise RangeError(
            f"a gate's weights or biases are too large: {np.abs(weight).max():g} and {np.abs(bias).max():g}; one step of its sum saturates it"
        )
    return Gates(whole, folded, multiplier, shift)


def _gru(layer: Recurrent, seen: Seen, hidden: Floats, profile: Profile) -> Gru:
    n = layer.n_out
    both, late = layer.bias_ih + layer.bias_hh, slice(2 * n, None)
    first, second = both.copy(), np.zeros_like(both)
    first[late], second[late] = layer.bias_ih[late], layer.bias_hh[late]  # the reset gate acts on its own bias
    weight = seen.columns(layer.weight_ih)
    steps = weight_scales(weight, first, seen.scale, PLAIN, bias_limit(layer.n_in, profile))
    wanted = seen.x[seen.held] @ layer.weight_ih.T + first
    given = _gates(weight, first, wanted, seen.coded[seen.held], seen.scale, steps, seen.zero)
    steps = weight_scales(layer.weight_hh, second, 2.0**-15, PLAIN, HIDDEN_LIMIT)
    exact = np.rint(hidden * 2**15) / 2**15
    kept = _gates(layer.weight_hh, second, hidden @ layer.weight_hh.T + second, exact, 2.0**-15, steps, 0)
    return Gru(given, kept, profile.x16, seen.zero)


def _lstm(layer: Recurrent, seen: Seen, hidden: Floats, cell: Floats, profile: Profile) -> Lstm:
    n, bias = layer.n_out, layer.bias_ih + layer.bias_hh
    top = 2.0**-15 if profile.x16 else 2.0**-7
    weight = seen.columns(layer.weight_ih)
    given_steps = _gate_scales(weight, bias, seen.scale, bias_limit(layer.n_in, profile))
    kept_steps = _gate_scales(layer.weight_hh, np.zeros_like(bias), top, HIDDEN_LIMIT)
    codes = np.clip(np.rint(hidden / top), -(2.0**15 if profile.x16 else 2.0**7), 1 / top - 1) * top
    kept = _gates(layer.weight_hh, 0 * bias, hidden @ layer.weight_hh.T, codes, top, np.repeat(kept_steps, n), 0)
    error = kept.bias * (top * np.repeat(kept_steps, n))  # TFLite has one bias: the correction moves to the input's
    kept = Gates(kept.weight, np.zeros_like(kept.bias), kept.multiplier, kept.shift)
    wanted = seen.x[seen.held] @ layer.weight_ih.T + bias + error
    given = _gates(weight, bias, wanted, seen.coded[seen.held], seen.scale, np.repeat(given_steps, n), seen.zero)
    reach = max(float(np.abs(cell).max()) * MARGIN, 2.0**-40)
    bits = int(np.clip(math.floor(math.log2(32767 / reach)), 0, 12))
    return Lstm(given, kept, bits, profile.x16, seen.zero, (seen.scale, given_steps, kept_steps))


def _gate_scales(weight: Floats, bias: Floats, scale_in: float, limit: int) -> Floats:
    """(4,) one scale a gate, such that every rule in use gives one multiplier."""
    rows = weight_scales(weight, bias, scale_in, PLAIN, limit).reshape(4, -1).max(1)
    return np.array([float(Scales(scale_in, np.array([w]), GATE_SCALE).settled(False).weight[0]) for w in rows])
