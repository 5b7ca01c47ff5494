"""The ``.tflite`` container: tensors and operators in memory, and their serialisation with the schema's own functions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from puffer_edge.integer.ops import Array

METADATA = "puffer_edge"
SCHEMA_VERSION = 3
ALIGNMENT = 16
ABSENT = -1
"""In an operator's inputs: an optional tensor that is not there."""


@dataclass(frozen=True)
class Tensor:
    """One tensor: activations, constants with data, or a variable that lives from one invocation to the next.

    Attributes:
        name: for readers.
        shape: of the tensor.
        dtype: "int4", "int8", "int16" or "int32".
        scale: float32 scales: one, one for each index of ``axis``, or none.
        zero: zero point.
        data: constants, little-endian.
        axis: what several scales belong to.
        variable: kept between invocations.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: Array
    zero: int = 0
    data: bytes = b""
    axis: int = 0
    variable: bool = False


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes:
        kind: name in the schema's BuiltinOperator.
        version: by TensorFlow's op_version.cc, for the types it is used with.
        inputs: tensors it reads, ``ABSENT`` for one that is not given.
        output: the tensor it writes.
        options: name of its table of options without "Options", or empty.
        settings: fields of that table.
        between: tensors that name scales inside an operator and hold nothing.
    """

    kind: str
    version: int
    inputs: tuple[int, ...]
    output: int
    options: str = ""
    settings: tuple[tuple[str, int | bool], ...] = ()
    between: tuple[int, ...] = ()


@dataclass
class Graph:
    """Tensors and operators; tensor 0 is the input, the last operator's output the output."""

    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)

    def add(
        self, name: str, shape: Sequence[int], dtype: str, scale: Any = (), zero: int = 0, data: bytes = b"", axis: int = 0, variable: bool = False
    ) -> int:
        """Append a tensor; its index."""
        scales = np.atleast_1d(np.asarray(scale, np.float32))
        self.tensors.append(Tensor(name, tuple(int(n) for n in shape), dtype, scales, zero, data, axis, variable))
        return len(self.tensors) - 1

    def apply(
        self,
        kind: str,
        version: int,
        inputs: Sequence[int],
        output: int,
        options: str = "",
        settings: Mapping[str, int | bool] | None = None,
        between: Sequence[int] = (),
    ) -> int:
        """Append an operator; its output."""
        self.operators.append(Operator(kind, version, tuple(inputs), output, options, tuple((settings or {}).items()), tuple(between)))
        return output


class Writer:
    """Serialises a graph.

    Args:
        builder: a flatbuffers builder.
        schema: the module ``tflite``.
    """

    def __init__(self, builder: Any, schema: ModuleType) -> None:
        self.b, self.s = builder, schema
        self.buffers: list[bytes] = [b""]  # buffer 0 is the empty one, by the schema

    def file(self, graph: Graph, description: str, about: dict[str, str]) -> bytes:
        """The whole file."""
        b, s = self.b, self.s
        tensors = [self._tensor(t) for t in graph.tensors]
        kinds = sorted({(o.kind, o.version) for o in graph.operators})
        operators = [self._operator(o, kinds.index((o.kind, o.version))) for o in graph.operators]
        subgraph = self._subgraph(graph, tensors, operators)
        metadata = self._metadata(json.dumps(about, sort_keys=True).encode())
        codes = self._offsets(s.ModelStartOperatorCodesVector, [self._code(*kind) for kind in kinds])
        subgraphs = self._offsets(s.ModelStartSubgraphsVector, [subgraph])
        entries = self._offsets(s.ModelStartMetadataVector, [metadata])
        buffers = self._offsets(s.ModelStartBuffersVector, [self._buffer(data) for data in self.buffers])
        text = b.CreateString(description)
        s.ModelStart(b)
        s.ModelAddVersion(b, SCHEMA_VERSION)
        s.ModelAddOperatorCodes(b, codes)
        s.ModelAddSubgraphs(b, subgraphs)
        s.ModelAddDescription(b, text)
        s.ModelAddBuffers(b, buffers)
        s.ModelAddMetadata(b, entries)
        b.Finish(s.ModelEnd(b), file_identifier=b"TFL3")
        return bytes(b.Output())

    def _offsets(self, start: Callable[[Any, int], Any], offsets: Sequence[int]) -> int:
        start(self.b, len(offsets))
        for offset in reversed(offsets):
            self.b.PrependUOffsetTRelative(offset)
        return int(self.b.EndVector())

    def _tensor(self, t: Tensor) -> int:
        b, s = self.b, self.s
        index = 0
        if t.data:
            self.buffers.append(t.data)
            index = len(self.buffers) - 1
        name, shape = b.CreateString(t.name), b.CreateNumpyVector(np.array(t.shape, np.int32))
        quantization = self._quantization(t) if t.scale.size else None
        s.TensorStart(b)
        s.TensorAddShape(b, shape)
        s.TensorAddType(b, getattr(s.TensorType, t.dtype.upper()))
        s.TensorAddBuffer(b, index)
        s.TensorAddName(b, name)
        if quantization is not None:
            s.TensorAddQuantization(b, quantization)
        if t.variable:
            s.TensorAddIsVariable(b, True)
        return int(s.TensorEnd(b))

    def _quantization(self, t: Tensor) -> int:
        b, s = self.b, self.s
        scale, zero = b.CreateNumpyVector(t.scale), b.CreateNumpyVector(np.full(t.scale.shape, t.zero, np.int64))
        s.QuantizationParametersStart(b)
        s.QuantizationParametersAddScale(b, scale)
        s.QuantizationParametersAddZeroPoint(b, zero)
        s.QuantizationParametersAddQuantizedDimension(b, t.axis)
        return int(s.QuantizationParametersEnd(b))

    def _operator(self, o: Operator, code: int) -> int:
        b, s = self.b, self.s
        inputs, outputs = b.CreateNumpyVector(np.array(o.inputs, np.int32)), b.CreateNumpyVector(np.array([o.output], np.int32))
        between = b.CreateNumpyVector(np.array(o.between, np.int32)) if o.between else None
        options = None
        if o.options:
            table = f"{o.options}Options"
            getattr(s, f"{table}Start")(b)
            for name, value in o.settings:
                getattr(s, f"{table}Add{name}")(b, value)
            options = getattr(s, f"{table}End")(b)
        s.OperatorStart(b)
        s.OperatorAddOpcodeIndex(b, code)
        s.OperatorAddInputs(b, inputs)
        s.OperatorAddOutputs(b, outputs)
        if options is not None:
            s.OperatorAddBuiltinOptionsType(b, getattr(s.BuiltinOptions, f"{o.options}Options"))
            s.OperatorAddBuiltinOptions(b, options)
        if between is not None:
            s.OperatorAddIntermediates(b, between)
        return int(s.OperatorEnd(b))

    def _code(self, kind: str, version: int) -> int:
        b, s = self.b, self.s
        number = getattr(s.BuiltinOperator, kind)
        s.OperatorCodeStart(b)
        s.OperatorCodeAddDeprecatedBuiltinCode(b, number)  # all of these are below 127, where both fields hold the number
        s.OperatorCodeAddBuiltinCode(b, number)
        s.OperatorCodeAddVersion(b, version)
        return int(s.OperatorCodeEnd(b))

    def _subgraph(self, graph: Graph, tensors: Sequence[int], operators: Sequence[int]) -> int:
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
