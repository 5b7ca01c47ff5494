"""The native trainer's engine: numpy arrays in, numpy arrays out; all that changes lies in them."""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.train.native import HERE, arrays, load, structs

Array = npt.NDArray[Any]
MOST_THREADS = 256
MOST_PARAMETERS = 2**24
ACTIVATIONS, KINDS = ("relu", "tanh"), ("categorical", "gaussian", "value")


@dataclass(frozen=True)
class Shape:
    """What the networks are: actor and critic, each a multilayer perceptron, or one with one trunk; or a critic alone.

    Attributes:
        inputs: n.
        hidden: widths of one to three hidden layers.
        activation: "relu" or "tanh".
        kind: "categorical" or "gaussian", or "value" for a critic alone.
        sizes: choices of each group, or a 1 for each number of a Gaussian; none of a critic alone.
        shared: one trunk for both.
    """

    inputs: int
    hidden: tuple[int, ...]
    activation: str
    kind: str
    sizes: tuple[int, ...]
    shared: bool = False

    @property
    def outputs(self) -> int:
        """Of the actor."""
        return sum(self.sizes)

    @property
    def networks(self) -> tuple[tuple[int, ...], ...]:
        """Widths of each network, inputs first."""
        if self.shared:
            return ((self.inputs, *self.hidden, self.outputs + 1),)
        return tuple((self.inputs, *self.hidden, out) for out in (([] if self.kind == "value" else [self.outputs]) + [1]))

    @property
    def spread(self) -> int:
        """Numbers of log_std."""
        return len(self.sizes) if self.kind == "gaussian" else 0

    @cached_property
    def size(self) -> int:
        """Numbers of the flat buffer: weight and bias of each layer of each network, in torch's order, then log_std."""
        return sum(a * b + b for widths in self.networks for a, b in itertools.pairwise(widths)) + self.spread

    def why_not(self) -> str:
        """Why the native trainer does not take it; empty where it does."""
        if not 1 <= len(self.hidden) < structs.MOST_LAYERS:
            return f"it takes 1 to {structs.MOST_LAYERS - 1} hidden layers, not {len(self.hidden)}"
        if self.activation not in ACTIVATIONS or self.kind not in KINDS:
            known = f"activation {' or '.join(ACTIVATIONS)}, and a head that is {' or '.join(KINDS)}"
            return f"it takes {known}, not {self.activation!r} and {self.kind!r}"
        if self.kind == "value":
            if self.sizes or self.shared:
                return f"a critic alone has no choices and shares no trunk, not {self.sizes} and shared {self.shared}"
        elif not self.sizes or min(self.sizes) < 1 or (self.kind == "gaussian" and max(self.sizes) > 1):
            return f"a head needs groups of at least one choice, or a 1 for each number of a Gaussian, not {self.sizes}"
        if not 1 <= min(itertools.chain(*self.networks)) <= max(itertools.chain(*self.networks)) <= 4096:
            return "it takes widths of 1 up to 4096"
        if self.size > MOST_PARAMETERS:
            return f"it takes {MOST_PARAMETERS} parameters, not {self.size}"
        if len(self.sizes) > structs.MOST_GROUPS or self.outputs > structs.MOST_OUTPUTS:
            return f"it takes {structs.MOST_GROUPS} groups and {structs.MOST_OUTPUTS} outputs, not {len(self.sizes)} and {self.outputs}"
        return ""


