"""Policy to program: scales from calibration observations, then int8 weights, int8 activations and an int16 head.

The scheme is TensorFlow Lite's full-integer one (Jacob et al., 2018, arXiv 1712.05877) with per-channel weights; the
normaliser becomes the input step, whose per-feature ranges are folded into the first layer's weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import InvalidInput, RangeError
from puffer_edge.integer.ops import Op
from puffer_edge.integer.ops.affine import Affine
from puffer_edge.integer.ops.argmax import Argmax
from puffer_edge.integer.ops.dense import LIFT, Dense, Scales
from puffer_edge.integer.ops.input import Input
from puffer_edge.integer.ops.lookup import Lookup
from puffer_edge.integer.ops.lookup16 import TANH_SCALE, Lookup16
from puffer_edge.integer.program import Program
from puffer_edge.integer.rounding import multiplier_and_shift
from puffer_edge.policy import Layer, Policy
from puffer_edge.spaces import ACTION_LIMIT, OBSERVATION_LIMIT, Floats, fixed

INPUT_SCALE = float(np.float32(1 / 127))
INPUT_MARGIN = 1.25
"""Observations up to this factor beyond the calibration's do not saturate."""
OUTLIERS = 5e-4
"""Share of the calibration, at either end of a range, that may saturate: a few freak readings must not cost everybody precision."""
TANH_REACH = 4.0
"""tanh beyond ±4 is ±1 to within one step of int8: finer steps inside are worth more."""
BIAS_LIMIT = 2**22
"""Keeps a row's bias small enough for the lifted accumulator of the head."""
SMALLEST_SCALE, LARGEST_SCALE = 2.0**-60, 2.0**60
"""Weights of a scale outside are zeros, or a training that diverged; no output has a smaller step either."""


@dataclass(frozen=True)
class Quantization:
    """How well a program follows its policy on the calibration observations.

    Attributes:
        program: the result.
        agreement: share of observations with the same discrete choice; for continuous heads, within 1 % of the range.
        median_action_error: median difference of an action, as a share of its range.
        worst_action_error: largest difference of an action, as a share of its range.
        saturated: share of input values that the int8 input clamps.
    """

    program: Program
    agreement: float
    median_action_error: float
    worst_action_error: float
    saturated: float


def quantize(policy: Policy, observations: npt.ArrayLike) -> Program:
    """A policy in integers, calibrated on observations of its own rollouts.

    Args:
        policy: the float policy.
        observations: (N, n_observations) physical observations; more and more varied ones give better scales.

    Raises:
        InvalidInput: no observations, or NaN or infinite ones.
        RangeError: a scale does not fit 31 bits and a shift, or an accumulator int32.
    """
    seen = np.asarray(observations, np.float64)
    if seen.ndim != 2 or not len(seen):
        raise InvalidInput(f"calibration needs observations of shape (N, {policy.contract.n_observations}), not {seen.shape}")
    ints, _, invalid = policy.contract.observe(seen)
    if invalid.any():
        raise InvalidInput(f"{int(invalid.sum())} calibration observations are NaN or infinite")
    z = policy.normalizer(policy.contract.physical_observation(ints))
    centre, reach = _feature_range(policy, z)
    ops: list[Op] = [_input_step(policy, centre, reach)]
    first = policy.layers[0]
    layers = [Layer(first.weight * reach, first.bias + first.weight @ centre, first.activation), *policy.layers[1:]]
    codes, scale, zero = ops[0].run(ints), INPUT_SCALE, 0
    x = (z - centre) / reach
    for layer in layers[:-1]:
        y = x @ layer.weight.T + layer.bias
        dense, scale, zero = _hidden(layer, y, _Activations(codes, scale, zero))
        ops.append(dense)
        codes = dense.run(codes)
        if layer.activation == "tanh":
            ops.append(Lookup.tanh(scale, dense.n_out))
            codes, scale, zero = ops[-1].run(codes), 1 / 128, 0
        x = np.maximum(y, 0) if layer.activation == "relu" else np.tanh(y) if layer.activation == "tanh" else y
    ops += _head(policy, layers[-1], x @ layers[-1].weight.T + layers[-1].bias, _Activations(codes, scale, zero))
    return Program(policy.contract, tuple(ops))


