"""A board in this process: the whole protocol over the numpy reference, through real frames, with no hardware."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from puffer_edge.device.link import DIGESTS, Link, fixed_bytes
from puffer_edge.errors import BundleError, RangeError
from puffer_edge.firmware.shared import protocol
from puffer_edge.firmware.shared.frames import Decoder, encode, frame_bytes
from puffer_edge.integer import image as images
from puffer_edge.integer.image import Image
from puffer_edge.integer.reference import Runner

MAX_IMAGE = 1 << 20
TARGET = b"loopback"

Line = Callable[[bytes], bytes]
"""What arrives of what was sent; a test's line may lose, change, repeat or delay it, but not reorder it."""


class LoopbackLink(Link):
    """A line to a board in this process.

    Args:
        device: the board; a fresh, empty one if left out.
        to_board: what happens to bytes on their way there.
        to_host: what happens to bytes on their way back.
    """

    def __init__(self, device: LoopbackDevice | None = None, to_board: Line = bytes, to_host: Line = bytes) -> None:
        super().__init__("loopback", sequence=0)
        self.device = device or LoopbackDevice()
        self._to_board, self._to_host = to_board, to_host
        self._arrived = b""

    def send(self, data: bytes) -> None:
        """Put bytes on the line; the board answers at once."""
        self._arrived += self._to_host(self.device.receive(self._to_board(data)))

    def receive(self, timeout_s: float) -> bytes:
        """Whatever arrived; nothing else will come, so it never waits."""
        data, self._arrived = self._arrived, b""
        return data

    def close(self) -> None:
        """Nothing to leave."""


class _Refusal(Exception):
    """An error reply on its way out of a handler."""

    def __init__(self, name: str, detail: int = 0) -> None:
        super().__init__(name)
        self.code, self.detail = protocol.ERRORS[name], detail


