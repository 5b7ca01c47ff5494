"""The MicroPython runtime's own rules, on CPython with a board and a driver made for the test: what reaches ``write``, and what survives."""

from __future__ import annotations

import hashlib
import importlib
import struct
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puffer_edge.firmware.shared import protocol
from puffer_edge.firmware.shared.frames import Decoder, encode, frame_bytes
from puffer_edge.integer.image import Image
from tests.firmware import micropython_vm
from tests.firmware.c_images import image, sealed

LOW, HIGH = -(2**30 - 1), 2**30 - 1


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The package as it lies on a board, imported by CPython."""
    root = tmp_path_factory.mktemp("device")
    micropython_vm.deploy(root)
    sys.path.insert(0, str(root))
    names = ("device", "engine", "image", "link", "store")
    yield SimpleNamespace(**{name: importlib.import_module(f"puffer_edge_device.{name}") for name in names})
    sys.path.remove(str(root))


class Chip:
    """A board: bytes in and out in lists, and a watchdog that can be there or not."""

    name, unique_id, clock_hz = b"test", b"12345678", 1_000_000

    def __init__(self) -> None:
        self.incoming, self.outgoing = bytearray(), bytearray()
        self.watched, self.has_watchdog, self.room = False, True, 1_000_000

    def read(self) -> int:
        return self.incoming.pop(0) if self.incoming else -1

    def write(self, buffer: bytearray, length: int) -> None:
        self.outgoing += buffer[:length]

    def start_watchdog(self, ms: int) -> bool:
        self.watched = self.has_watchdog
        return self.has_watchdog

    def feed(self) -> None:
        pass

    def free_bytes(self) -> int:
        return self.room


class Driver:
    """A user's module: gives what it is told to, and keeps what it was given."""

    def __init__(self) -> None:
        self.gives: Any = None
        self.written: list[list[int]] = []
        self.breaks = False

    def read(self, buffer: array[int]) -> Any:
        return self.gives(buffer) if callable(self.gives) else self.gives

    def write(self, action: array[int]) -> None:
        self.written.append(list(action))
        action[0] = 99  # what a driver does with its copy is its own affair
        if self.breaks:
            raise OSError("bus")


class Rig:
    """A device with a driver, spoken to in frames."""

    def __init__(self, package: SimpleNamespace, root: Path, monkeypatch: pytest.MonkeyPatch, this: Image | None = None) -> None:
        self.chip, self.driver, self.now = Chip(), Driver(), 0
        monkeypatch.setattr(package.device, "ticks_us", lambda: self.now)
        if this is not None:
            (root / "policy-1.bin").write_bytes(this.data)
        self.device = package.device.Device(self.chip, self.driver, str(root))
        self.link = package.link.Link(self.chip, self.device)
        self.sequence = 0

    def send(self, data: bytes) -> list[tuple[int, int, bytes]]:
        self.chip.incoming += data
        self.chip.outgoing.clear()
        while self.chip.incoming and not (self.link.leave or self.link.reset_asked):
            self.link.poll()
        return list(Decoder(protocol.MAX_PAYLOAD).feed(bytes(self.chip.outgoing)))

    def ask(self, name: str, payload: bytes = b"") -> bytes:
        """The reply's payload, or "error detail" where there is one."""
        self.sequence = (self.sequence + 1) & 255
        [(kind, sequence, reply)] = self.send(framed(protocol.MESSAGES[name][0], self.sequence, payload))
        assert sequence == self.sequence
        if kind == protocol.ERROR:
            code, request, zero, detail = struct.unpack(protocol.ERROR_FORMAT, reply)
            assert request == protocol.MESSAGES[name][0] and zero == 0
            return f"{next(k for k, v in protocol.ERRORS.items() if v == code)} {detail}".encode()
        assert kind == protocol.MESSAGES[name][0] | protocol.REPLY
        return reply

    def arm(self, this: Image, mode: int = protocol.ARM_FREE_RUN) -> bytes:
        return self.ask("arm", bytes([mode]) + this.contract.digest + this.program.digest + this.shield.digest)

    def install(self, data: bytes) -> bytes:
        return self.send_image(data, hashlib.sha256(data).digest())

    def send_image(self, data: bytes, digest: bytes) -> bytes:
        assert self.ask("install_begin", struct.pack("<I", len(data)) + digest) == b""
        for at in range(0, len(data), protocol.INSTALL_CHUNK):
            chunk = data[at : at + protocol.INSTALL_CHUNK]
            assert self.ask("install_data", struct.pack("<I", at) + chunk) == struct.pack("<I", at + len(chunk))
        return self.ask("install_commit")

    def tick(self) -> list[int]:
        """The next free tick; returns what was written."""
        self.now = self.device.due
        self.device.poll()
        return self.driver.written[-1]

    def status(self) -> dict[str, int]:
        values = struct.unpack(protocol.MESSAGES["status"][2], self.ask("status"))
        names = ["ticks", *(f"stage{k}" for k in range(8)), "invalid", "stale", "missed", "saturated", "bad", "repeated", "misses", "longest"]
        return dict(zip(names, values))