class Held:
    """What the library holds for Python: freed with it, never copied, and called by one at a time.

    Attributes:
        threads: how many it has.
        variant: instruction set; bits may differ between two of them.
        real: type of the library's numbers.
    """

    free = ""
    """Name of the function that frees it."""

    def __init__(self, threads: int, variant: str, folder: Path) -> None:
        if not 1 <= threads <= MOST_THREADS:
            raise InvalidInput(f"threads must lie in 1 … {MOST_THREADS}, not {threads}")
        self._library, self._engine, self._process, self._lock = load(variant, folder), None, os.getpid(), threading.Lock()
        self.threads, self.variant = threads, str(self._library.variant)
        self.real = np.dtype(np.float64 if self._library.pe_native_real() == 8 else np.float32)

    def _make(self, name: str, *arguments: Any) -> None:
        """Call the function that makes it.

        Raises:
            Unsupported: it says what it needs.
        """
        says = ctypes.create_string_buffer(200)
        self._engine = getattr(self._library, name)(self.threads, *arguments, says, len(says))
        if not self._engine:
            raise Unsupported(f"the native trainer does not start: it needs {says.value.decode()}")

    def __del__(self) -> None:
        if getattr(self, "_engine", None) and os.getpid() == self._process:  # a forked process has the memory, but not the threads
            getattr(self._library, self.free)(self._engine)

    def __reduce__(self) -> Any:
        raise TypeError("an engine holds threads and cannot be copied: make another one of its shape")

    def _call(self, name: str, *arguments: Any) -> Any:
        """A function of the library; one at a time, whatever Python threads do meanwhile.

        Raises:
            Unsupported: this process was forked from the one that made the engine, whose threads it lacks.
        """
        if os.getpid() != self._process:
            raise Unsupported(f"this engine belongs to process {self._process}: after a fork, make one of its own for process {os.getpid()}")
        with self._lock:
            return getattr(self._library, name)(self._engine, *arguments)


