"""Values of an ONNX graph while it is walked: what depends on the observation, what is memory, and what is constant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import Unsupported
from puffer_edge.intake.archives import short
from puffer_edge.intake.elements import Element


@dataclass(frozen=True, eq=False)
class Flow:
    """A value that depends on the observation.

    Attributes:
        chain: what happened to it so far.
        dims: its shape, the batch being 1.
    """

    chain: tuple[Element, ...]
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.dims)


@dataclass(frozen=True, eq=False)
class State:
    """Memory that comes in from the step before; a device keeps it by itself.

    Attributes:
        source: name of the input it came in by; "" for what a cell leaves behind.
        index: which numbers of that input these are, in their shape, the batch being 1.
    """

    source: str
    index: npt.NDArray[np.int64]

    @property
    def dims(self) -> tuple[int, ...]:
        """Its shape."""
        return self.index.shape


Value = Flow | State | npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Node:
    """One node of a graph, with plain attributes.

    Attributes:
        index: its place in the file.
        name: its name there.
        op: the operator.
        inputs: names of what goes in, "" for what is left out.
        outputs: names of what comes out.
        attributes: numbers, texts, lists and arrays by name.
    """

    index: int
    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        named = f" {short(repr(self.name))}" if self.name else ""
        return f"node {self.index}{named} ({self.op}, reading {short(', '.join(filter(None, self.inputs)))})"


def shape_of(value: Value) -> Sequence[int]:
    """Shape of any value, the batch being 1."""
    return value.dims if isinstance(value, (Flow, State)) else value.shape


def flow(value: Value | None) -> Flow:
    """A value that depends on the observation, or an error."""
    if not isinstance(value, Flow):
        raise Unsupported("the observation goes in where a constant belongs, or the other way round")
    return value


def known(inputs: Sequence[Value | None], k: int, missing: Any = None) -> npt.NDArray[Any]:
    """The k-th input, which must be a constant; ``missing`` where it is left out."""
    value = inputs[k] if k < len(inputs) else None
    if value is None:
        return np.asarray(missing)
    if not isinstance(value, np.ndarray):
        raise Unsupported(f"input {k} must be a constant; here it depends on the observation")
    return value


def then(x: Flow, dims: Sequence[int], *elements: Element) -> Flow:
    """A flow that goes on."""
    return Flow((*x.chain, *elements), tuple(dims))


def spread(value: npt.NDArray[Any], x: Flow) -> npt.NDArray[np.float64]:
    """A constant as one number for each value of the flow."""
    full = np.broadcast_shapes(value.shape, x.dims)
    if math.prod(full) != x.size:
        raise Unsupported(f"a constant of shape {value.shape} makes more of {x.dims}")
    return np.broadcast_to(np.asarray(value, np.float64), full).reshape(-1)