def framed(kind: int, sequence: int, payload: bytes) -> bytes:
    out = bytearray(frame_bytes(len(payload)))
    return bytes(out[: encode(kind, sequence, payload, out)])


@pytest.fixture
def rig(package: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """With the image "tanh"."""
    rig = Rig(package, tmp_path, monkeypatch, TANH)
    yield rig
    rig.device.store.abandon()


@pytest.fixture
def bare(package: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """With no policy."""
    rig = Rig(package, tmp_path, monkeypatch)
    yield rig
    rig.device.store.abandon()


TANH = image("tanh")
SAFE = TANH.contract.action_safe.tolist()


# What reaches the actuators


def test_the_safe_output_is_the_first_thing_written(rig: Rig) -> None:
    assert rig.driver.written == [SAFE], "and the self-test writes nothing"


def test_free_running_applies_what_the_reference_applies(rig: Rig) -> None:
    v = TANH.vectors
    feed = iter(range(len(v)))

    def read(buffer: array[int]) -> Any:
        k = next(feed)
        if v.flags[k] & protocol.STEP_INVALID:
            raise ValueError("sensor")
        buffer[:] = array("i", v.observation[k].tolist())
        return not v.flags[k] & protocol.STEP_MISSED

    assert rig.arm(TANH) == b""
    rig.driver.gives = read
    for k in range(len(v)):
        if v.flags[k] & protocol.STEP_RESET:
            rig.device.engine.reset()
        assert rig.tick() == v.applied[k].tolist()
    rig.ask("disarm")
    assert rig.driver.written[-1] == SAFE


@pytest.mark.parametrize(
    ("gives", "outcome"),
    [
        (None, protocol.POLICY_RAN),
        (True, protocol.POLICY_RAN),
        (False, protocol.MISSED),
        (float("nan"), protocol.INVALID),
        (lambda buffer: 1 / 0, protocol.INVALID),
        (lambda buffer: buffer.__setitem__(0, 1.5), protocol.INVALID),
        (lambda buffer: buffer.__setitem__(0, 2**40), protocol.INVALID),
    ],
)
def test_what_read_says_becomes_a_flag(rig: Rig, gives: Any, outcome: int) -> None:
    rig.arm(TANH)
    rig.tick()
    rig.driver.gives = gives
    rig.device.engine.phase = 0
    seen = []
    tick = rig.device.engine.tick
    rig.device.engine.tick = lambda o, flags: seen.append(tick(o, flags)) or seen[-1]
    applied = rig.tick()
    assert seen[0] & 0xFFFF & ~protocol.SATURATED == outcome
    if outcome == protocol.INVALID:
        assert applied == SAFE


def test_a_driver_that_cannot_write_stops_everything(rig: Rig) -> None:
    rig.arm(TANH)
    rig.driver.breaks = True
    rig.tick()
    assert rig.driver.written[-1] == SAFE
    assert rig.device.state == protocol.STATES["failed"]
    assert rig.device.poll() == -1
    assert rig.arm(TANH) == b"no_driver 1"
    rig.driver.breaks = False
    rig.ask("disarm")
    assert rig.device.state == protocol.STATES["disarmed"]
    assert rig.arm(TANH) == b""


def test_lock_step_moves_no_actuator(rig: Rig) -> None:
    rig.arm(TANH, protocol.ARM_LOCK_STEP)
    written = len(rig.driver.written)
    observation = struct.pack("<I3i", 0, 1, 2, 3)
    assert len(rig.ask("step", observation)) == 16 + 8 * 2
    assert len(rig.driver.written) == written
    assert rig.status()["ticks"] == 1


def test_no_driver_no_free_running(package: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "policy-1.bin").write_bytes(TANH.data)
    device = package.device.Device(Chip(), None, str(tmp_path))
    with pytest.raises(package.device.Refused) as refused:
        device.arm(protocol.ARM_FREE_RUN, *device.image.digests[1:])
    assert refused.value.code == protocol.ERRORS["no_driver"]


def test_no_watchdog_no_free_running(rig: Rig) -> None:
    rig.chip.has_watchdog = False
    assert rig.arm(TANH) == b"not_here 1"
    assert rig.arm(TANH, protocol.ARM_LOCK_STEP) == b"", "which needs none"


def test_a_late_tick_is_counted_and_the_rate_is_kept(rig: Rig) -> None:
    period = TANH.contract.period_us
    rig.arm(TANH)
    start = rig.device.due
    assert rig.device.poll() == period
    rig.now += period // 2
    assert rig.device.poll() == period - period // 2

    def slow(buffer: array[int]) -> bool:
        rig.now += 3 * period + 5
        return False

    rig.driver.gives = slow
    rig.now = rig.device.due
    rig.device.poll()
    assert rig.device.due == start + 5 * period
    rig.driver.gives = False
    rig.tick()
    assert rig.status()["misses"] == 3 and rig.status()["ticks"] == 3


def test_counters_begin_anew_with_each_arming_and_never_grow_long(rig: Rig) -> None:
    rig.device.counters[0] = 2**30 - 3
    rig.device.add(0, 1)
    rig.device.add(0, 1)
    rig.device.add(0, 5)
    assert rig.status()["ticks"] == 2**30 - 2
    rig.arm(TANH, protocol.ARM_LOCK_STEP)
    assert rig.status()["ticks"] == 0


# The messages


def test_every_refusal_says_why(rig: Rig) -> None:
    begin = struct.pack("<I", 1000) + bytes(32)
    assert rig.ask("step", bytes(16)) == b"not_armed 0"
    assert rig.ask("install_data", bytes(5)) == b"bad_order 0"
    assert rig.ask("install_commit") == b"bad_order 0"
    assert rig.ask("install_begin", struct.pack("<I", 2_000_000) + bytes(32)) == b"too_large 1000000"
    assert rig.ask("install_begin", b"") == b"bad_length 36"
    assert rig.ask("install_begin", begin) == b""
    assert rig.ask("install_data", bytes(4)) == b"bad_length 260"
    assert rig.ask("install_data", struct.pack("<I", 4) + b"x") == b"bad_order 0"
    assert rig.ask("install_data", bytes(4 + 256)) == struct.pack("<I", 256)
    assert rig.ask("install_commit") == b"bad_order 256"
    assert rig.ask("replay", bytes(8)) == b"bad_length 16"
    assert rig.ask("replay", b"\x02" + bytes(15)) == b"bad_length 4"
    assert rig.ask("arm", bytes(97)) == b"digest_mismatch 7"
    assert rig.arm(TANH, 2) == b"not_here 2"
    assert rig.arm(TANH, protocol.ARM_LOCK_STEP) == b""
    for name, payload in (("arm", bytes(97)), ("replay", bytes(16)), ("install_begin", begin), ("install_data", bytes(5)), ("install_commit", b"")):
        assert rig.ask(name, payload) == b"armed 0"
    assert rig.ask("service") == b"armed 0"
    [(kind, _, payload)] = rig.send(framed(0x55, 1, b""))
    assert (kind, payload) == (protocol.ERROR, struct.pack(protocol.ERROR_FORMAT, protocol.ERRORS["unknown_message"], 0x55, 0, 0x55))


def test_without_a_policy_nothing_arms(bare: Rig) -> None:
    for name, payload in (("contract", b""), ("read_contract", bytes(4)), ("replay", bytes(4)), ("arm", bytes(97))):
        assert bare.ask(name, payload) == b"no_policy 0"
    assert bare.ask("step", bytes(4)) == b"not_armed 0"
    assert bare.ask("disarm") == b"" and bare.driver.written == []


def test_more_than_announced_is_refused(rig: Rig) -> None:
    rig.ask("install_begin", struct.pack("<I", 10) + bytes(32))
    assert rig.ask("install_data", bytes(4 + 11)) == b"too_large 10"


def test_a_repeated_request_is_answered_but_not_carried_out(rig: Rig) -> None:
    rig.arm(TANH, protocol.ARM_LOCK_STEP)
    frame = framed(protocol.MESSAGES["step"][0], 200, struct.pack("<I3i", 0, 5, 6, 7))
    [first] = rig.send(frame)
    assert rig.send(frame * 2) == [first, first]
    status = rig.status()
    assert (status["ticks"], status["repeated"]) == (1, 2)


def test_damaged_frames_are_counted(rig: Rig) -> None:
    frame = bytearray(framed(protocol.MESSAGES["hello"][0], 1, b""))
    frame[3] ^= 64
    assert rig.send(bytes(frame)) == []
    assert rig.status()["bad"] == 1


def test_the_prompt_is_given_while_disarmed_and_never_by_a_frame(rig: Rig) -> None:
    rig.arm(TANH, protocol.ARM_LOCK_STEP)
    rig.send(b"\0\r\x03\0")
    assert not rig.link.leave
    rig.ask("disarm")
    for at in range(16):
        rig.ask("read_contract", struct.pack("<I", 0x030D << at))  # 13, 3 within a frame
    assert not rig.link.leave
    rig.send(b"\r\x03")
    assert rig.link.leave


def test_the_prompt_is_not_given_to_a_board_whose_watchdog_runs(rig: Rig) -> None:
    rig.arm(TANH)
    rig.ask("disarm")
    assert rig.ask("service") == b"not_here 0"
    rig.send(b"\r\x03\0")
    assert not rig.link.leave


@given(noise=st.binary(max_size=400))
def test_no_noise_arms_or_breaks_anything(package: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        rig = Rig(package, tmp_path_factory.mktemp("noise"), monkeypatch)
        rig.send(noise.replace(b"\r\x03", b"") + b"\0")
        assert rig.device.state == protocol.STATES["empty"]
        assert len(rig.ask("hello")) == struct.calcsize(protocol.MESSAGES["hello"][2])


# Images


@pytest.mark.parametrize("name", ["discrete", "tanh", "clip", "bare"])
def test_an_install_replaces_the_policy(bare: Rig, name: str) -> None:
    this = image(name)
    assert bare.install(this.data) == struct.pack("<I", 1)
    assert bare.driver.written == [this.contract.action_safe.tolist()]
    digests = struct.unpack(protocol.MESSAGES["contract"][2], bare.ask("contract"))[3:]
    assert digests == (this.digest, this.contract.digest, this.program.digest, this.shield.digest)


def test_only_what_was_announced_is_installed(rig: Rig) -> None:
    assert rig.send_image(image("clip").data, bytes(32)) == b"bad_digest 0"
    assert rig.arm(TANH) == b""


def test_an_image_that_fails_its_self_test_changes_nothing(rig: Rig) -> None:
    this = image("clip")
    data = bytearray(this.data)
    at = struct.unpack_from("<I", data, 56)[0] + 5 * 4 * (3 + 9 + 2 * 3)  # the sixth step
    data[at + 4 * (1 + 9)] ^= 1
    assert rig.install(sealed(data)) == b"self_test 5"
    assert rig.arm(TANH) == b""
    assert this.contract.action_safe.tolist() not in rig.driver.written


def test_a_policy_that_fails_at_boot_does_not_arm(package: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(package, tmp_path, monkeypatch, TANH)
    data = bytearray(TANH.data)
    data[struct.unpack_from("<I", data, 56)[0] + 16] ^= 1
    (tmp_path / "policy-2.bin").write_bytes(sealed(data))
    rig = Rig(package, tmp_path, monkeypatch)
    assert rig.device.state == protocol.STATES["failed"]
    assert rig.arm(TANH) == b"self_test 0"
    assert rig.driver.written[0] == SAFE


@pytest.mark.parametrize("cut", [0, 79, 500, -1])
def test_a_damaged_newest_file_falls_back_to_the_one_before(
    package: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    (tmp_path / "policy-2.bin").write_bytes(image("clip").data[:cut])
    rig = Rig(package, tmp_path, monkeypatch, TANH)
    assert rig.arm(TANH) == b""
    rig.ask("disarm")
    assert rig.install(image("bare").data) == struct.pack("<I", 3)


def test_power_may_fail_at_any_byte_of_an_install(package: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> None:
    old, new = TANH.data, image("bare").data
    writes = sorted({0, 1, 79, 80, len(new) // 2, len(new) - 1, len(new)} | set(range(0, len(new), 331)))
    for k in writes:  # the part file was cut, nothing else was done
        root = tmp_path_factory.mktemp("cut")
        (root / "policy-1.bin").write_bytes(old)
        (root / "policy.part").write_bytes(new[:k])
        assert package.store.Store(str(root), lambda: None).open()[0].digests[0] == old[-32:]
    root = tmp_path_factory.mktemp("renamed")  # renamed, and the oldest not yet removed
    for count, data in ((1, image("clip").data), (2, old), (3, new)):
        (root / f"policy-{count}.bin").write_bytes(data)
    found, count = package.store.Store(str(root), lambda: None).open()
    assert (found.digests[0], count) == (new[-32:], 3)


def test_a_full_file_system_keeps_the_old_policy(rig: Rig, package: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(28, "no space")

        def close(self) -> None:
            pass

    data = image("bare").data
    rig.ask("install_begin", struct.pack("<I", len(data)) + hashlib.sha256(data).digest())
    rig.device.store.file.close()
    monkeypatch.setattr(rig.device.store, "file", Full())
    assert rig.ask("install_data", bytes(4) + data[:256]) == b"flash 0"
    rig.device.store.file = None
    assert rig.ask("install_commit") == b"bad_order 0"
    assert rig.arm(TANH) == b""


@given(
    name=st.sampled_from(["discrete", "tanh", "clip", "bare"]),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
    header=st.booleans(),
)
def test_a_hostile_image_is_refused_or_stays_within_its_own_bounds(
    package: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory, name: str, changes: list[tuple[int, int]], header: bool
) -> None:
    data = bytearray(image(name, 8).data)
    for at, value in changes:
        data[at % (80 if header else len(data))] = value
    path = tmp_path_factory.mktemp("hostile") / "policy.bin"
    path.write_bytes(sealed(data))
    try:
        found = package.image.Image(str(path))
    except package.image.BadImage as e:
        assert 0 <= e.args[0] <= len(data)
        return
    engine = package.engine.Engine(found)
    rng = np.random.default_rng(1)
    for k in range(12):
        observation = array("i", rng.integers(LOW, HIGH, found.n).tolist())
        engine.tick(observation, (0, 0, 0, protocol.STEP_MISSED, protocol.STEP_INVALID, protocol.STEP_RESET)[k % 6])
        for j in range(found.m):
            low, high = found.actions[4 * j : 4 * j + 2]
            assert low <= engine.applied[j] <= high and low <= engine.raw[j] <= high


def test_a_printed_shield_is_used_only_if_it_is_the_images(
    package: SimpleNamespace, rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed: dict[str, Any] = {}
    exec(TANH.shield.to_micropython(), printed)
    for digest, kind in ((TANH.shield.digest, "printed"), (bytes(32), "bytecode")):
        monkeypatch.setitem(sys.modules, "shield", SimpleNamespace(DIGEST=digest, shield=printed["shield"]))
        again = Rig(package, tmp_path, monkeypatch, TANH)
        assert again.ask("hello")[7] == protocol.SHIELDS[kind]
        assert again.arm(TANH) == b"", "the self-test has passed"
