"""TensorFlow Lite: int8 input to int16 head as one ``.tflite`` file, which TFLite-Micro computes bit for bit as the program does.

The file holds ``(FULLY_CONNECTED | TANH)* → QUANTIZE int8 to int16 → FULLY_CONNECTED int16 × int8``. Input quantisation in that
format is per tensor and its fully connected layers give no int16 from int8; so the program's input step and action map are not
in the file, they ship as C beside it, and the last layer reads its input widened by 2^7. With an int32 bias TFLite-Micro then
rounds as ``docs/tick.md`` says (with an int64 bias it does not). LiteRT rounds once, not twice: its hidden layers may differ by one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from puffer_edge.errors import Mismatch, MissingExtra, Unsupported
from puffer_edge.export.source import Source
from puffer_edge.integer.ops import Array, Op
from puffer_edge.integer.ops.dense import LIFT, Dense, Scales
from puffer_edge.integer.ops.lookup import Lookup
from puffer_edge.integer.program import Program

DESCRIPTION = "int8 input to int16 head; input step and action map are C beside this file (puffer-edge)"
METADATA = "puffer_edge"
SCHEMA_VERSION = 3
ALIGNMENT = 16
VERSIONS = {"FULLY_CONNECTED": 4, "TANH": 2, "QUANTIZE": 2, "FULLY_CONNECTED 16x8": 11}
"""Operator versions by TensorFlow's op_version.cc: int8, int8, int16 output, int16 × int8 with a stated bias type."""


def files(source: Source) -> dict[str, bytes]:
    """``policy.tflite``: the network from int8 input to int16 head.

    Raises:
        MissingExtra: flatbuffers or the schema package is not installed.
    """
    return {"policy.tflite": tflite(source.image.program)}


def tflite(program: Program, batch: int = 1) -> bytes:
    """A program from int8 input to int16 head as a ``.tflite`` file.

    Args:
        program: the policy in integers, as ``quantize`` made it.
        batch: rows of the input tensor; 1 for a device.

    Returns:
        the file; its input is what ``program.ops[0]`` gives, its output what the int16 dense layer gives.

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
    return _Writer(flatbuffers.Builder(4096), schema).file(_graph(program, batch), about)


@dataclass(frozen=True)
class _Tensor:
    """One tensor: int8 or int16 activations, or constants with data."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: Array
    zero: int = 0
    data: bytes = b""


@dataclass(frozen=True)
class _Operator:
    """One operator: its key in VERSIONS, and the tensors it reads and writes."""

    kind: str
    inputs: tuple[int, ...]
    output: int
    relu: bool = False


@dataclass
class _Graph:
    """Tensors and operators; the last tensor written is the output."""

    tensors: list[_Tensor] = field(default_factory=list)
    operators: list[_Operator] = field(default_factory=list)

    def add(self, name: str, shape: Sequence[int], dtype: str, scale: Any, zero: int = 0, data: bytes = b"") -> int:
        """Append a tensor; its index."""
        self.tensors.append(_Tensor(name, tuple(shape), dtype, np.atleast_1d(np.asarray(scale, np.float32)), zero, data))
        return len(self.tensors) - 1


def _graph(program: Program, batch: int) -> _Graph:
    """The operations between input step and head, as TFLite's."""
    graph, ops = _Graph(), program.ops[1:]
    first = _scales(ops[0])
    x = graph.add("input", (batch, ops[0].n_in), "int8", first.input)
    for k, op in enumerate(ops):
        if isinstance(op, Dense):
            x = _dense(graph, op, x, k)
            if op.wide:
                return graph
        elif isinstance(op, Lookup):
            x = _tanh(graph, op, x, k)
        else:
            raise Unsupported(f"a {type(op).__name__} has no form in TFLite")
    raise Unsupported("a program without an int16 layer has no form in TFLite")


def _scales(op: Op) -> Scales:
    """A dense layer's scales, proved to give its multipliers."""
    if not isinstance(op, Dense):
        raise Unsupported(f"a program that begins with a {type(op).__name__} has no form in TFLite")
    if op.scales is None:
        raise Unsupported("a program read back from an image holds no scales, which TFLite needs: export from the policy")
    multiplier, shift = op.scales.multipliers(op.wide)
    wrong = np.flatnonzero((multiplier != op.multiplier) | (shift != op.shift))
    if len(wrong):
        raise Mismatch(f"row {wrong[0]} of a dense layer: its scales do not give its multiplier {int(op.multiplier[wrong[0]])}", int(wrong[0]))
    return op.scales


