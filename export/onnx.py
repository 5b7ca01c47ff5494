"""ONNX: the policy in float, as the program's own integers (with or without the shield), and as symmetric int8 QDQ.

Every model takes raw observations and gives actions, for any number of rows, in standard operators of opset 18. The integer
models keep to operators whose result ONNX fixes to the bit: int32 MatMul, and int64 for requantising. No model knows of time:
who runs the shielded one keeps ``previous``, counts stale ticks and decides on ``fallback`` as ``docs/tick.md`` says.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from puffer_edge import __version__
from puffer_edge.contract import Contract
from puffer_edge.errors import MissingExtra, RangeError, Unsupported
from puffer_edge.export.source import Source
from puffer_edge.integer.expression import onnx_floor_divide, to_onnx
from puffer_edge.integer.ops import Array, Op
from puffer_edge.integer.ops.affine import Affine
from puffer_edge.integer.ops.argmax import Argmax
from puffer_edge.integer.ops.dense import LIFT, Dense, Scales
from puffer_edge.integer.ops.input import Input
from puffer_edge.integer.ops.lookup import Lookup
from puffer_edge.integer.ops.lookup16 import Lookup16
from puffer_edge.integer.program import Program
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import Policy
from puffer_edge.spaces import OBSERVATION_LIMIT

OPSET = 18
IR_VERSION = 9


def files(source: Source) -> dict[str, bytes]:
    """``policy.onnx``, ``policy.qdq.onnx``, ``policy.integer.onnx``, and ``policy.shielded.onnx``: the integer one with its shield.

    Raises:
        MissingExtra: the package onnx is not installed.
    """
    policy, program, shield = source.policy, source.image.program, source.image.shield
    return {
        "policy.onnx": float_model(policy),
        "policy.qdq.onnx": qdq_model(policy, program),
        "policy.integer.onnx": integer_model(program),
        "policy.shielded.onnx": integer_model(program, shield),
    }


def float_model(policy: Policy) -> bytes:
    """A policy in float32.

    Input ``observation`` [batch, n] float32, in physical units. Outputs ``action`` [batch, m] float32 in physical units, inside
    the contract's range, and for a discrete head ``choice`` [batch] int64. An observation that is NaN gives nothing of use.

    Raises:
        MissingExtra: the package onnx is not installed.
        RangeError: a number of the policy does not fit float32.
    """
    g, c, norm = _Graph(), policy.contract, policy.normalizer
    x = g.input("observation", np.float32, c.n_observations)
    std = g.floats("the normaliser's std", norm.std, positive=True)
    x = g.emit("Div", g.emit("Sub", x, g.floats("the normaliser's mean", norm.mean)), std)
    x = g.emit("Clip", x, g.floats("clip", -norm.clip), g.floats("clip", norm.clip))
    for k, layer in enumerate(policy.layers):
        weight, bias = g.floats(f"a weight of layer {k}", layer.weight.T), g.floats(f"a bias of layer {k}", layer.bias)
        x = _activation(g, g.emit("Add", g.emit("MatMul", x, weight), bias), layer.activation)
    _float_head(g, policy, x, policy.head.scale)
    return g.model("policy", c, {})


def integer_model(program: Program, shield: Shield | None = None) -> bytes:
    """A program, bit for bit.

    Input ``observation`` [batch, n] int32, in the contract's fixed point; beyond its range it saturates. Output ``action``
    [batch, m] int32, what the program proposes.

    With a shield: further inputs ``previous`` [batch, m] int32, the last applied action (clamped to the contract's range), and
    ``fallback`` [batch] int32, not 0 where the safe output must act. Further outputs ``applied`` [batch, m] int32 and ``stages``
    [batch] int32, bit k for stage k: steps 4 to 6 of ``docs/tick.md``.

    Raises:
        MissingExtra: the package onnx is not installed.
        Unsupported: the program has an operation that ONNX has not.
    """
    g, c = _Graph(), program.contract
    seen = g.clamp(g.input("observation", np.int32, c.n_observations), c.observation_low, c.observation_high)
    x = seen
    for op in program.ops:
        x = _integer_op(g, op, x)
    g.output("action", x, np.int32, c.n_actions)
    about = {"program_digest": program.digest.hex()}
    if shield is None:
        return g.model("program", c, about)
    _shield(g, c, shield, seen, x)
    return g.model("shielded_program", c, about | {"shield_digest": shield.digest.hex(), "stages": json.dumps(shield.stages)})


def qdq_model(policy: Policy, program: Program) -> bytes:
    """A policy with QuantizeLinear and DequantizeLinear around its layers: inputs and outputs as of ``float_model``.

    Weights are the program's own int8, per channel; activations are int8, per tensor; every zero point is 0 and biases are
    float32, the form that TensorRT asks for. Scales are the program's, widened where its zero point is not 0: after a ReLU one bit
    coarser, with no int16 head. So the actions differ from the program's; ``benchmarks/results/onnx_parity.json`` says how much.

    Raises:
        MissingExtra: the package onnx is not installed.
        Unsupported: the program was read back from an image, which holds no scales.
        RangeError: a number of the policy does not fit float32.
    """
    g, c = _Graph(), policy.contract
    first = program.ops[0]
    assert isinstance(first, Input)
    x = g.input("observation", np.float32, c.n_observations)
    codes = first.multiplier.astype(np.float64) * np.exp2(-31.0 - first.shift) * np.exp2(c.observation_bits)
    scales = [_scales(op) for op in program.ops if isinstance(op, Dense)]
    x = g.emit("Sub", x, g.floats("a mean", c.physical_observation(first.mean)))
    x = g.emit("Mul", x, g.floats("a scale of the input", codes * scales[0].input))
    for k, (op, layer) in enumerate(zip((op for op in program.ops if isinstance(op, Dense)), policy.layers)):
        scale = scales[k].input * (max(127 - op.zero_in, 128 + op.zero_in) / 127 if op.zero_in else 1)
        x = _activation(g, _qdq_dense(g, op, scales[k], scale, x), layer.activation)
    _float_head(g, policy, x, np.abs(policy.head.scale))  # the program's last layer has the sign
    return g.model("policy_qdq", c, {"program_digest": program.digest.hex()})


class _Graph:
    """Nodes, constants, inputs and outputs while a model is built; tensors are known by name.

    Raises:
        MissingExtra: the package onnx is not installed.
    """

    def __init__(self) -> None:
        try:
            import onnx
        except ImportError:
            raise MissingExtra("onnx", "writing an .onnx file") from None
        self.onnx: ModuleType = onnx
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.constants: dict[tuple[str, tuple[int, ...], bytes], Any] = {}

    def emit(self, operator: str, *tensors: str, **attributes: Any) -> str:
        """Add a node; the name of what it computes."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, list(tensors), [name], **attributes))
        return name

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

    def input(self, name: str, dtype: Any, *shape: int) -> str:
        """Declare an input [batch, …]."""
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, self._type(dtype), ["batch", *shape]))
        return name

    def output(self, name: str, x: str, dtype: Any, *shape: int) -> None:
        """Declare an output [batch, …]."""
        self.nodes.append(self.onnx.helper.make_node("Identity", [x], [name]))
        self.outputs.append(self.onnx.helper.make_tensor_value_info(name, self._type(dtype), ["batch", *shape]))

    def model(self, name: str, contract: Contract, about: dict[str, str]) -> bytes:
        """The file, after ONNX's own full check and strict shape inference."""
        helper = self.onnx.helper
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, list(self.constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="puffer-edge")
        model.producer_version = __version__
        helper.set_model_props(model, _metadata(contract) | about)
        self.onnx.checker.check_model(model, full_check=True)
        self.onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        return bytes(model.SerializeToString(deterministic=True))

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


