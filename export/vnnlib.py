"""VNN-LIB: a network and properties of it, as tools read them that prove things about neural networks.

The network is the float policy up to its head, in Gemm, Relu and Tanh alone: the normaliser is folded into the first layer, a
continuous head's scale and offset into the last. Inputs are physical observations, outputs physical actions before the clamp, or one
logit a choice. A property is the *unsafe* set, as VNN-LIB wants it: "unsat" means that no observation of the box leads there.

What is proved holds for real numbers. The device computes integers, of which it says nothing by itself: rounding can and does change
what holds (Giacobbe, Henzinger, Lechner, 2020, "How many bits does it take to quantize your neural network?").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from puffer_edge.errors import Unsupported
from puffer_edge.export.onnx_graph import Graph
from puffer_edge.export.source import Source
from puffer_edge.layers import Layer
from puffer_edge.policy import Policy
from puffer_edge.spaces import Floats

FOLDER = "vnnlib"
NETWORK = "network.onnx"
OPSET = 13
"""Old enough for every tool."""
ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh"}
MARGIN = 1e-3
"""Share of its range by which an action must be outside to count: tools compute in floats, where a squashed one can touch the bound."""
TIMEOUT_S = 300
"""Of every line of ``instances.csv``."""


@dataclass(frozen=True)
class Bound:
    """A comparison: output ``row`` is at least, or at most, a number or another output.

    Attributes:
        row: index of the output on the left.
        relation: ">=" or "<=".
        other: a number, or the index of an output.
        is_row: ``other`` is an index.
    """

    row: int
    relation: str
    other: float
    is_row: bool = False

    def text(self) -> str:
        """As VNN-LIB writes it."""
        return f"({self.relation} Y_{self.row} {f'Y_{int(self.other)}' if self.is_row else _number(self.other)})"


@dataclass(frozen=True, eq=False)
class Property:
    """A question to a verifier: does an observation of the box lead to the unsafe set?

    Attributes:
        name: name of the file.
        words: what "unsat" means.
        low: (n,) lowest observation, physical.
        high: (n,) highest observation.
        names: (n,) observations with their units, for the comments.
        outputs: (k,) what every output is, for the comments.
        unsafe: cases, of which any is unsafe; a case is a list of comparisons that all hold.
    """

    name: str
    words: str
    low: Floats
    high: Floats
    names: tuple[str, ...]
    outputs: tuple[str, ...]
    unsafe: tuple[tuple[Bound, ...], ...]

    def text(self) -> str:
        """The file."""
        lines = [f"; {self.words}", "; unsat: proved, over real numbers. sat: the counterexample is an observation that leads there.", ""]
        lines += [f"; X_{i}: {name}" for i, name in enumerate(self.names)] + [f"; Y_{j}: {name}" for j, name in enumerate(self.outputs)]
        lines += [f"(declare-const X_{i} Real)" for i in range(len(self.low))]
        lines += [f"(declare-const Y_{j} Real)" for j in range(len(self.outputs))]
        for i, (low, high) in enumerate(zip(self.low, self.high)):
            lines += [f"(assert (>= X_{i} {_number(low)}))", f"(assert (<= X_{i} {_number(high)}))"]
        if len(self.unsafe) == 1:
            lines += [f"(assert {bound.text()})" for bound in self.unsafe[0]]
        else:
            lines += ["(assert (or", *(f"    (and {' '.join(bound.text() for bound in case)})" for case in self.unsafe), "))"]
        return "\n".join(lines) + "\n"


def files(source: Source) -> dict[str, bytes]:
    """``vnnlib/``: the network, a file a property, ``instances.csv`` that lists them, and a page.

    Raises:
        MissingExtra: the package onnx is not installed.
        Unsupported: the policy has a layer that verifiers do not read.
    """
    policy = source.policy
    held = {NETWORK: network(policy)}
    asked = properties(policy)
    held |= {f"{item.name}.vnnlib": item.text().encode() for item in asked}
    held["instances.csv"] = "".join(f"{NETWORK},{item.name}.vnnlib,{TIMEOUT_S}\n" for item in asked).encode()
    held["README.md"] = page(policy, asked).encode()
    return {f"{FOLDER}/{name}": data for name, data in held.items()}


def network(policy: Policy) -> bytes:
    """The network: input ``observation`` [1, n] float32, output ``outputs`` [1, k], Gemm and Relu or Tanh between them.

    Raises:
        MissingExtra: the package onnx is not installed.
        RangeError: a number does not fit float32.
        Unsupported: a layer is neither dense with one of these activations.
    """
    layers = _plain(policy)
    norm, head = policy.normalizer, policy.head
    weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
    biases[0] = biases[0] - weights[0] @ (norm.mean / norm.std)
    weights[0] = weights[0] / norm.std
    kinds = [layer.activation for layer in layers]
    if head.kind == "clip":
        weights[-1], biases[-1] = weights[-1] * head.scale[:, None], biases[-1] * head.scale + head.offset
    elif head.kind == "tanh":
        weights, biases, kinds = [*weights, np.diag(head.scale)], [*biases, head.offset], [*kinds[:-1], "tanh", "none"]
    g = Graph(batch=1, opset=OPSET)
    x = g.input("observation", np.float32, policy.contract.n_observations)
    for k, (weight, bias, kind) in enumerate(zip(weights, biases, kinds)):
        x = g.emit("Gemm", x, g.floats(f"a weight of layer {k}", weight), g.floats(f"a bias of layer {k}", bias), transB=1)
        x = g.emit(ACTIVATIONS[kind], x) if kind != "none" else x
    g.output("outputs", x, np.float32, policy.contract.n_outputs)
    return g.model("network", policy.contract, {})


def box(policy: Policy) -> tuple[Floats, Floats]:
    """(n,) lowest and highest observation that a verifier has to consider, in physical units.

    It is the contract's range, cut where the normaliser clips: there the network, which does not clip, takes the same value as at the
    edge, so nothing is lost.
    """
    c, norm = policy.contract, policy.normalizer
    ends = (c.physical_observation(c.observation_low), c.physical_observation(c.observation_high))
    reach = norm.clip * norm.std
    low, high = (np.clip(end, norm.mean - reach, norm.mean + reach) for end in ends)
    return low, high


def properties(policy: Policy) -> tuple[Property, ...]:
    """What the contract lets one ask: every action stays inside its range; a choice is never taken (a template: narrow its box)."""
    c = policy.contract
    names = tuple(f"{ch.name} in {ch.unit}" for ch in c.observations)
    low, high = box(policy)

    def asked(name: str, words: str, unsafe: Sequence[Sequence[Bound]]) -> Property:
        return Property(name, words, low, high, names, _outputs(policy), tuple(tuple(case) for case in unsafe))

    if c.head in ("clip", "tanh"):
        return tuple(
            asked(
                f"{ch.name}_inside",
                f"{ch.name} stays inside {ch.low:g} ... {ch.high:g} {ch.unit} before the clamp, to within {MARGIN:.1%} of that range",
                [[Bound(j, ">=", ch.high + MARGIN * (ch.high - ch.low))], [Bound(j, "<=", ch.low - MARGIN * (ch.high - ch.low))]],
            )
            for j, ch in enumerate(c.actions)
        )
    first, found = 0, []
    for what, size in _groups(policy):
        rows = range(first, first + size)
        found += [
            asked(
                f"{what}choice_{k}_never",
                f"choice {k}{f' of {what[:-1]}' if what else ''} is never taken; narrow X to where it would be wrong",
                [[Bound(row, ">=", other, True) for other in rows if other != row]],
            )
            for k, row in enumerate(rows)
            if size > 1  # the only choice there is, is taken
        ]
        first += size
    return tuple(found)


def page(policy: Policy, asked: Sequence[Property]) -> str:
    """``README.md`` of the folder."""
    outputs = "actions in physical units before the clamp" if policy.head.kind in ("clip", "tanh") else "one logit a choice"
    listed = "".join(f"| `{item.name}.vnnlib` | {item.words} |\n" for item in asked)
    return f"""# Verification

