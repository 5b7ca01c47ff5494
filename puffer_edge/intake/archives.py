"""Files from elsewhere, read within bounds: sizes first, zip members one by one in memory, numpy arrays without pickle."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import InvalidInput

MAX_FILE = 256 * 2**20
"""Largest file that is opened: critics, optimisers and all; the actors that fit a board are a thousandth of it."""
MAX_MEMBER = 128 * 2**20
"""Largest part of a zip that is unpacked into memory."""
MAX_MEMBERS = 10_000
MAX_TEXT = 16 * 2**20
"""Largest text (JSON, TOML)."""
_UNREADABLE = (zipfile.BadZipFile, zlib.error, ValueError, OverflowError, EOFError, OSError, RuntimeError, struct.error)
"""What zipfile raises at damaged, encrypted (RuntimeError) and unknown (NotImplementedError, one of them) members."""


def mib(count: float) -> str:
    """Bytes as text, in MiB."""
    return f"{count / 2**20:,.1f} MiB"


def read_bounded(path: str | os.PathLike[str], most: int = MAX_FILE) -> bytes:
    """A whole file, at most ``most`` bytes of it.

    Raises:
        InvalidInput: there is no such file, or it is larger.
    """
    if not Path(path).is_file():
        raise InvalidInput(f"there is no file {os.fspath(path)}")
    with open(path, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise InvalidInput(f"{os.fspath(path)} is larger than {mib(most)}, the most that is read of such a file")
    return data


def sha256(data: bytes) -> str:
    """Digest of a file's bytes, for the origin of a policy."""
    return hashlib.sha256(data).hexdigest()


def parse_json(data: bytes, what: str) -> Any:
    """JSON from outside.

    Raises:
        InvalidInput: it is none, or nested too deep.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{what} is not JSON: {short(error)}") from None


class Archive:
    """A zip in memory whose members are read one at a time; nothing is ever unpacked into a folder.

    Args:
        data: the zip's bytes.
        what: its name, for messages.

    Raises:
        InvalidInput: it is no zip, holds too many members, one name twice, or a name that leads out of the archive.
    """

    def __init__(self, data: bytes, what: str) -> None:
        self.what = what
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
            entries = self._zip.infolist()
        except _UNREADABLE as error:
            raise InvalidInput(f"{what} is not a zip, or it is damaged: {short(error)}") from None
        if len(entries) > MAX_MEMBERS:
            raise InvalidInput(f"{what} holds {len(entries):,} members, at most {MAX_MEMBERS:,} are read")
        self._entries = {entry.filename: entry for entry in entries}
        if len(self._entries) != len(entries):
            raise InvalidInput(f"{what} holds a member twice: the trainers that are known do not write that")
        for name in self._entries:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name.replace("\\", "/")).parts:
                raise InvalidInput(f"{what} holds a member named {short(name)}, which leads out of the archive")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the members."""
        return tuple(self._entries)

    def read(self, name: str, most: int = MAX_MEMBER) -> bytes:
        """One member, unpacked to at most ``most`` bytes, whatever its header claims.

        Raises:
            InvalidInput: it is missing, larger, encrypted or damaged.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise InvalidInput(f"{self.what} holds no {name!r}: {short(', '.join(self._entries) or 'it is empty')}")
        if entry.file_size > most:
            raise InvalidInput(f"{name!r} in {self.what} unpacks to {mib(entry.file_size)}, at most {mib(most)} are read")
        try:
            with self._zip.open(entry) as member:
                data = member.read(most + 1)
        except _UNREADABLE as error:
            raise InvalidInput(f"{name!r} in {self.what} cannot be unpacked: {short(error)}") from None
        if len(data) > most:
            raise InvalidInput(f"{name!r} in {self.what} unpacks to more than {mib(most)}")
        return data


NPY_MAGIC = b"\x93NUMPY"
_NPY_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?(?:b1|[iu][1248]|f[248]))', 'fortran_order': (True|False), 'shape': \(((?:\d{1,15}, ?)*(?:\d{1,15})?)\),? *\}\s*"
)


def parse_npy(data: bytes, what: str) -> npt.NDArray[Any]:
    """One numeric array of numpy's format, without pickle and without believing its header.

    Raises:
        InvalidInput: it is none, holds objects, or its size is not what its header says.
    """
    start = 12 if data[6:7] > b"\x01" else 10
    length = int.from_bytes(data[8:start], "little")
    found = _NPY_HEADER.fullmatch(data[start : start + length]) if data[:6] == NPY_MAGIC and length <= 10_000 else None
    if found is None:
        raise InvalidInput(f"{what} is not an array of plain numbers in numpy's format")
    dtype, fortran = np.dtype(found[1].decode()), found[2] == b"True"
    shape = tuple(int(n) for n in found[3].split(b",") if n.strip())
    body = memoryview(data)[start + length :]
    if math.prod(shape) * dtype.itemsize != len(body):
        raise InvalidInput(f"{what} says {short(shape)} of {dtype}, and has {len(body):,} bytes")
    return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")


def read_arrays(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a ``.npz``, or of a ``.npy`` under the name "".

    Raises:
        InvalidInput: it is neither.
    """
    data, what = read_bounded(path), os.fspath(path)
    if data[:6] == NPY_MAGIC:
        return {"": parse_npy(data, what)}
    archive = Archive(data, what)
    return {name.removesuffix(".npy"): parse_npy(archive.read(name), f"{name} in {what}") for name in archive.names}


def short(value: object) -> str:
    """Text of something from outside, at most 200 characters of it."""
    text = str(value)
    return text if len(text) <= 200 else text[:200] + " …"
