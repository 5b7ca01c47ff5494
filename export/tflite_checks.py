"""What TFLite would make of an operation's scales: proofs that it is the operation's own arithmetic, and words where it is not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from puffer_edge.errors import Mismatch, Unsupported
from puffer_edge.integer.ops import Array, Op
from puffer_edge.integer.ops.conv import Conv
from puffer_edge.integer.ops.dense import Dense, Scales
from puffer_edge.integer.ops.gates import Gates
from puffer_edge.integer.ops.lstm import Lstm
from puffer_edge.integer.ops.pool import Pool
from puffer_edge.integer.rounding import multiplier_and_shift

GATE_SCALE, HIDDEN_SCALE = 2.0**-12, 2.0**-7
"""Steps of an LSTM's gates and of its hidden state, by TFLite."""


def given(ops: Sequence[Op], k: int) -> tuple[float, int]:
    """Scale and zero point of what operation k receives."""
    op = ops[k]
    if isinstance(op, Pool) and k + 1 < len(ops):
        return given(ops, k + 1)
    if isinstance(op, (Dense, Conv)):
        return scales_of(op).input, op.zero_in
    if isinstance(op, Lstm) and op.scales:
        return float(op.scales[0]), op.zero_in
    raise unsupported(op)


def unsupported(op: Op) -> Unsupported:
    """What TFLite has not, with the nearest way."""
    name = type(op).__name__.lower()
    ways = {
        "gru": "a gru has no form in TFLite: train with an lstm, or use the C format",
        "lookup16": "an int16 table has no form in TFLite: use tanh or relu, or the int8 profile",
        "lstm": "a program read back from an image holds no scales, which TFLite needs: export from the policy",
    }
    return Unsupported(ways.get(name, f"a {name} has no form in TFLite at this place: use the C format"))


def scales_of(op: Dense | Conv) -> Scales:
    """A layer's scales, proved to give its multipliers."""
    if not len(op.multiplier):
        raise Unsupported("a layer that only shifts has no form in TFLite, which rounds twice: use the int8 profile")
    if op.scales is None:
        raise Unsupported("a program read back from an image holds no scales, which TFLite needs: export from the policy")
    if any(np.float32(v) != v for v in (op.scales.input, op.scales.output, *op.scales.weight)):
        raise Mismatch("a scale is not a number of 32 bits, as TFLite holds it", 0)
    multiplier, shift = op.scales.multipliers(isinstance(op, Dense) and op.wide)
    wrong = np.flatnonzero((multiplier != op.multiplier) | (shift != op.shift))
    if len(wrong):
        name = type(op).__name__.lower()
        raise Mismatch(f"row {wrong[0]} of a {name} layer: its scales do not give its multiplier {int(op.multiplier[wrong[0]])}", int(wrong[0]))
    return op.scales


def gate_scales(op: Lstm) -> tuple[Array, Array]:
    """(4,) scales of the input's gates and of the hidden state's, proved to give their multipliers."""
    if op.x16:
        raise Unsupported("TFLite-Micro's int16 LSTM rounds its gates otherwise: use the int8 profile")
    if not op.scales:
        raise unsupported(op)
    step, given, kept = op.scales
    for gates, by, steps in ((op.given, step, given), (op.kept, HIDDEN_SCALE, kept)):
        _check_gates(gates, by, steps, op.n_out)
    if op.kept.bias.any():
        raise Mismatch("an LSTM's hidden state has a bias, which TFLite has not", 0)
    values = (-128 - op.zero_in, 127 - op.zero_in)
    _check_reach(op.given.weight, op.given.bias + op.zero_in * op.given.weight.astype(np.int64).sum(1), values, -int(op.given.shift.min()))
    return given, kept


def _check_gates(gates: Gates, step: float, steps: Array, n: int) -> None:
    for j, scale in enumerate(steps):
        multiplier, shift = multiplier_and_shift(step * float(scale) / GATE_SCALE)
        rows = slice(j * n, (j + 1) * n)
        if (gates.multiplier[rows] != multiplier).any() or (gates.shift[rows] != shift).any():
            raise Mismatch(f"gate {'ifgo'[j]} of an LSTM: its scales do not give its multiplier", j * n)


def check_sum(op: Dense | Conv, bias: Array, values: tuple[int, int], lift: int) -> None:
    """Raise where TFLite's sum of a layer could leave int32.

    Args:
        op: the layer.
        bias: (rows,) as TFLite holds it, the zero point not folded in.
        values: lowest and highest input, less its zero point.
        lift: bits by which the input is widened.

    Raises:
        Unsupported: it could.
    """
    _check_reach(op.weight.reshape(len(op.bias), -1), bias, (values[0] << lift, values[1] << lift), 0)


def _check_reach(weight: Array, bias: Array, values: tuple[int, int], up: int) -> None:
    """TFLite subtracts the zero point on the way and adds the bias last: every partial sum must fit int32."""
    farthest = max(-values[0], values[1])
    reach = int((np.abs(bias) + np.abs(weight.astype(np.int64)).sum(1) * farthest).max()) << max(up, 0)
    if reach > 2**31 - 1:
        raise Unsupported(f"TFLite's sum of a layer of {weight.shape[1]} inputs may reach {reach}, beyond int32: use a smaller hidden layer")