class Engine(Held):
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

    free = "pe_engine_free"

    def __init__(self, shape: Shape, threads: int = 1, variant: str = "", folder: Path = HERE) -> None:
        if why := shape.why_not():
            raise Unsupported(f"the native trainer does not take these networks: {why}")
        super().__init__(threads, variant, folder)
        self.shape = shape
        networks, head = structs.Networks(), structs.Head()
        networks.networks, networks.activation = len(shape.networks), ACTIVATIONS.index(shape.activation)
        for k, widths in enumerate(shape.networks):
            networks.layers[k] = len(widths) - 1
            networks.widths[k][: len(widths)] = list(widths)
        head.kind, head.groups = KINDS.index(shape.kind), len(shape.sizes)
        head.sizes[: len(shape.sizes)] = list(shape.sizes)
        self._make("pe_engine_new", ctypes.byref(networks), ctypes.byref(head))
        assert self._library.pe_engine_flat(self._engine) == shape.size

    def forward(self, parameters: Array, x: Array) -> Array:
        """(rows, outputs and value) of (rows, inputs)."""
        out = np.empty((len(x), self.shape.outputs + 1), self.real)
        flat, rows = self._flat(parameters), self._real("x", x, (len(x), self.shape.inputs))
        self._call("pe_engine_forward", _place(flat), len(x), _place(rows), _place(out))
        return out

    def backward(self, parameters: Array, x: Array, d: Array) -> Array:
        """(size,) derivative by the parameters of what has derivative ``d`` by the outputs; that by log_std is 0."""
        gradient = np.zeros(self.shape.size, self.real)
        flat, rows = self._flat(parameters), self._real("x", x, (len(x), self.shape.inputs))
        by = self._real("d", d, (len(x), self.shape.outputs + 1))
        self._call("pe_engine_backward", _place(flat), len(x), _place(rows), _place(by), _place(gradient))
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
        alive: Array | None = None,
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
        held |= {} if alive is None else {"alive": _flags("alive", alive, shape)}
        _fill(a, held | {"advantage": advantage, "returns": returns})
        self._call("pe_engine_advantages", ctypes.byref(a))
        return advantage, returns

    def moments(self, x: Array) -> tuple[Array, Array]:
        """(n,) mean of the columns of (rows, n) float64, and sum of their squared deviations."""
        rows, n = x.shape
        x = _array("x", x, (rows, n), np.float64)
        mean, m2, part = (np.empty(count) for count in (n, n, 8 * n))
        self._call("pe_engine_moments", rows, n, *(_place(a) for a in (x, mean, m2, part)))
        return mean, m2

    def reset(self, rollout: Any) -> tuple[int, int, int]:
        """Start all environments of a rollout afresh; returns what ``rollout`` does.

        Raises:
            Unsupported: the environment is of another ABI, or does not fit the networks.
            InvalidInput: a number is out of range, or an array is missing or of another shape or type.
        """
        arrays.check_rollout(self.shape, rollout, self.real)
        self._call("pe_engine_reset", ctypes.byref(rollout))
        wrong = np.flatnonzero(~np.isfinite(rollout.held["observed"]).all(1))
        return (structs.FIRST_OBSERVATION, 0, int(wrong[0])) if len(wrong) else (0, 0, 0)

    def rollout(self, parameters: Array, rollout: Any, critic: Engine | None = None, critic_parameters: Array | None = None) -> tuple[int, int, int]:
        """Step a whole horizon.

        Args:
            parameters: (size,) flat buffer.
            rollout: ``structs.Rollout``, its arrays put there by ``fill``; ``arrays.rollout_kinds`` lists them.
            critic: of costs; has as many threads.
            critic_parameters: (size,) its flat buffer.

        Returns:
            What was NaN or infinite (0: nothing, else a key of ``structs.FAULTS``), at which step and row: the earliest, for any number
            of threads.

        Raises:
            Unsupported: the environment is of another ABI, or does not fit the networks.
            InvalidInput: a number is out of range, or an array is missing or of another shape or type.
        """
        costs: tuple[Any, ...] = (None, None)
        if critic is not None:
            if (critic.shape.kind, critic.shape.inputs, critic.threads, critic.real) != ("value", self.shape.inputs, self.threads, self.real):
                raise InvalidInput("a critic of costs is of kind 'value', and has the inputs, threads and type of the engine that it serves")
            assert critic_parameters is not None
            critic_parameters = critic._flat(critic_parameters)
            costs = critic._engine, _place(critic_parameters)
        arrays.check_rollout(self.shape, rollout, self.real, critic is not None)
        self._call("pe_engine_rollout", _place(self._flat(parameters)), *costs, ctypes.byref(rollout))
        return tuple(rollout.fault)

    def update(self, update: Any) -> None:
        """Several epochs of PPO; parameters and Adam's moments change in place.

        Args:
            update: ``structs.Update``, its arrays put there by ``fill``; ``arrays.update_kinds`` lists them.

        Raises:
            InvalidInput: a number is out of range, or an array is missing or of another shape or type.
            MemoryError: there is no room for the order of the samples.
        """
        arrays.check_update(self.shape, update, self.real)
        if not self._call("pe_engine_update", ctypes.byref(update)):
            raise MemoryError(f"there is no room for the order of {update.samples} samples")

    def order(self, samples: int, seed: int, update: int, epoch: int) -> npt.NDArray[np.int32]:
        """The order in which an epoch takes its samples: a permutation.

        Raises:
            InvalidInput: there are none, or too many.
            MemoryError: there is no room for them.
        """
        if not 1 <= samples <= arrays.MOST_SAMPLES:
            raise InvalidInput(f"samples must lie in 1 … {arrays.MOST_SAMPLES}, not {samples}")
        out, u = np.empty(samples, np.int32), structs.Update()
        u.samples, u.seed, u.update = samples, seed, update
        if not self._call("pe_engine_order", ctypes.byref(u), epoch, _place(out)):
            raise MemoryError(f"there is no room for the order of {samples} samples")
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
    structure.held = getattr(structure, "held", {}) | dict(arrays)


def fill(structure: Any, **arrays: Array) -> None:
    """Put the addresses of contiguous arrays into a structure's fields; they are written in place.

    Raises:
        InvalidInput: one is not contiguous.
    """
    for name, x in arrays.items():
        if not x.flags.c_contiguous:
            raise InvalidInput(f"{name} is not contiguous")
    _fill(structure, arrays)
