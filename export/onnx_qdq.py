"""QDQ in the form that TensorRT takes: symmetric int8 around every product, biases in float.

It is quantised from the float policy, not from the program: TensorRT accepts no zero points and no int16. Weights are int8 per
channel, activations int8 per tensor, at scales that cover what the policy makes of its calibration observations; a cell's hidden
state lies in ±1 by its equations. Biases are corrected so that the mean error of a layer on the calibration is zero (Nagel et al.,
2019, arXiv 1906.04721, section 4.2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import InvalidInput
from puffer_edge.export import onnx_float
from puffer_edge.export.onnx_graph import Graph
from puffer_edge.integer.ops import Array
from puffer_edge.integer.scales import over_time
from puffer_edge.layers import AnyLayer, Conv, Layer, Pool, Recurrent
from puffer_edge.policy import Policy
from puffer_edge.spaces import Bools, Floats

OUTLIERS = 5e-4
"""Share of the calibration that may saturate: a few freak readings must not cost everybody precision."""
MARGIN = 1.1
"""Observations up to this factor beyond the calibration's do not saturate."""
SMALLEST = 1e-6


def qdq_model(policy: Policy, observations: npt.ArrayLike, starts: npt.ArrayLike | None = None) -> bytes:
    """A policy with QuantizeLinear and DequantizeLinear around its products: inputs and outputs as of ``float_model``.

    Its actions are not the program's; ``benchmarks/results/onnx_parity.json`` says how far from the float policy both are.

    Args:
        policy: the float policy.
        observations: (N, n_observations) physical observations of its own rollouts, in order of time.
        starts: (N,) whether a row begins an episode; None: only the first does.

    Raises:
        MissingExtra: the package onnx is not installed.
        InvalidInput: no observations, or NaN or infinite ones.
        RangeError: a number of the policy does not fit float32.
    """
    seen = np.asarray(observations, np.float64)
    if seen.ndim != 2 or not len(seen) or not np.isfinite(seen).all():
        raise InvalidInput(f"QDQ needs finite calibration observations of shape (N, {policy.contract.n_observations}), not {seen.shape}")
    g = Graph()
    centre, reach = _input_range(policy, seen)
    inputs = _layer_inputs(policy, seen, np.zeros(len(seen), np.bool_) if starts is None else np.asarray(starts, np.bool_))
    inputs[0] = (inputs[0] - centre) / reach
    first = _folded(policy.layers[0], centre, reach)
    x = onnx_float.normalised(g, policy, g.input("observation", np.float32, policy.contract.n_observations))
    x = g.emit("Sub", x, g.floats("the centre of an observation", centre))
    x = g.emit("Mul", x, g.floats("the reach of an observation", 1 / reach))
    cells = iter(onnx_float.memories(g, policy))
    kept = []
    for k, layer in enumerate((first, *policy.layers[1:])):
        if isinstance(layer, Recurrent):
            x, after = _cell(g, layer, inputs[k], x, next(cells))
            kept.append(after)
        elif isinstance(layer, Pool):
            x = onnx_float.pool(g, layer, x)
        else:
            x = onnx_float.activated(g, _product(g, layer, inputs[k], x), layer)
    onnx_float.head(g, policy, x, kept)
    return g.model("policy_qdq", policy.contract, {})


