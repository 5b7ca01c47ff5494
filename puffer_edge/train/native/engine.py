"""The native trainer's engine: numpy arrays in, numpy arrays out; all that changes lies in them."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.train.native import HERE, load, structs

Array = npt.NDArray[Any]
MOST_THREADS = 256
MOST_ROWS = 2**31 - 1


@dataclass(frozen=True)
class Shape:
    """What the networks are: actor, critic and perhaps cost critic, each a multilayer perceptron, or one with one trunk.

    Attributes:
        inputs: n.
        hidden: widths of one to three hidden layers.
        activation: "relu" or "tanh".
        kind: "categorical" or "gaussian".
        sizes: choices of each group, or a 1 for each number of a Gaussian.
        critics: 1, or 2 with a cost critic.
        shared: one trunk for all.
    """

    inputs: int
    hidden: tuple[int, ...]
    activation: str
    kind: str
    sizes: tuple[int, ...]
    critics: int = 1
    shared: bool = False

    @property
    def outputs(self) -> int:
        """Of the actor."""
        return sum(self.sizes)

    @property
    def networks(self) -> tuple[tuple[int, ...], ...]:
        """Widths of each network, inputs first."""
        if self.shared:
            return ((self.inputs, *self.hidden, self.outputs + self.critics),)
        return tuple((self.inputs, *self.hidden, out) for out in (self.outputs, *[1] * self.critics))

    @property
    def spread(self) -> int:
        """Numbers of log_std."""
        return len(self.sizes) if self.kind == "gaussian" else 0

    @property
    def size(self) -> int:
        """Numbers of the flat buffer: weight and bias of each layer of each network, in torch's order, then log_std."""
        return sum(a * b + b for widths in self.networks for a, b in itertools.pairwise(widths)) + self.spread

    def why_not(self) -> str:
        """Why the native trainer does not take it; empty where it does."""
        if not 1 <= len(self.hidden) < structs.MOST_LAYERS:
            return f"it takes 1 to {structs.MOST_LAYERS - 1} hidden layers, not {len(self.hidden)}"
        if max(itertools.chain(*self.networks)) > 4096:
            return "it takes widths of up to 4096"
        if len(self.sizes) > structs.MOST_GROUPS or self.outputs > structs.MOST_OUTPUTS:
            return f"it takes {structs.MOST_GROUPS} groups and {structs.MOST_OUTPUTS} outputs, not {len(self.sizes)} and {self.outputs}"
        return ""


