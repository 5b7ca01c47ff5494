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
from puffer_edge.layers import ACTIVATIONS, AnyLayer, Conv, Layer, Pool, Recurrent, as_floats, describe, restore
from puffer_edge.spaces import Bools, Floats

__all__ = ["ACTIVATIONS", "AnyLayer", "Conv", "Head", "Layer", "Normalizer", "Policy", "Pool", "Recurrent"]

FORMAT = 2


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
        as_floats(self, "mean", "std")

    def __call__(self, observation: Floats) -> Floats:
        """Whiten (..., n_observations) physical observations."""
        return np.clip((observation - self.mean) / self.std, -self.clip, self.clip)


@dataclass(frozen=True, eq=False)
class Head:
    """How the last layer's outputs become an action.

    Attributes:
        kind: "discrete" (argmax, first on ties), "multi_discrete" (the same for each action's group of outputs),
            "clip" (``offset + scale·y``, clamped to the contract's range) or "tanh" (``offset + scale·tanh(y)``, clamped).
        scale: (n_actions,) physical units per unit of output; unused for discrete kinds.
        offset: (n_actions,) physical units; unused for discrete kinds.
    """

    kind: str
    scale: Floats
    offset: Floats

    def __post_init__(self) -> None:
        as_floats(self, "scale", "offset")