def _input_range(policy: Policy, seen: Floats) -> tuple[Floats, Floats]:
    """(n,) centre and (n,) half width of each normalised observation: the calibration's, never beyond the contract's.

    Where the calibration is constant, the contract's range counts. A convolution has one width a channel, and no centre: its padding
    must stay 0. A pool is not quantised.
    """
    c, first, z = policy.contract, policy.layers[0], policy.normalizer(seen)
    if isinstance(first, Pool):
        return np.zeros(z.shape[1]), np.ones(z.shape[1])
    centre = np.zeros(z.shape[1]) if isinstance(first, Conv) else np.median(z, axis=0)
    ends = [policy.normalizer(c.physical_observation(end)) - centre for end in (c.observation_low, c.observation_high)]
    whole = np.abs(ends).max(0)
    reach = np.quantile(np.abs(z - centre), 1 - OUTLIERS, axis=0) * MARGIN
    reach = np.where(reach < SMALLEST, whole, np.minimum(reach, whole))
    if isinstance(first, Conv):
        reach = np.repeat(reach.reshape(first.shape[0], -1).max(1), first.n_in // first.shape[0])
    return centre, np.maximum(reach, SMALLEST)


def _folded(layer: AnyLayer, centre: Floats, reach: Floats) -> AnyLayer:
    """A first layer that takes ``(z − centre) / reach`` in place of z."""
    if isinstance(layer, Layer):
        return Layer(layer.weight * reach, layer.bias + layer.weight @ centre, layer.activation)
    if isinstance(layer, Recurrent):
        return replace(layer, weight_ih=layer.weight_ih * reach, bias_ih=layer.bias_ih + layer.weight_ih @ centre)
    if isinstance(layer, Pool):
        return layer
    channels = reach.reshape(layer.shape[0], -1)[:, 0]
    each = np.repeat(channels, len(layer.bias) // layer.shape[0])[:, None] if layer.depthwise else channels
    return replace(layer, weight=layer.weight * each[..., None, None])


def _layer_inputs(policy: Policy, seen: Floats, starts: Bools) -> list[Floats]:
    """(N, width) what goes into every layer, the memory going on from row to row."""
    x, inputs = policy.normalizer(seen), []
    for layer in policy.layers:
        inputs.append(x)
        x = over_time(layer.step, x, starts, np.zeros((1, layer.memory))) if isinstance(layer, Recurrent) else layer(x)
    return inputs


@dataclass(frozen=True, eq=False)
class _Weights:
    """int8 weights with one scale a channel, the first axis; what they stand for.

    Attributes:
        codes: int8, −127 … 127.
        scale: (channels,).
    """

    codes: Array
    scale: Floats

    @staticmethod
    def of(values: Floats) -> _Weights:
        largest = np.abs(values.reshape(len(values), -1)).max(1) / 127
        scale = np.float32(np.where(largest > 0, largest, 1.0)).astype(np.float64)
        codes = np.clip(np.rint(values / scale.reshape(-1, *[1] * (values.ndim - 1))), -127, 127)
        return _Weights(codes.astype(np.int8), scale)

    @property
    def values(self) -> Floats:
        result: Floats = self.codes * self.scale.reshape(-1, *[1] * (self.codes.ndim - 1))
        return result


def _step(x: Floats) -> float:
    """Scale of an int8 tensor that covers (rows, width) values, but for the outliers."""
    return float(np.float32(max(float(np.quantile(np.abs(x).max(1), 1 - OUTLIERS)), SMALLEST) / 127))


def _coded(x: Floats, step: float) -> Floats:
    """What int8 makes of values."""
    result: Floats = np.clip(np.rint(x / step), -128, 127) * step
    return result


def _quantised(g: Graph, x: str, step: float) -> str:
    """An activation through int8."""
    scale, zero = g.floats("a layer's scale", step, positive=True), g.constant(0, np.int8)
    return g.emit("DequantizeLinear", g.emit("QuantizeLinear", x, scale, zero), scale, zero)


def _constant(g: Graph, weights: _Weights, transposed: bool) -> str:
    """Weights from int8; transposed for a MatMul."""
    codes = weights.codes.T if transposed else weights.codes
    scale, zero = g.floats("a weight's scale", weights.scale, positive=True), g.constant(np.zeros(len(weights.scale)), np.int8)
    return g.emit("DequantizeLinear", g.constant(codes, np.int8), scale, zero, axis=1 if transposed else 0)


def _product(g: Graph, layer: Layer | Conv, seen: Floats, x: str) -> str:
    """A dense layer or convolution before its activation; ``seen`` is its input on the calibration."""
    step, weights = _step(seen), _Weights.of(layer.weight)
    coded = replace(layer, weight=weights.values)
    error = layer.linear(seen) - coded.linear(_coded(seen, step))
    bias = g.floats("a layer's bias", layer.bias + error.reshape(len(seen), len(layer.bias), -1).mean((0, 2)))
    if isinstance(layer, Conv):
        x = _quantised(g, g.reshape(x, *layer.shape), step)
        return onnx_float.conv(g, layer, x, _constant(g, weights, transposed=False), bias)
    return g.emit("Add", g.emit("MatMul", _quantised(g, x, step), _constant(g, weights, transposed=True)), bias)


def _cell(g: Graph, layer: Recurrent, seen: Floats, x: str, memory: str) -> tuple[str, str]:
    """A cell as two quantised products and float gates, torch's equations: the output and the next memory."""
    state = g.split(memory, *[layer.n_out] * (layer.memory // layer.n_out))
    given = _product(g, Layer(layer.weight_ih, layer.bias_ih, "none"), seen, x)
    kept = g.emit("MatMul", _quantised(g, state[0], 1 / 127), _constant(g, _Weights.of(layer.weight_hh), transposed=True))
    kept = g.emit("Add", kept, g.floats("a layer's bias", layer.bias_hh))
    return _gru(g, layer, given, kept, memory) if layer.kind == "gru" else _lstm(g, layer, given, kept, state[1])


def _gru(g: Graph, layer: Recurrent, given: str, kept: str, h: str) -> tuple[str, str]:
    (r, z, n), (hr, hz, hn) = (g.split(part, *[layer.n_out] * 3) for part in (given, kept))
    reset, update = (g.emit("Sigmoid", g.emit("Add", a, b)) for a, b in ((r, hr), (z, hz)))
    new = g.emit("Tanh", g.emit("Add", n, g.emit("Mul", reset, hn)))
    h = g.emit("Add", new, g.emit("Mul", update, g.emit("Sub", h, new)))
    return h, h


def _lstm(g: Graph, layer: Recurrent, given: str, kept: str, c: str) -> tuple[str, str]:
    i, f, new, o = g.split(g.emit("Add", given, kept), *[layer.n_out] * 4)
    admitted = g.emit("Mul", g.emit("Sigmoid", i), g.emit("Tanh", new))
    c = g.emit("Add", g.emit("Mul", g.emit("Sigmoid", f), c), admitted)
    h = g.emit("Mul", g.emit("Sigmoid", o), g.emit("Tanh", c))
    return h, g.join(h, c)
