"""The C firmware on this computer: the engine by ctypes, the host board as a process behind a link."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puffer_edge.device.link import Link
from puffer_edge.device.ports import SocketLink
from puffer_edge.errors import Unsupported
from puffer_edge.firmware.build import USER_IO, HostBuild, build_host
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer.image import Image

KEEP: list[tempfile.TemporaryDirectory[str]] = []


@cache
def build(sanitize: bool = False, user_io: Path = USER_IO) -> HostBuild:
    """The host build, made once a run; skips the test where there is no compiler."""
    KEEP.append(tempfile.TemporaryDirectory())
    try:
        return build_host(Path(KEEP[-1].name), sanitize, user_io)
    except Unsupported as error:
        pytest.skip(f"{error} (toolchain)")


def library() -> ctypes.CDLL:
    """The engine."""
    return ctypes.CDLL(str(build().library))


def pointer(array: np.ndarray[Any, Any]) -> ctypes.c_void_p:
    """Address of a contiguous array."""
    assert array.flags.c_contiguous
    return array.ctypes.data_as(ctypes.c_void_p)


def aligned(data: bytes) -> np.ndarray[Any, Any]:
    """Bytes at an address that is a multiple of 8."""
    words = np.zeros(len(data) // 8 + 1, np.uint64)
    octets = words.view(np.uint8)[: len(data)]
    octets[:] = np.frombuffer(data, np.uint8)
    return octets


def open_check(data: bytes) -> int:
    """What pe_open says: 0 or the number of a check."""
    image = aligned(data)
    none = ctypes.c_void_p(None)
    return int(library().pe_batch(pointer(image), len(data), 0, none, none, none, none, none, none))


@contextlib.contextmanager
def board(folder: Path, user_io: Path = USER_IO) -> Iterator[tuple[Link, subprocess.Popen[str]]]:
    """A running host board and a link to it; the board is killed at the end."""
    process = subprocess.Popen([build(user_io=user_io).board, "0", folder], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        link = SocketLink(f"socket://127.0.0.1:{json.loads(process.stdout.readline())['port']}")
        try:
            yield link, process
        finally:
            link.close()
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def begin(link: Link, data: bytes) -> None:
    """Announce an image."""
    link.ask("install_begin", struct.pack("<I32s", len(data), hashlib.sha256(data).digest()))


def chunks(data: bytes, size: int = protocol.INSTALL_CHUNK) -> Iterator[bytes]:
    """Payloads of ``install_data``, in order."""
    return (struct.pack("<I", at) + data[at : at + size] for at in range(0, len(data), size))


def install(link: Link, data: bytes, size: int = protocol.INSTALL_CHUNK) -> int:
    """Install an image; returns the install count."""
    begin(link, data)
    for chunk in chunks(data, size):
        link.ask("install_data", chunk)
    return int.from_bytes(link.ask("install_commit"), "little")


def arm(link: Link, mode: int = protocol.ARM_LOCK_STEP) -> None:
    """Arm whatever the board holds."""
    link.ask("arm", bytes([mode]) + link.ask("contract")[44:])


def hello(link: Link) -> dict[str, int]:
    """State, shield and sizes from the greeting."""
    fields = struct.unpack(protocol.MESSAGES["hello"][2], link.ask("hello"))
    return dict(zip(("protocol", "kind", "major", "minor", "patch", "state", "shield", "clock_hz", "max_payload", "n", "m"), fields))


def status(link: Link) -> list[int]:
    """The counters, in the order of the protocol."""
    return list(struct.unpack(protocol.MESSAGES["status"][2], link.ask("status")))


def drive(link: Link, message: str, image: Image) -> None:
    """Send an image's vectors as steps and compare every bit of the answers."""
    v = image.vectors
    for k in range(len(v)):
        flags = int(v.flags[k])
        seen = b"" if flags & protocol.STEP_MISSED else v.observation[k].astype("<i4").tobytes()
        answer = link.ask(message, struct.pack("<I", flags) + seen)
        outcome, state, _, _ = struct.unpack_from("<4I", answer)
        actions = np.frombuffer(answer, "<i4", offset=16)
        assert (outcome, state) == (v.outcome[k], v.state[k]), f"step {k}"
        assert actions.tolist() == [*v.raw[k], *v.applied[k]], f"step {k}"
