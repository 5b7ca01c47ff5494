"""A board, real or simulated: the verbs of the protocol with types, and words for whatever goes wrong."""

from __future__ import annotations

import contextlib
import hashlib
import struct
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from puffer_edge.contract import Contract
from puffer_edge.device import simulators
from puffer_edge.device import target as targets
from puffer_edge.device.bundle import Bundle
from puffer_edge.device.link import DIGESTS, Link, fixed_bytes
from puffer_edge.device.loopback import LoopbackLink
from puffer_edge.device.ports import SocketLink, open_link
from puffer_edge.device.replies import Digests, Identity, Status, StepReply
from puffer_edge.errors import ContractError, InvalidInput, LinkError, Refused, Timeout, Unsupported, WrongFirmware
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer import image as images
from puffer_edge.spaces import Ints

__all__ = ["Board", "Digests", "Identity", "Status", "StepReply", "open_board", "open_simulator"]

Progress = Callable[[int, int], None]
GREETING_S, RESTART_S = 4.0, 15.0
POLL_S = 0.1


class Board:
    """One board at the end of a link; close it, or use it in a ``with`` statement.

    Args:
        link: the line to it.
        says: what is simulated and what is not; empty for a real board.
        stop: called after the line is closed, to end a simulator.

    Raises:
        WrongFirmware: something else answers, or another version of the protocol.
        LinkError: nothing answers.
    """

    def __init__(self, link: Link, says: str = "", stop: Callable[[], None] | None = None) -> None:
        self.link = link
        self.says = says
        self._stop = stop
        try:
            self.identity = self._greet(GREETING_S)
        except BaseException:
            self.close()
            raise

    @property
    def simulated(self) -> bool:
        """No hardware is involved."""
        return bool(self.says)

    def __enter__(self) -> Board:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Leave the board as it is; a simulated one ends."""
        self.link.close()
        if self._stop:
            self._stop()
            self._stop = None

    def hello(self, timeout_s: float | None = None) -> Identity:
        """Ask the board who it is.

        Raises:
            WrongFirmware: it speaks another version of the protocol.
        """
        kind, major_minor_patch, state, shield, clock, n, m, target, unique = _identity(self.link.ask("hello", timeout_s=timeout_s))
        self.identity = Identity(
            kind=_name(protocol.KINDS, kind),
            version=".".join(str(part) for part in major_minor_patch),
            state=_name(protocol.STATES, state),
            shield=_name(protocol.SHIELDS, shield),
            clock_hz=clock,
            n_observations=n,
            n_actions=m,
            target=target.rstrip(b"\0").decode("utf-8", "replace"),
            unique_id=unique.hex(),
        )
        return self.identity

    def _greet(self, limit_s: float) -> Identity:
        """Ask often, until the board has started."""
        deadline = time.monotonic() + limit_s
        while True:
            try:
                return self.hello(timeout_s=POLL_S)
            except Timeout:
                if time.monotonic() >= deadline:
                    raise

    def make_ready(self) -> None:
        """Leave a lock-step session that a host has abandoned; no actuator moves in one.

        Raises:
            Unsupported: the board runs free, and stopping it is for a person to decide.
        """
        if self.identity.state == "free_run":
            raise Unsupported("the board runs free and drives its actuators: 'puffer-edge stop' brings the safe output first")
        if self.identity.armed:
            self.disarm()

    def install(self, image: bytes, progress: Progress | None = None) -> Digests:
        """Send a policy image; the board goes on with the old one until all of the new one is there and tested.

        Args:
            image: content of ``policy.bin``.
            progress: called with bytes sent and bytes in all.

        Returns:
            what the board holds afterwards, compared with the image.

        Raises:
            BundleError: the image is damaged.
            Refused: armed, too large, or the board's self-test failed.
            LinkError: the line failed; installing again starts afresh.
        """
        unpacked = images.unpack(image)
        self._ask("install_begin", len(image), hashlib.sha256(image).digest())
        for at in range(0, len(image), protocol.INSTALL_CHUNK):
            chunk = image[at : at + protocol.INSTALL_CHUNK]
            (held, _) = self._ask("install_data", at, rest=chunk)
            if held != at + len(chunk):
                raise LinkError(f"the board holds {held} bytes of the image, {at + len(chunk)} were sent: install again")
            if progress:
                progress(held, len(image))
        self._ask("install_commit")
        digests = self.digests()
        if digests.image != unpacked.digest:
            raise LinkError("the board reports another image than the one that was installed: install again")
        self.hello()
        return digests

    def digests(self) -> Digests:
        """What the board holds; nothing at all before the first install."""
        try:
            return Digests(*self._ask("contract")[:-1])
        except Refused as error:
            if error.code != protocol.ERRORS["no_policy"]:
                raise
            return Digests(0, 0, 0, b"", b"", b"", b"")

    def contract(self) -> Contract:
        """Read the contract of the installed policy from the board.

        Raises:
            ContractError: it holds no policy, or its text does not have the digest that it reports.
        """
        held = self.digests()
        if not held.image_bytes:
            raise ContractError("the board holds no policy, so no contract: 'puffer-edge install' first")
        text = b""
        while len(text) < held.contract_bytes:
            (part,) = self._ask("read_contract", len(text))
            if not part:
                break
            text += part
        if hashlib.sha256(text).digest() != held.contract:
            raise ContractError(f"the contract on the board ({len(text)} of {held.contract_bytes} bytes) does not have its digest: install again")
        return Contract.from_json(text.decode("ascii"))

    def arm(self, contract: bytes, program: bytes, shield: bytes, mode: int = protocol.ARM_LOCK_STEP, expected: Contract | None = None) -> None:
        """Let the policy act, if the board holds exactly what is named.

        Args:
            contract: digest of the contract.
            program: digest of the program.
            shield: digest of the shield.
            mode: ``protocol.ARM_LOCK_STEP`` or ``protocol.ARM_FREE_RUN``.
            expected: the contract itself, so that an error can name the fields that differ.

        Raises:
            ContractError: the board holds something else: which digest, which fields.
            Refused: it holds no policy, its self-test failed, or it is armed already.
        """
        try:
            self._ask("arm", mode, contract, program, shield)
        except Refused as error:
            if error.code != protocol.ERRORS["digest_mismatch"]:
                raise
            raise ContractError(self._mismatch((contract, program, shield), expected)) from None
        self.hello()

    def _mismatch(self, named: tuple[bytes, bytes, bytes], expected: Contract | None) -> str:
        held = self.digests()
        differing = [name for name, digest in zip(DIGESTS, named) if getattr(held, name) != digest]
        fields: list[str] = []
        if expected is not None and "contract" in differing:
            with contextlib.suppress(ContractError, InvalidInput):
                fields = expected.differences(self.contract())
        listed = "; ".join(fields)
        return f"the board holds another {' and '.join(differing)}{f' ({listed})' if listed else ''}: 'puffer-edge install' first"

    def disarm(self) -> None:
        """Back to the safe output."""
        self._ask("disarm")
        self.hello()

    def step(self, observation: Ints | None, flags: int = 0) -> StepReply:
        """One tick of an armed board.

        Args:
            observation: (n,) int32 fixed point; None if nothing was measured.
            flags: STEP_RESET, STEP_MISSED, STEP_INVALID of the protocol.
        """
        return self._tick("step", observation, flags)

    def replay(self, observation: Ints | None, flags: int = 0) -> StepReply:
        """One tick of a disarmed board: the same computation, and no actuator moves."""
        return self._tick("replay", observation, flags)

    def _tick(self, message: str, observation: Ints | None, flags: int) -> StepReply:
        if observation is None:
            flags |= protocol.STEP_MISSED
        data = b"" if observation is None or flags & protocol.STEP_MISSED else np.asarray(observation).astype("<i4").tobytes()
        start = time.perf_counter()
        outcome, state, cycles_policy, cycles_shield, rest = self._ask(message, flags, rest=data)
        elapsed = (time.perf_counter() - start) * 1e6
        actions = np.frombuffer(rest, "<i4").astype(np.int32)
        if len(actions) != 2 * self.identity.n_actions:
            raise WrongFirmware(f"the board answered with {len(actions)} numbers, its policy has {self.identity.n_actions} actions")
        raw, applied = np.split(actions, 2)
        return StepReply(outcome, state, cycles_policy, cycles_shield, raw, applied, elapsed)

    def status(self) -> Status:
        """The board's counters."""
        values = self._ask("status")[:-1]
        return Status(values[0], tuple(values[1 : 1 + protocol.MAX_STAGES]), *values[1 + protocol.MAX_STAGES :])

    def reset(self) -> Identity:
        """Reset the chip and wait until it answers again.

        Raises:
            Timeout: it did not come back.
        """
        self._ask("reset")
        return self._greet(RESTART_S)

    def service(self) -> None:
        """Enter the service mode: the USB boot loader or MicroPython's prompt. The link ends here."""
        self._ask("service")

    def _ask(self, message: str, *values: Any, rest: bytes = b"") -> tuple[Any, ...]:
        """Ask, and unpack the answer as the protocol's table says, the variable rest last."""
        _, request, layout = protocol.MESSAGES[message]
        payload = struct.pack(request.rstrip("*") or "<", *values) + rest
        if len(payload) > protocol.MAX_PAYLOAD:
            raise Unsupported(f"'{message}' carries at most {protocol.MAX_PAYLOAD} bytes, not {len(payload)}")
        answer = self.link.ask(message, payload)
        size = fixed_bytes(layout)
        return (*struct.unpack(layout.rstrip("*") or "<", answer[:size]), answer[size:])