`network.onnx` is the float policy up to its head: physical observations in, {outputs} out.
The normaliser is folded into the first layer; only Gemm, Relu and Tanh are in it, for one row. Each file below is a question in
VNN-LIB, and `instances.csv` lists them in the form of the VNN-COMP, so that a tool of that competition takes the folder as it is.

| file | "unsat" means |
|---|---|
{listed}
The inputs reach over the contract's range, cut where the normaliser clips. Narrow them to the region that you care about; a bound of
an action or a pair of choices is changed as easily.

**What a proof is worth.** "unsat" holds for this network over real numbers, for the tool that said so. The device runs the same policy
in integers. A proof over the reals is not a proof over the integers: rounding moves every decision a little, and a property with no
margin can fail there. What is proved about the integers is that no accumulator overflows, and that the shield's output stays inside
the contract's range whatever the network says.
"""


def _plain(policy: Policy) -> list[Layer]:
    """The layers, if a verifier reads them."""
    for k, layer in enumerate(policy.layers):
        kind = type(layer).__name__.lower()
        if not isinstance(layer, Layer):
            raise Unsupported(f"layer {k} is a {kind}: files for verifiers hold dense layers with relu or tanh")
        if layer.activation not in (*ACTIVATIONS, "none"):
            raise Unsupported(f"layer {k} has the activation {layer.activation}: files for verifiers hold dense layers with relu or tanh")
    return [layer for layer in policy.layers if isinstance(layer, Layer)]


def _groups(policy: Policy) -> list[tuple[str, int]]:
    """Prefix of the names and number of logits of every choice that a discrete head makes."""
    c = policy.contract
    return [("", c.n_outputs)] if c.head == "discrete" else [(f"{ch.name}_", len(row)) for ch, row in zip(c.actions, c.levels)]


def _outputs(policy: Policy) -> tuple[str, ...]:
    """What every output is."""
    c = policy.contract
    if c.head in ("clip", "tanh"):
        return tuple(f"{ch.name} in {ch.unit}" for ch in c.actions)
    return tuple(f"{what.replace('_', ' ')}choice {k}" for what, size in _groups(policy) for k in range(size))


def _number(value: float) -> str:
    """A decimal that reads back as the same float64, without an exponent, which some tools do not read."""
    return np.format_float_positional(value, unique=True, trim="0")
