"""Policy to program: scales from calibration observations, then weights and activations of a profile's width, and an int16 head.

The scheme is TensorFlow Lite's full-integer one (Jacob et al., 2018, arXiv 1712.05877) with per-channel weights; the
normaliser becomes the input step, whose per-feature ranges are folded into the first layer's weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import InvalidInput, RangeError
from puffer_edge.integer.cells import recurrent
from puffer_edge.integer.images import convolution, filter_scales, pooling
from puffer_edge.integer.ops import Op
from puffer_edge.integer.ops.affine import Affine
from puffer_edge.integer.ops.argmax import Argmax
from puffer_edge.integer.ops.choices import Choices
from puffer_edge.integer.ops.dense import LIFT, Dense, Scales
from puffer_edge.integer.ops.input import Input
from puffer_edge.integer.ops.lookup import Lookup
from puffer_edge.integer.ops.lookup16 import TANH_SCALE, Lookup16
from puffer_edge.integer.ops.tanh16 import Tanh16
from puffer_edge.integer.program import Program
from puffer_edge.integer.rounding import multiplier_and_shift
from puffer_edge.integer.scales import (
    MARGIN,
    PROFILES,
    RANGES,
    TANH_REACH,
    Profile,
    Seen,
    bias_limit,
    channels_last,
    extent,
    output_scale,
    over_time,
    run_op,
    weight_scales,
    whole_bias,
)
from puffer_edge.layers import ACTIVATIONS, AnyLayer, Conv, Layer, Pool, Recurrent
from puffer_edge.policy import Policy
from puffer_edge.spaces import ACTION_LIMIT, OBSERVATION_LIMIT, Bools, Floats, fixed

TANH16_SCALE = 2.0**-12
"""Scale of the int16 that goes into a tanh of int16 layers: TFLite's Q3.12."""


@dataclass(frozen=True)
class Quantization:
    """How well a program follows its policy on the calibration observations.

    Attributes:
        program: the result.
        agreement: share of observations with the same discrete choice; for continuous heads, within 1 % of the range.
        median_action_error: median difference of an action, as a share of its range.
        worst_action_error: largest difference of an action, as a share of its range.
        saturated: share of input values that the input step clamps.
        saturation: of each operation that can clamp, by place and name, how many values of how many lie at an end of its range.
    """

    program: Program
    agreement: float
    median_action_error: float
    worst_action_error: float
    saturated: float
    saturation: dict[str, tuple[int, int]]


def quantize(
    policy: Policy,
    observations: npt.ArrayLike,
    starts: npt.ArrayLike | None = None,
    profile: str = "int8",
    ranges: str | Sequence[str] = "percentile",
) -> Program:
    """A policy in integers, calibrated on observations of its own rollouts.

    Args:
        policy: the float policy.
        observations: (N, n_observations) physical observations; more and more varied ones give better scales. For a policy with
            memory they are in order of time.
        starts: (N,) whether a row begins an episode, where memory is cleared; None: only the first does.
        profile: "int8"; "int16x8", activations of 16 bits; "int4", weights of 4 bits; "shift", scales that are powers of two.
        ranges: how a range is read off the calibration: "minmax", "percentile" or "tight"; one for all, or one for the input and
            one for each layer.

    Raises:
        InvalidInput: no observations, or NaN or infinite ones; an unknown profile or range.
        RangeError: a scale does not fit 31 bits and a shift, or an accumulator int32.
        Unsupported: values are reshaped into an image in an order that no layer before can give.
    """
    how, outliers = _profile(profile), _outliers(policy, ranges)
    seen, ints, first = _calibration(policy, observations, starts)
    layers, step, flow = _input(policy, how, seen, ints, first, outliers[0])
    ops: list[Op] = [step]
    for k, (layer, following) in enumerate(zip(layers, layers[1:])):
        made, flow = _hidden(layer, following, flow, how, outliers[k + 1])
        ops += made
    last = layers[-1]
    assert isinstance(last, Layer)
    ops += _head(policy, last, flow, how, outliers[-1])
    return Program(policy.contract, tuple(ops))


