"""Frames: what arrives is what was sent, or nothing."""

import zlib

from hypothesis import given
from hypothesis import strategies as st

from puffer_edge.firmware.shared.frames import Decoder, crc32, encode, frame_bytes
from puffer_edge.firmware.shared.protocol import MAX_PAYLOAD

bytes_ = st.integers(0, 255)
payloads = st.one_of(st.binary(max_size=MAX_PAYLOAD), st.integers(0, MAX_PAYLOAD).map(bytes), st.integers(0, MAX_PAYLOAD).map(lambda n: b"\x7f" * n))
messages = st.tuples(bytes_, bytes_, payloads)


def frame(message: tuple[int, int, bytes]) -> bytes:
    out = bytearray(frame_bytes(len(message[2])))
    return bytes(out[: encode(*message, out)])


def decode(data: bytes) -> tuple[list[tuple[int, int, bytes]], Decoder]:
    decoder = Decoder(MAX_PAYLOAD)
    return list(decoder.feed(data)), decoder


@given(messages)
def test_a_frame_comes_back(message: tuple[int, int, bytes]) -> None:
    data = frame(message)
    found, decoder = decode(data)
    assert found == [message]
    assert decoder.bad == 0
    assert data.find(0, 1) == len(data) - 1, "zero bytes stand at the two ends only"


@given(st.lists(messages, max_size=4))
def test_several_frames_in_one_read(sent: list[tuple[int, int, bytes]]) -> None:
    assert decode(b"".join(map(frame, sent)))[0] == sent


@given(messages)
def test_a_repeated_frame_is_told_by_its_crc(message: tuple[int, int, bytes]) -> None:
    decoder = Decoder(MAX_PAYLOAD)
    seen = []
    for byte in frame(message) * 2:
        if decoder.put(byte):
            seen.append((decoder.type, decoder.sequence, tuple(decoder.crc)))
    body = bytes(message[:2]) + message[2]
    assert seen == [(message[0], message[1], (zlib.crc32(body) & 0xFFFF, zlib.crc32(body) >> 16))] * 2


@given(st.binary(max_size=1000), messages)
def test_a_frame_is_found_after_any_noise(noise: bytes, message: tuple[int, int, bytes]) -> None:
    assert decode(noise + frame(message))[0][-1] == message


@given(messages, st.data())
def test_a_cut_frame_is_refused_and_the_next_one_is_found(message: tuple[int, int, bytes], data: st.DataObject) -> None:
    whole = frame(message)
    cut = whole[: data.draw(st.integers(0, len(whole) - 2))]
    found, decoder = decode(cut + whole)
    assert found == [message]
    assert decoder.bad == (len(cut) > 1)


@given(messages, st.integers(1, 255), st.data())
def test_any_changed_byte_is_refused(message: tuple[int, int, bytes], flip: int, data: st.DataObject) -> None:
    changed = bytearray(frame(message))
    at = data.draw(st.integers(1, len(changed) - 2))
    changed[at] ^= flip
    assert decode(bytes(changed))[0] == []


def test_a_payload_too_long_is_refused_within_the_buffer() -> None:
    found, decoder = decode(frame((1, 2, b"\x01" * (MAX_PAYLOAD + 1))))
    assert found == [] and decoder.bad == 1 and len(decoder.body) == MAX_PAYLOAD + 6


def test_an_endless_frame_is_refused_within_the_buffer() -> None:
    found, decoder = decode(b"\x05" * 100_000 + frame((3, 4, b"after")))
    assert found == [(3, 4, b"after")] and decoder.bad == 1


def test_zeros_alone_are_not_bad_frames() -> None:
    assert decode(bytes(50))[1].bad == 0


@given(st.binary(max_size=300))
def test_the_crc_is_the_one_of_zlib(data: bytes) -> None:
    halves = [0, 0]
    crc32(bytearray(data), len(data), halves)
    assert halves[0] | halves[1] << 16 == zlib.crc32(data)