def _dense(graph: _Graph, op: Dense, x: int, k: int) -> int:
    """FULLY_CONNECTED, after a QUANTIZE to int16 where the output is int16."""
    scales, batch = _scales(op), graph.tensors[x].shape[0]
    bias = op.bias + op.zero_in * op.weight.astype(np.int64).sum(1)
    step, kind, dtype = scales.input, "FULLY_CONNECTED", "int8"
    if op.wide:
        step, kind, dtype, bias = step / (1 << LIFT), "FULLY_CONNECTED 16x8", "int16", bias << LIFT
        wide = graph.add("wide", (batch, op.n_in), "int16", step)
        graph.operators.append(_Operator("QUANTIZE", (x,), wide))
        x = wide
    farthest = max(127 - op.zero_in, 128 + op.zero_in) << (LIFT if op.wide else 0)
    reach = int((np.abs(bias) + np.abs(op.weight.astype(np.int64)).sum(1) * farthest).max())
    if reach > 2**31 - 1:
        raise Unsupported(f"TFLite's sum of a layer of {op.n_in} inputs may reach {reach}, beyond int32: use a smaller hidden layer")
    weight = graph.add(f"weight{k}", op.weight.shape, "int8", scales.weight, 0, op.weight.astype(np.int8).tobytes())
    biases = graph.add(f"bias{k}", bias.shape, "int32", step * scales.weight, 0, bias.astype("<i4").tobytes())
    y = graph.add("head" if op.wide else f"dense{k}", (batch, op.n_out), dtype, scales.output, op.zero)
    graph.operators.append(_Operator(kind, (x, weight, biases), y, relu=not op.wide and op.low == op.zero))
    return y


def _tanh(graph: _Graph, op: Lookup, x: int, k: int) -> int:
    """TANH, which must be what the lookup table holds."""
    before = graph.tensors[x]
    if before.zero != 0 or not np.array_equal(op.table, Lookup.tanh(float(before.scale[0]), op.width).table):
        raise Unsupported("a lookup table that is not tanh has no form in TFLite")
    y = graph.add(f"tanh{k}", before.shape, "int8", 1 / 128)
    graph.operators.append(_Operator("TANH", (x,), y))
    return y


