"""An environment's dynamics as JavaScript: its functions, scalar or numpy's, run once on symbols, and what they did is printed.

The printed functions do the same operations in the same order on float64 (float32 where numpy has it), so that additions, products
and square roots have numpy's bits. Sines and their like come from the browser's own library and may differ in the last bit;
``tests/export/test_javascript.py`` measures by how much. Start states are drawn by the caller's generator, not by numpy's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from puffer_edge.envs import draw, rewire, scalar
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.environment import Environment
from puffer_edge.errors import Unsupported

CALLS = {
    "absolute": "Math.abs({0})", "sqrt": "Math.sqrt({0})", "sin": "Math.sin({0})", "cos": "Math.cos({0})", "tan": "Math.tan({0})",
    "arcsin": "Math.asin({0})", "arccos": "Math.acos({0})", "arctan": "Math.atan({0})", "arctan2": "Math.atan2({0}, {1})",
    "exp": "Math.exp({0})", "log": "Math.log({0})", "sinh": "Math.sinh({0})", "cosh": "Math.cosh({0})", "tanh": "Math.tanh({0})",
    "floor": "Math.floor({0})", "ceil": "Math.ceil({0})", "trunc": "Math.trunc({0})", "sign": "Math.sign({0})",
    "maximum": "Math.max({0}, {1})", "minimum": "Math.min({0}, {1})", "remainder": "remainder({0}, {1})",
}  # fmt: skip
"""JavaScript of numpy's ufuncs that give floats; all names from https://numpy.org/doc/stable/reference/ufuncs.html."""

INFIX = {"add": "{0} + {1}", "subtract": "{0} - {1}", "multiply": "{0} * {1}", "divide": "{0} / {1}", "fmod": "{0} % {1}"}
UNARY = {"negative": "-{0}", "square": "{0} * {0}", "reciprocal": "1 / {0}", "positive": "{0}"}
COMPARISONS = {
    "less": "{0} < {1}", "less_equal": "{0} <= {1}", "greater": "{0} > {1}", "greater_equal": "{0} >= {1}",
    "equal": "{0} === {1}", "not_equal": "{0} !== {1}", "isfinite": "Number.isFinite({0})", "isnan": "Number.isNaN({0})",
}  # fmt: skip
LOGIC = {
    "bitwise_and": "{0} && {1}", "logical_and": "{0} && {1}", "bitwise_or": "{0} || {1}", "logical_or": "{0} || {1}",
    "invert": "!{0}", "logical_not": "!{0}", "bitwise_xor": "{0} !== {1}", "logical_xor": "{0} !== {1}",
}  # fmt: skip
FLOATS = CALLS | INFIX | UNARY

REMAINDER = """
/** numpy's remainder: of the sign of the divisor. */
function remainder(a, b) {
  const r = a % b; // exact
  if (r === 0) return b < 0 ? -0 : 0;
  return b < 0 !== r < 0 ? r + b : r;
}
"""


@dataclass(frozen=True, eq=False)
class Node:
    """One number of the trace.

    Attributes:
        text: JavaScript, with ``{0}`` … for the arguments.
        args: the nodes that stand there.
    """

    text: str
    args: tuple[Node, ...] = ()


def plant(environment: Environment) -> str:
    """The text of an ES module with ``environment``, ``reset(random)``, ``observe(state)`` and ``step(state, action)``.

    Raises:
        Unsupported: its functions cannot be traced: they branch on values, or call what has no JavaScript here.
    """
    contract, size = environment.contract, environment.state_size
    state = Symbols.variables("s", size)
    action = Symbols.variables("a", contract.n_actions)
    if environment.random_steps or environment.agents > 1:
        raise Unsupported(f"the dynamics of {environment.name} cannot be printed as JavaScript: its steps are random, or it has several agents")
    reset, observe, step = _functions(environment)
    try:
        start = _flat(reset(Draws()), size)
        observation = _flat(observe(state), contract.n_observations)
        following, reward, cost, terminated = step(state, action)
        results = [*_flat(following, size), *_flat(reward, 1), *_flat(cost, 1), *_flat(terminated, 1)]
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise Unsupported(f"the dynamics of {environment.name} cannot be printed as JavaScript: {error}") from None
    about = {
        "name": environment.name,
        "contract": contract.digest.hex(),
        "stateSize": size,
        "maxSteps": environment.max_steps,
        "solved": environment.solved,
    }
    outcome = f"{{{{ state: {_list(size)}, reward: {{}}, cost: {{}}, terminated: {{}} }}}}"
    printed = "".join(
        (
            _function("reset", "random", "A start state; random() gives uniform numbers in [0, 1).", start, _list(size)),
            _function("observe", "s", "What the sensors measure, in the contract's units.", observation, _list(contract.n_observations)),
            _function("step", "s, a", "One base period with action a, in physical units.", results, outcome),
        )
    )
    helper = REMAINDER if "remainder(" in printed else ""
    head = f"/* {environment.name}: printed by puffer-edge from a trace of its numpy functions; do not edit. */\n"
    return f"{head}\nexport const environment = Object.freeze({json.dumps(about)});\n{helper}{printed}"