class LoopbackDevice:
    """The device's end of the protocol. Each handler is named after its message and returns the payload of the reply."""

    def __init__(self) -> None:
        self.ticks_run = 0  # never reset: what a test of repetitions counts
        self._decoder = Decoder(protocol.MAX_PAYLOAD)
        self._last: tuple[int, int, tuple[int, ...]] | None = None
        self._answer = b""
        self._installs = self._repeated = 0
        self._image: Image | None = None
        self._start()

    def _start(self) -> None:
        """As after power-on: what is installed stays, the rest is gone."""
        self.state = "empty" if self._image is None else "disarmed"
        self._runner = None if self._image is None else Runner(self._image.program, self._image.shield)
        self._pending: tuple[int, bytes] | None = None  # bytes and digest announced
        self._held = bytearray()
        self._counts = np.zeros(1 + protocol.MAX_STAGES + 4, np.int64)

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the line and return the answers."""
        out = b""
        for kind, sequence, payload in self._decoder.feed(data):
            request = (kind, sequence, tuple(self._decoder.crc))
            if request == self._last and kind != protocol.MESSAGES["hello"][0]:
                self._repeated += 1
            else:
                self._last, self._answer = request, self._reply(kind, sequence, payload)
            out += self._answer
        return out

    def _reply(self, kind: int, sequence: int, payload: bytes) -> bytes:
        try:
            answer, reply = kind | protocol.REPLY, self._handle(kind, payload)
        except _Refusal as refusal:
            answer, reply = protocol.ERROR, struct.pack(protocol.ERROR_FORMAT, refusal.code, kind, 0, refusal.detail)
        out = bytearray(frame_bytes(len(reply)))
        return bytes(out[: encode(answer, sequence, reply, out)])

    def _handle(self, kind: int, payload: bytes) -> bytes:
        name = next((name for name, row in protocol.MESSAGES.items() if row[0] == kind), None)
        if name is None:
            raise _Refusal("unknown_message", kind)
        _, request, layout = protocol.MESSAGES[name]
        size = fixed_bytes(request)
        if len(payload) < size or (len(payload) > size and not request.endswith("*")):
            raise _Refusal("bad_length", size)
        values = struct.unpack(request.rstrip("*") or "<", payload[:size])
        rest = (payload[size:],) if request.endswith("*") else ()
        result = getattr(self, f"_{name}")(*values, *rest)
        return result if layout == "*" else _packed(layout, result)

    @property
    def _armed(self) -> bool:
        return self.state == "lock_step"

    def _disarmed_only(self) -> None:
        if self._armed:
            raise _Refusal("armed")

    def _policy(self) -> tuple[Image, Runner]:
        if self._image is None or self._runner is None:
            raise _Refusal("no_policy")
        return self._image, self._runner

    def _digests(self) -> tuple[bytes, ...]:
        image, _ = self._policy()
        return tuple(getattr(image, name).digest for name in DIGESTS)

    def _hello(self) -> tuple[Any, ...]:
        n, m, shield = 0, 0, "none"
        if self._image is not None:
            contract = self._image.contract
            n, m, shield = contract.n_observations, contract.n_actions, "bytecode" if self._image.shield.bytecode else "none"
        about = (protocol.KINDS["host"], 0, 1, 0, protocol.STATES[self.state], protocol.SHIELDS[shield])
        return protocol.VERSION, *about, 0, protocol.MAX_PAYLOAD, n, m, TARGET, b"python"

    def _contract(self) -> tuple[Any, ...]:
        image, _ = self._policy()
        return len(image.data), len(image.contract.to_json()), self._installs, image.digest, *self._digests()

    def _read_contract(self, offset: int) -> bytes:
        return self._policy()[0].contract.to_json().encode("ascii")[offset : offset + protocol.INSTALL_CHUNK]

    def _install_begin(self, total: int, digest: bytes) -> tuple[()]:
        self._disarmed_only()
        self._pending = None
        if total > MAX_IMAGE:
            raise _Refusal("too_large", MAX_IMAGE)
        self._pending, self._held = (total, digest), bytearray()
        return ()

    def _install_data(self, offset: int, chunk: bytes) -> tuple[int]:
        self._disarmed_only()
        if not 1 <= len(chunk) <= protocol.INSTALL_CHUNK:
            raise _Refusal("bad_length", 4 + protocol.INSTALL_CHUNK)
        if self._pending is None or offset != len(self._held):
            raise _Refusal("bad_order", len(self._held) if self._pending else 0)
        if offset + len(chunk) > self._pending[0]:
            raise _Refusal("too_large", self._pending[0])
        self._held += chunk
        return (len(self._held),)

    def _install_commit(self) -> tuple[int]:
        self._disarmed_only()
        if self._pending is None or len(self._held) != self._pending[0]:
            raise _Refusal("bad_order", len(self._held) if self._pending else 0)
        (_, digest), data, self._pending = self._pending, bytes(self._held), None
        if hashlib.sha256(data).digest() != digest:
            raise _Refusal("bad_digest")
        try:
            image = images.unpack(data)
        except (BundleError, RangeError):
            raise _Refusal("bad_image") from None
        different = _self_test(image)
        if different is not None:
            raise _Refusal("self_test", different)
        self._image = image
        self._installs += 1
        self._start()
        return (self._installs,)

    def _arm(self, mode: int, *digests: bytes) -> tuple[()]:
        self._disarmed_only()
        different = sum(1 << bit for bit, (a, b) in enumerate(zip(digests, self._digests())) if a != b)
        if different:
            raise _Refusal("digest_mismatch", different)
        if mode != protocol.ARM_LOCK_STEP:
            raise _Refusal("no_driver" if mode == protocol.ARM_FREE_RUN else "not_here", mode)
        self._policy()[1].reset()
        self._counts[:] = 0
        self._pending, self.state = None, "lock_step"
        return ()

    def _disarm(self) -> tuple[()]:
        if self._armed:
            self._policy()[1].reset()
            self.state = "disarmed"
        return ()

    def _step(self, flags: int, data: bytes) -> tuple[Any, ...]:
        if not self._armed:
            raise _Refusal("not_armed")
        reply = self._tick(flags, data)
        outcome = int(reply[0])
        p = protocol
        stages = [outcome >> (p.REASON_SHIFT + k) & 1 for k in range(p.MAX_STAGES)]
        self._counts += [1, *stages, *(outcome & flag != 0 for flag in (p.INVALID, p.STALE, p.MISSED, p.SATURATED))]
        return reply

    def _replay(self, flags: int, data: bytes) -> tuple[Any, ...]:
        self._disarmed_only()
        return self._tick(flags, data)

    def _tick(self, flags: int, data: bytes) -> tuple[Any, ...]:
        _, runner = self._policy()
        n = runner.contract.n_observations
        expected = 0 if flags & protocol.STEP_MISSED else n
        if len(data) != 4 * expected:
            raise _Refusal("bad_length", 4 + 4 * expected)
        observation = np.frombuffer(data, "<i4") if data else np.zeros(n, np.int32)
        tick = runner.tick(observation[None], flags)
        self.ticks_run += 1
        actions = np.concatenate([tick.raw[0], tick.applied[0]]).astype("<i4").tobytes()
        return int(tick.outcome[0]), int(tick.state[0]), 0, 0, actions

    def _status(self) -> tuple[int, ...]:
        return (*map(int, self._counts), self._decoder.bad, self._repeated, 0, 0)

    def _service(self) -> tuple[()]:
        self._disarmed_only()
        raise _Refusal("not_here")

    def _reset(self) -> tuple[()]:
        self._start()
        return ()


def _packed(layout: str, values: tuple[Any, ...]) -> bytes:
    """Values as the protocol's table says; the variable rest comes last."""
    if not layout.endswith("*"):
        return struct.pack(layout or "<", *values)
    return struct.pack(layout.rstrip("*"), *values[:-1]) + bytes(values[-1])


def _self_test(image: Image) -> int | None:
    """The first of the image's own vectors that comes out differently."""
    runner, v = Runner(image.program, image.shield), image.vectors
    for k in range(len(v)):
        tick = runner.tick(v.observation[k][None], v.flags[k])
        same = (tick.raw[0] == v.raw[k]).all() and (tick.applied[0] == v.applied[k]).all()
        if not same or tick.outcome[0] != v.outcome[k] or tick.state[0] != v.state[k]:
            return k
    return None
