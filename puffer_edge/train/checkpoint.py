"""A training as one file, so exact that going on from it gives the bits of never having stopped.

The file is a safetensors file: arrays, and in its metadata a manifest of plain JSON and the SHA-256 of both. There is no pickle in it, and
nothing is made of a file before its lengths, its digest, its version and its environment have been checked.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from puffer_edge import envs
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.imperfect import imperfect
from puffer_edge.envs.imperfections import Imperfections
from puffer_edge.errors import BundleError, InvalidInput
from puffer_edge.files import write_atomic
from puffer_edge.intake.archives import mib
from puffer_edge.train import learner_state
from puffer_edge.train.loop import Learner, NetworkMaker
from puffer_edge.train.settings import Settings
from puffer_edge.train.settings_file import ALGORITHMS

FORMAT = 3
MAX_FILE = 2**30
"""Largest checkpoint that is read: networks of 256×256 make 2 MiB."""
MAX_HEADER = 2**24
MAX_ARRAYS = 10_000
SHAPING = (
    "hidden",
    "activation",
    "shared",
    "exploration",
    "memory",
    "memory_size",
    "image",
    "filters",
    "cost_hidden",
    "critic_hidden",
    "normalize_observation",
)
"""Settings that say what the networks are, and what they are shown."""
AnyLearner = TypeVar("AnyLearner", bound=Learner)


def save(learner: Learner, path: str | os.PathLike[str], beside: Mapping[str, Any] | None = None, arrays: Mapping[str, Any] | None = None) -> None:
    """Write networks, optimiser, moments, generators and plant. Atomic.

    Args:
        learner: between two updates.
        path: of the file.
        beside: plain JSON values that travel along, under "beside" in the manifest.
        arrays: arrays that travel along, under "beside." and their name.

    Raises:
        OSError: disk full, no permission; what was at ``path`` is untouched.
    """
    own = learner_state.arrays_of(learner)
    forgets = learner.plant.forgets if learner.plant is not None else ""
    manifest = {
        "format": FORMAT,
        "algorithm": learner.name,
        "environment": learner_state.identity(learner.environment),
        "seed": learner.seed,
        "shield": [dict(stage) for stage in learner.shield.specification],
        "settings": learner.settings.to_dict(),
        "network": type(learner.net).__name__ if learner.network else "",
        "state": learner_state.values_of(learner),
        "exact": not forgets,  # all that changes is in this file
        "because": forgets,
        "bits_depend_on": learner_state.bits_depend_on(learner),
        "beside": dict(beside or {}),
    }
    write(path, own | {f"beside.{key}": value for key, value in (arrays or {}).items()}, manifest)


def load(
    kind: type[AnyLearner], path: str | os.PathLike[str], environment: Environment | None = None, network: NetworkMaker | None = None
) -> AnyLearner:
    """Read what ``save`` wrote.

    Raises:
        InvalidInput: there is no such file, or no such environment.
        BundleError: the file is damaged, from another version, another algorithm, another environment or another contract.
    """
    return restore(kind, path, *read(path), environment=environment, network=network)


def restore(
    kind: type[AnyLearner],
    path: str | os.PathLike[str],
    manifest: Mapping[str, Any],
    arrays: Mapping[str, Any],
    environment: Environment | None = None,
    settings: Settings | None = None,
    network: NetworkMaker | None = None,
) -> AnyLearner:
    """A learner from what ``read`` gave.

    Args:
        kind: its class.
        path: named in messages.
        manifest: of the file.
        arrays: of the file.
        environment: in place of the one of that name.
        settings: in place of the file's; networks and rows must stay.
        network: makes the network of your own that the file is of.

    Raises:
        InvalidInput, BundleError: as ``load``.
    """
    where = os.fspath(path)
    try:
        if manifest["algorithm"] != kind.name:
            raise BundleError(f"{where} belongs to the algorithm {manifest['algorithm']!r}, not {kind.name!r}")
        theirs = {"plant": {}, **manifest["environment"]}
        if environment is not None and environment.name != theirs["name"]:
            raise BundleError(f"{where} belongs to the environment {theirs['name']!r}, not {environment.name!r}")
        chosen = settings or ALGORITHMS[kind.name].from_dict(manifest["settings"])
        engine = manifest["bits_depend_on"]["engine"]
        if chosen.engine not in ("auto", engine):
            raise BundleError(f"{where} was written by the {engine} engine, the settings ask for {chosen.engine}: only the same one goes on exactly")
        chosen = replace(chosen, engine=engine)
        own = manifest.get("network", "")
        if bool(own) != (network is not None):
            way = f"give network=, which makes a {own}" if own else "it has the package's own networks: leave out network="
            raise BundleError(f"{where} cannot be loaded like that: {way}")
        task = environment or envs.load(theirs["name"])
        if task.imperfections == Imperfections():
            task = imperfect(task, Imperfections.from_dict(theirs["plant"]))
        learner = kind(task, chosen, seed=manifest["seed"], shield=manifest["shield"], network=network)
        ours = learner_state.identity(learner.environment)
        if ours["contract"] != theirs["contract"]:
            raise BundleError(f"{where} was written for another contract than that of {ours['name']} now")
        if ours != theirs:
            changed = ", ".join(f"{key} was {theirs[key]} and is {ours[key]}" for key in ours if ours[key] != theirs[key])
            raise BundleError(f"{where} was written for another {ours['name']}: its {changed}")
        learner_state.restore(learner, arrays, manifest["state"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(f"{where} lacks a part of a checkpoint, or has one of another shape: {error!r}") from None
    return learner


def take_over(learner: Learner, path: str | os.PathLike[str]) -> None:
    """Let a learner that has not begun go on with the weights and normalisers of a checkpoint.

    Raises:
        InvalidInput: no such file, or one of another algorithm, another contract or other networks.
        BundleError: it is damaged or of another version.
        Unsupported: the algorithm cannot.
    """
    where, (manifest, arrays) = os.fspath(path), read(path)
    theirs, ours = manifest["environment"], learner_state.identity(learner.environment)
    if manifest["algorithm"] != learner.name:
        raise InvalidInput(of_another(where, manifest["algorithm"], learner.name))
    if theirs["contract"] != ours["contract"]:
        raise InvalidInput(
            f"{where} is of {theirs['name']}, whose contract is not that of {ours['name']} here: a fine-tuning keeps the algorithm and the contract"
        )
    mine = learner.settings.to_dict()
    other = [f"{key} {manifest['settings'].get(key)}" for key in SHAPING if manifest["settings"].get(key) != mine.get(key)]
    if other or manifest.get("network"):
        raise InvalidInput(f"{where} has other networks, {', '.join(other) or manifest['network']}: a fine-tuning keeps {', '.join(SHAPING)}")
    learner.take_over(arrays)


def of_another(where: str, theirs: str, ours: str) -> str:
    """What is said to whom wants a run to be trained on by another algorithm."""
    return (
        f"{where} is of {theirs}, and this is {ours}, whose critics and head are others: a fine-tuning keeps the algorithm. "
        f"Train it on with {theirs}, in integers (--qat) if that is what for, or let a student learn what it does with 'puffer-edge distil'"
    )


def write(path: str | os.PathLike[str], arrays: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Write arrays, manifest and their digest as one file. Atomic."""
    from safetensors.numpy import save as pack

    whole = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
    text = json.dumps(manifest)
    write_atomic(path, pack(whole, metadata={"puffer_edge": text, "sha256": digest(text, whole)}))


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what ``write`` wrote: the manifest, and arrays by name.

    Raises:
        InvalidInput: there is no such file.
        BundleError: the file is cut, altered, too large, or of another version.
    """
    where = os.fspath(path)
    if not Path(path).is_file():
        raise InvalidInput(f"there is no checkpoint at {where}")
    with open(path, "rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise BundleError(f"{where} is larger than {mib(MAX_FILE)}, the most that is read of a checkpoint")
    try:
        metadata = _metadata(data)
        text, found = metadata["puffer_edge"], metadata.get("sha256")
        manifest = json.loads(text)
        version = manifest["format"]
        if version != FORMAT:
            way = "upgrade puffer-edge" if version > FORMAT else "go on with the version that wrote it, or train again"
            raise BundleError(f"{where} has format {version}, this version reads format {FORMAT}: {way}")
        arrays = _arrays(data)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BundleError(f"{where} is not a checkpoint of this package, or it is damaged: {error}") from None
    if digest(text, arrays) != found:
        raise BundleError(f"{where} is damaged or was altered: its SHA-256 is not the one written in it")
    return manifest, arrays


def digest(manifest: str, arrays: Mapping[str, Any]) -> str:
    """SHA-256 over the manifest and every array's name, type, shape and bytes."""
    whole = hashlib.sha256(manifest.encode())
    for key in sorted(arrays):
        value = arrays[key]
        whole.update(f"\0{key}\0{value.dtype.str}\0{value.shape}\0".encode())
        whole.update(value.tobytes())
    return whole.hexdigest()


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata in a safetensors header: eight bytes of length, little-endian, then JSON."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= length <= min(MAX_HEADER, len(data) - 8):
        raise ValueError(f"its header says {length:,} bytes, the file has {len(data):,}")
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    if len(header) > MAX_ARRAYS:
        raise ValueError(f"it has {len(header):,} arrays, more than {MAX_ARRAYS:,}")
    metadata: dict[str, str] = header["__metadata__"]
    return metadata


def _arrays(data: bytes) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as unpack

    try:
        return {key: np.array(value) for key, value in unpack(data).items()}  # copies, which may be written to
    except SafetensorError as error:
        raise ValueError(str(error)) from None