class Symbols(np.lib.mixins.NDArrayOperatorsMixin):
    """An array of nodes, of one row, that numpy's functions work on.

    Args:
        nodes: object array of ``Node``.
        dtype: float64, float32 or bool: what numpy would have there.
    """

    def __init__(self, nodes: Any, dtype: Any = np.float64) -> None:
        self.nodes = np.asarray(nodes, object)
        self.dtype = np.dtype(dtype)

    @staticmethod
    def variables(name: str, count: int) -> Symbols:
        """(1, count) inputs ``name[0]``, …"""
        return Symbols(np.array([[Node(f"{name}[{i}]") for i in range(count)]], object))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.nodes.shape)

    @property
    def ndim(self) -> int:
        return self.nodes.ndim

    @property
    def T(self) -> Symbols:
        return Symbols(self.nodes.T, self.dtype)

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[Symbols]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, key: Any) -> Symbols:
        return Symbols(self.nodes[key], self.dtype)

    def __bool__(self) -> bool:
        raise TypeError("it branches on a value: np.where would not")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("it calls a numpy function that cannot be traced")

    def copy(self) -> Symbols:
        return Symbols(self.nodes.copy(), self.dtype)

    def astype(self, dtype: Any) -> Symbols:
        return _cast(self, np.dtype(dtype))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Symbols:
        if method != "__call__" or kwargs:
            raise TypeError(f"numpy's {ufunc.__name__}.{method} with {', '.join(kwargs) or 'no'} options cannot be traced")
        return _apply(ufunc.__name__, inputs)

    def __array_function__(self, function: Callable[..., Any], types: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        handler = FUNCTIONS.get(function.__name__)
        if handler is None:
            raise TypeError(f"numpy's {function.__name__} cannot be traced")
        return handler(*args, **kwargs)


class Draws:
    """In the place of ``puffer_edge.envs.draw``: every number that it gives is one call of ``random()``, in order."""

    def __init__(self) -> None:
        self.count = 0

    def uniform(self, low: Any = 0.0, high: Any = 1.0, columns: int = 1) -> Symbols:
        """(1, columns) numbers in [low, high)."""
        unit = np.empty((1, columns), object)
        for at in np.ndindex(unit.shape):
            unit[at] = Node(f"r[{self.count}]")
            self.count += 1
        span = np.subtract(high, low, dtype=np.float64)
        return np.asarray(low, np.float64) + span * Symbols(unit)  # type: ignore[no-any-return]


def _functions(environment: Environment) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Reset, observe and step as functions of one row of symbols; those of its own that are numpy's stay as they are."""
    own: tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]] = environment.reset, environment.observe, environment.step
    d = environment.dynamics
    if d is None:
        return own
    traced = _scalars(d)
    reset, observe, step = (t if f == face else f for f, face, t in zip(own, (d.start, d.look, d.advance), traced))
    return reset, observe, step