class Engine:
    """Threads, and room for networks of one shape.

    Args:
        shape: of the networks.
        threads: how many; the results are the same for any number.
        variant: of the library; empty for the best.
        folder: where libraries lie.

    Attributes:
        shape: of the networks.
        variant: instruction set; bits may differ between two of them.

    Raises:
        Unsupported: there is no native trainer here, or it does not take this shape.
        InvalidInput: the number of threads is out of range.
    """

    def __init__(self, shape: Shape, threads: int = 1, variant: str = "", folder: Path = HERE) -> None:
        if not 1 <= threads <= MOST_THREADS:
            raise InvalidInput(f"threads must lie in 1 … {MOST_THREADS}, not {threads}")
        if why := shape.why_not():
            raise Unsupported(f"the native trainer does not take these networks: {why}")
        self._library, self._engine = load(variant, folder), None
        self.shape, self.threads, self.variant = shape, threads, str(self._library.variant)
        self.real = np.dtype(np.float64 if self._library.pe_native_real() == 8 else np.float32)
        networks, head = structs.Networks(), structs.Head()
        networks.networks, networks.activation = len(shape.networks), ("relu", "tanh").index(shape.activation)
        for k, widths in enumerate(shape.networks):
            networks.layers[k] = len(widths) - 1
            networks.widths[k][: len(widths)] = list(widths)
        head.kind, head.groups, head.critics = ("categorical", "gaussian").index(shape.kind), len(shape.sizes), shape.critics
        head.sizes[: len(shape.sizes)] = list(shape.sizes)
        says = ctypes.create_string_buffer(200)
        self._engine = self._library.pe_engine_new(threads, ctypes.byref(networks), ctypes.byref(head), says, len(says))
        if not self._engine:
            raise Unsupported(f"the native trainer does not start: it needs {says.value.decode()}")
        assert self._library.pe_engine_flat(self._engine) == shape.size

    def __del__(self) -> None:
        if getattr(self, "_engine", None):
            self._library.pe_engine_free(self._engine)

    def forward(self, parameters: Array, x: Array) -> Array:
        """(rows, outputs and values) of (rows, inputs)."""
        out = np.empty((len(x), self.shape.outputs + self.shape.critics), self.real)
        flat, rows = self._flat(parameters), self._real("x", x, (len(x), self.shape.inputs))
        self._library.pe_engine_forward(self._engine, _place(flat), len(x), _place(rows), _place(out))
        return out

    def backward(self, parameters: Array, x: Array, d: Array) -> Array:
        """(size,) derivative by the parameters of what has derivative ``d`` by the outputs; that by log_std is 0."""
        gradient = np.zeros(self.shape.size, self.real)
        flat, rows = self._flat(parameters), self._real("x", x, (len(x), self.shape.inputs))
        by = self._real("d", d, (len(x), self.shape.outputs + self.shape.critics))
        self._library.pe_engine_backward(self._engine, _place(flat), len(x), _place(rows), _place(by), _place(gradient))
        return gradient

    def advantages(
        self,
        reward: Array,
        value: Array,
        final_value: Array,
        terminated: Array,
        truncated: Array,
        discount: float,
        trace_decay: float,
        ratio: Array | None = None,
        ratio_clip: float = 1.0,
        trace_clip: float = 1.0,
        reward_scale: float = 1.0,
    ) -> tuple[Array, Array]:
        """Advantages and returns, (T, N), of ``puffer_edge/train/advantages.py``; with (T, N) ratios those of V-trace, clipped."""
        shape = reward.shape
        advantage, returns = np.empty(shape, self.real), np.empty(shape, self.real)
        a = structs.Advantages()
        a.horizon, a.rows = shape
        a.discount, a.trace_decay, a.ratio_clip, a.trace_clip, a.reward_scale = discount, trace_decay, ratio_clip, trace_clip, reward_scale
        held = {"reward": _array("reward", reward, shape, np.float64)}
        held |= {"value": self._real("value", value, shape), "final_value": self._real("final_value", final_value, shape)}
        held |= {"terminated": _flags("terminated", terminated, shape), "truncated": _flags("truncated", truncated, shape)}
        held |= {} if ratio is None else {"ratio": self._real("ratio", ratio, shape)}
        _fill(a, held | {"advantage": advantage, "returns": returns})
        self._library.pe_engine_advantages(self._engine, ctypes.byref(a))
        return advantage, returns

    def moments(self, x: Array) -> tuple[Array, Array]:
        """(n,) mean of the columns of (rows, n) float64, and sum of their squared deviations."""
        rows, n = x.shape
        x = _array("x", x, (rows, n), np.float64)
        mean, m2, part = (np.empty(count) for count in (n, n, 8 * n))
        self._library.pe_engine_moments(self._engine, rows, n, *(_place(a) for a in (x, mean, m2, part)))
        return mean, m2

    def reset(self, rollout: Any) -> None:
        """Start all environments of a rollout afresh."""
        self._library.pe_engine_reset(self._engine, ctypes.byref(rollout))

    def rollout(self, parameters: Array, rollout: Any) -> tuple[int, int, int]:
        """Step a whole horizon; what was NaN or infinite (0: nothing, 1: an observation, 2: a reward, 3: a cost), at which step and row."""
        self._library.pe_engine_rollout(self._engine, _place(self._flat(parameters)), ctypes.byref(rollout))
        return tuple(rollout.fault)

    def update(self, update: Any) -> None:
        """Several epochs of PPO; parameters and Adam's moments change in place.

        Raises:
            MemoryError: there is no room for the order of the samples.
        """
        if not self._library.pe_engine_update(self._engine, ctypes.byref(update)):
            raise MemoryError(f"there is no room for the order of {update.samples} samples")

    def order(self, samples: int, seed: int, update: int, epoch: int) -> npt.NDArray[np.int32]:
        """The order in which an epoch takes its samples: a permutation."""
        out, u = np.empty(samples, np.int32), structs.Update()
        u.samples, u.seed, u.update = samples, seed, update
        self._library.pe_engine_order(self._engine, ctypes.byref(u), epoch, _place(out))
        return out

    def _flat(self, parameters: Array) -> Array:
        return _array("parameters", parameters, (self.shape.size,), self.real)

    def _real(self, name: str, x: Array, shape: tuple[int, ...]) -> Array:
        return _array(name, x, shape, self.real)


def _array(name: str, x: Array, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """The array itself, if C can take it as it is; what may only be read is copied where its type or order is another.

    Raises:
        InvalidInput: the shape is another.
    """
    if x.shape != shape:
        raise InvalidInput(f"{name} has shape {x.shape}, not {shape}")
    return np.ascontiguousarray(x, dtype)


def _flags(name: str, x: Array, shape: tuple[int, ...]) -> Array:
    return _array(name, x, shape, np.bool_).view(np.uint8)


def _place(x: Array) -> int:
    return int(x.ctypes.data)


def _fill(structure: Any, arrays: Mapping[str, Array]) -> None:
    """Put the arrays' addresses into a structure, which keeps them alive."""
    for name, x in arrays.items():
        assert x.flags.c_contiguous
        setattr(structure, name, _place(x))
    structure.held = [*getattr(structure, "held", []), *arrays.values()]


def fill(structure: Any, **arrays: Array) -> None:
    """Put the addresses of contiguous arrays into a structure's fields; they are written in place.

    Raises:
        InvalidInput: one is not contiguous.
    """
    for name, x in arrays.items():
        if not x.flags.c_contiguous:
            raise InvalidInput(f"{name} is not contiguous")
    _fill(structure, arrays)
