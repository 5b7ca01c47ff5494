"""The layers of a float policy: dense, convolution, global pooling, and recurrent cells; float64, numpy only.

Every layer takes and gives flat vectors. Images lie channels first, (C, H, W), as torch flattens them; a signal over time is an
image of height 1. Equations and gate orders are torch's, so that a state dict moves in unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from puffer_edge.errors import InvalidInput
from puffer_edge.spaces import Floats

MAX_IMAGE = 4096
"""Largest number of values between two layers."""

_erf = np.vectorize(math.erf, otypes=[np.float64])


def sigmoid(x: Floats) -> Floats:
    """``1 / (1 + exp(−x))``, without overflow."""
    result: Floats = 0.5 * (1.0 + np.tanh(0.5 * x))
    return result


ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0.0),
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0.0))),
    "silu": lambda x: x * sigmoid(x),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "gelu": lambda x: 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0))) if np.size(x) else x,
}
"""By name; ELU has α = 1, leaky ReLU the slope 0.01, GELU is the exact one: torch's defaults."""


def as_floats(owner: object, *names: str) -> None:
    """Turn fields of a frozen dataclass into float64 arrays."""
    for name in names:
        try:
            object.__setattr__(owner, name, np.asarray(getattr(owner, name), np.float64))
        except (TypeError, ValueError):
            raise InvalidInput(f"{name} of a {type(owner).__name__} must be numbers, not {getattr(owner, name)!r}") from None


def _as_whole(owner: object, name: str, count: int, least: int) -> None:
    """Turn a field into a tuple of ``count`` whole numbers, none below ``least``."""
    values = getattr(owner, name)
    if not isinstance(values, (tuple, list)) or len(values) != count or any(isinstance(v, bool) or not isinstance(v, int) for v in values):
        raise InvalidInput(f"{name} of a {type(owner).__name__} must be {count} whole numbers, not {values!r}")
    if min(values) < least or max(values) > MAX_IMAGE:
        raise InvalidInput(f"{name} of a {type(owner).__name__} must lie in {least} … {MAX_IMAGE}, not {values}")
    object.__setattr__(owner, name, tuple(values))


def _known(owner: object, field: str, known: Any) -> None:
    value = getattr(owner, field)
    if not isinstance(value, str) or value not in known:
        raise InvalidInput(f"the {field} of a {type(owner).__name__} is {value!r}: one of {', '.join(known)}")


@dataclass(frozen=True, eq=False)
class Layer:
    """A dense layer: ``activation(weight @ x + bias)``.

    Attributes:
        weight: (outputs, inputs).
        bias: (outputs,).
        activation: one of ``ACTIVATIONS``.
    """

    weight: Floats
    bias: Floats
    activation: str

    def __post_init__(self) -> None:
        as_floats(self, "weight", "bias")
        _known(self, "activation", ACTIVATIONS)
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[:1] or not self.weight.size:
            raise InvalidInput(f"a dense layer has a weight (outputs, inputs) and a bias (outputs,), not {self.weight.shape} and {self.bias.shape}")

    @property
    def n_in(self) -> int:
        """Values that go in."""
        return int(self.weight.shape[1])

    @property
    def n_out(self) -> int:
        """Values that come out."""
        return int(self.weight.shape[0])

    def linear(self, x: Floats) -> Floats:
        """(..., n_in) to (..., n_out), before the activation."""
        result: Floats = x @ self.weight.T + self.bias
        return result

    def __call__(self, x: Floats) -> Floats:
        """(..., n_in) to (..., n_out)."""
        return ACTIVATIONS[self.activation](self.linear(x))


