"""TensorFlow Lite: the network from int8 or int16 input to int16 head as one ``.tflite`` file, which TFLite-Micro computes bit for bit.

Input quantisation in that format is per tensor, and its argmax knows no levels: so the program's input step and what follows its
last layer are not in the file; they ship as C beside it (``tflm``). What becomes of each operation:

- dense: FULLY_CONNECTED; before the int16 head of int8 programs QUANTIZE widens by 2^7, since a layer gives no int16 from int8. Its
  bias is int32 throughout: with an int64 bias TFLite-Micro rounds otherwise. With 4-bit weights and a scale a row: CONV_2D over one
  position, because TFLite-Micro's FULLY_CONNECTED takes 4-bit weights only with one scale for all rows.
- conv: CONV_2D or DEPTHWISE_CONV_2D, after PAD where the padding is neither VALID nor TFLite's SAME; pool: AVERAGE_POOL_2D, MAX_POOL_2D.
- tables: TANH, LOGISTIC, ELU, where TFLite-Micro's own table is the program's; lstm: UNIDIRECTIONAL_SEQUENCE_LSTM with variables.

LiteRT rounds once in places where TFLite-Micro rounds twice: ``tflite_compare``. (tflite-runtime, its predecessor, has no release that
works with numpy 2.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from puffer_edge.errors import Mismatch, MissingExtra, Unsupported
from puffer_edge.export.source import Source
from puffer_edge.export.tflite_checks import GATE_SCALE, HIDDEN_SCALE, check_sum, gate_scales, given, scales_of, unsupported
from puffer_edge.export.tflite_file import ABSENT, Graph, Writer
from puffer_edge.integer.ops import Array, Op, pack_rows
from puffer_edge.integer.ops.conv import Conv
from puffer_edge.integer.ops.dense import LIFT, Dense, Scales
from puffer_edge.integer.ops.lookup import Lookup
from puffer_edge.integer.ops.lstm import Lstm
from puffer_edge.integer.ops.pool import Pool
from puffer_edge.integer.ops.tanh16 import Tanh16
from puffer_edge.integer.program import Program
from puffer_edge.layers import ACTIVATIONS

DESCRIPTION = "integer input to int16 head; input step and action map are C beside this file (puffer-edge)"
NONE, RELU, TANH = 0, 1, 4
"""ActivationFunctionType of the schema."""
SAME, VALID = 0, 1
INT32 = 2
"""TensorType of the schema."""
POINT = {"StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1}
"""Options of a convolution that steps by one."""
TABLES: dict[str, tuple[str, int, tuple[float, int] | None, float]] = {
    "tanh": ("TANH", 2, (1 / 128, 0), 2.0**-16),
    "sigmoid": ("LOGISTIC", 2, (1 / 256, -128), 2.0**-16),
    "elu": ("ELU", 1, None, 2.0**-14),
}
"""Operator and version of an activation; the output's scale and zero point where TFLite fixes them; and how close, in steps, an entry
may come to a rounding boundary. In 6,000 random scales each, TFLite-Micro differed from float64 only where an entry was closer than
2^-17.3 (tanh), 2^-17.7 (sigmoid), 2^-15.7 (elu)."""


def files(source: Source) -> dict[str, bytes]:
    """``policy.tflite``: the network from int8 or int16 input to int16 head.

    Raises:
        MissingExtra: flatbuffers or the schema package is not installed.
        Unsupported: the program has an operation that TFLite has not, or has with other bits.
    """
    return {"policy.tflite": tflite(source.image.program)}


def tflite(program: Program, batch: int = 1) -> bytes:
    """A program from its input step's result to its int16 head as a ``.tflite`` file.

    Args:
        program: the policy in integers, as ``quantize`` made it.
        batch: rows of the input tensor; 1 for a device.

    Returns:
        the file; its input is what ``program.ops[0]`` gives (values in the same order), its output what the last dense layer gives.

    Raises:
        MissingExtra: the packages flatbuffers and tflite are not installed.
        Unsupported: the program was read back from an image, which holds no scales, or has an operation TFLite has not.
        Mismatch: TFLite would derive other multipliers from the scales.
    """
    try:
        import flatbuffers
        import tflite as schema
    except ImportError:
        raise MissingExtra("tflite", "writing a .tflite file") from None
    about = {"covers": DESCRIPTION, "contract": program.contract.digest.hex(), "program": program.digest.hex()}
    return Writer(flatbuffers.Builder(4096), schema).file(graph(program, batch), DESCRIPTION, about)


def covered(program: Program) -> tuple[Op, ...]:
    """The operations that the file holds: after the input step, up to the last dense layer."""
    last = max((k for k, op in enumerate(program.ops) if isinstance(op, Dense)), default=0)
    if not last:
        raise Unsupported("a program without a dense layer has no form in TFLite")
    return program.ops[1 : last + 1]


def graph(program: Program, batch: int = 1) -> Graph:
    """The covered operations as TFLite's.

    Raises:
        Unsupported, Mismatch: as of ``tflite``.
    """
    return _Builder(covered(program), batch).graph


class _Builder:
    """Adds operation by operation; ``x`` is the tensor that the last one gave.

    Args:
        ops: what the file holds.
        batch: rows.
    """

    def __init__(self, ops: Sequence[Op], batch: int) -> None:
        self.graph, self.ops, self.batch = Graph(), ops, batch
        scale, zero = given(ops, 0)
        self.x = self.graph.add("input", self._shape(ops[0]), "int16" if ops[0].in_bytes == 2 else "int8", scale, zero)
        for k, op in enumerate(ops):
            self._check_joint(k)
            self._reshape(self._shape(op), k)
            if isinstance(op, Dense):
                self._dense(op, k)
            elif isinstance(op, Conv):
                self._conv(op, k)
            elif isinstance(op, Pool):
                self._pool(op, k)
            elif isinstance(op, Lookup):
                self._lookup(op, k)
            elif isinstance(op, Tanh16):
                self._add("TANH", 3, f"tanh{k}", 2.0**-15)
            elif isinstance(op, Lstm):
                self._lstm(op, k)
            else:
                raise unsupported(op)

    def _shape(self, op: Op) -> tuple[int, ...]:
        """What TFLite's operator wants of its input."""
        if isinstance(op, Conv):
            return self.batch, op.geometry.height, op.geometry.width, op.geometry.channels
        if isinstance(op, Pool):
            return self.batch, op.positions, 1, op.channels
        if isinstance(op, Lstm):
            return 1, self.batch, op.n_in
        if by_position(op):
            return self.batch, 1, 1, op.n_in
        return self.batch, op.n_in

    def _reshape(self, shape: tuple[int, ...], k: int) -> None:
        """RESHAPE where an image, a sequence or a vector is wanted and something else is there."""
        before, op = self.graph.tensors[self.x], self.ops[k]
        if before.shape == shape or isinstance(op, (Lookup, Tanh16)) or (isinstance(op, Dense) and len(shape) == 2):
            return  # tables take any shape, and a fully connected layer flattens by itself
        to = self.graph.add(f"shape{k}", (len(shape),), "int32", data=np.array(shape, "<i4").tobytes())
        y = self.graph.add(f"reshaped{k}", shape, before.dtype, before.scale, before.zero)
        self.x = self.graph.apply("RESHAPE", 1, (self.x, to), y)

    def _check_joint(self, k: int) -> None:
        """What the tensor means must be what the next operation was scaled for."""
        if isinstance(self.ops[k], (Lookup, Tanh16)):
            return
        (scale, zero), x = given(self.ops, k), self.graph.tensors[self.x]
        if np.float32(scale) != x.scale[0] or zero != x.zero:
            raise Mismatch(f"operation {k + 1} takes steps of {scale:g} around {zero}, the one before gives {x.scale[0]:g} around {x.zero}", k)

    def _add(self, kind: str, version: int, name: str, scale: float, zero: int = 0) -> None:
        """An elementwise operator."""
        x = self.graph.tensors[self.x]
        self.x = self.graph.apply(kind, version, (self.x,), self.graph.add(name, x.shape, x.dtype, scale, zero))

    def _dense(self, op: Dense, k: int) -> None:
        scales, g = scales_of(op), self.graph
        bias = op.bias + op.zero_in * op.weight.astype(np.int64).sum(1)
        step, wide = scales.input, op.wide or op.x16
        if op.wide:
            step, bias = step / (1 << LIFT), bias << LIFT
            before = g.tensors[self.x]
            self.x = g.apply("QUANTIZE", 2, (self.x,), g.add("wide", before.shape, "int16", step))
        check_sum(op, bias, (-32768, 32767) if op.x16 else (-128 - op.zero_in, 127 - op.zero_in), LIFT if op.wide else 0)
        y_shape, dtype = ((self.batch, 1, 1, op.n_out) if by_position(op) else (self.batch, op.n_out)), "int16" if wide else "int8"
        weight = self._weight(f"weight{k}", op, scales, (op.n_out, 1, 1, op.n_in) if by_position(op) else op.weight.shape)
        biases = g.add(f"bias{k}", bias.shape, "int32", step * scales.weight, 0, bias.astype("<i4").tobytes())
        y = g.add("head" if k + 1 == len(self.ops) else f"dense{k}", y_shape, dtype, scales.output, op.zero)
        relu, inputs = RELU if op.low == op.zero else NONE, (self.x, weight, biases)
        if by_position(op):
            self.x = g.apply("CONV_2D", 7, inputs, y, "Conv2D", {**POINT, "Padding": VALID, "FusedActivationFunction": relu})
        elif wide:
            settings = {"FusedActivationFunction": relu, "QuantizedBiasType": INT32}
            self.x = g.apply("FULLY_CONNECTED", 11, inputs, y, "FullyConnected", settings)
        else:
            self.x = g.apply("FULLY_CONNECTED", 4 if op.bits == 8 else 7, inputs, y, "FullyConnected", {"FusedActivationFunction": relu})

    def _weight(self, name: str, op: Dense | Conv, scales: Scales, shape: Sequence[int], axis: int = 0) -> int:
        """Weights of a layer, already in TFLite's order: of 4 bits where the kernel takes them, else int8."""
        values = op.weight if axis == 0 else np.moveaxis(op.weight[..., 0], 0, -1)
        four = op.bits == 4 and not (isinstance(op, Dense) and op.wide)
        data = pack_nibbles(values) if four else np.ascontiguousarray(values, np.int8).tobytes()
        return self.graph.add(name, shape, "int4" if four else "int8", scales.weight, 0, data, axis)

    def _conv(self, op: Conv, k: int) -> None:
        scales, g, geometry = scales_of(op), self.graph, op.geometry
        if op.x16 and op.depthwise:
            raise Unsupported("TFLite-Micro rounds a depthwise convolution of int16 otherwise: use the int8 profile")
        bias = op.bias + op.zero_in * op.weight.astype(np.int64).reshape(geometry.filters, -1).sum(1)
        check_sum(op, bias, (-32768, 32767) if op.x16 else (-128 - op.zero_in, 127 - op.zero_in), 0)
        padding = self._pad(op, k)
        (rows, columns), filters = geometry.kernel, geometry.filters
        depthwise = op.depthwise
        shape = (1, rows, columns, filters) if depthwise else (filters, rows, columns, geometry.channels)
        weight = self._weight(f"weight{k}", op, scales, shape, 3 if depthwise else 0)
        biases = g.add(f"bias{k}", bias.shape, "int32", scales.input * scales.weight, 0, bias.astype("<i4").tobytes())
        y_shape = self.batch, geometry.out_height, geometry.out_width, filters
        y = g.add(f"conv{k}", y_shape, "int16" if op.x16 else "int8", scales.output, op.zero)
        down, right = geometry.stride
        relu = RELU if op.low == op.zero else NONE
        settings = {**POINT, "Padding": padding, "StrideH": down, "StrideW": right, "FusedActivationFunction": relu}
        inputs = (self.x, weight, biases)
        if depthwise:
            version = 3 if op.bits == 8 else 7
            self.x = g.apply(
                "DEPTHWISE_CONV_2D", version, inputs, y, "DepthwiseConv2D", {**settings, "DepthMultiplier": filters // geometry.channels}
            )
        else:
            more = {"QuantizedBiasType": INT32} if op.x16 else {}
            self.x = g.apply("CONV_2D", 8 if op.x16 else 3 if op.bits == 8 else 7, inputs, y, "Conv2D", settings | more)

    def _pad(self, op: Conv, k: int) -> int:
        """The padding's name in TFLite; where it has none, PAD around the image, with the zero point, and VALID."""
        before, after = [], []
        g = op.geometry
        for size, out, kernel, stride, first in zip((g.height, g.width), (g.out_height, g.out_width), g.kernel, g.stride, g.padding):
            before.append(first)
            after.append(max((out - 1) * stride + kernel - first - size, 0))
        same = [-(-size // stride) for size, stride in zip((g.height, g.width), g.stride)] == [g.out_height, g.out_width]
        if not any(before + after):
            return VALID
        if same and all(first == (first + last) // 2 for first, last in zip(before, after)):
            return SAME
        x = self.graph.tensors[self.x]
        pairs = np.array([(0, 0), (before[0], after[0]), (before[1], after[1]), (0, 0)], "<i4")
        sizes = self.graph.add(f"padding{k}", (4, 2), "int32", data=pairs.tobytes())
        shape = tuple(n + int(more) for n, more in zip(x.shape, pairs.sum(1)))
        self.x = self.graph.apply("PAD", 2, (self.x, sizes), self.graph.add(f"padded{k}", shape, x.dtype, x.scale, x.zero), "Pad")
        return VALID

    def _pool(self, op: Pool, k: int) -> None:
        x = self.graph.tensors[self.x]
        kind = "MAX_POOL_2D" if op.largest else "AVERAGE_POOL_2D"
        settings = {"Padding": VALID, "StrideH": 1, "StrideW": 1, "FilterHeight": op.positions, "FilterWidth": 1}
        y = self.graph.add(f"pool{k}", (self.batch, 1, 1, op.channels), x.dtype, x.scale, x.zero)
        self.x = self.graph.apply(kind, 3 if op.x16 else 2, (self.x,), y, "Pool2D", settings)

    def _lookup(self, op: Lookup, k: int) -> None:
        """The operator whose own table is this one."""
        x, (out, zero) = self.graph.tensors[self.x], given(self.ops, k + 1)
        scale, at = float(x.scale[0]), x.zero
        for name, (kind, version, fixed, near) in TABLES.items():
            table = Lookup.of(ACTIVATIONS[name], scale, at, out, zero, op.width).table
            if fixed not in (None, (out, zero)) or not np.array_equal(op.table, table):
                continue
            exact = ACTIVATIONS[name](scale * (np.arange(-128.0, 128.0) - at)) / out
            if np.abs(exact - np.floor(exact) - 0.5).min() <= near:
                raise Unsupported(
                    f"an entry of a {name} table lies on a rounding boundary, where TFLite-Micro's may differ: calibrate on other observations"
                )
            self._add(kind, version, f"{name}{k}", out, zero)
            return
        raise Unsupported("a table that is not tanh, sigmoid or elu has no form in TFLite (nor have leaky_relu, silu and gelu): use the C format")

    def _lstm(self, op: Lstm, k: int) -> None:
        g, n = self.graph, op.n_out
        by_input, by_hidden = gate_scales(op)
        sums = op.given.weight.astype(np.int64).sum(1)
        bias = op.given.bias + op.zero_in * sums
        weights: list[int] = []
        for name, gates, steps in (("given", op.given, by_input), ("kept", op.kept, by_hidden)):
            for j, gate in enumerate("ifgo"):
                rows = np.ascontiguousarray(gates.weight[j * n : (j + 1) * n], np.int8)
                weights.append(g.add(f"{name}_{gate}{k}", rows.shape, "int8", steps[j], 0, rows.tobytes()))
        step = g.tensors[self.x].scale[0]
        biases = [
            g.add(f"bias_{gate}{k}", (n,), "int32", step * by_input[j], 0, bias[j * n : (j + 1) * n].astype("<i4").tobytes())
            for j, gate in enumerate("ifgo")
        ]
        hidden = g.add(f"hidden{k}", (self.batch, n), "int8", HIDDEN_SCALE, variable=True)
        cell = g.add(f"cell{k}", (self.batch, n), "int16", 2.0**-op.cell_bits, variable=True)
        y = g.add(f"lstm{k}", (1, self.batch, n), "int8", HIDDEN_SCALE)
        inputs = (self.x, *weights, *[ABSENT] * 3, *biases, *[ABSENT] * 2, hidden, cell, *[ABSENT] * 4)
        between = [g.add(f"gate_{gate}{k}", (0,), "int16", GATE_SCALE) for gate in "ifgo"]
        between.append(g.add(f"product{k}", (0,), "int8", HIDDEN_SCALE))  # LiteRT reads these scales; TFLite-Micro does not look
        settings = {"FusedActivationFunction": TANH, "TimeMajor": True}
        self.x = g.apply("UNIDIRECTIONAL_SEQUENCE_LSTM", 3, inputs, y, "UnidirectionalSequenceLSTM", settings, between)


def pack_nibbles(values: Array) -> bytes:
    """4-bit weights in TFLite's order: all in a row, without padding between rows, the first of a pair in the low half."""
    return pack_rows(values.reshape(1, -1), 4).tobytes()[: -(-values.size // 2)]


def by_position(op: Op) -> bool:
    """Whether an operation is a dense layer that becomes a convolution over one position."""
    return isinstance(op, Dense) and op.bits == 4 and not op.wide and len(op.weight) > 1
