"""The host's end of the link: one question, one answer, and never a wrong one (``firmware/shared/protocol.py``)."""

from __future__ import annotations

import secrets
import struct
import time
from abc import ABC, abstractmethod

from puffer_edge.errors import BadFrame, Refused, Timeout
from puffer_edge.firmware.shared import protocol
from puffer_edge.firmware.shared.frames import Decoder, encode, frame_bytes

TRIES = 4
TIMEOUT_S = 2.0
# Flash is erased and hashed while these run: a 64 KiB block takes up to 2 s on the RP2040's flash chip.
TIMEOUTS_S = {"install_begin": 20.0, "install_commit": 20.0}

# What each refusal means, and the way out; {detail} is the number that came with it.
REASONS = {
    "unknown_message": "the firmware does not know message {detail:#04x}: install the firmware of this version",
    "bad_length": "the request has the wrong length, the board expected {detail} bytes: install the firmware of this version",
    "no_policy": "the board holds no policy: 'puffer-edge install' first",
    "armed": "the board is armed: disarm it first",
    "not_armed": "the board is not armed",
    "digest_mismatch": "what the board holds is not what was named ({which} differs): 'puffer-edge install' first",
    "too_large": "the image does not fit, {detail} bytes do: try a smaller network",
    "bad_order": "a piece of the image arrived out of order, the board expected offset {detail}: install again",
    "bad_digest": "the image that arrived is not the one that was announced: install again",
    "bad_image": "the board finds the image inconsistent (check or byte {detail}): export it again with this version",
    "self_test": "the board's self-test differs from the reference at step {detail}: it will not arm; install again, then report this",
    "flash": "the flash at {detail:#x} did not keep what was written: the board may be worn out or badly powered",
    "no_driver": "free running needs the user's read and write functions in the firmware",
    "not_here": "this board's firmware cannot do that",
}
DIGESTS = ("contract", "program", "shield")


def fixed_bytes(layout: str) -> int:
    """Bytes of a format of ``protocol.MESSAGES`` before its variable rest."""
    return struct.calcsize(layout.rstrip("*") or "<")


def refusal(message: str, payload: bytes) -> Refused:
    """The error that an error reply stands for."""
    code, _, _, detail = struct.unpack(protocol.ERROR_FORMAT, payload)
    names = {number: name for name, number in protocol.ERRORS.items()}
    reason = REASONS.get(names.get(code, ""), f"code {code}, unknown to this version (detail {{detail}})")
    which = " and ".join(name for bit, name in enumerate(DIGESTS) if detail >> bit & 1) or "a digest"
    return Refused(f"the board refused '{message}': {reason.format(detail=detail, which=which)}", code, detail)


class Link(ABC):
    """A line to one board. A kind of line provides ``send``, ``receive`` and ``close``; the conversation is the same on all.

    Every request has a sequence number. A request without an answer is sent again with the same number, and the board then
    repeats its answer without doing the work twice; an answer with another number belongs to an earlier question and is dropped.

    Attributes:
        name: the port or address, for messages.
        round_trips: questions answered.
        retries: requests sent again.
        stale: answers dropped because they came too late.
    """

    def __init__(self, name: str, sequence: int | None = None) -> None:
        self.name = name
        self.round_trips = self.retries = self.stale = 0
        self._decoder = Decoder(protocol.MAX_PAYLOAD)
        # Begins anywhere, so that an answer left over from another program's conversation hardly ever fits.
        self._sequence = secrets.randbelow(256) if sequence is None else sequence

    @property
    def bad_frames(self) -> int:
        """Frames that arrived damaged."""
        return int(self._decoder.bad)

    @abstractmethod
    def send(self, data: bytes) -> None:
        """Put bytes on the line."""

    @abstractmethod
    def receive(self, timeout_s: float) -> bytes:
        """Whatever arrived, at least one byte; nothing if none came in time."""

    @abstractmethod
    def close(self) -> None:
        """Leave the line; a second call does nothing."""

    def ask(self, message: str, payload: bytes = b"", timeout_s: float | None = None) -> bytes:
        """Ask the board and return the payload of its answer.

        Args:
            message: name in ``protocol.MESSAGES``.
            payload: request, packed as the table says.
            timeout_s: time for each try.

        Raises:
            Refused: the board said no.
            Timeout: no answer after all tries.
            BadFrame: only noise came back, or an answer of the wrong length.
            PortUnavailable: the line is gone.
        """
        kind, _, layout = protocol.MESSAGES[message]
        self._sequence = (self._sequence + 1) & 0xFF
        out = bytearray(frame_bytes(len(payload)))
        frame = bytes(out[: encode(kind, self._sequence, payload, out)])
        limit = TIMEOUTS_S.get(message, TIMEOUT_S) if timeout_s is None else timeout_s
        bad = self.bad_frames
        for attempt in range(TRIES):
            self.retries += attempt > 0
            self.send(frame)
            answer = self._await(message, kind, limit)
            if answer is not None:
                self.round_trips += 1
                return _checked(message, layout, answer)
        if self.bad_frames > bad:
            raise BadFrame(f"what {self.name} answers to '{message}' is no puffer-edge frame: check the firmware, the baud rate and the wiring")
        raise Timeout(f"{self.name} did not answer '{message}' ({TRIES} tries of {limit:g} s): is the firmware installed and the board powered?")

    def _await(self, message: str, kind: int, limit: float) -> bytes | None:
        """The payload of the answer to the running question, or None when the time is over."""
        deadline = time.monotonic() + limit
        while (left := deadline - time.monotonic()) > 0:
            data = self.receive(left)
            if not data:
                return None
            answer = None
            for found, sequence, payload in self._decoder.feed(data):
                if sequence != self._sequence or answer is not None:
                    self.stale += 1
                elif found == protocol.ERROR and len(payload) == struct.calcsize(protocol.ERROR_FORMAT) and payload[1] == kind:
                    raise refusal(message, payload)
                elif found == kind | protocol.REPLY:
                    answer = payload
                else:
                    self.stale += 1
            if answer is not None:
                return answer
        return None


def _checked(message: str, layout: str, payload: bytes) -> bytes:
    size = fixed_bytes(layout)
    if len(payload) < size or (len(payload) > size and not layout.endswith("*")):
        raise BadFrame(f"the answer to '{message}' has {len(payload)} bytes, the protocol says {size}: install the firmware of this version")
    return payload
