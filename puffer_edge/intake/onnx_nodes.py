"""What each ONNX operator does to a value that depends on the observation, and what is said about those that have no place here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import Unsupported
from puffer_edge.intake import onnx_constants as constants
from puffer_edge.intake.elements import Act, Choose, Clamp, Element, Leaky, Linear, Scale
from puffer_edge.intake.onnx_cells import average_pool, batch_norm, conv, max_pool, pool, recurrent, reduce
from puffer_edge.intake.onnx_values import Flow, Node, State, Value, flow, known, spread, then
from puffer_edge.layers import MAX_IMAGE

REARRANGES = ("Squeeze", "Unsqueeze", "Reshape", "Flatten", "Identity", "Transpose", "Slice", "Gather", "Split", "Cast", "Expand")
"""Operators that change how values lie, not what they are."""
NEAREST = {
    "AffineGrid": "Gemm",
    "Attention": "GRU",
    "AveragePool": "GlobalAveragePool, or AveragePool without padding",
    "Celu": "Elu",
    "ConvTranspose": "Conv",
    "CumSum": "GRU",
    "GroupNormalization": "BatchNormalization",
    "HardSigmoid": "Sigmoid",
    "HardSwish": "Sigmoid times its input (SiLU)",
    "InstanceNormalization": "BatchNormalization",
    "LayerNormalization": "BatchNormalization",
    "LpNormalization": "BatchNormalization",
    "LpPool": "GlobalAveragePool",
    "Mish": "Sigmoid times its input (SiLU)",
    "RMSNormalization": "BatchNormalization",
    "RNN": "GRU",
    "Selu": "Elu",
    "Sin": "a channel of the observation that is the sine already",
    "Cos": "a channel of the observation that is the cosine already",
    "Softplus": "Relu",
    "Softsign": "Tanh",
    "ThresholdedRelu": "Relu",
    "Loop": "one step of it, with the memory as input and output",
    "Scan": "one step of it, with the memory as input and output",
    "If": "two models",
    "QuantizeLinear": "the float model: this package quantises by itself",
    "DequantizeLinear": "the float model: this package quantises by itself",
}


def apply(node: Node, inputs: Sequence[Value | None], opset: int) -> list[Value]:
    """The outputs of a node of which at least one input depends on the observation or on memory.

    Raises:
        Unsupported: the operator, or this use of it, has no counterpart.
    """
    if any(isinstance(v, State) for v in inputs) and node.op not in ("GRU", "LSTM"):
        return _state(node, inputs, opset)
    if node.op not in _OPS:
        nearest = f"; the nearest that is: {NEAREST[node.op]}" if node.op in NEAREST else ""
        raise Unsupported(f"the operator {node.op} is not supported{nearest}. Supported are {', '.join(sorted(_OPS))}")
    result = _OPS[node.op](node, inputs, opset)
    return result if isinstance(result, list) else [result]


def _state(node: Node, inputs: Sequence[Value | None], opset: int) -> list[Value]:
    """Memory that is only rearranged; which numbers go where is kept, so that no two cells start from the same."""
    memory = inputs[0]
    if node.op not in REARRANGES or not isinstance(memory, State):
        raise Unsupported("something is computed from the memory outside of its cell")
    arrays = [memory.index, *(known(inputs, k) if inputs[k] is not None else None for k in range(1, len(inputs)))]
    if node.op == "Split":
        return [State(memory.source, part) for part in _split_parts(node, memory.index, arrays, opset)]
    return [State(memory.source, constants.compute(node, arrays, opset))]


def _split_parts(node: Node, x: npt.NDArray[Any], inputs: Sequence[Any], opset: int) -> list[npt.NDArray[Any]]:
    axis = int(node.attributes.get("axis", 0))
    sizes = inputs[1] if len(inputs) > 1 and inputs[1] is not None else node.attributes.get("split")
    if sizes is None:
        return np.array_split(x, len(node.outputs), axis)
    return np.split(x, np.cumsum(np.asarray(sizes, np.int64))[:-1], axis)


def _rearranged(node: Node, inputs: Sequence[Value | None], opset: int) -> list[Value]:
    """Reshapes leave the flat order alone; whatever does not becomes a matrix of zeros and ones."""
    if node.op == "Gather" and isinstance(inputs[0], np.ndarray):
        raise Unsupported("a table is read by what the network chose: give the choice itself as --output; the contract's levels are that table")
    x = flow(inputs[0])
    if x.size > MAX_IMAGE:
        raise Unsupported(f"{x.size:,} values at once: at most {MAX_IMAGE}")
    order = np.arange(x.size, dtype=np.int64).reshape(x.dims)
    arrays = [order, *(known(inputs, k) if inputs[k] is not None else None for k in range(1, len(inputs)))]
    parts = _split_parts(node, order, arrays, opset) if node.op == "Split" else [constants.compute(node, arrays, opset)]
    flows: list[Value] = []
    for part in parts:
        index = part.reshape(-1)
        same = len(index) == x.size and (index == np.arange(x.size)).all()
        if not len(index) or len(index) > MAX_IMAGE:
            raise Unsupported(f"it takes {len(index):,} of {x.size} values")
        flows.append(then(x, part.shape, *([] if same else [Linear(np.eye(x.size)[index], np.zeros(len(index)))])))
    return flows


def _rows(x: Flow) -> int:
    """Width of the last axis, where it is the only one with more than one number."""
    if not x.dims or x.size != x.dims[-1]:
        raise Unsupported(f"a dense layer at each of {x.size // max(x.dims[-1] if x.dims else 1, 1)} positions ({x.dims}): say it as a Conv")
    return x.dims[-1]


def _gemm(node: Node, inputs: Sequence[Value | None], opset: int) -> Flow:
    x, a = flow(inputs[0]), node.attributes
    if a.get("transA", 0):
        raise Unsupported("a Gemm that transposes the observation")
    weight = np.asarray(known(inputs, 1), np.float64)
    weight = weight if a.get("transB", 0) else weight.T
    bias = np.broadcast_to(np.asarray(known(inputs, 2, 0.0), np.float64), (1, len(weight)))[0]
    _rows(x)
    return _dense(x, weight * float(a.get("alpha", 1.0)), bias * float(a.get("beta", 1.0)))


def _dense(x: Flow, weight: npt.NDArray[np.float64], bias: npt.NDArray[np.float64]) -> Flow:
    if weight.ndim != 2 or weight.shape[1] != x.size or max(weight.shape) > MAX_IMAGE:
        raise Unsupported(f"a dense layer with weights {weight.shape} on {x.size} values (at most {MAX_IMAGE})")
    return then(x, (*x.dims[:-1], len(weight)), Linear(weight, bias))


def _matmul(node: Node, inputs: Sequence[Value | None], opset: int) -> Flow:
    x = flow(inputs[0])
    weight = np.asarray(known(inputs, 1), np.float64)
    _rows(x)
    return _dense(x, weight.T, np.zeros(weight.shape[-1]))


def _arithmetic(node: Node, inputs: Sequence[Value | None], opset: int) -> Flow:
    """Add, Sub, Mul and Div with a constant; a product of two flows may be half of a SiLU or a GELU."""
    a, b = inputs[0], inputs[1]
    if not isinstance(a, np.ndarray) and not isinstance(b, np.ndarray):
        return _product(node, flow(a), flow(b))
    if isinstance(a, np.ndarray):
        x, value, turned = flow(b), spread(a, flow(b)), True
    else:
        x, value, turned = flow(a), spread(known(inputs, 1), flow(a)), False
    other = b if turned else a
    dims = np.broadcast_shapes(np.shape(a) if turned else np.shape(b), flow(other).dims)  # type: ignore[arg-type]
    ones, zeros = np.ones(x.size), np.zeros(x.size)
    if node.op == "Add":
        return then(x, dims, Scale(ones, value))
    if node.op == "Sub":
        return then(x, dims, Scale(-ones, value) if turned else Scale(ones, -value))
    if node.op == "Mul":
        return then(x, dims, Scale(value, zeros))
    if turned or not value.all():
        raise Unsupported("a division by the observation, or by zero")
    return then(x, dims, Scale(1 / value, zeros))


def _product(node: Node, a: Flow, b: Flow) -> Flow:
    """``x·σ(x)`` is a SiLU; ``x·(1 + erf(x/√2))`` is twice a GELU."""
    if node.op == "Mul" and a.dims == b.dims:
        for x, gate in ((a, b), (b, a)):
            for size in range(len(x.chain), -1, -1):
                stem, own, rest = x.chain[:size], x.chain[size:], gate.chain[size:]
                if any(p is not q for p, q in zip(stem, gate.chain)) or not all(isinstance(e, Scale) for e in own):
                    continue
                if not own and len(rest) == 1 and isinstance(rest[0], Act) and rest[0].name == "sigmoid":
                    return then(x, x.dims, Act("silu"))
                if _is_gelu(rest) and all(not cast(Scale, e).offset.any() for e in own):
                    gelu = Flow((*stem, Act("gelu")), x.dims)
                    return then(gelu, x.dims, *own, Scale(np.full(x.size, 2.0), np.zeros(x.size)))
    return _refuse_product()


def _refuse_product() -> Flow:
    raise Unsupported("two values that both depend on the observation are combined: only x·sigmoid(x) and the parts of a GELU are known")


def _is_gelu(rest: Sequence[Element]) -> bool:
    if len(rest) != 3 or not isinstance(rest[0], Scale) or not isinstance(rest[1], Act) or not isinstance(rest[2], Scale):
        return False
    inner, outer = rest[0], rest[2]
    root = np.allclose(inner.factor, math.sqrt(0.5), 1e-5) and not inner.offset.any()
    return bool(root and rest[1].name == "erf" and (outer.factor == 1).all() and (outer.offset == 1).all())


def _act(name: str) -> Callable[[Node, Sequence[Any], int], Flow]:
    return lambda node, inputs, opset: then(x := flow(inputs[0]), x.dims, Act(name))


def _elu(node: Node, inputs: Sequence[Value | None], opset: int) -> Flow:
    alpha = float(node.attributes.get("alpha", 1.0))
    if abs(alpha - 1) > 1e-6:
        raise Unsupported(f"an ELU with α = {alpha:g}: only 1 is known")
    return then(x := flow(inputs[0]), x.dims, Act("elu"))


def _leaky(node: Node, inputs: Sequence[Value | None], opset: int) -> Flow:
    x = flow(inputs[0])
    slope = spread(known(inputs, 1), x) if node.op == "PRelu" else np.full(x.size, float(node.attributes.get("alpha", 0.01)))
    return then(x, x.dims, Act("leaky_relu") if np.allclose(slope, 0.01, 1e-6, 0) else Leaky(slope))


def _gelu(node: Node, inputs: Sequence[Value | None], opset: int) -> Flow:
    if node.attributes.get("approximate", "none") != "none":
        raise Unsupported("the GELU approximated by tanh: the exact one is known (torch's default)")
    return then(x := flow(inputs[0]), x.dims, Act("gelu"))


def _clip(node: Node, inputs: Sequence[Value | None], opset: int) -> Flow:
    x, a = flow(inputs[0]), node.attributes
    low = spread(known(inputs, 1, a.get("min", -np.inf)), x)
    high = spread(known(inputs, 2, a.get("max", np.inf)), x)
    return _clamped(x, low, high)


def _clamped(x: Flow, low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]) -> Flow:
    low, high = np.where(low < -3e38, -np.inf, low), np.where(high > 3e38, np.inf, high)
    if np.isnan(low).any() or np.isnan(high).any() or (low > high).any():
        raise Unsupported("a clip whose bounds cross, or are NaN")
    return then(x, x.dims, Clamp(low, high))


def _min_max(node: Node, inputs: Sequence[Value | None], opset: int) -> Flow:
    if len(inputs) != 2:
        raise Unsupported(f"{node.op} of {len(inputs)} values")
    x = flow(inputs[1] if isinstance(inputs[0], np.ndarray) else inputs[0])
    value = spread(known(inputs, 0) if isinstance(inputs[0], np.ndarray) else known(inputs, 1), x)
    open_end = np.full(x.size, np.inf)
    return _clamped(x, value, open_end) if node.op == "Max" else _clamped(x, -open_end, value)


def _choose(node: Node, inputs: Sequence[Value | None], opset: int) -> Flow:
    x = flow(inputs[0])
    axis = int(node.attributes.get("axis", 0 if node.op == "ArgMax" else -1 if opset >= 13 else 1))
    if not x.dims or x.dims[axis] != x.size or node.attributes.get("select_last_index", 0):
        raise Unsupported(f"a choice among one axis of {x.dims}: one group of outputs chooses (or give the bare outputs, and the contract says)")
    return then(x, (1,) if node.op == "ArgMax" else x.dims, Choose())


def _same(node: Node, inputs: Sequence[Value | None], opset: int) -> Flow:
    return flow(inputs[0])


def _cast_flow(node: Node, inputs: Sequence[Value | None], opset: int) -> Flow:
    x = flow(inputs[0])
    chosen = bool(x.chain) and isinstance(x.chain[-1], Choose)
    if int(node.attributes.get("to", 1)) not in (1, 10, 11) and not chosen:
        raise Unsupported("a cast to integers in the middle of the network")
    return x


_OPS: dict[str, Callable[[Node, Sequence[Any], int], Value | list[Value]]] = {
    **dict.fromkeys(("Squeeze", "Unsqueeze", "Reshape", "Flatten", "Transpose", "Slice", "Gather", "Split", "Expand"), _rearranged),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic),
    **dict.fromkeys(("Softmax", "LogSoftmax", "ArgMax"), _choose),
    **dict.fromkeys(("Identity", "Dropout"), _same),
    **dict.fromkeys(("LeakyRelu", "PRelu"), _leaky),
    **dict.fromkeys(("Max", "Min"), _min_max),
    **dict.fromkeys(("GRU", "LSTM"), recurrent),
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Neg": lambda node, inputs, opset: then(x := flow(inputs[0]), x.dims, Scale(-np.ones(x.size), np.zeros(x.size))),
    "Cast": _cast_flow,
    "Relu": _act("relu"),
    "Tanh": _act("tanh"),
    "Sigmoid": _act("sigmoid"),
    "Erf": _act("erf"),
    "Elu": _elu,
    "Gelu": _gelu,
    "Clip": _clip,
    "BatchNormalization": batch_norm,
    "Conv": conv,
    "AveragePool": average_pool,
    "MaxPool": max_pool,
    "GlobalAveragePool": pool("average"),
    "GlobalMaxPool": pool("max"),
    "ReduceMean": reduce("average"),
    "ReduceMax": reduce("max"),
}