def measure(policy: Policy, program: Program, observations: npt.ArrayLike) -> Quantization:
    """Compare a program with its policy, observation by observation.

    Args:
        policy: the float policy.
        program: its integers.
        observations: (N, n_observations) physical observations.
    """
    c = policy.contract
    ints, _, _ = c.observe(observations)
    wanted = policy.act(c.physical_observation(ints))
    got = c.physical_action(program.run(ints))
    error = (np.abs(got - wanted) / np.array([ch.high - ch.low for ch in c.actions])).max(1)
    first = program.ops[0].run(ints)
    saturated = float((np.abs(first) >= 127).mean())
    return Quantization(program, float((error <= 0.01).mean()), float(np.median(error)), float(error.max()), saturated)


@dataclass(frozen=True, eq=False)
class _Activations:
    """What the integer layers so far make of the calibration observations.

    Attributes:
        codes: (N, width) int8.
        scale: physical value of one step.
        zero: zero point.
    """

    codes: npt.NDArray[np.int8]
    scale: float
    zero: int

    @property
    def values(self) -> Floats:
        """(N, width) what the codes stand for."""
        values: Floats = (self.codes.astype(np.float64) - self.zero) * self.scale
        return values


def _feature_range(policy: Policy, z: Floats) -> tuple[Floats, Floats]:
    """(n,) centre and (n,) half width of the normalised range that each int8 input represents.

    The centre lies a whole number of steps from the median of the calibration: where a policy spends most of its time, mostly
    its equilibrium, the input is exact.
    """
    c, norm = policy.contract, policy.normalizer
    lowest, highest = (norm(c.physical_observation(bound)) for bound in (c.observation_low, c.observation_high))
    low, high = np.quantile(z, [OUTLIERS, 1 - OUTLIERS], axis=0)
    margin = (high - low) * (INPUT_MARGIN - 1) / 2
    constant = high - low < 1e-6
    low, high = np.where(constant, lowest, np.maximum(low - margin, lowest)), np.where(constant, highest, np.minimum(high + margin, highest))
    reach = np.maximum((high - low) / 2, 1e-6) * 127.0 / 126.5
    step, middle, median = reach / 127.0, (low + high) / 2, np.median(z, axis=0)
    return median - np.rint((median - middle) / step) * step, reach


def _input_step(policy: Policy, centre: Floats, reach: Floats) -> Input:
    c, norm = policy.contract, policy.normalizer
    means = norm.mean + centre * norm.std
    mean = [fixed(v, ch.fraction_bits, OBSERVATION_LIMIT, f"mean of {ch.name}") for v, ch in zip(means, c.observations)]
    factors = 127.0 / (reach * norm.std * np.exp2(c.observation_bits))
    scales = [multiplier_and_shift(float(f)) for f in factors]
    for ch, (_, shift) in zip(c.observations, scales):
        if shift < -30:
            raise RangeError(f"{ch.name} needs more than its {ch.fraction_bits} fraction bits: one step of it spans the whole input")
    return Input(np.array(mean, np.int32), np.array([m for m, _ in scales], np.int32), np.array([s for _, s in scales], np.int8), 0, -127, 127)


def _weight_scales(layer: Layer, scale_in: float) -> Floats:
    """(outputs,) scale of each row of weights; a row of zeros takes the smallest of the others, so that it costs them nothing."""
    scale = np.maximum(np.abs(layer.weight).max(1) / 127.0, np.abs(layer.bias) / (scale_in * BIAS_LIMIT))
    if scale.max() > LARGEST_SCALE:
        raise RangeError(f"a layer has weights or biases up to {scale.max() * 127:g}: the training diverged, or the numbers need another unit")
    alive = scale > SMALLEST_SCALE
    scale = np.where(alive, scale, scale[alive].min() if alive.any() else SMALLEST_SCALE)
    result: Floats = np.float32(scale).astype(np.float64)
    return result


def _output_scale(wanted: float, floor: float) -> float:
    """A layer's step as a float32 number, not below ``floor``, where its multiplier would reach 1."""
    scale = max(wanted, floor, SMALLEST_SCALE)
    if not scale <= LARGEST_SCALE:
        raise RangeError(f"a layer's outputs reach {scale * 127:g}: the training diverged, or the numbers need another unit")
    return float(np.float32(scale))


