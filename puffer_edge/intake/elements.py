"""A chain of small operations, as graphs have them, becomes what a policy is made of: normaliser, layers, head.

Everything linear between two activations is multiplied out. What has no layer of its own is rewritten into dense layers that compute
the same: a clip, a leaky ReLU of any slope, a choice or reordering of values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from puffer_edge.errors import Unsupported
from puffer_edge.intake.draft import Draft
from puffer_edge.layers import MAX_IMAGE
from puffer_edge.policy import AnyLayer, Conv, Layer, Normalizer, Recurrent
from puffer_edge.spaces import Floats


@dataclass(frozen=True, eq=False)
class Scale:
    """``factor · x + offset``, number by number; both (n,)."""

    factor: Floats
    offset: Floats


@dataclass(frozen=True, eq=False)
class Linear:
    """``weight @ x + bias``."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True, eq=False)
class Act:
    """An activation by our name; "erf" stands for a part of a GELU until its rest is found."""

    name: str


@dataclass(frozen=True, eq=False)
class Leaky:
    """``x`` above zero, ``slope · x`` below; slope (n,)."""

    slope: Floats


@dataclass(frozen=True, eq=False)
class Clamp:
    """``clip(x, low, high)``, both (n,), ∓∞ where open."""

    low: Floats
    high: Floats


@dataclass(frozen=True, eq=False)
class Whole:
    """A layer that is taken over as it is: convolution, pooling, recurrent cell."""

    layer: AnyLayer


@dataclass(frozen=True, eq=False)
class Choose:
    """Softmax or argmax: the largest output chooses."""


Element = Scale | Linear | Act | Leaky | Clamp | Whole | Choose


def compile_chain(elements: Sequence[Element], n: int, m: int, source: str) -> Draft:
    """A draft out of a chain.

    Args:
        elements: from observation to output.
        n: observations.
        m: outputs.
        source: what the chain comes from, for people.

    Raises:
        Unsupported: something follows a choice, or nothing is in the chain.
    """
    rest = list(elements)
    normalizer = _front(rest, n)
    draft = Draft(source, (), normalizer=normalizer)
    if any(isinstance(e, Choose) for e in rest):
        while isinstance(rest[-1], Choose):
            rest.pop()
        if any(isinstance(e, Choose) for e in rest):
            raise Unsupported(f"{source}: something is computed from a softmax or argmax; an output may be chosen, not used further")
        draft = replace(draft, head="discrete")
    else:
        draft = _tail(draft, rest, m)
    layers = _Builder(n).build(rest)
    draft = replace(draft, layers=tuple(layers))
    return replace(draft, choices=(draft.n_outputs,)) if draft.head == "discrete" else draft


def _front(rest: list[Element], n: int) -> Normalizer | None:
    """Take a normalisation off the front: scales of positive factor, then perhaps a symmetric clip."""
    factor, offset, found = np.ones(n), np.zeros(n), 0
    while found < len(rest) and isinstance(e := rest[found], Scale):
        factor, offset, found = factor * e.factor, offset * e.factor + e.offset, found + 1
    clip, first = np.inf, rest[found] if found < len(rest) else None
    if isinstance(first, Clamp) and np.ptp(first.high) == 0 and (first.low == -first.high).all() and 0 < first.high[0] < np.inf:
        clip, found = float(first.high[0]), found + 1
    if not found or not (factor > 0).all():
        return None
    del rest[:found]
    return Normalizer(-offset / factor, 1 / factor, clip)


def _tail(draft: Draft, rest: list[Element], m: int) -> Draft:
    """Take a continuous head off the end: [tanh or sigmoid], scales, clips, in any order of the last two."""
    end = len(rest)
    while end and isinstance(rest[end - 1], (Scale, Clamp)):
        end -= 1
    squash = rest[end - 1] if end and isinstance(rest[end - 1], Act) else None
    if not isinstance(squash, Act) or squash.name not in ("tanh", "sigmoid"):
        first = next((k for k in range(end, len(rest)) if isinstance(rest[k], Clamp)), None)
        if first is None:
            return draft  # the bare outputs: the contract says what they are
        end, squash = first, None
    tail = rest[end:]
    factor, offset, low, high = np.ones(m), np.zeros(m), np.full(m, -np.inf), np.full(m, np.inf)
    if squash is not None:
        low, high = np.full(m, -1.0), np.ones(m)
        if squash.name == "sigmoid":  # σ(y) = ½ + ½·tanh(y/2)
            factor, offset, low = factor / 2, offset + 0.5, np.zeros(m)
    for e in tail:
        if isinstance(e, Scale):
            factor, offset = factor * e.factor, offset * e.factor + e.offset
            ends = np.array([low * e.factor + e.offset, high * e.factor + e.offset])
            low, high = ends.min(0), ends.max(0)
        elif isinstance(e, Clamp):
            low, high = np.clip(low, e.low, e.high), np.clip(high, e.low, e.high)
    del rest[end - (squash is not None) :]
    if squash is not None and squash.name == "sigmoid":
        rest.append(Scale(np.full(m, 0.5), np.zeros(m)))
    bounded = bool(np.isfinite(low).all() and np.isfinite(high).all())
    return replace(
        draft,
        head="tanh" if squash is not None else "clip",
        scale=factor,
        offset=offset,
        action_low=low if bounded else None,
        action_high=high if bounded else None,
    )