def measure(policy: Policy, program: Program, observations: npt.ArrayLike, starts: npt.ArrayLike | None = None) -> Quantization:
    """Compare a program with its policy, observation by observation, each with its own memory.

    Args:
        policy: the float policy.
        program: its integers.
        observations: (N, n_observations) physical observations.
        starts: (N,) whether a row begins an episode; None: only the first does.
    """
    c = policy.contract
    _, ints, first = _calibration(policy, observations, starts)
    physical = c.physical_observation(ints)
    wanted = over_time(policy.act_step, physical, first, np.zeros((1, policy.memory))) if policy.memory else policy.act(physical)
    saturation, x, inside = {}, ints, 0.0
    for k, op in enumerate(program.ops):
        x = run_op(op, x, first)
        low, high = getattr(op, "low", None), getattr(op, "high", None)
        if isinstance(low, int) and isinstance(high, int):
            at_end = (x == high) | ((x == low) & (low != getattr(op, "zero", 0)))  # the lower end of a ReLU is no loss
            saturation[f"{k} {type(op).__name__.lower()}"] = (int(at_end.sum()), at_end.size)
            inside = float(at_end.mean()) if k == 0 else inside
    error = (np.abs(c.physical_action(x) - wanted) / np.array([ch.high - ch.low for ch in c.actions])).max(1)
    return Quantization(program, float((error <= 0.01).mean()), float(np.median(error)), float(error.max()), inside, saturation)


def _profile(name: str) -> Profile:
    if name not in PROFILES:
        raise InvalidInput(f"unknown profile {name!r}: one of {', '.join(PROFILES)}")
    return PROFILES[name]


def _outliers(policy: Policy, ranges: str | Sequence[str]) -> list[float]:
    """The share of outliers of the input and of each layer."""
    names = [ranges] * (len(policy.layers) + 1) if isinstance(ranges, str) else list(ranges)
    if isinstance(ranges, str) and ranges not in RANGES:
        raise InvalidInput(f"unknown ranges {ranges!r}: one of {', '.join(RANGES)}")
    unknown = [name for name in names if name not in RANGES]
    if unknown or len(names) != len(policy.layers) + 1:
        wanted = f"{len(policy.layers) + 1} of {', '.join(RANGES)}: one for the input and one for each layer"
        raise InvalidInput(f"ranges must be {wanted}, not {', '.join(map(str, names))}")
    return [RANGES[name] for name in names]


def _calibration(policy: Policy, observations: npt.ArrayLike, starts: npt.ArrayLike | None) -> tuple[Floats, npt.NDArray[np.int32], Bools]:
    """Checked observations, what a device sees of them, and where episodes begin."""
    seen = np.asarray(observations, np.float64)
    if seen.ndim != 2 or not len(seen):
        raise InvalidInput(f"calibration needs observations of shape (N, {policy.contract.n_observations}), not {seen.shape}")
    ints, _, invalid = policy.contract.observe(seen)
    if invalid.any():
        raise InvalidInput(f"{int(invalid.sum())} calibration observations are NaN or infinite")
    first = np.zeros(len(seen), bool) if starts is None else np.array(starts, bool)
    if first.shape != (len(seen),):
        raise InvalidInput(f"starts must say of each of {len(seen)} observations whether it begins an episode, not have shape {first.shape}")
    first[0] = True
    return seen, ints, first


def _input(
    policy: Policy, how: Profile, seen: Floats, ints: npt.NDArray[np.int32], starts: Bools, outliers: float
) -> tuple[list[AnyLayer], Input, Seen]:
    """The layers with the input's ranges folded in, the input step, and what it makes of the calibration."""
    z = policy.normalizer(policy.contract.physical_observation(ints))
    first = policy.layers[0]
    order = channels_last(first.shape) if isinstance(first, (Conv, Pool)) else np.zeros(0, np.int64)
    centre, reach = _shared_range(first, *_feature_range(policy, z, outliers, how), how)
    step = _input_step(policy, centre, reach, how, tuple(int(k) for k in order))
    scale = how.input_scale
    sound = np.ones(len(z), bool)
    if isinstance(first, Pool):  # it has no weights that could take the range up
        return list(policy.layers), step, Seen(z, step.run(ints), how.settled(scale * float(reach[0])), 0, order, starts, sound)
    return [_folded(first, centre, reach), *policy.layers[1:]], step, Seen((z - centre) / reach, step.run(ints), scale, 0, order, starts, sound)