def _activation(g: _Graph, x: str, kind: str) -> str:
    return x if kind == "none" else g.emit({"relu": "Relu", "tanh": "Tanh"}[kind], x)


def _float_head(g: _Graph, policy: Policy, x: str, scale: Array) -> None:
    """The last layer's outputs to physical actions, with the outputs declared."""
    c, head = policy.contract, policy.head
    if head.kind == "discrete":
        choice = g.emit("ArgMax", x, axis=1, keepdims=0)
        x = g.emit("Gather", g.floats("a level", c.levels), choice, axis=0)
        g.output("action", x, np.float32, c.n_actions)
        return g.output("choice", choice, np.int64)
    x = g.emit("Tanh", x) if head.kind == "tanh" else x
    x = g.emit("Add", g.emit("Mul", x, g.floats("the head's scale", scale)), g.floats("the head's offset", head.offset))
    low, high = (g.floats(f"an action's {end}", [getattr(ch, end) for ch in c.actions]) for end in ("low", "high"))
    return g.output("action", g.emit("Min", g.emit("Max", x, low), high), np.float32, c.n_actions)


def _scales(op: Dense) -> Scales:
    if op.scales is None:
        raise Unsupported("a program read back from an image holds no scales, which QDQ needs: export from the policy")
    return op.scales


def _qdq_dense(g: _Graph, op: Dense, scales: Scales, scale: float, x: str) -> str:
    """Input and weights through int8, bias in float."""
    zero, step = g.constant(0, np.int8), g.floats("a layer's scale", scale, positive=True)
    x = g.emit("DequantizeLinear", g.emit("QuantizeLinear", x, step, zero), step, zero)
    steps = g.floats("a weight's scale", scales.weight, positive=True)
    weight = g.emit("DequantizeLinear", g.constant(op.weight.T, np.int8), steps, g.constant(np.zeros(op.n_out), np.int8), axis=1)
    bias = (op.bias + op.zero_in * op.weight.astype(np.int64).sum(1)) * (scales.input * scales.weight)
    return g.emit("Add", g.emit("MatMul", x, weight), g.floats("a layer's bias", bias))


@dataclass(frozen=True)
class _Rounding:
    """Multiplier and right shift of a requantisation, a number a column."""

    multiplier: Array
    shift: Array