def open_board(where: str, bundle: Bundle, state: Path | None = None) -> Board:
    """Open a board.

    Args:
        where: "sim" for a simulated one, "loopback" for one in this process, else a serial port or socket://HOST:PORT.
        bundle: what it is for, which says the target.
        state: folder where a simulated board keeps its flash; without one it is fresh each time.

    Raises:
        PortUnavailable: missing, busy or not permitted.
        WrongFirmware, Timeout: no puffer-edge firmware answers.
        Unsupported: the simulator needs a program that is not installed.
    """
    target = targets.load(bundle.target)
    if where == "sim":
        return open_simulator(target, state)
    if where == "loopback":
        return Board(LoopbackLink(), "The numpy reference behind the link, in this process: no firmware runs.")
    board = Board(open_link(where, target))
    board.says = _says(board.identity)
    return board


def _says(identity: Identity) -> str:
    """What is simulated and what is not, of a board that says of itself that it is no hardware; nothing for a real one."""
    if not identity.simulated:
        return ""
    known = [t for t in map(targets.load, targets.names()) if t.simulator]
    mine = [t for t in known if t.name == identity.target] or [t for t in known if t.firmware == identity.kind]
    return targets.simulator_of(mine[0]).says if mine else "A simulated board of an unknown kind."


def open_simulator(target: targets.Target, state: Path | None = None) -> Board:
    """Start a target's simulator and connect to it; closing the board ends it."""
    simulator = simulators.start(target, state)
    try:
        link = SocketLink(simulator.url, simulator.last_words)
    except BaseException:
        simulator.stop()
        raise
    return Board(link, simulator.says, simulator.stop)


def _identity(answer: bytes) -> tuple[Any, ...]:
    version, kind, major, minor, patch, state, shield, clock, _, n, m, target, unique = struct.unpack(protocol.MESSAGES["hello"][2], answer)
    if version != protocol.VERSION:
        raise WrongFirmware(f"the board speaks protocol {version}, this version {protocol.VERSION}: install the firmware of this version")
    return kind, (major, minor, patch), state, shield, clock, n, m, target, unique


def _name(table: dict[str, int], number: int) -> str:
    return next((name for name, value in table.items() if value == number), f"unknown ({number})")
