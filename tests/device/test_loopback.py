"""The whole protocol over a board in this process, on good lines and bad ones: the right answer or a LinkError, never a wrong one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puffer_edge.device.board import Board
from puffer_edge.device.link import REASONS, Link
from puffer_edge.device.loopback import LoopbackDevice, LoopbackLink
from puffer_edge.errors import BadFrame, BundleError, ContractError, LinkError, Refused, Timeout, WrongFirmware
from puffer_edge.firmware.shared import protocol
from tests.device import installed

FAULTS = ("pass", "drop", "flip", "twice", "garbage", "cut", "delay")
SCHEDULE = st.lists(st.tuples(st.sampled_from(FAULTS), st.integers(0, 999)), max_size=20)


class BadLine:
    """Treats each transmission as the next entry of a schedule says, then is good for ever."""

    def __init__(self, schedule: list[tuple[str, int]]) -> None:
        self.schedule = list(schedule)
        self.held = b""

    def __call__(self, data: bytes) -> bytes:
        if not data or not self.schedule:
            data, self.held = self.held + data, b""
            return data
        fault, number = self.schedule.pop(0)
        if fault == "delay":
            self.held += data
            return b""
        k = number % len(data)
        changed = {
            "pass": data,
            "drop": b"",
            "flip": data[:k] + bytes([data[k] ^ (1 << number % 8)]) + data[k + 1 :],
            "twice": data + data,
            "garbage": bytes((number * 7 + i) % 256 for i in range(number % 50)) + data,
            "cut": data[:k],
        }[fault]
        out, self.held = self.held + changed, b""
        return out


def board() -> Board:
    opened = Board(LoopbackLink())
    opened.install(installed.image().data)
    return opened


def digests() -> tuple[bytes, bytes, bytes]:
    image = installed.image()
    return image.contract.digest, image.program.digest, image.shield.digest


def test_the_walk() -> None:
    with Board(LoopbackLink()) as opened:
        installed.walk(opened)


@settings(max_examples=150)
@given(SCHEDULE, SCHEDULE)
def test_a_bad_line_never_gives_a_wrong_answer(there: list[tuple[str, int]], back: list[tuple[str, int]]) -> None:
    image = installed.image()
    opened = board()
    opened.arm(*digests())
    device = opened.link.device  # type: ignore[attr-defined]
    before = device.ticks_run
    opened.link = LoopbackLink(device, BadLine(there), BadLine(back))
    expected = image.vectors
    for k in range(len(expected)):
        try:
            reply = opened.step(expected.observation[k], int(expected.flags[k]))
        except (Timeout, BadFrame):
            return  # honest: the line was too bad, nothing was invented
        assert device.ticks_run == before + k + 1  # however often it was sent, it ran once
        assert (reply.raw.tolist(), reply.applied.tolist()) == (expected.raw[k].tolist(), expected.applied[k].tolist())
        assert (reply.outcome, reply.state) == (expected.outcome[k], expected.state[k])


@settings(max_examples=40)
@given(SCHEDULE)
def test_an_install_over_a_bad_line_is_whole_or_absent(there: list[tuple[str, int]]) -> None:
    old, new = installed.image(), installed.image(seed=1)
    opened = board()
    device = opened.link.device  # type: ignore[attr-defined]
    opened.link = LoopbackLink(device, BadLine(there))
    try:
        opened.install(new.data)
        wanted = {new.digest}
    except LinkError:
        wanted = {old.digest, new.digest}  # the answer to the commit may be what was lost
    opened.link = LoopbackLink(device)
    assert opened.digests().image in wanted
    assert opened.install(new.data).image == new.digest  # and installing again always works


def test_a_repeated_request_is_answered_but_not_done_again() -> None:
    opened = board()
    opened.arm(*digests())
    device = opened.link.device  # type: ignore[attr-defined]
    opened.link = LoopbackLink(device, to_host=BadLine([("drop", 0), ("flip", 9)]))
    opened.step(installed.image().vectors.observation[0], protocol.STEP_RESET)
    assert opened.link.retries == 2
    status = opened.status()
    assert (status.ticks, status.repeated_frames) == (1, 2)


def test_arming_something_else_says_what_differs() -> None:
    opened = board()
    other = installed.image(name="other")
    with pytest.raises(ContractError, match=r"another contract \(name: other here, many there\)"):
        opened.arm(other.contract.digest, *digests()[1:], expected=other.contract)
    with pytest.raises(ContractError, match="another program and shield: 'puffer-edge install' first"):
        opened.arm(digests()[0], bytes(32), bytes(32))
    assert not opened.identity.armed


def test_an_armed_board_keeps_its_policy() -> None:
    opened = board()
    opened.arm(*digests())
    other = installed.image(seed=1).data
    for forbidden in (lambda: opened.install(other), lambda: opened.replay(None), lambda: opened.arm(*digests()), opened.service):
        with pytest.raises(Refused, match="armed: disarm it first"):
            forbidden()
    opened.disarm()
    with pytest.raises(Refused, match="not armed"):
        opened.step(None)


def test_an_empty_board_says_so() -> None:
    opened = Board(LoopbackLink())
    assert opened.identity.state == "empty"
    assert opened.digests().image_bytes == 0
    for asks in (opened.contract, lambda: opened.arm(*digests()), lambda: opened.replay(None)):
        with pytest.raises((Refused, ContractError), match="puffer-edge install"):
            asks()


def test_a_damaged_image_is_not_even_sent() -> None:
    opened = board()
    data = bytearray(installed.image(seed=1).data)
    data[200] ^= 1
    trips = opened.link.round_trips
    with pytest.raises(BundleError):
        opened.install(bytes(data))
    assert opened.link.round_trips == trips


def test_a_missed_observation_needs_none() -> None:
    opened = board()
    opened.arm(*digests())
    reply = opened.step(None)
    assert reply.outcome & protocol.MISSED
    assert reply.applied.tolist() == installed.image().contract.action_safe.tolist()


def test_reset_keeps_the_policy_and_disarms() -> None:
    opened = board()
    opened.arm(*digests())
    assert opened.reset().state == "disarmed"
    assert opened.digests().image == installed.image().digest


def test_every_error_has_words() -> None:
    assert set(REASONS) == set(protocol.ERRORS)


@pytest.mark.parametrize("name", protocol.ERRORS)
def test_each_refusal_is_told_in_words(name: str) -> None:
    reply = struct.pack(protocol.ERROR_FORMAT, protocol.ERRORS[name], protocol.MESSAGES["status"][0], 0, 5)
    link = Scripted([(protocol.ERROR, reply)])
    with pytest.raises(Refused, match="the board refused 'status': ") as caught:
        link.ask("status")
    assert (caught.value.code, caught.value.detail) == (protocol.ERRORS[name], 5)
    assert "{" not in str(caught.value)


class Scripted(Link):
    """Answers every question with the same frames, under the sequence number that was asked."""

    def __init__(self, frames: list[tuple[int, bytes]]) -> None:
        super().__init__("script")
        self.frames = frames
        self.waiting = b""

    def send(self, data: bytes) -> None:
        from puffer_edge.firmware.shared.frames import encode, frame_bytes

        for kind, payload in self.frames:
            out = bytearray(frame_bytes(len(payload)))
            self.waiting += bytes(out[: encode(kind, self._sequence, payload, out)])

    def receive(self, timeout_s: float) -> bytes:
        data, self.waiting = self.waiting, b""
        return data

    def close(self) -> None:
        pass


def test_another_protocol_version_is_named() -> None:
    kind, _, layout = protocol.MESSAGES["hello"]
    with pytest.raises(WrongFirmware, match="protocol 99"):
        Board(Scripted([(kind | protocol.REPLY, struct.pack(layout, 99, *[0] * 10, b"", b""))]))


def test_an_answer_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(BadFrame, match="has 3 bytes, the protocol says 68"):
        Scripted([(protocol.MESSAGES["status"][0] | protocol.REPLY, b"abc")]).ask("status")


def test_answers_to_other_questions_are_dropped() -> None:
    status = protocol.MESSAGES["status"][0] | protocol.REPLY
    link = Scripted([(protocol.MESSAGES["step"][0] | protocol.REPLY, bytes(16)), (status, bytes(68))])
    assert link.ask("status") == bytes(68)
    assert link.stale == 1


@given(st.binary(max_size=400))
def test_the_device_survives_any_bytes(data: bytes) -> None:
    device = LoopbackDevice()
    device.receive(data)
    assert Board(LoopbackLink(device)).identity.state == "empty"