def _dense(layer: Layer, y: Floats, x: _Activations, scales: Scales, zero: int, wide: bool) -> Dense:
    """A layer in integers; its bias makes the mean error on the calibration zero (Nagel et al., 2019, arXiv 1906.04721, section 4.2)."""
    scales = scales.settled(wide)
    weight = np.clip(np.rint(layer.weight / scales.weight[:, None]), -127, 127).astype(np.int8)
    corrected = (y - x.values @ (weight * scales.weight[:, None]).T).mean(0)
    bias = np.rint(corrected / (scales.input * scales.weight)).astype(np.int64)
    folded = (bias - x.zero * weight.astype(np.int64).sum(1)).astype(np.int32)
    low, high = (-32768, 32767) if wide else (zero if layer.activation == "relu" else -128, 127)
    return Dense(weight, folded, *scales.multipliers(wide), zero, low, high, wide, x.zero, scales)


def _extent(y: Floats) -> tuple[float, float]:
    """Lowest and highest output of a layer, 0 among them, but for the outliers of the calibration."""
    low, high = np.quantile(y.min(1), OUTLIERS), np.quantile(y.max(1), 1 - OUTLIERS)
    return min(float(low), 0.0), max(float(high), 0.0)


def _hidden(layer: Layer, y: Floats, x: _Activations) -> tuple[Dense, float, int]:
    """An int8 layer, and the scale and zero point of its output."""
    scale_w = _weight_scales(layer, x.scale)
    floor = x.scale * float(scale_w.max()) * (1 + 1e-6)
    low, high = _extent(y)
    if layer.activation == "relu":
        scale, zero = high / 255.0, -128
    elif layer.activation == "tanh":
        scale, zero = min(max(-low, high), TANH_REACH) / 127.0, 0
    else:
        scale = (high - low) / 255.0
        zero = int(np.clip(np.rint(-128 - low / scale), -128, 127)) if scale > floor else 0
    scale = _output_scale(scale, floor)
    scale = Lookup.tanh_scale(scale) if layer.activation == "tanh" else scale
    return _dense(layer, y, x, Scales(x.scale, scale_w, scale), zero, wide=False), scale, zero


def _head(policy: Policy, layer: Layer, y: Floats, x: _Activations) -> list[Op]:
    """The int16 layer and what follows it."""
    c, head = policy.contract, policy.head
    if head.kind != "discrete":
        sign = np.where(head.scale < 0, -1.0, 1.0)
        layer, y = Layer(layer.weight * sign[:, None], layer.bias * sign, "none"), y * sign
    scale_w = _weight_scales(layer, x.scale)
    floor = x.scale / (1 << LIFT) * float(scale_w.max()) * (1 + 1e-6)
    if head.kind == "tanh":
        if floor > TANH_SCALE:
            raise RangeError(f"the last layer's weights are too large for a tanh head: one step is {floor:g} of its input, at most {TANH_SCALE:g}")
        scale = TANH_SCALE
    elif head.kind == "clip":
        scale = _clip_reach(policy, y) / 32767.0
    else:
        scale = max(map(abs, _extent(y))) * INPUT_MARGIN / 32767.0
    scale = _output_scale(scale, floor)
    ops: list[Op] = [_dense(layer, y, x, Scales(x.scale, scale_w, scale), 0, wide=True)]
    if head.kind == "discrete":
        return [*ops, Argmax(c.level_ints)]
    if head.kind == "tanh":
        ops.append(Lookup16.tanh(len(layer.bias)))
        scale = 2.0**-15
    pairs = [multiplier_and_shift(float(abs(g) * scale * 2.0**ch.fraction_bits)) for g, ch in zip(head.scale, c.actions)]
    for ch, (_, s) in zip(c.actions, pairs):
        if s < -15:
            raise RangeError(
                f"{ch.name}: the head's scale with {ch.fraction_bits} fraction bits needs more than a 16-bit head: use fewer, or a smaller scale"
            )
    offset = np.array([fixed(v, ch.fraction_bits, ACTION_LIMIT, f"offset of {ch.name}") for v, ch in zip(head.offset, c.actions)], np.int32)
    affine = Affine(np.array([m for m, _ in pairs], np.int32), np.array([s for _, s in pairs], np.int8), offset, c.action_low, c.action_high)
    return [*ops, affine]


def _clip_reach(policy: Policy, y: Floats) -> float:
    """Largest output magnitude that matters: beyond it every action is clamped."""
    c, head = policy.contract, policy.head
    low, high = np.array([ch.low for ch in c.actions]), np.array([ch.high for ch in c.actions])
    span = np.maximum(np.abs(low - head.offset), np.abs(high - head.offset))
    needed = np.where(head.scale != 0, span / np.where(head.scale == 0, 1.0, np.abs(head.scale)), 0.0)
    return float(max(np.minimum(needed * 1.02, max(map(abs, _extent(y))) * INPUT_MARGIN).max(), 1e-6))