class _Writer:
    """Serialises a graph with the schema's own functions.

    Args:
        builder: a flatbuffers builder.
        schema: the module ``tflite``.
    """

    def __init__(self, builder: Any, schema: ModuleType) -> None:
        self.b, self.s = builder, schema
        self.buffers: list[bytes] = [b""]  # buffer 0 is the empty one, by the schema

    def file(self, graph: _Graph, about: dict[str, str]) -> bytes:
        """The whole file."""
        b, s = self.b, self.s
        tensors = [self._tensor(t) for t in graph.tensors]
        kinds = sorted({o.kind for o in graph.operators})
        operators = [self._operator(o, kinds.index(o.kind)) for o in graph.operators]
        subgraph = self._subgraph(graph, tensors, operators)
        metadata = self._metadata(json.dumps(about, sort_keys=True).encode())
        codes = self._offsets(s.ModelStartOperatorCodesVector, [self._code(kind) for kind in kinds])
        subgraphs = self._offsets(s.ModelStartSubgraphsVector, [subgraph])
        entries = self._offsets(s.ModelStartMetadataVector, [metadata])
        buffers = self._offsets(s.ModelStartBuffersVector, [self._buffer(data) for data in self.buffers])
        description = b.CreateString(DESCRIPTION)
        s.ModelStart(b)
        s.ModelAddVersion(b, SCHEMA_VERSION)
        s.ModelAddOperatorCodes(b, codes)
        s.ModelAddSubgraphs(b, subgraphs)
        s.ModelAddDescription(b, description)
        s.ModelAddBuffers(b, buffers)
        s.ModelAddMetadata(b, entries)
        b.Finish(s.ModelEnd(b), file_identifier=b"TFL3")
        return bytes(b.Output())

    def _offsets(self, start: Callable[[Any, int], Any], offsets: Sequence[int]) -> int:
        start(self.b, len(offsets))
        for offset in reversed(offsets):
            self.b.PrependUOffsetTRelative(offset)
        return int(self.b.EndVector())

    def _tensor(self, t: _Tensor) -> int:
        b, s = self.b, self.s
        index = 0
        if t.data:
            self.buffers.append(t.data)
            index = len(self.buffers) - 1
        name, shape = b.CreateString(t.name), b.CreateNumpyVector(np.array(t.shape, np.int32))
        scale, zero = b.CreateNumpyVector(t.scale), b.CreateNumpyVector(np.full(t.scale.shape, t.zero, np.int64))
        s.QuantizationParametersStart(b)
        s.QuantizationParametersAddScale(b, scale)
        s.QuantizationParametersAddZeroPoint(b, zero)
        s.QuantizationParametersAddQuantizedDimension(b, 0)
        quantization = s.QuantizationParametersEnd(b)
        s.TensorStart(b)
        s.TensorAddShape(b, shape)
        s.TensorAddType(b, getattr(s.TensorType, t.dtype.upper()))
        s.TensorAddBuffer(b, index)
        s.TensorAddName(b, name)
        s.TensorAddQuantization(b, quantization)
        return int(s.TensorEnd(b))

    def _operator(self, o: _Operator, code: int) -> int:
        b, s = self.b, self.s
        inputs, outputs = b.CreateNumpyVector(np.array(o.inputs, np.int32)), b.CreateNumpyVector(np.array([o.output], np.int32))
        options = None
        if o.kind.startswith("FULLY_CONNECTED"):
            s.FullyConnectedOptionsStart(b)
            s.FullyConnectedOptionsAddFusedActivationFunction(b, s.ActivationFunctionType.RELU if o.relu else s.ActivationFunctionType.NONE)
            if o.kind.endswith("16x8"):
                s.FullyConnectedOptionsAddQuantizedBiasType(b, s.TensorType.INT32)
            options = s.FullyConnectedOptionsEnd(b)
        s.OperatorStart(b)
        s.OperatorAddOpcodeIndex(b, code)
        s.OperatorAddInputs(b, inputs)
        s.OperatorAddOutputs(b, outputs)
        if options is not None:
            s.OperatorAddBuiltinOptionsType(b, s.BuiltinOptions.FullyConnectedOptions)
            s.OperatorAddBuiltinOptions(b, options)
        return int(s.OperatorEnd(b))

    def _code(self, kind: str) -> int:
        b, s = self.b, self.s
        number = getattr(s.BuiltinOperator, kind.split()[0])
        s.OperatorCodeStart(b)
        s.OperatorCodeAddDeprecatedBuiltinCode(b, number)  # all of these are below 127, where both fields hold the number
        s.OperatorCodeAddBuiltinCode(b, number)
        s.OperatorCodeAddVersion(b, VERSIONS[kind])
        return int(s.OperatorCodeEnd(b))

    def _subgraph(self, graph: _Graph, tensors: Sequence[int], operators: Sequence[int]) -> int:
        b, s = self.b, self.s
        all_tensors = self._offsets(s.SubGraphStartTensorsVector, tensors)
        all_operators = self._offsets(s.SubGraphStartOperatorsVector, operators)
        inputs = b.CreateNumpyVector(np.zeros(1, np.int32))
        outputs = b.CreateNumpyVector(np.array([graph.operators[-1].output], np.int32))
        name = b.CreateString("main")
        s.SubGraphStart(b)
        s.SubGraphAddTensors(b, all_tensors)
        s.SubGraphAddInputs(b, inputs)
        s.SubGraphAddOutputs(b, outputs)
        s.SubGraphAddOperators(b, all_operators)
        s.SubGraphAddName(b, name)
        return int(s.SubGraphEnd(b))

    def _metadata(self, text: bytes) -> int:
        b, s = self.b, self.s
        self.buffers.append(text)
        name = b.CreateString(METADATA)
        s.MetadataStart(b)
        s.MetadataAddName(b, name)
        s.MetadataAddBuffer(b, len(self.buffers) - 1)
        return int(s.MetadataEnd(b))

    def _buffer(self, data: bytes) -> int:
        b, s = self.b, self.s
        vector = None
        if data:
            b.Prep(ALIGNMENT, len(data))  # kernels read weights in place; the schema asks for 16
            vector = b.CreateByteVector(data)
        s.BufferStart(b)
        if vector is not None:
            s.BufferAddData(b, vector)
        return int(s.BufferEnd(b))