class _Builder:
    """Multiplies out what is linear, and starts a layer at every activation."""

    def __init__(self, n: int) -> None:
        self.n = n  # values that flow
        self.layers: list[AnyLayer] = []
        self.pending: Linear | None = None

    def build(self, elements: Sequence[Element]) -> list[AnyLayer]:
        for e in elements:
            self.add(e)
        last = self.layers[-1] if self.layers else None
        if self.pending is not None or not isinstance(last, Layer) or last.activation != "none":
            self.flush("none")
        return self.layers

    def add(self, e: Element) -> None:
        if isinstance(e, Scale):
            self.scale(e)
        elif isinstance(e, Linear):
            self.linear(e)
        elif isinstance(e, Act):
            self.activate(e.name)
        elif isinstance(e, Leaky):
            eye, zeros = np.eye(self.n), np.zeros(self.n)
            self.rewrite(np.concatenate([eye, -eye]), np.zeros(2 * self.n), np.concatenate([eye, -eye * e.slope], 1), zeros)
        elif isinstance(e, Clamp):
            self.clamp(e)
        elif isinstance(e, Whole):
            self.whole(e.layer)

    def rewrite(self, weight: Floats, bias: Floats, after: Floats, offset: Floats) -> None:
        """``after @ relu(weight @ x + bias) + offset``."""
        self.linear(Linear(weight, bias))
        self.flush("relu")
        self.linear(Linear(after, offset))

    def clamp(self, e: Clamp) -> None:
        """``clip(x, low, high) = low + relu(x − low) − relu(x − high)``; an open side needs its half alone."""
        eye, low, high = np.eye(self.n), np.isfinite(e.low), np.isfinite(e.high)
        if not (low | high).any():
            return
        if not (low.all() and high.all()):
            if low.all() and not high.any():  # max(x, low) = low + relu(x − low)
                return self.rewrite(eye, -e.low, eye, e.low)
            if high.all() and not low.any():  # min(x, high) = high − relu(high − x)
                return self.rewrite(-eye, e.high, -eye, e.high)
            raise Unsupported("a clip that bounds some of its values and leaves others open")
        self.rewrite(np.concatenate([eye, eye]), np.concatenate([-e.low, -e.high]), np.concatenate([eye, -eye], 1), e.low)

    def linear(self, e: Linear) -> None:
        before = self.pending
        if max(e.weight.shape) > MAX_IMAGE:
            raise Unsupported(f"a layer of {e.weight.shape[1]} → {e.weight.shape[0]} values: at most {MAX_IMAGE} between two layers")
        self.pending = e if before is None else Linear(e.weight @ before.weight, e.weight @ before.bias + e.bias)
        self.n = len(e.bias)

    def scale(self, e: Scale) -> None:
        last = self.layers[-1] if self.layers else None
        if self.pending is None and isinstance(last, Conv) and last.activation == "none":
            factor, offset = (v.reshape(len(last.bias), -1) for v in (e.factor, e.offset))
            if np.ptp(factor, 1).max() == 0 and np.ptp(offset, 1).max() == 0:  # one a channel, as BatchNormalization
                self.layers[-1] = replace(last, weight=last.weight * factor[:, :1, None, None], bias=last.bias * factor[:, 0] + offset[:, 0])
                return
        if self.pending is not None:
            self.pending = Linear(self.pending.weight * e.factor[:, None], self.pending.bias * e.factor + e.offset)
        elif (e.factor != 1).any() or e.offset.any():
            self.linear(Linear(np.diag(e.factor), e.offset))

    def activate(self, name: str) -> None:
        last = self.layers[-1] if self.layers else None
        if self.pending is None and isinstance(last, Conv) and last.activation == "none":
            self.layers[-1] = replace(last, activation=name)
        else:
            self.flush(name)

    def whole(self, layer: AnyLayer) -> None:
        if isinstance(layer, Recurrent) and self.pending is not None:
            before, self.pending = self.pending, None
            bias = layer.bias_ih + layer.weight_ih @ before.bias
            layer = replace(layer, weight_ih=layer.weight_ih @ before.weight, bias_ih=bias)
        if self.pending is not None:
            self.flush("none")
        self.layers.append(layer)
        self.n = layer.n_out

    def flush(self, activation: str) -> None:
        """End what is pending with an activation; an identity where nothing is pending."""
        now = self.pending or Linear(np.eye(self.n), np.zeros(self.n))
        self.layers.append(Layer(now.weight, now.bias, activation))
        self.pending = None
