"""The operations of a program as ONNX nodes, bit for bit: int32 tensors throughout, int64 where a product needs it.

ONNX fixes the result of these operators to the bit. Two habits of ONNX Runtime decide their form: its BitShift refuses signed
integers, and its Div truncates. ``onnx_floor_divide`` is therefore a right shift.
"""

from __future__ import annotations

import numpy as np

from puffer_edge.errors import Unsupported
from puffer_edge.export.onnx_graph import Graph
from puffer_edge.integer import squash
from puffer_edge.integer.ops import INT8_RANGE, INT16_RANGE, Array, Op
from puffer_edge.integer.ops.affine import Affine
from puffer_edge.integer.ops.argmax import Argmax
from puffer_edge.integer.ops.choices import Choices
from puffer_edge.integer.ops.conv import Conv
from puffer_edge.integer.ops.dense import LIFT, Dense
from puffer_edge.integer.ops.gates import Gates
from puffer_edge.integer.ops.gru import Gru
from puffer_edge.integer.ops.input import Input
from puffer_edge.integer.ops.lookup import Lookup
from puffer_edge.integer.ops.lookup16 import Lookup16
from puffer_edge.integer.ops.lstm import HALF, Lstm
from puffer_edge.integer.ops.pool import Pool
from puffer_edge.integer.ops.tanh16 import Tanh16
from puffer_edge.spaces import OBSERVATION_LIMIT


def step(g: Graph, op: Op, x: str, memory: str) -> tuple[str, str]:
    """One operation inside the network: int32 [batch, n_in] and int32 [batch, memory] to the outputs and the next memory.

    Raises:
        Unsupported: the operation has no form here.
    """
    if isinstance(op, Gru):
        return _gru(g, op, x, memory)
    if isinstance(op, Lstm):
        return _lstm(g, op, x, memory)
    return _memoryless(g, op, x), memory


def _memoryless(g: Graph, op: Op, x: str) -> str:
    if isinstance(op, Input):
        return _input(g, op, x)
    if isinstance(op, Dense):
        return _rescaled(g, op, g.emit("Add", g.emit("MatMul", x, g.constant(op.weight.T)), g.constant(op.bias)))
    if isinstance(op, Conv):
        return _conv(g, op, x)
    if isinstance(op, Pool):
        return _pool(g, op, x)
    if isinstance(op, Lookup):
        return g.emit("Gather", g.constant(op.table), g.emit("Add", x, g.constant(128)), axis=0)
    if isinstance(op, Lookup16):
        return _lookup16(g, op, x)
    if isinstance(op, Tanh16):
        return tanh16(g, x)
    if isinstance(op, Affine):
        return _narrow(g, requantise(g, g.cast(x, np.int64), op.multiplier, op.shift), op.offset, op.low, op.high)
    raise Unsupported(f"a {type(op).__name__} has no form in ONNX yet")


def choose(g: Graph, op: Argmax | Choices, x: str) -> tuple[str, str]:
    """A discrete head: int32 [batch, m] actions, and the int64 index of the choice, [batch] or an index an action, [batch, m]."""
    if isinstance(op, Argmax):
        choice = g.emit("ArgMax", x, axis=1, keepdims=0)
        return g.emit("Gather", g.constant(op.levels), choice, axis=0), choice
    choices = g.join(*[g.emit("ArgMax", group, axis=1, keepdims=1) for group in g.split(x, *op.sizes)])
    starts = g.constant(np.cumsum((0, *op.sizes[:-1])), np.int64)
    return g.emit("Gather", g.constant(op.levels), g.emit("Add", choices, starts), axis=0), choices


def requantise(g: Graph, a: str, multiplier: Array, shift: Array) -> str:
    """``puffer_edge.integer.rounding.rescale`` on an int64 tensor: two roundings, or one where there are no multipliers."""
    s = np.asarray(shift, np.int64)
    right, left = np.maximum(s, 0), np.maximum(-s, 0)
    if left.any():
        a = g.emit("Mul", a, g.constant(np.left_shift(np.int64(1), left), np.int64))
    if np.size(multiplier):
        product = g.emit("Add", g.emit("Mul", a, g.constant(multiplier, np.int64)), g.constant(1 << 30, np.int64))
        a = g.floor_divide(product, 1 << 31, np.int64)
    if not right.any():
        return a
    half = np.where(right > 0, np.left_shift(np.int64(1), right) >> 1, 0)
    negative = g.emit("Mul", g.cast(g.emit("Less", a, g.constant(0, np.int64)), np.int64), g.constant(right > 0, np.int64))
    rounded = g.emit("Sub", g.emit("Add", a, g.constant(half, np.int64)), negative)
    return g.floor_divide(rounded, np.left_shift(np.int64(1), right), np.int64)


