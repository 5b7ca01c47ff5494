"""The float policy in ONNX's own operators: layers, cells and heads, shared by the float, QDQ and verification models."""

from __future__ import annotations

import math

import numpy as np

from puffer_edge.contract import Contract
from puffer_edge.export.onnx_graph import Graph
from puffer_edge.integer.ops import Array
from puffer_edge.layers import AnyLayer, Conv, Layer, Pool, Recurrent
from puffer_edge.policy import Policy

GRU_ORDER = (1, 0, 2)
"""ONNX's blocks z, r, n among torch's r, z, n."""
LSTM_ORDER = (0, 3, 1, 2)
"""ONNX's blocks i, o, f, g among torch's i, f, g, o."""


def float_model(policy: Policy) -> bytes:
    """A policy in float32.

    Input ``observation`` [batch, n] float32, in physical units. Outputs ``action`` [batch, m] float32 in physical units, inside
    the contract's range, and for a discrete head ``choice`` [batch] int64 (multi-discrete: [batch, m]). A policy with memory has a
    further input ``memory`` [batch, k] float32, zeros at the start, and a further output ``memory_out``, the next one. An
    observation that is NaN gives nothing of use.

    Raises:
        MissingExtra: the package onnx is not installed.
        RangeError: a number of the policy does not fit float32.
    """
    g = Graph()
    x = normalised(g, policy, g.input("observation", np.float32, policy.contract.n_observations))
    cells = iter(memories(g, policy))
    kept = []
    for k, layer in enumerate(policy.layers):
        if isinstance(layer, Recurrent):
            x, after = _cell(g, k, layer, x, next(cells))
            kept.append(after)
        else:
            x = activated(g, _linear(g, k, layer, x), layer)
    head(g, policy, x, kept)
    return g.model("policy", policy.contract, {})


def normalised(g: Graph, policy: Policy, x: str) -> str:
    """The normaliser."""
    norm = policy.normalizer
    x = g.emit("Sub", x, g.floats("the normaliser's mean", norm.mean))
    x = g.emit("Div", x, g.floats("the normaliser's std", norm.std, positive=True))
    return g.emit("Clip", x, g.floats("clip", -norm.clip), g.floats("clip", norm.clip))


def memories(g: Graph, policy: Policy) -> list[str]:
    """The memory of every recurrent layer, [batch, its own], with the input declared; nothing for a memoryless policy."""
    cells = [layer.memory for layer in policy.layers if isinstance(layer, Recurrent)]
    return g.split(g.input("memory", np.float32, policy.memory), *cells) if cells else []


