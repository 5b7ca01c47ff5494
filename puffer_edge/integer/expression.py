"""Integer expressions: traced once from plain Python, then evaluated on arrays, printed as C, MicroPython and ONNX, or packed as bytecode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from puffer_edge.errors import RangeError

LOWEST = -(2**30)
HIGHEST = 2**30 - 1
"""Every value stays within MicroPython's 31-bit small integers, so that no engine allocates or overflows."""


@dataclass(frozen=True, eq=False)
class Int:
    """A node of an expression, with the interval that its value is proved to stay in.

    Attributes:
        op: "const", "in", "+", "-", "*", ">>", "<", "!=", "min", "max" or "where".
        args: child nodes; for "const" the value, for "in" index and name, for ">>" a node and the amount.
        lo: lowest value.
        hi: highest value.

    Raises:
        RangeError: the interval leaves ±2^30.
    """

    op: str
    args: tuple[Any, ...]
    lo: int
    hi: int

    def __post_init__(self) -> None:
        if not LOWEST <= self.lo <= self.hi <= HIGHEST:
            raise RangeError(f"'{self.op}' may reach [{self.lo}, {self.hi}], beyond ±2^30: use fewer fraction bits or a smaller gain")

    def __bool__(self) -> bool:
        raise TypeError("an integer expression has no truth value while it is traced: use where(condition, a, b)")

    def __add__(self, other: Int | int) -> Int:
        b = lift(other)
        if _is(self, 0) or _is(b, 0):
            return b if _is(self, 0) else self
        return Int("+", (self, b), self.lo + b.lo, self.hi + b.hi)

    def __radd__(self, other: int) -> Int:
        return lift(other) + self

    def __sub__(self, other: Int | int) -> Int:
        b = lift(other)
        return Int("-", (self, b), self.lo - b.hi, self.hi - b.lo)

    def __rsub__(self, other: int) -> Int:
        return lift(other) - self

    def __mul__(self, other: Int | int) -> Int:
        b = lift(other)
        if _is(self, 1) or _is(b, 1):
            return b if _is(self, 1) else self
        corners = [x * y for x in (self.lo, self.hi) for y in (b.lo, b.hi)]
        return Int("*", (self, b), min(corners), max(corners))

    def __rmul__(self, other: int) -> Int:
        return lift(other) * self

    def __neg__(self) -> Int:
        return lift(0) - self

    def __rshift__(self, amount: int) -> Int:
        if not isinstance(amount, int) or not 0 <= amount <= 30:
            raise RangeError(f"a shift must be a constant in 0 … 30, not {amount!r}")
        return Int(">>", (self, amount), self.lo >> amount, self.hi >> amount)

    def __lt__(self, other: Int | int) -> Int:
        return Int("<", (self, lift(other)), 0, 1)

    def __gt__(self, other: Int | int) -> Int:
        return Int("<", (lift(other), self), 0, 1)


def lift(x: Int | int) -> Int:
    """A plain integer as a constant node; a node as itself."""
    return x if isinstance(x, Int) else Int("const", (int(x),), int(x), int(x))


def _is(x: Int, value: int) -> bool:
    return x.op == "const" and x.lo == value


def variable(index: int, name: str, lo: int, hi: int) -> Int:
    """Input number ``index``, called ``name`` in printed code, within [lo, hi]."""
    return Int("in", (index, name), lo, hi)


def least(a: Int | int, b: Int | int) -> Int:
    """The smaller of two."""
    x, y = lift(a), lift(b)
    if x.hi <= y.lo or y.hi <= x.lo:
        return x if x.hi <= y.lo else y
    return Int("min", (x, y), min(x.lo, y.lo), min(x.hi, y.hi))


def most(a: Int | int, b: Int | int) -> Int:
    """The larger of two; on 0/1 flags: or."""
    x, y = lift(a), lift(b)
    if x.lo >= y.hi or y.lo >= x.hi:
        return x if x.lo >= y.hi else y
    return Int("max", (x, y), max(x.lo, y.lo), max(x.hi, y.hi))


def clamp(x: Int | int, lo: Int | int, hi: Int | int) -> Int:
    """``x`` limited to [lo, hi]; hi wins where they cross."""
    return least(most(x, lo), hi)