def logistic16(g: Graph, x: str) -> str:
    """``puffer_edge.integer.squash.logistic16``."""
    v = g.emit("Mul", x, g.constant(3))
    y = _interpolated(g, v, 9, 0x7FFF << 10)
    up, down = g.emit("Add", y, g.constant(1 << 9)), g.emit("Sub", g.constant((1 << 25) + (1 << 9) - 1), y)
    return g.floor_divide(g.emit("Where", g.emit("Less", v, g.constant(0)), down, up), 1 << 10)


def tanh16(g: Graph, x: str, up: int = 0) -> str:
    """``puffer_edge.integer.squash.tanh16``."""
    v = g.emit("Mul", x, g.constant(3 << up))
    y = _interpolated(g, v, 8, 0xFFFF << 8)
    positive = g.emit("Sub", y, g.constant((1 << 23) - (1 << 7)))
    negative = g.emit("Sub", g.constant((1 << 23) + (1 << 7) - 1), y)
    return g.floor_divide(g.emit("Where", g.emit("Less", v, g.constant(0)), negative, positive), 1 << 8)


def _interpolated(g: Graph, v: str, bits: int, beyond: int) -> str:
    """Table and linear interpolation at |v| / 2^bits; ``beyond`` past the table's end."""
    magnitude, width, table = g.emit("Abs", v), g.constant(1 << bits), g.constant(squash.TABLE)
    index = g.floor_divide(magnitude, 1 << bits)
    k = g.emit("Min", index, g.constant(254))
    base, following = g.emit("Gather", table, k, axis=0), g.emit("Gather", table, g.emit("Add", k, g.constant(1)), axis=0)
    part = g.emit("Mul", g.emit("Mod", magnitude, width, fmod=0), g.emit("Sub", following, base))
    inside = g.emit("Add", g.emit("Mul", base, width), part)
    return g.emit("Where", g.emit("Less", index, g.constant(255)), inside, g.constant(beyond))


def _narrow(g: Graph, x: str, offset: Array | int, low: Array | int, high: Array | int) -> str:
    """``clamp(x + offset, low, high)``, from int64 to int32."""
    return g.cast(g.clamp(g.emit("Add", x, g.constant(offset, np.int64)), low, high, np.int64), np.int32)


def _rescaled(g: Graph, op: Dense | Conv, total: str) -> str:
    """An accumulator to the layer's result."""
    total = g.emit("Mul", total, g.constant(1 << LIFT)) if isinstance(op, Dense) and op.wide else total
    return _narrow(g, requantise(g, g.cast(total, np.int64), op.multiplier, op.shift), op.zero, op.low, op.high)


def _input(g: Graph, op: Input, x: str) -> str:
    x = g.pick(x, np.array(op.order)) if op.order else x
    wide = g.emit("Sub", g.cast(x, np.int64), g.constant(op.mean, np.int64))
    wide = g.clamp(wide, -OBSERVATION_LIMIT, OBSERVATION_LIMIT, np.int64)
    return _narrow(g, requantise(g, wide, op.multiplier, op.shift), op.zero, op.low, op.high)


def _positions(op: Conv) -> Array:
    """(positions, kernel, channels) which input each product reads; ``n_in``, one past the last, is what lies outside the image."""
    size = op.geometry
    y = np.arange(size.out_height)[:, None] * size.stride[0] + np.arange(size.kernel[0]) - size.padding[0]
    x = np.arange(size.out_width)[:, None] * size.stride[1] + np.arange(size.kernel[1]) - size.padding[1]
    y, x = y[:, None, :, None, None], x[None, :, None, :, None]
    at = (y * size.width + x) * size.channels + np.arange(size.channels)
    inside = (y >= 0) & (y < size.height) & (x >= 0) & (x < size.width)
    return np.where(inside, at, op.n_in).reshape(size.out_height * size.out_width, -1, size.channels)


