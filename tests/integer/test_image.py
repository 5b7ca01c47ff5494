"""The policy image: what goes in comes out, and nothing damaged gets through."""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puffer_edge.errors import BundleError, RangeError
from puffer_edge.integer.image import DIGEST_BYTES, Image, unpack
from puffer_edge.integer.shield import Shield
from tests.integer import cart


@lru_cache
def data() -> bytes:
    return cart.image().data


def sealed(body: bytes) -> bytes:
    """An image whose size field and trailer fit, so that the inner checks are reached."""
    body = body[:8] + struct.pack("<I", len(body) + DIGEST_BYTES) + body[12:]
    return body + hashlib.sha256(body).digest()


@pytest.mark.parametrize("head", ["discrete", "clip", "tanh"])
def test_round_trip(head: str) -> None:
    image = cart.image(head)
    again = unpack(image.data, image.shield.stages)
    assert again.data == image.data and again.digest == image.digest
    assert again.contract == image.contract and again.shield.stages == ("envelope", "slew", "limit")
    x = image.contract.observe(cart.observations(image.contract))[0]
    assert (again.program.run(x) == image.program.run(x)).all()


def test_an_image_without_a_shield_or_vectors() -> None:
    image = cart.image()
    bare = Image(image.contract, image.program, Shield.none(image.contract), image.vectors.head(0))
    again = unpack(bare.data)
    assert again.shield.bytecode == b"" and len(again.vectors) == 0
    assert again.shield.digest == hashlib.sha256(b"").digest()


def test_header_is_the_documented_one() -> None:
    image = cart.image("clip", steps=4)
    h = struct.unpack_from("<4sHHIHHHHIHHIIIIIIIII16s", image.data)
    ops = h[14]
    assert h[:11] == (b"PEP1", 1, 80, len(image.data), 4, 1, len(image.program.ops), 1, 20_000, 2, image.program.activation_bytes)
    assert image.data[h[11] : h[11] + h[12]].decode() == image.contract.to_json()
    assert image.data[ops : ops + h[15]] == image.program.packed
    assert image.data[h[16] : h[16] + h[17]] == image.shield.bytecode
    assert (h[19], h[20].rstrip(b"\0")) == (4, b"cart")
    channels = np.frombuffer(image.data[h[13] : ops], "<i4")
    assert channels[:2].tolist() == [int(image.contract.observation_low[0]), int(image.contract.observation_high[0])]
    assert channels[-4:].tolist() == [-655360, 655360, 32768, -16384]


def test_every_flipped_byte_is_refused() -> None:
    for at in range(len(data())):
        changed = bytearray(data())
        changed[at] ^= 1 << (at % 8)
        with pytest.raises(BundleError):
            unpack(bytes(changed))


def test_every_truncation_and_extension_is_refused() -> None:
    for size in range(len(data())):
        with pytest.raises(BundleError):
            unpack(data()[:size])
    with pytest.raises(BundleError, match="cut or padded"):
        unpack(data() + b"\0")


def test_a_newer_version_asks_for_an_upgrade() -> None:
    with pytest.raises(BundleError, match="upgrade puffer-edge"):
        unpack(data()[:4] + struct.pack("<H", 2) + data()[6:])


def assert_safe(changed: bytes) -> None:
    """Refused in words, or read back to the very same bytes."""
    try:
        image = unpack(changed)
    except (BundleError, RangeError):
        return
    assert image.data == changed


def test_every_header_byte_resealed_is_refused() -> None:
    """The header repeats what contract, program and shield say: no other header is in canonical form."""
    body = data()[:-DIGEST_BYTES]
    for at in [*range(8), *range(12, 80)]:
        for value in (0, 1, 255, body[at] ^ 0x10):
            if value != body[at]:
                with pytest.raises((BundleError, RangeError)):
                    unpack(sealed(body[:at] + bytes([value]) + body[at + 1 :]))


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_resealed_damage_is_safe(changes: list[tuple[int, int]]) -> None:
    body = bytearray(data()[:-DIGEST_BYTES])
    for at, value in changes:
        body[at % len(body)] = value
    assert_safe(sealed(bytes(body)))


@given(st.integers(80, 10**6), st.integers(0, 200), st.binary(max_size=40))
def test_any_resealed_cut_and_paste_is_safe(at: int, length: int, paste: bytes) -> None:
    body = data()[:-DIGEST_BYTES]
    at = 80 + at % (len(body) - 80)
    assert_safe(sealed(body[:at] + paste + body[at + length :]))


@given(st.integers(0, 18), st.integers(0, 2**32 - 1))
def test_any_resealed_header_word_is_safe(word: int, value: int) -> None:
    body = bytearray(data()[:-DIGEST_BYTES])
    struct.pack_into("<I", body, 4 * (word + 1), value)
    assert_safe(sealed(bytes(body)))


def with_contract(text: str) -> bytes:
    """The image with another contract text, every offset shifted to fit."""
    old = data()[:-DIGEST_BYTES]
    at, size = struct.unpack_from("<II", old, 28)
    new = text.encode("utf-8")
    new += bytes(-len(new) % 4)
    delta = len(new) - (size + -size % 4)
    body = bytearray(old[:at] + new + old[at + size + -size % 4 :])
    struct.pack_into("<I", body, 32, len(text.encode()))
    for offset in (36, 40, 48, 56):
        struct.pack_into("<I", body, offset, struct.unpack_from("<I", old, offset)[0] + delta)
    return sealed(bytes(body))


def test_the_same_contract_is_read_back() -> None:
    assert with_contract(cart.contract().to_json()) == data()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"head":"clip"', '"head":"tanhh"'),
        ('"low":-4.8', '"low":4.9'),
        ('"low":-4.8', '"low":NaN'),
        ('"low":-4.8', '"low":1e999'),
        ('"low":-4.8', '"low":-1' + "0" * 400),
        ('"low":-4.8', '"low":1e300'),
        ('"low":-4.8', '"low":-1.7e308'),
        ('"low":-4.8', '"low":null'),
        ('"low":-4.8', '"low":[]'),
        ('"safe":0.5', '"safe":99'),
        ('"safe":0.5', '"safe":0.50'),
        ('"fraction_bits":16', '"fraction_bits":1e3'),
        ('"rate_hz":50.0', '"rate_hz":NaN'),
        ('"rate_hz":50.0', '"rate_hz":1' + "0" * 5000),
        ('"levels":[]', '"levels":' + "[" * 3000 + "]" * 3000),
        ('"levels":[]', '"levels":7'),
        ('"levels":[]', '"levels":[[1]]'),
        ('"name":"cart"', '"name":"cart\\u0000"'),
        ('"name":"cart"', '"name":"кот"'),
        ('"name":"cart"', '"name":["cart"]'),
        ('"name":"position"', '"name":"velocity"'),
        ('"name":"position"', '"name":{}'),
        ('"unit":"rad"', '"unit":"*/"'),
        ('"unit":"rad"', '"colour":"red"'),
        ('"policy_divider":1', '"policy_divider":0'),
        ('"policy_divider":1', '"policy_divider":true'),
        ('"head"', '"tail":1,"head"'),
        ('"head":"clip",', ""),
        ('{"actions"', '{ "actions"'),
    ],
)
def test_a_wrong_contract_is_refused(old: str, new: str) -> None:
    text = cart.contract().to_json()
    assert old in text
    with pytest.raises((BundleError, RangeError)):
        unpack(with_contract(text.replace(old, new, 1)))
