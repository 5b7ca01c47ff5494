"""Small honest files of every format that is read, and what turns them hostile."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Mutate = Callable[[np.random.Generator, bytes], bytes]


class Bomb:
    """Unpickles by running a command that leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.command = f"echo boom > {trace}"

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def unzipped(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def serialized(value: Any) -> dict[str, str]:
    """How Stable-Baselines3 puts a pickle into its JSON."""
    return {":type:": "x", ":serialized:": base64.b64encode(pickle.dumps(value)).decode()}


def torch_file(state: Any) -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def with_field(model: bytes, key: str, value: Any) -> bytes:
    """A Stable-Baselines3 zip with one field of its JSON changed."""
    members = unzipped(model)
    members["data"] = json.dumps({**json.loads(members["data"]), key: value}).encode()
    return zipped(members)


def flip(rng: np.random.Generator, data: bytes) -> bytes:
    """One to eight bytes changed."""
    changed = bytearray(data)
    for place in rng.integers(0, len(data), rng.integers(1, 9)):
        changed[place] = rng.integers(0, 256)
    return bytes(changed)


def cut(rng: np.random.Generator, data: bytes) -> bytes:
    """The end missing."""
    return data[: rng.integers(0, len(data))]


def spill(rng: np.random.Generator, data: bytes) -> bytes:
    """A part of it written over another part."""
    a, b, n = rng.integers(0, len(data), 3)
    return data[:a] + data[b : b + n % 64] + data[a:]


def inside(member: str, mutate: Mutate) -> Mutate:
    """A mutation of one member of a zip, with checksums that are right again."""

    def run(rng: np.random.Generator, data: bytes) -> bytes:
        members = unzipped(data)
        name = next(n for n in members if n == member or n.endswith("/" + member))
        members[name] = mutate(rng, members[name])
        return zipped(members, zipfile.ZIP_STORED)

    return run