def _conv(g: Graph, op: Conv, x: str) -> str:
    """Patches by Gather, then a product of integer matrices, or for a depthwise one a sum over the kernel."""
    size, positions = op.geometry, _positions(op)
    if (positions == op.n_in).any():
        x = g.emit("Pad", x, g.constant([0, 0, 0, 1], np.int64), g.constant(op.zero_in))
    if op.depthwise:
        patches = g.pick(x, np.repeat(positions, size.filters // size.channels, axis=2))
        products = g.emit("Mul", patches, g.constant(op.weight.reshape(size.filters, -1).T))
        total = g.emit("ReduceSum", products, g.constant([2], np.int64), keepdims=0)
    else:
        patches = g.pick(x, positions.reshape(len(positions), -1))
        total = g.emit("MatMul", patches, g.constant(op.weight.reshape(size.filters, -1).T))
    return g.reshape(_rescaled(g, op, g.emit("Add", total, g.constant(op.bias))), op.n_out)


def _pool(g: Graph, op: Pool, x: str) -> str:
    image, axis = g.reshape(x, op.positions, op.channels), g.constant([1], np.int64)
    if op.largest:
        return g.emit("ReduceMax", image, axis, keepdims=0)
    total = g.emit("ReduceSum", image, axis, keepdims=0)
    half = g.emit("Mul", g.emit("Sign", total), g.constant(op.positions // 2))
    return g.emit("Div", g.emit("Add", total, half), g.constant(op.positions))  # truncates, so the magnitude is floored


def _lookup16(g: Graph, op: Lookup16, x: str) -> str:
    """Table and linear interpolation: 32 bits hold a difference of two entries times 127."""
    table, width = g.constant(op.table), g.constant(128)
    k = g.emit("Add", g.floor_divide(x, 128), g.constant(256))
    base, following = g.emit("Gather", table, k, axis=0), g.emit("Gather", table, g.emit("Add", k, g.constant(1)), axis=0)
    part = g.emit("Mul", g.emit("Sub", following, base), g.emit("Mod", x, width, fmod=0))
    y = g.emit("Add", base, g.floor_divide(g.emit("Add", part, g.constant(64)), 128))
    return g.clamp(y, *INT16_RANGE)


def _sum16(g: Graph, a: str, b: str) -> str:
    return g.clamp(g.emit("Add", a, b), *INT16_RANGE)


def _gates(g: Graph, gates: Gates, x: str) -> str:
    """``Gates.run``: the rows stay together."""
    total = g.emit("Add", g.emit("MatMul", x, g.constant(gates.weight.T)), g.constant(gates.bias))
    return _narrow(g, requantise(g, g.cast(total, np.int64), gates.multiplier, gates.shift), 0, *INT16_RANGE)


def _gru(g: Graph, op: Gru, x: str, memory: str) -> tuple[str, str]:
    n, half = op.n_out, g.constant(1 << 14)
    given, kept = (g.split(_gates(g, gates, v), n, n, n) for gates, v in ((op.given, x), (op.kept, memory)))
    reset, update = (logistic16(g, _sum16(g, given[k], kept[k])) for k in (0, 1))
    part = g.floor_divide(g.emit("Add", g.emit("Mul", reset, kept[2]), half), 1 << 15)
    new = tanh16(g, _sum16(g, given[2], part))
    mixed = g.emit("Add", g.emit("Mul", update, memory), g.emit("Mul", g.emit("Sub", g.constant(32768), update), new))
    h = g.floor_divide(g.emit("Add", mixed, half), 1 << 15)
    if op.x16:
        return h, h
    return g.emit("Min", g.floor_divide(g.emit("Add", h, g.constant(128)), 256), g.constant(127)), h


def _halved(g: Graph, a: str, b: str, shift: int, bounds: tuple[int, int]) -> str:
    """``clamp(requantise(a · b, 2^30, shift))``: a product of two 16-bit values, rounded twice."""
    product = g.emit("Mul", g.cast(a, np.int64), g.cast(b, np.int64))
    return _narrow(g, requantise(g, product, np.array(HALF), np.array(shift)), 0, *bounds)


def _lstm(g: Graph, op: Lstm, x: str, memory: str) -> tuple[str, str]:
    n = op.n_out
    hidden, cell = g.split(memory, n, n)
    i, f, new, o = g.split(_sum16(g, _gates(g, op.given, x), _gates(g, op.kept, hidden)), n, n, n, n)
    kept = _halved(g, logistic16(g, f), cell, 14, INT16_RANGE)
    added = _halved(g, logistic16(g, i), tanh16(g, new), 29 - op.cell_bits, INT16_RANGE)
    cell = _sum16(g, kept, added)
    shift, bounds = (14, INT16_RANGE) if op.x16 else (22, INT8_RANGE)
    hidden = _halved(g, logistic16(g, o), tanh16(g, cell, 12 - op.cell_bits), shift, bounds)
    return hidden, g.join(hidden, cell)
