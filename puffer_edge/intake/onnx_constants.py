"""What an ONNX graph computes from constants and shapes alone: a few operators, in numpy, of bounded size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import Unsupported
from puffer_edge.intake.onnx_values import Node

Array = npt.NDArray[Any]
MAX_VALUES = 2**24
_TYPES = {1: "f4", 2: "u1", 3: "i1", 5: "i2", 6: "i4", 7: "i8", 9: "b1", 10: "f2", 11: "f8", 12: "u4", 13: "u8"}
"""onnx.TensorProto's numbers of types."""


def compute(node: Node, inputs: Sequence[Array | None], opset: int) -> Array:
    """The result of a node whose inputs are all known.

    Raises:
        Unsupported: an operator that is not in the table, or a result beyond ``MAX_VALUES``.
    """
    if node.op not in _OPS:
        raise Unsupported("this operator on constants is not known here; simplify the graph (constant folding) and import again")
    given = [v for v in inputs if v is not None]
    with np.errstate(all="ignore"):
        result = np.asarray(_OPS[node.op](node, given, opset))
    if result.size > MAX_VALUES:
        raise Unsupported(f"its result has {result.size:,} numbers, at most {MAX_VALUES:,}")
    return result


def axes(node: Node, inputs: Sequence[Any], place: int = 1) -> list[int] | None:
    """Axes of an operator: an input since opset 13, an attribute before."""
    if len(inputs) > place and inputs[place] is not None:
        return [int(a) for a in np.asarray(inputs[place]).reshape(-1)]
    found = node.attributes.get("axes")
    return None if found is None else [int(a) for a in found]


def bounded(shape: Iterable[int]) -> tuple[int, ...]:
    """A shape that somebody else computed.

    Raises:
        Unsupported: too many numbers.
    """
    dims = tuple(int(d) for d in shape)
    if any(d < 0 for d in dims) or math.prod(dims) > MAX_VALUES:
        raise Unsupported(f"a constant of shape {dims[:8]}: at most {MAX_VALUES:,} numbers")
    return dims


def reshaped(dims: Sequence[int], wanted: Sequence[int], allow_zero: bool = False) -> tuple[int, ...]:
    """The shape that Reshape gives: 0 keeps a dimension, −1 takes what is left."""
    shape = [dims[k] if w == 0 and not allow_zero else int(w) for k, w in enumerate(wanted)]
    if shape.count(-1) == 1:
        rest = math.prod(d for d in shape if d != -1)
        shape[shape.index(-1)] = math.prod(dims) // rest if rest else 0
    if any(d < 0 for d in shape) or math.prod(shape) != math.prod(dims):
        raise Unsupported(f"it makes {list(wanted)[:8]} of {list(dims)[:8]}, which fits only for another batch than one")
    return tuple(shape)


def unsqueezed(dims: Sequence[int], places: Sequence[int]) -> tuple[int, ...]:
    """The shape with ones put in at these places of the result."""
    rank = len(dims) + len(places)
    at, rest = {a % rank for a in places}, iter(dims)
    return tuple(1 if k in at else next(rest) for k in range(rank))


def squeezed(dims: Sequence[int], places: Sequence[int] | None) -> tuple[int, ...]:
    """The shape without the ones at these places, or without any."""
    gone = {k for k, d in enumerate(dims) if d == 1} if places is None else {a % len(dims) for a in places}
    if any(dims[k] != 1 for k in gone):
        raise Unsupported(f"it squeezes {list(dims)} at {sorted(gone)}, where more than one number lies")
    return tuple(d for k, d in enumerate(dims) if k not in gone)


def slices(node: Node, inputs: Sequence[Any], rank: int) -> tuple[slice, ...]:
    """What Slice takes of each axis."""

    def given(k: int, name: str) -> list[int] | None:
        if len(inputs) > k and inputs[k] is not None:
            return [int(v) for v in np.asarray(inputs[k]).reshape(-1)]
        found = node.attributes.get(name)
        return None if found is None else [int(v) for v in found]

    starts, ends = given(1, "starts") or [], given(2, "ends") or []
    places = given(3, "axes") or list(range(len(starts)))
    steps = given(4, "steps") or [1] * len(starts)
    result = [slice(None)] * rank
    for start, end, place, step in zip(starts, ends, places, steps):
        if step < 1:
            raise Unsupported("a slice that runs backwards")
        result[place % rank] = slice(start, end if end < 2**31 - 1 else None, step)
    return tuple(result)