def _scalars(dynamics: Dynamics) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Scalar functions as functions of one row of symbols: what they call is numpy's, which the symbols record."""
    reset_one, observe_one, step_one = (rewire.replaced(f, TRACED) for f in (dynamics.reset, dynamics.observe, dynamics.step))

    def cells(symbols: Symbols) -> Any:
        row = np.empty(symbols.shape[1], object)
        for k in range(len(row)):
            row[k] = symbols[:, k]
        return row

    def joined(row: Any) -> Symbols:
        return Symbols(np.stack([_lift(value, np.dtype(np.float64)).nodes.reshape(1) for value in row], -1))

    def reset(draws: Draws) -> Symbols:
        row = np.empty(dynamics.n_state, object)
        reset_one(draws, row, dynamics.values)
        return joined(row)

    def observe(state: Symbols) -> Symbols:
        row = np.empty(dynamics.n_observation, object)
        observe_one(cells(state), row)
        return joined(row)

    def step(state: Symbols, action: Symbols) -> tuple[Any, ...]:
        row = cells(state)
        results = step_one(Draws(), row, cells(action), dynamics.values)
        return joined(row), *(value if isinstance(value, Symbols) else np.array([value]) for value in results)

    return reset, observe, step


def _single(x: Any) -> Any:
    return _cast(_cast(x, np.dtype(np.float32)), np.dtype(np.float64)) if isinstance(x, Symbols) else np.float64(np.float32(x))


TRACED: dict[Any, Any] = {
    draw.uniform: lambda draws, low, high: draws.uniform(low, high)[:, 0],
    scalar.sin: np.sin,
    scalar.cos: np.cos,
    scalar.log: np.log,
    scalar.sqrt: np.sqrt,
    scalar.power: np.power,
    scalar.power_single: lambda x, y: _single(np.power(x, y)),
    scalar.single: _single,
    scalar.clip: np.clip,
    scalar.where: np.where,
}
"""What a scalar function calls, on symbols."""


def _constant(value: Any) -> Node:
    number = float(value)
    if np.isnan(number) or np.isinf(number):
        return Node("NaN" if np.isnan(number) else "Infinity" if number > 0 else "-Infinity")
    return Node(repr(number).removesuffix(".0"))


def _lift(value: Any, dtype: Any) -> Symbols:
    """Symbols or constants as symbols of a type."""
    if isinstance(value, Symbols):
        return _cast(value, dtype)
    array = np.asarray(value).astype(dtype)
    nodes = np.empty(array.shape, object)
    for at in np.ndindex(array.shape):
        nodes[at] = Node("true" if array[at] else "false") if dtype == np.bool_ else _constant(array[at])
    return Symbols(nodes, dtype)


def _cast(value: Symbols, dtype: Any) -> Symbols:
    if value.dtype == dtype or (value.dtype == np.float32 and dtype == np.float64):  # a wider float holds the same number
        return Symbols(value.nodes, dtype)
    text = {np.dtype(np.float32): "Math.fround({0})", np.dtype(np.float64): "{0}", np.dtype(np.bool_): "{0} !== 0"}.get(dtype)
    if text is None:
        raise TypeError(f"it makes {dtype} of {value.dtype}: floats and booleans can be traced")
    if value.dtype == np.bool_:
        text = "{0} ? 1 : 0"
    return _map(text, (value,), dtype)


def _map(text: str, inputs: Sequence[Symbols], dtype: Any) -> Symbols:
    columns = np.broadcast_arrays(*(s.nodes for s in inputs))
    nodes = np.empty(columns[0].shape, object)
    for at in np.ndindex(nodes.shape):
        nodes[at] = Node(text, tuple(column[at] for column in columns))
    return Symbols(nodes, dtype)


def _common(inputs: Sequence[Any]) -> Any:
    """The type in which numpy computes: plain Python numbers take that of the others (NEP 50)."""
    dtype = np.result_type(*(s.dtype if isinstance(s, Symbols) else s for s in inputs))
    if dtype not in (np.float64, np.float32, np.bool_):
        raise TypeError(f"it computes in {dtype}: floats and booleans can be traced")
    return dtype


def _apply(name: str, inputs: Sequence[Any]) -> Symbols:
    if name == "power":
        return _power(*inputs)
    if name in LOGIC:
        if _common(inputs) != np.bool_:
            raise TypeError(f"numpy's {name} of floats cannot be traced")
        return _map(LOGIC[name], [_lift(value, np.dtype(np.bool_)) for value in inputs], np.bool_)
    dtype = _common(inputs)
    if name in COMPARISONS:
        return _map(COMPARISONS[name], [_lift(value, dtype) for value in inputs], np.bool_)
    if name not in FLOATS or dtype == np.bool_:
        raise TypeError(f"numpy's {name} of {dtype} cannot be traced")
    result = _map(FLOATS[name], [_lift(value, dtype) for value in inputs], dtype)
    return _map("Math.fround({0})", (result,), dtype) if dtype == np.float32 else result