@dataclass(frozen=True, eq=False)
class Conv:
    """A convolution (a correlation, as everywhere in deep learning) with zero padding, then an activation.

    Attributes:
        weight: (filters, channels, kernel height, kernel width); (filters, 1, …) if depthwise.
        bias: (filters,).
        activation: one of ``ACTIVATIONS``.
        shape: (channels, height, width) of the input.
        stride: (down, right).
        padding: zeros added at (top, left, bottom, right).
        depthwise: every filter sees one channel: filter f the channel ``f // (filters / channels)``.
    """

    weight: Floats
    bias: Floats
    activation: str
    shape: tuple[int, int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    depthwise: bool = False

    def __post_init__(self) -> None:
        as_floats(self, "weight", "bias")
        _known(self, "activation", ACTIVATIONS)
        for name, count, least in (("shape", 3, 1), ("stride", 2, 1), ("padding", 4, 0)):
            _as_whole(self, name, count, least)
        channels = 1 if self.depthwise else self.shape[0]
        if self.weight.ndim != 4 or self.weight.shape[1] != channels or self.bias.shape != self.weight.shape[:1] or not self.weight.size:
            raise InvalidInput(f"a convolution over {self.shape} needs weights (filters, {channels}, height, width), not {self.weight.shape}")
        if self.depthwise and len(self.bias) % self.shape[0]:
            raise InvalidInput(f"a depthwise convolution of {self.shape[0]} channels has a multiple of that many filters, not {len(self.bias)}")
        if max(self.weight.shape[2:]) > 255 or max(*self.stride, *self.padding) > 255:
            raise InvalidInput("kernel, stride and padding of a convolution are at most 255")
        if min(self.out_shape) < 1:
            raise InvalidInput(f"a kernel of {self.weight.shape[2:]} does not fit into {self.shape} with padding {self.padding}")

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """(filters, height, width) of the output."""
        (_, height, width), (top, left, bottom, right) = self.shape, self.padding
        kernel_height, kernel_width = self.weight.shape[2:]
        down, across = height + top + bottom - kernel_height, width + left + right - kernel_width
        return len(self.bias), down // self.stride[0] + 1 if down >= 0 else 0, across // self.stride[1] + 1 if across >= 0 else 0

    @property
    def n_in(self) -> int:
        """Values that go in."""
        return math.prod(self.shape)

    @property
    def n_out(self) -> int:
        """Values that come out."""
        return math.prod(self.out_shape)

    def linear(self, x: Floats) -> Floats:
        """(..., n_in) to (..., n_out), before the activation."""
        image = x.reshape(-1, *self.shape)
        top, left, bottom, right = self.padding
        image = np.pad(image, ((0, 0), (0, 0), (top, bottom), (left, right)))
        filters, height, width = self.out_shape
        patches = np.lib.stride_tricks.sliding_window_view(image, self.weight.shape[2:], axis=(2, 3))
        patches = patches[:, :, :: self.stride[0], :: self.stride[1]][:, :, :height, :width]
        if self.depthwise:
            y = np.einsum("nchwij,cmij->ncmhw", patches, self.weight.reshape(self.shape[0], -1, *self.weight.shape[2:]))
        else:
            y = np.einsum("nchwij,fcij->nfhw", patches, self.weight)
        y = y.reshape(-1, filters, height, width) + self.bias[:, None, None]
        return np.ascontiguousarray(y).reshape(*x.shape[:-1], -1)

    def __call__(self, x: Floats) -> Floats:
        """(..., n_in) to (..., n_out)."""
        return ACTIVATIONS[self.activation](self.linear(x))


@dataclass(frozen=True, eq=False)
class Pool:
    """Global pooling: one number a channel.

    Attributes:
        kind: "average" or "max".
        shape: (channels, height, width) of the input.
    """

    kind: str
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        _known(self, "kind", ("average", "max"))
        _as_whole(self, "shape", 3, 1)

    @property
    def n_in(self) -> int:
        """Values that go in."""
        return math.prod(self.shape)

    @property
    def n_out(self) -> int:
        """Values that come out."""
        return self.shape[0]

    def __call__(self, x: Floats) -> Floats:
        """(..., n_in) to (..., channels)."""
        image = x.reshape(*x.shape[:-1], self.shape[0], -1)
        result: Floats = image.mean(-1) if self.kind == "average" else image.max(-1)
        return result


@dataclass(frozen=True, eq=False)
class Recurrent:
    """A GRU (Cho et al., 2014, reset gate after the product, as torch) or an LSTM (Hochreiter and Schmidhuber, 1997) cell.

    GRU: ``r, z = σ(Wx + b + Uh + c)``, ``n = tanh(Wx + b + r·(Uh + c))``, ``h' = (1 − z)·n + z·h``.
    LSTM: ``i, f, o = σ(…)``, ``g = tanh(…)``, ``c' = f·c + i·g``, ``h' = o·tanh(c')``.

    Attributes:
        kind: "gru" (rows r, z, n) or "lstm" (rows i, f, g, o).
        weight_ih: (gates · hidden, inputs).
        weight_hh: (gates · hidden, hidden).
        bias_ih: (gates · hidden,).
        bias_hh: (gates · hidden,).
    """

    kind: str
    weight_ih: Floats
    weight_hh: Floats
    bias_ih: Floats
    bias_hh: Floats

    def __post_init__(self) -> None:
        as_floats(self, "weight_ih", "weight_hh", "bias_ih", "bias_hh")
        _known(self, "kind", ("gru", "lstm"))
        rows = self.weight_ih.shape[:1]
        square = self.weight_hh.ndim == 2 and self.weight_hh.shape[1] * self.gates == self.weight_hh.shape[0] == rows[0]
        if self.weight_ih.ndim != 2 or not self.weight_ih.size or not square or self.bias_ih.shape != rows or self.bias_hh.shape != rows:
            shapes = [getattr(self, f.name).shape for f in fields(self)[1:]]
            raise InvalidInput(
                f"a {self.kind} has weights ({self.gates}·hidden, inputs) and ({self.gates}·hidden, hidden) and two biases, not {shapes}"
            )

    @property
    def gates(self) -> int:
        """Blocks of rows: 3 or 4."""
        return 3 if self.kind == "gru" else 4

    @property
    def n_in(self) -> int:
        """Values that go in."""
        return int(self.weight_ih.shape[1])

    @property
    def n_out(self) -> int:
        """Values that come out: the hidden state."""
        return int(self.weight_hh.shape[1])

    @property
    def memory(self) -> int:
        """Numbers kept from step to step: h, for an LSTM then c."""
        return self.n_out if self.kind == "gru" else 2 * self.n_out

    def step(self, x: Floats, memory: Floats) -> tuple[Floats, Floats]:
        """(..., n_in) and (..., memory) to (..., n_out) and the next memory."""
        h = memory[..., : self.n_out]
        given, kept = x @ self.weight_ih.T + self.bias_ih, h @ self.weight_hh.T + self.bias_hh
        if self.kind == "gru":
            (r, z, n), (hr, hz, hn) = np.split(given, 3, -1), np.split(kept, 3, -1)
            update = sigmoid(z + hz)
            h = (1 - update) * np.tanh(n + sigmoid(r + hr) * hn) + update * h
            return h, h
        i, f, g, o = np.split(given + kept, 4, -1)
        c = sigmoid(f) * memory[..., self.n_out :] + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        return h, np.concatenate([h, c], -1)


AnyLayer = Layer | Conv | Pool | Recurrent
KINDS: dict[str, type[AnyLayer]] = {"dense": Layer, "conv": Conv, "pool": Pool, "recurrent": Recurrent}
"""How a saved policy names them."""


def describe(layer: AnyLayer) -> tuple[dict[str, Any], dict[str, Floats]]:
    """A layer as plain JSON values and tensors, for a file."""
    parts = {f.name: getattr(layer, f.name) for f in fields(layer)}
    tensors = {name: value for name, value in parts.items() if isinstance(value, np.ndarray)}
    name = next(name for name, kind in KINDS.items() if type(layer) is kind)
    return {"layer": name, **{key: value for key, value in parts.items() if key not in tensors}}, tensors


def restore(about: Any, tensors: dict[str, Floats]) -> AnyLayer:
    """A layer from what ``describe`` gave.

    Raises:
        InvalidInput: a field is missing, unknown or wrong.
    """
    if not isinstance(about, dict) or about.get("layer") not in KINDS:
        raise InvalidInput(f"unknown layer {about!r}: one of {', '.join(KINDS)}")
    parts: dict[str, Any] = {key: value for key, value in about.items() if key != "layer"} | tensors
    try:
        return KINDS[about["layer"]](**parts)
    except TypeError as error:
        raise InvalidInput(f"a {about['layer']} layer has other fields: {error}") from None