def activated(g: Graph, x: str, layer: AnyLayer) -> str:
    """A layer's activation."""
    kind = getattr(layer, "activation", "none")
    if kind == "none":
        return x
    if kind == "silu":
        return g.emit("Mul", x, g.emit("Sigmoid", x))
    if kind == "gelu":
        bell = g.emit("Erf", g.emit("Mul", x, g.floats("a constant", 1 / math.sqrt(2))))
        return g.emit("Mul", g.emit("Mul", x, g.floats("a constant", 0.5)), g.emit("Add", bell, g.floats("a constant", 1.0)))
    slope = {"alpha": 0.01} if kind == "leaky_relu" else {}
    return g.emit({"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "elu": "Elu", "leaky_relu": "LeakyRelu"}[kind], x, **slope)


def _linear(g: Graph, k: int, layer: AnyLayer, x: str) -> str:
    """A layer without memory, before its activation."""
    if isinstance(layer, Pool):
        return pool(g, layer, x)
    assert isinstance(layer, (Layer, Conv))
    bias = g.floats(f"a bias of layer {k}", layer.bias)
    if isinstance(layer, Conv):
        return conv(g, layer, g.reshape(x, *layer.shape), g.floats(f"a weight of layer {k}", layer.weight), bias)
    return g.emit("Add", g.emit("MatMul", x, g.floats(f"a weight of layer {k}", layer.weight.T)), bias)


def conv(g: Graph, layer: Conv, x: str, weight: str, bias: str) -> str:
    """A convolution of an image by a named weight and bias, to a flat result."""
    attributes = {"strides": layer.stride, "pads": layer.padding, "group": layer.shape[0] if layer.depthwise else 1}
    y = g.emit("Conv", x, weight, bias, kernel_shape=layer.weight.shape[2:], **attributes)
    return g.reshape(y, layer.n_out)


def pool(g: Graph, layer: Pool, x: str) -> str:
    """Global pooling, flat to flat."""
    operator = {"average": "GlobalAveragePool", "max": "GlobalMaxPool"}[layer.kind]
    return g.reshape(g.emit(operator, g.reshape(x, *layer.shape)), layer.n_out)


def _blocks(values: Array, order: tuple[int, ...]) -> Array:
    """Blocks of rows in another order."""
    parts = np.split(values, len(order))
    result: Array = np.concatenate([parts[k] for k in order])
    return result


def _cell(g: Graph, k: int, layer: Recurrent, x: str, memory: str) -> tuple[str, str]:
    """One step of ONNX's GRU or LSTM: the output and the next memory."""
    order = GRU_ORDER if layer.kind == "gru" else LSTM_ORDER
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    given, kept, bias, more = (_blocks(getattr(layer, name), order) for name in names)
    first = g.constant([0], np.int64)
    tensors = [g.emit("Unsqueeze", x, first)]
    tensors += [g.floats(f"a weight of layer {k}", w[None]) for w in (given, kept)]
    tensors += [g.floats(f"a bias of layer {k}", np.concatenate([bias, more])[None]), ""]
    state = g.split(memory, *[layer.n_out] * (layer.memory // layer.n_out))
    tensors += [g.emit("Unsqueeze", part, first) for part in state]
    kind = {"linear_before_reset": 1} if layer.kind == "gru" else {}
    _, *after = g.emit_many(layer.kind.upper(), 1 + len(state), *tensors, hidden_size=layer.n_out, **kind)
    parts = [g.emit("Squeeze", part, first) for part in after]
    return parts[0], g.join(*parts)


def head(g: Graph, policy: Policy, x: str, memories: list[str]) -> None:
    """The last layer's outputs to physical actions; every output is declared here."""
    c = policy.contract
    if c.head in ("discrete", "multi_discrete"):
        _choices(g, c, x)
    else:
        g.output("action", limited(g, policy, x), np.float32, c.n_actions)
    if memories:
        g.output("memory_out", g.join(*memories), np.float32, policy.memory)


def limited(g: Graph, policy: Policy, x: str) -> str:
    """A continuous head: physical actions inside the contract's range."""
    c = policy.contract
    low, high = (g.floats(f"an action's {end}", [getattr(ch, end) for ch in c.actions]) for end in ("low", "high"))
    return g.emit("Min", g.emit("Max", scaled(g, policy, x), low), high)


def scaled(g: Graph, policy: Policy, x: str) -> str:
    """A continuous head before the clamp: ``offset + scale · y``, of tanh(y) for a head of that kind."""
    x = g.emit("Tanh", x) if policy.head.kind == "tanh" else x
    x = g.emit("Mul", x, g.floats("the head's scale", policy.head.scale))
    return g.emit("Add", x, g.floats("the head's offset", policy.head.offset))


def _choices(g: Graph, c: Contract, x: str) -> None:
    if c.head == "discrete":
        choice = g.emit("ArgMax", x, axis=1, keepdims=0)
        g.output("action", g.emit("Gather", g.floats("a level", c.levels), choice, axis=0), np.float32, c.n_actions)
        return g.output("choice", choice, np.int64)
    groups = g.split(x, *[len(row) for row in c.levels])
    picked = [g.emit("ArgMax", group, axis=1, keepdims=1) for group in groups]
    levels = [g.emit("Gather", g.floats("a level", row), choice, axis=0) for row, choice in zip(c.levels, picked)]
    g.output("action", g.join(*levels), np.float32, c.n_actions)
    return g.output("choice", g.join(*picked), np.int64, c.n_actions)
