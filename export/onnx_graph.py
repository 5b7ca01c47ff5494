"""A graph while it is built: nodes, constants, inputs and outputs, written as an ONNX file that says what it is."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import numpy as np

from puffer_edge import __version__
from puffer_edge.contract import Contract
from puffer_edge.errors import MissingExtra, RangeError
from puffer_edge.integer.expression import onnx_floor_divide
from puffer_edge.integer.ops import Array

OPSET = 18
IR_VERSIONS = {13: 8, 18: 9}
"""The format's version that belongs to each operator set in use."""

MEMORY = "memory_out of a step is memory of the next; zeros at the start of an episode"
"""What a file with a memory says of it."""


class Graph:
    """Nodes, constants, inputs and outputs; tensors are known by name.

    Args:
        batch: rows of every input and output; None leaves them open.
        opset: version of the standard operators.

    Raises:
        MissingExtra: the package onnx is not installed.
    """

    def __init__(self, batch: int | None = None, opset: int = OPSET) -> None:
        try:
            import onnx
        except ImportError:
            raise MissingExtra("onnx", "writing an .onnx file") from None
        self.onnx: ModuleType = onnx
        self.batch = "batch" if batch is None else batch
        self.opset = opset
        self.nodes: list[Any] = []
        self.results: dict[str, str] = {}
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.constants: dict[tuple[str, tuple[int, ...], bytes], Any] = {}

    def emit(self, operator: str, *tensors: str, **attributes: Any) -> str:
        """Add a node; the name of what it computes."""
        return self.emit_many(operator, 1, *tensors, **attributes)[0]

    def emit_many(self, operator: str, count: int, *tensors: str, **attributes: Any) -> list[str]:
        """Add a node with several results; their names."""
        names = [f"t{len(self.nodes)}" if k == 0 else f"t{len(self.nodes)}_{k}" for k in range(count)]
        self.nodes.append(self.onnx.helper.make_node(operator, list(tensors), names, **attributes))
        return names

    def constant(self, values: Any, dtype: Any = np.int32) -> str:
        """The name of a constant; equal ones are stored once."""
        array = np.array(values, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = self.onnx.numpy_helper.from_array(array, f"c{len(self.constants)}")
        return str(self.constants[key].name)

    def floats(self, what: str, values: Any, positive: bool = False) -> str:
        """The name of a float32 constant; RangeError where a number overflows, or one that must be positive becomes 0."""
        with np.errstate(over="ignore", under="ignore"):
            array = np.asarray(values, np.float64).astype(np.float32)
        if not np.isfinite(array).all() or (positive and not (array > 0).all()):
            raise RangeError(f"{what} does not fit float32: give the observations or actions another unit")
        return self.constant(array, np.float32)

    def cast(self, x: str, dtype: Any) -> str:
        """Another type of number."""
        return self.emit("Cast", x, to=self._type(dtype))

    def clamp(self, x: str, low: Any, high: Any, dtype: Any = np.int32) -> str:
        """Limit to [low, high], scalars or one number a column."""
        return self.emit("Min", self.emit("Max", x, self.constant(low, dtype)), self.constant(high, dtype))

    def floor_divide(self, x: str, divisor: Any, dtype: Any = np.int32) -> str:
        """``x // divisor``, for a positive constant: a right shift where it is a power of two."""
        return onnx_floor_divide(self.emit, x, self.constant(divisor, dtype))

    def split(self, x: str, *widths: int) -> list[str]:
        """Columns of [batch, sum of widths], in order."""
        return [x] if len(widths) == 1 else self.emit_many("Split", len(widths), x, self.constant(widths, np.int64), axis=1)

    def join(self, *parts: str) -> str:
        """Columns side by side."""
        return parts[0] if len(parts) == 1 else self.emit("Concat", *parts, axis=1)

    def reshape(self, x: str, *shape: int) -> str:
        """[batch, …] of another shape; the batch stays, as it is or open."""
        return self.emit("Reshape", x, self.constant((-1 if self.batch == "batch" else self.batch, *shape), np.int64))

    def pick(self, x: str, columns: Array) -> str:
        """[batch, *columns.shape], made of columns of [batch, n]."""
        return self.emit("Gather", x, self.constant(columns, np.int64), axis=1)

    def input(self, name: str, dtype: Any, *shape: int) -> str:
        """Declare an input [batch, …]."""
        self.inputs.append(self._declared(name, dtype, shape))
        return name

    def output(self, name: str, x: str, dtype: Any, *shape: int) -> None:
        """Declare an output [batch, …]."""
        self.results[name] = x
        self.outputs.append(self._declared(name, dtype, shape))

    def model(self, name: str, contract: Contract, about: dict[str, str]) -> bytes:
        """The file, after ONNX's own full check and strict shape inference."""
        helper = self.onnx.helper
        self._name_results()
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, list(self.constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], producer_name="puffer-edge")
        model.ir_version = IR_VERSIONS[self.opset]
        model.producer_version = __version__
        memory = {"memory": MEMORY} if any(tensor.name == "memory" for tensor in self.inputs) else {}
        helper.set_model_props(model, _metadata(contract) | memory | about)
        self.onnx.checker.check_model(model, full_check=True)
        self.onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        return bytes(model.SerializeToString(deterministic=True))

    def _name_results(self) -> None:
        """Outputs take their names: what a node computes is renamed, a second name for the same tensor is an Identity."""
        names: dict[str, str] = {}
        made = {tensor for node in self.nodes for tensor in node.output}
        for name, x in self.results.items():
            if x in made and x not in names:
                names[x] = name
            else:
                self.nodes.append(self.onnx.helper.make_node("Identity", [x], [name]))
        for node in self.nodes:
            node.input[:] = [names.get(tensor, tensor) for tensor in node.input]
            node.output[:] = [names.get(tensor, tensor) for tensor in node.output]

    def _declared(self, name: str, dtype: Any, shape: tuple[int, ...]) -> Any:
        return self.onnx.helper.make_tensor_value_info(name, self._type(dtype), [self.batch, *shape])

    def _type(self, dtype: Any) -> int:
        return int(self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _metadata(c: Contract) -> dict[str, str]:
    """What every file says of itself; lists are JSON, in the order of the columns."""
    return {
        "contract": c.to_json(),
        "contract_digest": c.digest.hex(),
        "observation_names": json.dumps([ch.name for ch in c.observations]),
        "observation_units": json.dumps([ch.unit for ch in c.observations]),
        "action_names": json.dumps([ch.name for ch in c.actions]),
        "action_units": json.dumps([ch.unit for ch in c.actions]),
    }
