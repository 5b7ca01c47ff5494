"""The deployable actor in float: numpy only, deterministic head, saved as one safetensors file."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.contract import Contract
from puffer_edge.errors import BundleError, InvalidInput
from puffer_edge.files import write_atomic
from puffer_edge.spaces import Floats

FORMAT = 1
ACTIVATIONS = ("none", "relu", "tanh")


def _as_floats(owner: object, *names: str) -> None:
    """Turn fields of a frozen dataclass into float64 arrays."""
    for name in names:
        try:
            object.__setattr__(owner, name, np.asarray(getattr(owner, name), np.float64))
        except (TypeError, ValueError):
            raise InvalidInput(f"{name} of a {type(owner).__name__} must be numbers, not {getattr(owner, name)!r}") from None


@dataclass(frozen=True, eq=False)
class Layer:
    """A dense layer: ``activation(weight @ x + bias)``.

    Attributes:
        weight: (outputs, inputs).
        bias: (outputs,).
        activation: "none", "relu" or "tanh".
    """

    weight: Floats
    bias: Floats
    activation: str

    def __post_init__(self) -> None:
        _as_floats(self, "weight", "bias")


@dataclass(frozen=True, eq=False)
class Normalizer:
    """Whitens observations: ``clip((x − mean) / std, ±clip)``.

    Attributes:
        mean: (n_observations,) in physical units.
        std: (n_observations,) in physical units, positive.
        clip: bound of the result.
    """

    mean: Floats
    std: Floats
    clip: float = 10.0

    def __post_init__(self) -> None:
        _as_floats(self, "mean", "std")

    def __call__(self, observation: Floats) -> Floats:
        """Whiten (..., n_observations) physical observations."""
        return np.clip((observation - self.mean) / self.std, -self.clip, self.clip)


@dataclass(frozen=True, eq=False)
class Head:
    """How the last layer's outputs become an action.

    Attributes:
        kind: "discrete" (argmax, first on ties), "clip" (``offset + scale·y``, clamped to the contract's range)
            or "tanh" (``offset + scale·tanh(y)``, clamped).
        scale: (n_actions,) physical units per unit of output; unused for "discrete".
        offset: (n_actions,) physical units; unused for "discrete".
    """

    kind: str
    scale: Floats
    offset: Floats

    def __post_init__(self) -> None:
        _as_floats(self, "scale", "offset")


@dataclass(frozen=True, eq=False)
class Policy:
    """The actor that a device will run, in float64.

    Attributes:
        contract: what it observes and drives.
        layers: dense layers, input to output.
        normalizer: applied to physical observations first.
        head: maps the last layer's outputs to an action.
        origin: where it came from (env, algorithm, seed, steps, versions), plain JSON values.
        memory: reserved for recurrent state; None, this format has none.

    Raises:
        InvalidInput: a shape is wrong, or a number is NaN or infinite.
    """

    contract: Contract
    layers: tuple[Layer, ...]
    normalizer: Normalizer
    head: Head
    origin: dict[str, Any] = field(default_factory=dict)
    memory: None = None

    def __post_init__(self) -> None:
        _check(self)

    @property
    def name(self) -> str:
        """Name of the task, from the contract."""
        return self.contract.name

    def outputs(self, observation: npt.ArrayLike) -> Floats:
        """Last layer's outputs for (..., n_observations) physical observations: (..., n_outputs)."""
        x = self.normalizer(np.asarray(observation, np.float64))
        for layer in self.layers:
            x = x @ layer.weight.T + layer.bias
            if layer.activation == "relu":
                x = np.maximum(x, 0.0)
            elif layer.activation == "tanh":
                x = np.tanh(x)
        return x

    def choose(self, observation: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Index of the chosen action of a discrete head: (...,).

        Raises:
            InvalidInput: the head is continuous.
        """
        if self.head.kind != "discrete":
            raise InvalidInput(f"the head of {self.name} is {self.head.kind!r}: it has no choices, use act()")
        choice: npt.NDArray[np.int64] = np.argmax(self.outputs(observation), axis=-1)
        return choice

    def act(self, observation: npt.ArrayLike) -> Floats:
        """Physical actions for (..., n_observations) physical observations: (..., n_actions)."""
        c = self.contract
        if self.head.kind == "discrete":
            return np.asarray(c.levels, np.float64)[self.choose(observation)]
        y = self.outputs(observation)
        y = np.tanh(y) if self.head.kind == "tanh" else y
        low, high = np.array([ch.low for ch in c.actions]), np.array([ch.high for ch in c.actions])
        return np.clip(self.head.offset + self.head.scale * y, low, high)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one ``.safetensors`` file: tensors, and everything else as JSON metadata. Atomic."""
        from safetensors.numpy import save

        tensors = {"normalizer.mean": self.normalizer.mean, "normalizer.std": self.normalizer.std}
        tensors |= {"head.scale": self.head.scale, "head.offset": self.head.offset}
        for k, layer in enumerate(self.layers):
            tensors |= {f"layers.{k}.weight": layer.weight, f"layers.{k}.bias": layer.bias}
        about = {
            "format": FORMAT,
            "contract": asdict(self.contract),
            "activations": [layer.activation for layer in self.layers],
            "clip": self.normalizer.clip,
            "head": self.head.kind,
            "origin": self.origin,
        }
        write_atomic(path, save({k: np.ascontiguousarray(v, np.float64) for k, v in tensors.items()}, metadata={"puffer_edge": json.dumps(about)}))

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Policy:
        """Read a policy written by ``save``.

        Raises:
            InvalidInput: there is no such file, or a number in it is NaN or infinite.
            BundleError: the file is damaged, not a policy, or from a newer version.
        """
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise InvalidInput(f"there is no policy at {os.fspath(path)}: train one with 'puffer-edge train'")
        try:
            with safe_open(path, "numpy") as file:
                about = json.loads((file.metadata() or {})["puffer_edge"])
                tensors = {key: np.asarray(file.get_tensor(key), np.float64) for key in list(file.keys())}
        except (SafetensorError, KeyError, ValueError) as error:
            raise BundleError(f"{os.fspath(path)} is not a policy of this package, or it is damaged: {error}") from None
        return _assemble(os.fspath(path), about, tensors)


def _assemble(path: str, about: Any, tensors: dict[str, Floats]) -> Policy:
    if not isinstance(about, dict) or not isinstance(about.get("format"), int):
        raise BundleError(f"{path} does not say which format it has")
    if about["format"] > FORMAT:
        raise BundleError(f"{path} has format {about['format']}, this version reads up to {FORMAT}: upgrade puffer-edge")
    try:
        layers = tuple(Layer(tensors[f"layers.{k}.weight"], tensors[f"layers.{k}.bias"], a) for k, a in enumerate(about["activations"]))
        return Policy(
            contract=Contract.from_json(json.dumps(about["contract"])),
            layers=layers,
            normalizer=Normalizer(tensors["normalizer.mean"], tensors["normalizer.std"], float(about["clip"])),
            head=Head(about["head"], tensors["head.scale"], tensors["head.offset"]),
            origin=dict(about["origin"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path} lacks a part of the policy or holds a wrong one: {error}") from None


def _check(p: Policy) -> None:
    c = p.contract
    if p.head.kind != c.head:
        raise InvalidInput(f"the policy's head is {p.head.kind!r}, the contract says {c.head!r}")
    if not p.layers:
        raise InvalidInput("a policy needs at least one layer")
    if p.layers[-1].activation != "none":
        raise InvalidInput(f"the last layer's activation must be 'none' (the head follows), not {p.layers[-1].activation!r}")
    expected: dict[str, tuple[Floats, tuple[int, ...]]] = {
        "normalizer.mean": (p.normalizer.mean, (c.n_observations,)),
        "normalizer.std": (p.normalizer.std, (c.n_observations,)),
    }
    expected |= {"head.scale": (p.head.scale, (c.n_actions,)), "head.offset": (p.head.offset, (c.n_actions,))}
    width = c.n_observations
    for k, layer in enumerate(p.layers):
        if layer.activation not in ACTIVATIONS:
            raise InvalidInput(f"layer {k} has activation {layer.activation!r}: one of {', '.join(ACTIVATIONS)}")
        outputs = c.n_outputs if k == len(p.layers) - 1 else len(layer.bias)
        expected[f"weight of layer {k}"] = (layer.weight, (outputs, width))
        expected[f"bias of layer {k}"] = (layer.bias, (outputs,))
        width = outputs
    for what, (array, shape) in expected.items():
        if np.shape(array) != shape:
            raise InvalidInput(f"{what} has shape {np.shape(array)}, expected {shape}")
        bad = int((~np.isfinite(array)).sum())
        if bad:
            raise InvalidInput(f"{what} holds {bad} NaN or infinite numbers: the training diverged; train again with a lower learning rate")
    if not (p.normalizer.std > 0).all() or not p.normalizer.clip > 0:
        raise InvalidInput("the normalizer's std and clip must be positive")