def _power(base: Any, exponent: Any) -> Symbols:
    """numpy computes an array's square and root as such; another power is JavaScript's, which may differ in the last bit."""
    if isinstance(exponent, (int, float)) and float(exponent) in (2.0, 0.5):
        return _apply("square" if exponent == 2 else "sqrt", (base,))
    dtype = _common((base, exponent))
    result = _map("Math.pow({0}, {1})", [_lift(base, dtype), _lift(exponent, dtype)], dtype)
    return _map("Math.fround({0})", (result,), dtype) if dtype == np.float32 else result


def _clip(x: Any, low: Any, high: Any) -> Symbols:
    dtype = _common((x, low, high))
    return _map("Math.min(Math.max({0}, {1}), {2})", [_lift(value, dtype) for value in (x, low, high)], dtype)


def _where(condition: Any, a: Any, b: Any) -> Symbols:
    dtype = _common((a, b))
    return _map("{0} ? {1} : {2}", [_lift(condition, np.dtype(np.bool_)), _lift(a, dtype), _lift(b, dtype)], dtype)


def _join(join: Callable[..., Any]) -> Callable[..., Symbols]:
    def joined(arrays: Sequence[Any], axis: int = 0) -> Symbols:
        dtype = _common(arrays)
        return Symbols(join([_lift(a, dtype).nodes for a in arrays], axis), dtype)

    return joined


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "clip": _clip,
    "where": _where,
    "stack": _join(np.stack),
    "concatenate": _join(np.concatenate),
    "zeros_like": lambda x: np.zeros(x.shape, x.dtype),
    "ones_like": lambda x: np.ones(x.shape, x.dtype),
}


def _flat(value: Any, count: int) -> list[Node]:
    """The nodes of the one row that a function returned."""
    symbols = value if isinstance(value, Symbols) else _lift(value, np.asarray(value).dtype)
    if symbols.nodes.size != count or len(symbols.nodes) != 1:
        raise ValueError(f"a function gave an array of shape {symbols.shape} where one row of {count} was expected")
    return list(symbols.nodes.reshape(-1))


def _list(count: int) -> str:
    return f"[{', '.join(['{}'] * count)}]"


def _function(name: str, parameters: str, says: str, results: list[Node], template: str) -> str:
    """One exported function: what is used twice gets a name, everything else stands where it is used."""
    order, uses = _in_order(results)
    names: dict[int, str] = {}
    lines = []
    draws = sorted({node.text for node in order if node.text.startswith("r[")}, key=lambda text: int(text[2:-1]))
    if draws:
        lines.append(f"  const r = Array.from({{ length: {len(draws)} }}, () => random());")
    for node in order:
        if node.args and uses[id(node)] > 1:
            text = _print(node, names)
            names[id(node)] = f"t{len(names)}"
            lines.append(f"  const {names[id(node)]} = {text};")
    returned = template.format(*(_print(node, names) for node in results))
    body = "\n".join([*lines, f"  return {returned};"])
    return f"\n/** {says} */\nexport function {name}({parameters}) {{\n{body}\n}}\n"


def _in_order(results: list[Node]) -> tuple[list[Node], dict[int, int]]:
    """Every node after its arguments, and how often each is used."""
    order: list[Node] = []
    uses: dict[int, int] = {}

    def visit(node: Node) -> None:
        uses[id(node)] = uses.get(id(node), 0) + 1
        if uses[id(node)] > 1:
            return
        for k, arg in enumerate(node.args):
            visit(arg)
            uses[id(arg)] += node.text.count(f"{{{k}}}") - 1
        order.append(node)

    for node in results:
        visit(node)
    return order, uses


def _print(node: Node, names: dict[int, str]) -> str:
    if id(node) in names:
        return names[id(node)]
    is_call = node.text.endswith(")")
    parts = []
    for arg in node.args:
        text = _print(arg, names)
        atom = is_call or id(arg) in names or not arg.args or arg.text.endswith(")")
        parts.append(text if atom and not (text.startswith("-") and not is_call) else f"({text})")
    return node.text.format(*parts)