@dataclass(frozen=True, eq=False)
class Policy:
    """The actor that a device will run, in float64.

    Attributes:
        contract: what it observes and drives.
        layers: ``Layer``, ``Conv``, ``Pool`` and ``Recurrent``, input to output; the last is a dense one without activation.
        normalizer: applied to physical observations first.
        head: maps the last layer's outputs to an action.
        origin: where it came from (env, algorithm, seed, steps, versions), plain JSON values.

    Raises:
        InvalidInput: a shape is wrong, or a number is NaN or infinite.
    """

    contract: Contract
    layers: tuple[AnyLayer, ...]
    normalizer: Normalizer
    head: Head
    origin: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self)

    @property
    def name(self) -> str:
        """Name of the task, from the contract."""
        return self.contract.name

    @property
    def memory(self) -> int:
        """Numbers kept from step to step, 0 for a memoryless policy: those of each recurrent layer in order."""
        return sum(layer.memory for layer in self.layers if isinstance(layer, Recurrent))

    def step(self, observation: npt.ArrayLike, memory: Floats) -> tuple[Floats, Floats]:
        """One step of the network.

        Args:
            observation: (..., n_observations) physical values.
            memory: (..., memory) what the step before returned; zeros at an episode's start.

        Returns:
            (..., n_outputs) outputs of the last layer, (..., memory) the next memory.
        """
        x = self.normalizer(np.asarray(observation, np.float64))
        kept, at = [], 0
        for layer in self.layers:
            if isinstance(layer, Recurrent):
                x, after = layer.step(x, memory[..., at : at + layer.memory])
                kept.append(after)
                at += layer.memory
            else:
                x = layer(x)
        return x, np.concatenate(kept, -1) if kept else memory

    def cleared(self, observation: npt.ArrayLike) -> Floats:
        """(..., memory) zeros, for (..., n_observations) observations."""
        return np.zeros((*np.shape(observation)[:-1], self.memory))

    def outputs(self, observation: npt.ArrayLike) -> Floats:
        """Last layer's outputs for (..., n_observations) physical observations, from cleared memory: (..., n_outputs)."""
        return self.step(observation, self.cleared(observation))[0]

    def choose(self, observation: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Index of the chosen action of a discrete head: (...,); of a multi-discrete one, an index an action: (..., n_actions).

        Raises:
            InvalidInput: the head is continuous.
        """
        return self._choices(self.outputs(observation))

    def _choices(self, outputs: Floats) -> npt.NDArray[np.int64]:
        if self.head.kind == "discrete":
            return np.asarray(np.argmax(outputs, axis=-1), np.int64)
        if self.head.kind != "multi_discrete":
            raise InvalidInput(f"the head of {self.name} is {self.head.kind!r}: it has no choices, use act()")
        ends = np.cumsum([len(row) for row in self.contract.levels])
        groups = np.split(outputs, ends[:-1], -1)
        return np.stack([np.argmax(group, axis=-1) for group in groups], -1)

    def act(self, observation: npt.ArrayLike) -> Floats:
        """Physical actions for (..., n_observations) physical observations, from cleared memory: (..., n_actions)."""
        return self.decide(self.outputs(observation))

    def act_step(self, observation: npt.ArrayLike, memory: Floats, allowed: Bools | None = None) -> tuple[Floats, Floats]:
        """As ``step``, with (..., n_actions) physical actions in place of the outputs; of (..., n_outputs) ``allowed`` choices, if it is given."""
        outputs, after = self.step(observation, memory)
        return self.decide(outputs if allowed is None else np.where(allowed, outputs, -np.inf)), after

    def decide(self, outputs: Floats) -> Floats:
        """Physical actions for (..., n_outputs) outputs of the last layer: (..., n_actions)."""
        c = self.contract
        if self.head.kind == "discrete":
            return np.asarray(c.levels, np.float64)[self._choices(outputs)]
        if self.head.kind == "multi_discrete":
            choices = self._choices(outputs)
            return np.stack([np.asarray(row, np.float64)[choices[..., j]] for j, row in enumerate(c.levels)], -1)
        y = np.tanh(outputs) if self.head.kind == "tanh" else outputs
        low, high = np.array([ch.low for ch in c.actions]), np.array([ch.high for ch in c.actions])
        return np.clip(self.head.offset + self.head.scale * y, low, high)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one ``.safetensors`` file: tensors, and everything else as JSON metadata. Atomic."""
        from safetensors.numpy import save

        tensors = {"normalizer.mean": self.normalizer.mean, "normalizer.std": self.normalizer.std}
        tensors |= {"head.scale": self.head.scale, "head.offset": self.head.offset}
        described = [describe(layer) for layer in self.layers]
        for k, (_, arrays) in enumerate(described):
            tensors |= {f"layers.{k}.{name}": array for name, array in arrays.items()}
        about = {
            "format": FORMAT,
            "contract": asdict(self.contract),
            "layers": [words for words, _ in described],
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
                kinds = {key: file.get_slice(key).get_dtype() for key in list(file.keys())}
                strange = sorted(set(kinds.values()) - {"F64", "F32", "F16"})
                if strange:  # whether numpy knows it depends on what else is imported
                    raise ValueError(f"it holds numbers of type {', '.join(strange)}")
                tensors = {key: np.asarray(file.get_tensor(key), np.float64) for key in kinds}
        except (SafetensorError, KeyError, ValueError, RecursionError, TypeError, AttributeError) as error:
            raise BundleError(f"{os.fspath(path)} is not a policy of this package, or it is damaged: {error}") from None
        return _assemble(os.fspath(path), about, tensors)


def _assemble(path: str, about: Any, tensors: dict[str, Floats]) -> Policy:
    if not isinstance(about, dict) or not isinstance(about.get("format"), int):
        raise BundleError(f"{path} does not say which format it has")
    if about["format"] > FORMAT:
        raise BundleError(f"{path} has format {about['format']}, this version reads up to {FORMAT}: upgrade puffer-edge")
    try:
        described = about["layers"] if about["format"] > 1 else [{"layer": "dense", "activation": a} for a in about["activations"]]
        layers = tuple(_layer(words, _tensors(tensors, f"layers.{k}.")) for k, words in enumerate(described))
        return Policy(
            contract=Contract.from_json(json.dumps(about["contract"])),
            layers=layers,
            normalizer=Normalizer(tensors["normalizer.mean"], tensors["normalizer.std"], float(about["clip"])),
            head=Head(about["head"], tensors["head.scale"], tensors["head.offset"]),
            origin=dict(about["origin"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BundleError(f"{path} lacks a part of the policy or holds a wrong one: {error}") from None


def _layer(words: Any, tensors: dict[str, Floats]) -> AnyLayer:
    """A layer of a file, where JSON made lists of tuples; a wrong one is the file's fault."""
    if isinstance(words, dict):
        words = {key: tuple(value) if isinstance(value, list) else value for key, value in words.items()}
    try:
        return restore(words, tensors)
    except InvalidInput as error:
        raise ValueError(str(error)) from None


def _tensors(tensors: dict[str, Floats], prefix: str) -> dict[str, Floats]:
    """The tensors of one layer, by their own name."""
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}


def _check(p: Policy) -> None:
    c = p.contract
    if p.head.kind != c.head:
        raise InvalidInput(f"the policy's head is {p.head.kind!r}, the contract says {c.head!r}")
    if not p.layers:
        raise InvalidInput("a policy needs at least one layer")
    last = p.layers[-1]
    if not isinstance(last, Layer) or last.activation != "none":
        raise InvalidInput("the last layer must be a dense one with the activation 'none' (the head follows)")
    expected: dict[str, tuple[Floats, tuple[int, ...]]] = {
        "normalizer.mean": (p.normalizer.mean, (c.n_observations,)),
        "normalizer.std": (p.normalizer.std, (c.n_observations,)),
    }
    expected |= {"head.scale": (p.head.scale, (c.n_actions,)), "head.offset": (p.head.offset, (c.n_actions,))}
    width = c.n_observations
    for k, layer in enumerate(p.layers):
        if layer.n_in != width:
            raise InvalidInput(f"layer {k} takes {layer.n_in} values, {width} come {'from the layer before' if k else 'from the observations'}")
        width = layer.n_out
        expected |= {f"{name} of layer {k}": (array, array.shape) for name, array in describe(layer)[1].items()}
    if width != c.n_outputs:
        raise InvalidInput(f"the last layer gives {width} values, the head {c.head!r} of this contract takes {c.n_outputs}")
    for what, (array, shape) in expected.items():
        if np.shape(array) != shape:
            raise InvalidInput(f"{what} has shape {np.shape(array)}, expected {shape}")
        bad = int((~np.isfinite(array)).sum())
        if bad:
            raise InvalidInput(f"{what} holds {bad} NaN or infinite numbers: the training diverged; train again with a lower learning rate")
    if not (p.normalizer.std > 0).all() or not p.normalizer.clip > 0:
        raise InvalidInput("the normalizer's std and clip must be positive")