def where(condition: Int, a: Int | int, b: Int | int) -> Int:
    """``a`` where the condition is not 0, else ``b``."""
    x, y = lift(a), lift(b)
    return Int("where", (condition, x, y), min(x.lo, y.lo), max(x.hi, y.hi))


def differs(a: Int | int, b: Int | int) -> Int:
    """1 where two values differ, else 0."""
    return lift(0) if a is b else Int("!=", (lift(a), lift(b)), 0, 1)


def children(node: Int) -> tuple[Int, ...]:
    """The nodes that a node is computed from."""
    return tuple(a for a in node.args if isinstance(a, Int))


def in_order(outputs: Iterable[Int]) -> list[Int]:
    """Every node once, children before parents; equal nodes are merged into one."""
    return _Merger().run(outputs)[0]


class _Merger:
    """Common subexpressions: nodes with the same operation and the same children become one."""

    def __init__(self) -> None:
        self.order: list[Int] = []
        self.by_key: dict[tuple[Any, ...], Int] = {}
        self.done: dict[int, Int] = {}

    def run(self, outputs: Iterable[Int]) -> tuple[list[Int], list[Int]]:
        roots = list(outputs)
        stack = [(root, False) for root in reversed(roots)]
        while stack:
            node, ready = stack.pop()
            if id(node) in self.done:
                continue
            if ready:
                self._finish(node)
            else:
                stack.append((node, True))
                stack.extend((child, False) for child in reversed(children(node)))
        return self.order, [self.done[id(root)] for root in roots]

    def _finish(self, node: Int) -> None:
        args = tuple(self.done[id(a)] if isinstance(a, Int) else a for a in node.args)
        key = (node.op, *(("node", id(a)) if isinstance(a, Int) else a for a in args))
        if key not in self.by_key:
            self.by_key[key] = Int(node.op, args, node.lo, node.hi)
            self.order.append(self.by_key[key])
        self.done[id(node)] = self.by_key[key]


def merge(outputs: Iterable[Int]) -> tuple[list[Int], list[Int]]:
    """All nodes in order with common subexpressions merged, and the merged outputs."""
    return _Merger().run(outputs)


def evaluate(outputs: Sequence[Int], inputs: Mapping[int, Any] | Sequence[Any], xp: Any) -> list[Any]:
    """The definition: run expressions on int32 arrays.

    Args:
        outputs: expressions to compute.
        inputs: int32 arrays of one shape, by input index.
        xp: ``numpy`` or ``torch``.

    Returns:
        one int32 array (or scalar, for a constant) an output.
    """
    return compute(*merge(outputs), inputs, xp)


def compute(order: Sequence[Int], roots: Sequence[Int], inputs: Mapping[int, Any] | Sequence[Any], xp: Any) -> list[Any]:
    """``evaluate`` of what ``merge`` gave: whoever runs the same expressions step after step merges them once."""
    one = xp.ones((), dtype=xp.int32)
    values: dict[int, Any] = {}
    for node in order:
        if node.op == "in":
            values[id(node)] = inputs[node.args[0]]
        else:
            values[id(node)] = _EVALUATE[node.op](xp, one, *[values[id(a)] if isinstance(a, Int) else a for a in node.args])
    return [values[id(root)] for root in roots]


_EVALUATE: dict[str, Callable[..., Any]] = {
    "const": lambda xp, one, value: one * value,
    "+": lambda xp, one, a, b: a + b,
    "-": lambda xp, one, a, b: a - b,
    "*": lambda xp, one, a, b: a * b,
    ">>": lambda xp, one, a, amount: a >> amount,
    "<": lambda xp, one, a, b: (a < b) * one,
    "!=": lambda xp, one, a, b: (a != b) * one,
    "min": lambda xp, one, a, b: xp.minimum(a, b),
    "max": lambda xp, one, a, b: xp.maximum(a, b),
    "where": lambda xp, one, c, a, b: xp.where(c != 0, a, b),
}
"""What each operation is on arrays; a table, as whoever steps an environment evaluates a shield at every step."""