def _cast(node: Node, x: Array) -> Array:
    kind = _TYPES.get(int(node.attributes["to"]))
    if kind is None:
        raise Unsupported(f"a cast to type {node.attributes['to']}")
    return x.astype(kind)


def _constant(node: Node) -> Array:
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if name in node.attributes:
            value = node.attributes[name]
            return value if isinstance(value, np.ndarray) else np.asarray(value, np.float32 if "float" in name else np.int64)
    raise Unsupported("a constant that is no number")


def _filled(node: Node, shape: Array) -> Array:
    value = node.attributes.get("value", np.zeros(1, np.float32))
    return np.full(bounded(shape.reshape(-1).tolist()), np.asarray(value).reshape(-1)[0])


def _gather(x: Array, index: Array, axis: int) -> Array:
    bounded([x.size // max(x.shape[axis], 1), index.size])
    return np.take(x, index.astype(np.int64), axis=axis)


def _concatenate(parts: Sequence[Array], axis: int) -> Array:
    bounded([sum(part.size for part in parts)])
    return np.concatenate(parts, axis)


def _expand(x: Array, shape: Array) -> Array:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, bounded(shape.reshape(-1).tolist())))


def _binary(function: Callable[[Array, Array], Any]) -> Callable[[Node, list[Array], int], Any]:
    def run(node: Node, v: list[Array], opset: int) -> Any:
        bounded(np.broadcast_shapes(v[0].shape, v[1].shape))
        return function(v[0], v[1])

    return run


def _divide(a: Array, b: Array) -> Any:
    return a // b if a.dtype.kind in "iu" else a / b


_OPS: dict[str, Callable[[Node, list[Array], int], Any]] = {
    "Constant": lambda n, v, o: _constant(n),
    "ConstantOfShape": lambda n, v, o: _filled(n, v[0]),
    "Identity": lambda n, v, o: v[0],
    "Shape": lambda n, v, o: v[0][n.attributes.get("start", 0) : n.attributes.get("end")],
    "Cast": lambda n, v, o: _cast(n, v[0]),
    "Gather": lambda n, v, o: _gather(v[0], v[1], int(n.attributes.get("axis", 0))),
    "Concat": lambda n, v, o: _concatenate(v, int(n.attributes.get("axis", 0))),
    "Unsqueeze": lambda n, v, o: v[0].reshape(unsqueezed(v[0].shape, axes(n, v) or [])),
    "Squeeze": lambda n, v, o: v[0].reshape(squeezed(v[0].shape, axes(n, v))),
    "Reshape": lambda n, v, o: v[0].reshape(reshaped(v[0].shape, v[1].tolist(), bool(n.attributes.get("allowzero", 0)))),
    "Flatten": lambda n, v, o: v[0].reshape(math.prod(v[0].shape[: n.attributes.get("axis", 1)]), -1),
    "Transpose": lambda n, v, o: np.transpose(v[0], n.attributes.get("perm")),
    "Slice": lambda n, v, o: v[0][slices(n, v, v[0].ndim)],
    "Expand": lambda n, v, o: _expand(v[0], v[1]),
    "Where": lambda n, v, o: np.where(v[0], v[1], v[2]),
    "Equal": _binary(lambda a, b: a == b),
    "Add": _binary(lambda a, b: a + b),
    "Sub": _binary(lambda a, b: a - b),
    "Mul": _binary(lambda a, b: a * b),
    "Div": _binary(_divide),
    "Neg": lambda n, v, o: -v[0],
    "Sqrt": lambda n, v, o: np.sqrt(v[0]),
    "Exp": lambda n, v, o: np.exp(v[0]),
    "Reciprocal": lambda n, v, o: 1 / v[0],
    "Max": _binary(np.maximum),
    "Min": _binary(np.minimum),
}