def _folded(first: AnyLayer, centre: Floats, reach: Floats) -> AnyLayer:
    """The first layer on ``(z − centre) / reach`` in place of z."""
    if isinstance(first, Layer):
        return Layer(first.weight * reach, first.bias + first.weight @ centre, first.activation)
    if isinstance(first, Recurrent):
        return dataclasses.replace(first, weight_ih=first.weight_ih * reach, bias_ih=first.bias_ih + first.weight_ih @ centre)
    if isinstance(first, Conv):
        by_channel = reach.reshape(first.shape[0], -1)[:, 0]
        factor = np.repeat(by_channel, len(first.bias) // first.shape[0])[:, None] if first.depthwise else by_channel[None]
        return dataclasses.replace(first, weight=first.weight * factor[..., None, None])
    return first


def _shared_range(first: AnyLayer, centre: Floats, reach: Floats, how: Profile) -> tuple[Floats, Floats]:
    """For images, a range around 0: one a channel for a convolution (zero padding stays 0), one for all for a pool."""
    if not isinstance(first, (Conv, Pool)):
        return centre, reach
    farthest = (np.abs(centre) + reach).reshape(first.shape[0], -1).max(1)
    if isinstance(first, Pool):
        farthest[:] = np.exp2(np.ceil(np.log2(farthest.max()))) if how.powers else farthest.max()
    return np.zeros_like(centre), np.repeat(farthest, first.shape[1] * first.shape[2])


def _feature_range(policy: Policy, z: Floats, outliers: float, how: Profile) -> tuple[Floats, Floats]:
    """(n,) centre and (n,) half width of the normalised range that each input represents.

    The centre lies a whole number of steps from the median of the calibration: where a policy spends most of its time, mostly
    its equilibrium, the input is exact.
    """
    c, norm = policy.contract, policy.normalizer
    lowest, highest = (norm(c.physical_observation(bound)) for bound in (c.observation_low, c.observation_high))
    low, high = np.quantile(z, [outliers, 1 - outliers], axis=0)
    margin = (high - low) * (MARGIN - 1) / 2
    constant = high - low < 1e-6
    low, high = np.where(constant, lowest, np.maximum(low - margin, lowest)), np.where(constant, highest, np.minimum(high + margin, highest))
    reach = np.maximum((high - low) / 2, 1e-6) * how.per_unit / (how.top - 0.5)
    step, middle, median = reach / how.per_unit, (low + high) / 2, np.median(z, axis=0)
    return median - np.rint((median - middle) / step) * step, reach


def _input_step(policy: Policy, centre: Floats, reach: Floats, how: Profile, order: tuple[int, ...]) -> Input:
    c, norm = policy.contract, policy.normalizer
    means = norm.mean + centre * norm.std
    mean = np.array([fixed(v, ch.fraction_bits, OBSERVATION_LIMIT, f"mean of {ch.name}") for v, ch in zip(means, c.observations)], np.int32)
    factors = how.per_unit / (reach * norm.std * np.exp2(c.observation_bits))
    scales = [multiplier_and_shift(float(f)) for f in factors]
    for ch, (_, shift) in zip(c.observations, scales):
        if shift < -30:
            raise RangeError(f"{ch.name} needs more than its {ch.fraction_bits} fraction bits: one step of it spans the whole input")
    multiplier, shifts = np.array([m for m, _ in scales], np.int32), np.array([s for _, s in scales], np.int8)
    picked: Any = list(order) or slice(None)
    return Input(mean[picked], multiplier[picked], shifts[picked], 0, -how.top, how.top, how.x16, order)


def _hidden(layer: AnyLayer, following: AnyLayer, seen: Seen, how: Profile, outliers: float) -> tuple[list[Op], Seen]:
    """The operations of a layer that is not the last, and what they make of the calibration."""
    if isinstance(layer, Recurrent):
        cell, flow = recurrent(layer, seen, how)
        return [cell], flow
    if isinstance(layer, Pool):
        pool, flow = pooling(layer, layer(seen.x), seen, how)
        return [pool], flow
    y = layer.linear(seen.x)
    if isinstance(layer, Conv):
        order, steps = channels_last(layer.out_shape), filter_scales(layer, seen.scale, how)
    else:
        order = channels_last(following.shape) if isinstance(following, (Conv, Pool)) else np.zeros(0, np.int64)
        steps = weight_scales(layer.weight, layer.bias, seen.scale, how, bias_limit(layer.n_in, how))
    scale, zero = _output(layer.activation, extent(y, outliers), seen.scale * float(steps.max()) * (1 + 1e-6), how)
    scales = Scales(seen.scale, steps, scale)
    if isinstance(layer, Conv):
        op: Op = convolution(layer, y, seen, scales if how.powers else scales.settled(False), zero, how)
    else:
        rows: Any = order if len(order) else slice(None)
        ordered = Layer(layer.weight[rows], layer.bias[rows], layer.activation)
        op = _dense(ordered, y[:, rows], seen, dataclasses.replace(scales, weight=steps[rows]), zero, False, how)
    ops, scale, zero = _activated(layer.activation, op, scale, zero, extent(ACTIVATIONS[layer.activation](y), outliers), how)
    codes = seen.codes
    for each in ops:
        codes = each.run(codes)
    return ops, Seen(ACTIVATIONS[layer.activation](y), codes, scale, zero, order, seen.starts, seen.held)


def _output(activation: str, reach: tuple[float, float], floor: float, how: Profile) -> tuple[float, int]:
    """Scale and zero point of a layer's sums, before a table makes the activation of them."""
    low, high = reach
    if activation == "tanh" and how.x16:
        if floor > TANH16_SCALE:
            raise RangeError(f"weights before a tanh are too large: one step is {floor:g} of its input, at most {TANH16_SCALE:g}")
        return TANH16_SCALE, 0
    if activation == "tanh":
        scale = output_scale(min(max(-low, high), TANH_REACH) / 127.0, floor, how)
        return (scale if how.powers else Lookup.tanh_scale(scale)), 0
    if how.x16:
        return output_scale((high if activation == "relu" else max(-low, high)) / 32767.0, floor, how), 0
    if activation == "relu":
        return output_scale(high / 255.0, floor, how), -128
    scale, zero = _asymmetric(low, high, floor, how)
    if activation == "sigmoid" and not how.powers:  # its result's scale is fixed: only this one can move
        scale = Lookup.settled(lambda s: ACTIVATIONS["sigmoid"](s * (np.arange(-128.0, 128.0) - zero)) * 256.0, scale)
    return scale, zero


def _asymmetric(low: float, high: float, floor: float, how: Profile) -> tuple[float, int]:
    """Scale and zero point of int8 values that cover [low, high], with 0 among them."""
    scale = output_scale((high - low) / 255.0, floor, how)
    return scale, int(np.clip(np.rint(-128 - low / scale), -128, 127))


def _activated(activation: str, op: Op, scale: float, zero: int, reach: tuple[float, float], how: Profile) -> tuple[list[Op], float, int]:
    """A layer's operation with the table of its activation, and scale and zero point of the result."""
    if activation in ("none", "relu"):
        return [op], scale, zero
    if activation == "tanh":
        return ([op, Tanh16(op.n_out)], 2.0**-15, 0) if how.x16 else ([op, Lookup.tanh(scale, op.n_out)], 1 / 128, 0)
    function, (low, high) = ACTIVATIONS[activation], reach
    if how.x16:
        out = 2.0**-15 if activation == "sigmoid" else output_scale(max(-low, high) / 32767.0, 0.0, how)
        return [op, Lookup16.of(function, scale, out, op.n_out)], out, 0
    out, at = (1 / 256, -128) if activation == "sigmoid" else _asymmetric(low, high, 0.0, how)
    if activation != "sigmoid" and not how.powers:
        out = Lookup.settled(lambda s: function(scale * (np.arange(-128.0, 128.0) - zero)) / s, out)
    return [op, Lookup.of(function, scale, zero, out, at, op.n_out)], out, at


def _dense(layer: Layer, y: Floats, seen: Seen, scales: Scales, zero: int, wide: bool, how: Profile) -> Dense:
    """A layer in integers; its bias makes the mean error on the calibration zero (Nagel et al., 2019, arXiv 1906.04721, section 4.2).

    Args:
        layer: rows in the program's order, columns in the policy's.
        y: (N, outputs) float sums in the order of the rows.
        seen: what it receives.
        scales: of input, rows of weights, and output.
        zero: zero point of the output.
        wide: int16 output from int8 input.
        how: the profile.
    """
    scales = scales if how.powers else scales.settled(wide)
    top = 7 if how.bits == 4 else 127
    weight = np.clip(np.rint(seen.columns(layer.weight) / scales.weight[:, None]), -top, top).astype(np.int8)
    corrected = (y - seen.coded @ (weight * scales.weight[:, None]).T)[seen.held].mean(0)
    folded = whole_bias(corrected, scales.input * scales.weight, seen.zero * weight.astype(np.int64).sum(1))
    limit = 32768 if wide or how.x16 else 128
    low = zero if layer.activation == "relu" else -limit
    multiplier, shift = scales.shifts(wide) if how.powers else scales.multipliers(wide)
    return Dense(weight, folded, multiplier, shift, zero, low, limit - 1, wide, seen.zero, scales, how.x16, how.bits)


def _head(policy: Policy, layer: Layer, seen: Seen, how: Profile, outliers: float) -> list[Op]:
    """The int16 layer and what follows it."""
    c, head, y = policy.contract, policy.head, layer.linear(seen.x)
    if head.kind in ("clip", "tanh"):
        sign = np.where(head.scale < 0, -1.0, 1.0)
        layer, y = Layer(layer.weight * sign[:, None], layer.bias * sign, "none"), y * sign
    steps = weight_scales(layer.weight, layer.bias, seen.scale, how, bias_limit(layer.n_in, how))
    floor = seen.scale / (1 if how.x16 else 1 << LIFT) * float(steps.max()) * (1 + 1e-6)
    if head.kind == "tanh":
        if floor > TANH_SCALE:
            raise RangeError(f"the last layer's weights are too large for a tanh head: one step is {floor:g} of its input, at most {TANH_SCALE:g}")
        scale = TANH_SCALE
    elif head.kind == "clip":
        scale = _clip_reach(policy, y, outliers) / 32767.0
    else:
        scale = max(map(abs, extent(y, outliers))) * MARGIN / 32767.0
    scale = output_scale(scale, floor, how)
    ops: list[Op] = [_dense(layer, y, seen, Scales(seen.scale, steps, scale), 0, not how.x16, how)]
    if head.kind == "discrete":
        return [*ops, Argmax(c.level_ints)]
    if head.kind == "multi_discrete":
        return [*ops, Choices(tuple(len(row) for row in c.levels), c.level_ints)]
    if head.kind == "tanh":
        ops.append(Lookup16.tanh(len(layer.bias)))
        scale = 2.0**-15
    return [*ops, _action_map(policy, scale)]


def _action_map(policy: Policy, scale: float) -> Affine:
    """int16 of this scale to the contract's fixed point."""
    c, head = policy.contract, policy.head
    pairs = [multiplier_and_shift(float(abs(g) * scale * 2.0**ch.fraction_bits)) for g, ch in zip(head.scale, c.actions)]
    for ch, (_, s) in zip(c.actions, pairs):
        if s < -15:
            raise RangeError(
                f"{ch.name}: the head's scale with {ch.fraction_bits} fraction bits needs more than a 16-bit head: use fewer, or a smaller scale"
            )
    offset = np.array([fixed(v, ch.fraction_bits, ACTION_LIMIT, f"offset of {ch.name}") for v, ch in zip(head.offset, c.actions)], np.int32)
    return Affine(np.array([m for m, _ in pairs], np.int32), np.array([s for _, s in pairs], np.int8), offset, c.action_low, c.action_high)


def _clip_reach(policy: Policy, y: Floats, outliers: float) -> float:
    """Largest output magnitude that matters: beyond it every action is clamped."""
    c, head = policy.contract, policy.head
    low, high = np.array([ch.low for ch in c.actions]), np.array([ch.high for ch in c.actions])
    span = np.maximum(np.abs(low - head.offset), np.abs(high - head.offset))
    needed = np.where(head.scale != 0, span / np.where(head.scale == 0, 1.0, np.abs(head.scale)), 0.0)
    return float(max(np.minimum(needed * 1.02, max(map(abs, extent(y, outliers))) * MARGIN).max(), 1e-6))