_TEXT = {"+": "{} + {}", "-": "{} - {}", "*": "{} * {}", ">>": "{} >> {}", "<": "{} < {}", "!=": "{} != {}"}
_C = _TEXT | {"min": "{0} < {1} ? {0} : {1}", "max": "{0} > {1} ? {0} : {1}", "where": "{0} ? {1} : {2}"}
_C = _C | {"<": "{} < {} ? 1 : 0", "!=": "{} != {} ? 1 : 0"}
_PYTHON = _TEXT | {"min": "{0} if {0} < {1} else {1}", "max": "{0} if {0} > {1} else {1}", "where": "{1} if {0} else {2}"}
_PYTHON = _PYTHON | {"<": "1 if {} < {} else 0", "!=": "1 if {} != {} else 0"}


def _lines(outputs: Sequence[Int], text: Mapping[str, str], assign: str) -> tuple[list[str], list[str]]:
    order, roots = merge(outputs)
    names: dict[int, str] = {}
    lines: list[str] = []
    temporaries = 0
    for node in order:
        if node.op == "const":
            names[id(node)] = str(node.args[0]) if node.args[0] >= 0 else f"({node.args[0]})"
        elif node.op == "in":
            names[id(node)] = node.args[1]
            lines.append(assign.format(node.args[1], f"v[{node.args[0]}]"))
        else:
            names[id(node)] = f"t{temporaries}"
            temporaries += 1
            args = [names[id(a)] if isinstance(a, Int) else str(a) for a in node.args]
            lines.append(assign.format(names[id(node)], text[node.op].format(*args)))
    return lines, [names[id(root)] for root in roots]


def to_c(name: str, outputs: Sequence[Int]) -> str:
    """C99 text of ``void name(const int32_t *v, int32_t *out)``; no branch, no call, no overflow."""
    lines, results = _lines(outputs, _C, "    const int32_t {} = {};")
    lines += [f"    out[{k}] = {result};" for k, result in enumerate(results)]
    return f"void {name}(const int32_t *v, int32_t *out)\n{{\n" + "\n".join(lines) + "\n}\n"


def to_micropython(name: str, outputs: Sequence[Int]) -> str:
    """MicroPython text of ``def name(v, out)``; every value is a 31-bit small integer."""
    lines, results = _lines(outputs, _PYTHON, "    {} = {}")
    lines += [f"    out[{k}] = {result}" for k, result in enumerate(results)]
    return f"def {name}(v, out):\n" + "\n".join(lines) + "\n"


_ONNX = {"+": "Add", "-": "Sub", "*": "Mul", "min": "Min", "max": "Max"}
ONNX_INT32 = 6
"""``TensorProto.INT32``, so that printing needs no package."""


def to_onnx(outputs: Sequence[Int], inputs: Sequence[str], emit: Callable[..., str], constant: Callable[[int], str]) -> list[str]:
    """ONNX nodes on int32 tensors, for whoever builds the graph.

    Args:
        outputs: expressions to compute.
        inputs: name of the tensor of every input, by index; all of one shape.
        emit: ``emit(operator, *tensors, **attributes)`` adds a node and gives the name of what it computes.
        constant: gives the name of an int32 scalar.

    Returns:
        name of the tensor of every output; of a constant, the name of a scalar.
    """
    order, roots = merge(outputs)
    names: dict[int, str] = {}
    for node in order:
        if node.op == "const":
            names[id(node)] = constant(node.args[0])
        elif node.op == "in":
            names[id(node)] = inputs[node.args[0]]
        else:
            names[id(node)] = _onnx_node(node, [names[id(child)] for child in children(node)], emit, constant)
    return [names[id(root)] for root in roots]


def _onnx_node(node: Int, a: list[str], emit: Callable[..., str], constant: Callable[[int], str]) -> str:
    if node.op == ">>":
        return onnx_floor_divide(emit, a[0], constant(1 << node.args[1]))
    if node.op == "<":
        return emit("Cast", emit("Less", *a), to=ONNX_INT32)
    if node.op == "!=":
        return emit("Cast", emit("Not", emit("Equal", *a)), to=ONNX_INT32)
    if node.op == "where":
        return emit("Where", emit("Equal", a[0], constant(0)), a[2], a[1])
    return emit(_ONNX[node.op], *a)


def onnx_floor_divide(emit: Callable[..., str], x: str, divisor: str) -> str:
    """Right shift in ONNX, for a positive divisor: ONNX Runtime's BitShift refuses signed integers, and its Div truncates."""
    return emit("Div", emit("Sub", x, emit("Mod", x, divisor, fmod=0)), divisor)
