"""ONNX float graphs: the one way from the observation to an output, walked node by node; weights and shapes are computed on the way.

What a node does to the chain is in ``onnx_nodes.py``, what is computed from constants alone in ``onnx_constants.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import InvalidInput, MissingExtra, PufferEdgeError, Unsupported
from puffer_edge.intake import onnx_constants, onnx_nodes
from puffer_edge.intake.archives import short
from puffer_edge.intake.draft import Draft, check_observations
from puffer_edge.intake.elements import compile_chain
from puffer_edge.intake.onnx_values import Flow, Node, State, Value, shape_of
from puffer_edge.layers import MAX_IMAGE

MAX_NODES = 10_000
MAX_VALUES = 2**24
"""Most numbers in one constant."""
MAX_COMPUTED = 2**25
"""Most numbers in everything that a graph computes from constants."""
PREFERRED = (
    ("action", "actions", "continuous_actions", "deterministic_continuous_actions", "action_mean", "mean", "mu"),
    ("logits", "q_values", "q", "qvalues", "discrete_actions", "output", "outputs"),
)
"""Names of the output that drives, where a graph has several: the first that is there."""


def read(data: bytes, what: str, output: str | None = None) -> Draft:
    """The network of an ONNX file.

    Args:
        data: the file.
        what: its name, for messages.
        output: name of the output that drives; None where there is no doubt.

    Raises:
        InvalidInput: it is damaged, or several outputs may be meant.
        Unsupported: an operator, shape or form that no policy here has, with its place.
        MissingExtra: the package onnx is not installed.
    """
    graph = _Graph(_parse(data, what), what)
    return graph.draft(output)


def _parse(data: bytes, what: str) -> Any:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        raise MissingExtra("onnx", "reading an ONNX file") from None
    try:
        model = onnx.ModelProto.FromString(data)
    except (DecodeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{what} is none of the formats that are read (Stable-Baselines3, torch, safetensors, ONNX): {short(error)}") from None
    if not model.graph.node or not model.graph.output or not model.opset_import:
        raise InvalidInput(f"{what} is none of the formats that are read (Stable-Baselines3, torch, safetensors, ONNX): as ONNX it has no graph")
    return model


def _text(value: Any) -> str:
    """A string of protobuf's, which comes as bytes where it is not UTF-8."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class _Graph:
    """One model, evaluated for a batch of one."""

    def __init__(self, model: Any, what: str) -> None:
        self.what, self.model, self.computed = what, model, 0
        self.opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
        graph = model.graph
        if len(graph.node) > MAX_NODES:
            raise Unsupported(f"{what} has {len(graph.node):,} nodes, at most {MAX_NODES:,} are read")
        if model.functions:
            raise Unsupported(f"{what} defines functions of its own ({short(_text(model.functions[0].name))}): export with them inlined")
        if graph.sparse_initializer:
            raise Unsupported(f"{what} holds sparse weights: export dense ones")
        self.values: dict[str, Value] = {_text(t.name): self._array(t) for t in graph.initializer}
        self.nodes = [self._node(k, n) for k, n in enumerate(graph.node)]
        self.makers = {name: node for node in self.nodes for name in node.outputs if name}
        self.inputs = {_text(i.name): i for i in graph.input if _text(i.name) not in self.values}
        self.outputs: list[str] = [_text(o.name) for o in graph.output]

    def _array(self, tensor: Any) -> npt.NDArray[Any]:
        from onnx import TensorProto, numpy_helper

        place = f"the tensor {short(repr(_text(tensor.name)))} of {self.what}"
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise Unsupported(f"{place} lies in another file: save the model as one file (save_as_external_data=False)")
        if any(not 0 <= d <= MAX_VALUES for d in tensor.dims) or math.prod(tensor.dims) > MAX_VALUES:
            raise InvalidInput(f"{place} claims {short(list(tensor.dims))} numbers, at most {MAX_VALUES:,} are read")
        try:
            array = np.asarray(numpy_helper.to_array(tensor))
        except Exception as error:  # a hostile tensor may fail anywhere in there
            raise InvalidInput(f"{place} is damaged: {short(error)}") from None
        if array.dtype.kind not in "fiub":
            raise Unsupported(f"{place} holds {array.dtype}, only plain numbers are read")
        return array

    def _node(self, index: int, node: Any) -> Node:
        from onnx import AttributeProto, helper

        attributes: dict[str, Any] = {}
        for a in node.attribute:
            if a.type == AttributeProto.TENSOR:
                attributes[_text(a.name)] = self._array(a.t)
            elif a.type in (AttributeProto.FLOAT, AttributeProto.INT, AttributeProto.STRING, AttributeProto.FLOATS, AttributeProto.INTS):
                value = helper.get_attribute_value(a)
                attributes[_text(a.name)] = value.decode("ascii", "replace") if isinstance(value, bytes) else list(value) if a.type > 5 else value
            elif a.type == AttributeProto.STRINGS:
                attributes[_text(a.name)] = [s.decode("ascii", "replace") for s in a.strings]
        op = node.op_type if node.domain in ("", "ai.onnx") else f"{_text(node.domain)}.{_text(node.op_type)}"
        inputs, outputs = (tuple(_text(name) for name in names) for names in (node.input, node.output))
        return Node(index, _text(node.name), short(_text(op)), inputs, outputs, attributes)

    def draft(self, output: str | None) -> Draft:
        states = self._state_inputs()
        chosen = self._output(output)
        needed = self._needed(chosen)
        read_by_it = {name for node in needed for name in node.inputs} | {chosen}
        seen = [name for name in self.inputs if name in read_by_it and name not in states]
        if len(seen) != 1:
            raise Unsupported(f"{self.what}: the output {chosen!r} is made of the inputs {short(', '.join(seen) or 'none')}: one vector is read")
        recurrent = any(node.op in ("GRU", "LSTM") for node in needed)
        dims = self._dims(seen[0], recurrent)
        n = math.prod(dims)
        check_observations(n, f"ONNX model {self.what}", dims[1:])
        self.values[seen[0]] = Flow((), dims)
        for name in states:
            dims = self._dims(name, True)
            if math.prod(dims) > MAX_IMAGE:
                raise Unsupported(f"{self.what}: the memory {name!r} has {math.prod(dims):,} numbers, at most {MAX_IMAGE}")
            self.values[name] = State(name, np.arange(math.prod(dims)).reshape(dims))
        for node in needed:
            self._run(node)
        self._check_memory(needed, seen[0])
        end = self._value(chosen)
        if not isinstance(end, Flow):
            raise Unsupported(f"{self.what}: the output {chosen!r} does not depend on the observation")
        try:
            draft = compile_chain(end.chain, n, end.size, "ONNX model")
        except PufferEdgeError as error:
            raise type(error)(f"{self.what}: {error}") from None
        producer = f"{_text(self.model.producer_name)} {_text(self.model.producer_version)}".strip()
        return replace(draft, origin={"format": "onnx", "opset": self.opset, "producer": short(producer), "output": chosen})

    def _check_memory(self, needed: list[Node], observed: str) -> None:
        """Every cell starts from numbers of its own, or from zeros where the graph runs over a whole sequence."""
        taken: dict[str, set[int]] = {}
        shape = self.inputs[observed].type.tensor_type.shape.dim
        sequence = len(shape) == 3 and any(not d.HasField("dim_value") for d in shape[:2])
        for node in (n for n in needed if n.op in ("GRU", "LSTM")):
            for k in (5, 6) if node.op == "LSTM" else (5,):
                start = self.values.get(node.inputs[k]) if len(node.inputs) > k and node.inputs[k] else None
                if not isinstance(start, State):
                    if not sequence:
                        raise Unsupported(
                            f"{self.what}, {node.place}: it starts from zeros at every call; export it with its memory as input and output"
                        )
                    continue
                index, before = set(start.index.reshape(-1).tolist()), taken.setdefault(start.source, set())
                if index & before or not start.source:
                    raise Unsupported(
                        f"{self.what}, {node.place}: two memories start from the same input {start.source!r}; export one input for each"
                    )
                before |= index

    def _state_inputs(self) -> set[str]:
        """Inputs that are the memory of a GRU or LSTM: followed backwards through whatever only rearranges them."""
        found: set[str] = set()
        for node in self.nodes:
            if node.op in ("GRU", "LSTM"):
                for name in filter(None, node.inputs[5:7]):
                    for _ in self.nodes:  # at most so many steps: a hostile graph may run in a circle
                        maker = self.makers.get(name)
                        if maker is None or maker.op not in onnx_nodes.REARRANGES or not maker.inputs:
                            break
                        name = maker.inputs[0]
                    found |= {name} & set(self.inputs)
        return found

    def _output(self, wanted: str | None) -> str:
        """The output that drives."""
        if wanted is not None:
            if wanted not in self.outputs:
                raise InvalidInput(f"{self.what} has no output {wanted!r}: {short(', '.join(self.outputs))}")
            return wanted
        names = [name for name in self.outputs if not self._is_memory(name)] or self.outputs
        if len(names) == 1:
            return names[0]
        for name in (p for group in PREFERRED for p in group):
            if name in names:
                return name
        raise InvalidInput(f"{self.what} has several outputs: say which drives, with --output NAME: {short(', '.join(names))}")

    def _is_memory(self, name: str) -> bool:
        """Whether an output is nothing but next memories of cells, perhaps rearranged or put together."""
        todo, seen = [name], set[str]()
        while todo:
            name = todo.pop()
            maker = self.makers.get(name)
            if maker is None or name in seen:
                return False
            seen.add(name)
            if maker.op in ("GRU", "LSTM") and name in maker.outputs[1:]:
                continue
            if maker.op == "Concat":
                todo += maker.inputs
            elif maker.op in onnx_nodes.REARRANGES and maker.inputs:
                todo.append(maker.inputs[0])
            else:
                return False
        return True

    def _needed(self, output: str) -> list[Node]:
        """The nodes that an output depends on, in the order of the file."""
        wanted, todo = set(), [output]
        while todo:
            maker = self.makers.get(todo.pop())
            if maker is not None and maker.index not in wanted:
                wanted.add(maker.index)
                todo += [name for name in maker.inputs if name]
        return [node for node in self.nodes if node.index in wanted]

    def _dims(self, name: str, recurrent: bool) -> tuple[int, ...]:
        """Shape of an input for a batch of one (and a time of one, where there is a memory)."""
        kind = self.inputs[name].type.tensor_type
        if not kind.HasField("shape") or not kind.shape.dim:
            raise Unsupported(f"{self.what}: the input {name!r} has no shape: export with a fixed one, all but the batch")
        dims = [d.dim_value if d.HasField("dim_value") else 0 for d in kind.shape.dim]
        free = len(dims) - 1 if recurrent else 1 if len(dims) > 1 else 0
        if any(d <= 0 for d in dims[free:]) or any(d < 0 for d in dims):
            shown = ", ".join(_text(d.dim_param) or str(d.dim_value) for d in kind.shape.dim)
            raise Unsupported(f"{self.what}: the input {name!r} has the shape ({short(shown)}): all but the batch must be fixed")
        dims = [1 if d == 0 else d for d in dims]
        if len(dims) > 1 and not recurrent:
            dims[0] = 1
        if math.prod(dims) > MAX_VALUES:
            raise Unsupported(f"{self.what}: the input {name!r} has {short(dims)} numbers")
        return tuple(dims)

    def _value(self, name: str) -> Value:
        if name not in self.values:
            raise InvalidInput(f"{self.what}: {short(repr(name))} is read before anything made it, or an input stands in a place for constants")
        return self.values[name]

    def _constant(self, node: Node, arrays: Sequence[Any]) -> npt.NDArray[Any]:
        result = onnx_constants.compute(node, arrays, self.opset)
        self.computed += result.size
        if self.computed > MAX_COMPUTED:
            raise Unsupported(f"the constants that the graph computes grow beyond {MAX_COMPUTED:,} numbers")
        return result

    def _run(self, node: Node) -> None:
        given: list[Value | None] = [self._value(name) if name else None for name in node.inputs]
        try:
            if any(isinstance(v, (Flow, State)) for v in given) and node.op != "Shape":
                results: Iterable[Value] = onnx_nodes.apply(node, given, self.opset)
            else:
                arrays = [np.array(shape_of(v), np.int64) if node.op == "Shape" and v is not None else v for v in given]
                results = [self._constant(node, arrays)]
        except PufferEdgeError as error:
            raise type(error)(f"{self.what}, {node.place}: {error}") from None
        except (ValueError, IndexError, TypeError, KeyError, OverflowError, ZeroDivisionError, AttributeError) as error:
            raise InvalidInput(f"{self.what}, {node.place}: its attributes and inputs do not go together: {short(error)}") from None
        self.values |= dict(zip(node.outputs, results))