def _requantise(g: _Graph, a: str, by: _Rounding) -> str:
    """``puffer_edge.integer.rounding.requantise`` on an int64 tensor."""
    s = np.asarray(by.shift, np.int64)
    right, left = np.maximum(s, 0), np.maximum(-s, 0)
    if left.any():
        a = g.emit("Mul", a, g.constant(np.left_shift(np.int64(1), left), np.int64))
    product = g.emit("Add", g.emit("Mul", a, g.constant(by.multiplier, np.int64)), g.constant(1 << 30, np.int64))
    high = onnx_floor_divide(g.emit, product, g.constant(1 << 31, np.int64))
    if not right.any():
        return high
    half = np.left_shift(np.int64(1), right) >> 1
    half[right == 0] = 0
    negative = g.emit("Mul", g.cast(g.emit("Less", high, g.constant(0, np.int64)), np.int64), g.constant(right > 0, np.int64))
    rounded = g.emit("Sub", g.emit("Add", high, g.constant(half, np.int64)), negative)
    return onnx_floor_divide(g.emit, rounded, g.constant(np.left_shift(np.int64(1), right), np.int64))


def _integer_op(g: _Graph, op: Op, x: str) -> str:
    """One operation of a program: int32 tensor to int32 tensor."""
    if isinstance(op, Input):
        wide = g.emit("Sub", g.cast(x, np.int64), g.constant(op.mean, np.int64))
        wide = g.clamp(wide, -OBSERVATION_LIMIT, OBSERVATION_LIMIT, np.int64)
        return _narrow(g, _requantise(g, wide, _Rounding(op.multiplier, op.shift)), op.zero, op.low, op.high)
    if isinstance(op, Dense):
        total = g.emit("Add", g.emit("MatMul", x, g.constant(op.weight.T)), g.constant(op.bias))
        total = g.emit("Mul", total, g.constant(1 << LIFT)) if op.wide else total
        return _narrow(g, _requantise(g, g.cast(total, np.int64), _Rounding(op.multiplier, op.shift)), op.zero, op.low, op.high)
    if isinstance(op, Lookup):
        return g.emit("Gather", g.constant(op.table), g.emit("Add", x, g.constant(128)), axis=0)
    if isinstance(op, Lookup16):
        return _lookup16(g, op, x)
    if isinstance(op, Argmax):
        return g.emit("Gather", g.constant(op.levels), g.emit("ArgMax", x, axis=1, keepdims=0), axis=0)
    if isinstance(op, Affine):
        return _narrow(g, _requantise(g, g.cast(x, np.int64), _Rounding(op.multiplier, op.shift)), op.offset, op.low, op.high)
    raise Unsupported(f"a {type(op).__name__} has no form in ONNX yet")


def _narrow(g: _Graph, x: str, offset: Any, low: Any, high: Any) -> str:
    """``clamp(x + offset, low, high)``, from int64 to int32."""
    return g.cast(g.clamp(g.emit("Add", x, g.constant(offset, np.int64)), low, high, np.int64), np.int32)


def _lookup16(g: _Graph, op: Lookup16, x: str) -> str:
    """Table and linear interpolation: 32 bits hold a difference of two entries times 127."""
    table, step = g.constant(op.table), g.constant(128)
    k = g.emit("Add", onnx_floor_divide(g.emit, x, step), g.constant(256))
    base, following = g.emit("Gather", table, k, axis=0), g.emit("Gather", table, g.emit("Add", k, g.constant(1)), axis=0)
    part = g.emit("Mul", g.emit("Sub", following, base), g.emit("Mod", x, step, fmod=0))
    y = g.emit("Add", base, onnx_floor_divide(g.emit, g.emit("Add", part, g.constant(64)), step))
    return g.clamp(y, -32768, 32767)


def _shield(g: _Graph, c: Contract, shield: Shield, seen: str, action: str) -> None:
    """What the shield makes of a proposal; its inputs and outputs are declared here."""
    previous = g.clamp(g.input("previous", np.int32, c.n_actions), c.action_low, c.action_high)
    acts = g.emit("Not", g.emit("Equal", g.emit("Unsqueeze", g.input("fallback", np.int32), g.constant([1], np.int64)), g.constant(0)))
    fallback = g.cast(acts, np.int32)
    raw = g.emit("Where", acts, g.constant(c.action_safe), action)
    x = g.clamp(onnx_floor_divide(g.emit, seen, g.constant(np.left_shift(1, c.shield_shift))), -32768, 32767)
    inputs = [*_columns(g, x, c.n_observations), *_columns(g, raw, c.n_actions), *_columns(g, previous, c.n_actions), fallback]
    shape = g.emit("Shape", fallback)
    results = [g.emit("Expand", y, shape) for y in to_onnx(shield.outputs, inputs, g.emit, g.constant)]
    applied = g.clamp(g.emit("Concat", *results[:-1], axis=1), c.action_low, c.action_high)
    g.output("applied", applied, np.int32, c.n_actions)
    g.output("stages", g.emit("Squeeze", results[-1], g.constant([1], np.int64)), np.int32)


def _columns(g: _Graph, x: str, count: int) -> Sequence[str]:
    """Every column of [batch, count], as [batch, 1]."""
    return [g.emit("Gather", x, g.constant([k]), axis=1) for k in range(count)]
