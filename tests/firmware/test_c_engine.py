"""The C engine on this computer, held to the numpy definition; and what it refuses."""

from __future__ import annotations

import ctypes
import hashlib
import re
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest

from puffer_edge.firmware import build
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer.image import Image
from puffer_edge.integer.reference import Runner
from tests.firmware import c_host, c_images

CHANNELS, PROGRAM, SHIELD = 36, 40, 48  # where the header holds their offsets
CHECK = {name: k for k, name in enumerate(re.findall(r"^    PE_(OK|BAD_\w+)", (build.C / "pe_engine.h").read_text(), re.MULTILINE))}


def test_the_protocol_header_is_generated() -> None:
    assert (build.C / "pe_protocol.h").read_text() == build.protocol_header()
    assert (build.C / "pe_squash_table.c").read_text() == build.squash_table()


def test_right_shift_of_negative_numbers_is_arithmetic() -> None:
    a, s = np.meshgrid(np.array([-(2**31), -(2**31) + 1, -257, -2, -1, 0, 1, 2**31 - 1], np.int32), np.arange(32, dtype=np.int32))
    a, s = np.ascontiguousarray(a).ravel(), np.ascontiguousarray(s).ravel()
    y = np.empty_like(a)
    c_host.library().pe_batch_shift(len(a), c_host.pointer(a), c_host.pointer(s), c_host.pointer(y))
    assert (y == np.floor_divide(a.astype(np.int64), 1 << s.astype(np.int64))).all()


def test_requantise_is_exact_for_every_int32() -> None:
    rng = np.random.default_rng(0)
    count = 3_000_000
    a = rng.integers(-(2**31), 2**31, count).astype(np.int32) >> rng.integers(0, 31, count).astype(np.int32)
    m = rng.integers(2**30, 2**31, count).astype(np.int32)
    edges_a = np.array([-(2**31), -(2**31) + 1, -65537, -65536, -65535, -1, 0, 1, 65535, 65536, 2**31 - 2, 2**31 - 1], np.int64)
    edges_m = np.array([0, 2**30, 2**30 + 1, 2**30 + 65535, 2**30 + 65536, 2**31 - 65536, 2**31 - 2, 2**31 - 1], np.int64)
    grid = np.stack(np.meshgrid(edges_a, edges_m, np.arange(32)), -1).reshape(-1, 3).astype(np.int32)
    a, m = np.concatenate([a, grid[:, 0]]), np.concatenate([m, grid[:, 1]])
    s = np.concatenate([rng.integers(0, 32, count).astype(np.int32), grid[:, 2]])
    y = np.empty_like(a)
    c_host.library().pe_batch_requantise(len(a), *(c_host.pointer(np.ascontiguousarray(v)) for v in (a, m, s)), c_host.pointer(y))
    h = (a.astype(np.int64) * m + 2**30) >> 31
    half = np.where(s > 0, 1 << np.maximum(s.astype(np.int64) - 1, 0), 0)
    wanted = np.where(s == 0, h, (h + half - (h < 0)) >> s)
    assert (y == wanted).all()


def test_digests_are_those_of_the_standard_library() -> None:
    lib = c_host.library()
    lib.pe_batch_crc32.restype = ctypes.c_uint32
    data = np.random.default_rng(0).bytes(300)
    for size in [*range(140), 255, 256, 300]:
        digest = ctypes.create_string_buffer(32)
        lib.pe_batch_sha256(data[:size], size, digest)
        assert digest.raw == hashlib.sha256(data[:size]).digest()
        assert lib.pe_batch_crc32(0, data[:size], size) == zlib.crc32(data[:size])
        first = lib.pe_batch_crc32(0, data[:100], 100)
        assert lib.pe_batch_crc32(first, data[100:], 200) == zlib.crc32(data)


@pytest.mark.parametrize("name", c_images.NAMES)
def test_every_bit_is_the_definitions(name: str) -> None:
    image = c_images.image(name)
    c = image.contract
    rng = np.random.default_rng(7)
    rows, length = 500, 24
    flags = rng.choice(8, (length, rows), p=[0.7, 0.02, 0.1, 0.02, 0.1, 0.02, 0.02, 0.02]).astype(np.uint32)
    flags[0] |= protocol.STEP_RESET
    low, high = c.observation_low.astype(np.int64), c.observation_high.astype(np.int64)
    observation = rng.integers(low - (high - low) // 20, high + (high - low) // 20, (length, rows, c.n_observations), endpoint=True).astype(np.int32)
    runner = Runner(image.program, image.shield, rows)
    wanted = [runner.tick(observation[k], flags[k]) for k in range(length)]
    steps = rows * length
    raw, applied = np.empty((2, steps, c.n_actions), np.int32)
    outcome, state = np.empty((2, steps), np.uint32)
    data, f, o = c_host.aligned(image.data), np.ascontiguousarray(flags.T), np.ascontiguousarray(observation.transpose(1, 0, 2))
    check = c_host.library().pe_batch(*map(c_host.pointer, (data,)), len(data), steps, *map(c_host.pointer, (f, o, raw, applied, outcome, state)))
    assert check == 0
    for field, got in (("raw", raw), ("applied", applied), ("outcome", outcome), ("state", state)):
        expected = np.stack([getattr(tick, field) for tick in wanted], 1).reshape(got.shape)
        assert (got == expected).all(), field


@pytest.mark.parametrize("name", c_images.NAMES)
def test_the_self_test_names_the_first_differing_step(name: str) -> None:
    image = c_images.image(name)
    lib = c_host.library()
    data = c_host.aligned(image.data)
    assert lib.pe_batch_self_test(c_host.pointer(data), len(data)) == 0
    row = image.vectors.row_bytes(image.contract)
    (vectors_at,) = struct.unpack_from("<I", image.data, 56)
    for step in (0, 5, len(image.vectors) - 1):
        wrong = c_host.aligned(image.data)
        wrong[vectors_at + row * (step + 1) - 1] ^= 1
        assert lib.pe_batch_self_test(c_host.pointer(wrong), len(wrong)) == 1 + step


def changed(image: Image, at: int, layout: str, *values: int | bytes) -> bytes:
    """The image with numbers written over its bytes."""
    data = bytearray(image.data)
    struct.pack_into(layout, data, at, *values)
    return bytes(data)


def section(image: Image, field: int) -> int:
    """Where a section begins."""
    return int(struct.unpack_from("<I", image.data, field)[0])


def refusals() -> list[tuple[str, bytes, str]]:
    i = c_images.image("discrete")
    program, shield, channels = section(i, PROGRAM), section(i, SHIELD), section(i, CHANNELS)
    constants = struct.unpack_from("<H", i.data, shield + 4)[0]
    code = shield + 8 + 4 * constants + 2
    dense = program + len(i.program.ops[0].pack())
    return [
        ("nothing", b"", "BAD_PLACE"),
        ("a header alone", i.data[:80], "BAD_PLACE"),
        ("an odd size", i.data[:-1], "BAD_PLACE"),
        ("magic", changed(i, 0, "4s", b"PEP2"), "BAD_MAGIC"),
        ("version", changed(i, 4, "<H", 2), "BAD_MAGIC"),
        ("cut", i.data[:-4], "BAD_TOTAL"),
        ("no observation", changed(i, 12, "<H", 0), "BAD_COUNTS"),
        ("17 actions", changed(i, 14, "<H", 17), "BAD_COUNTS"),
        ("65 operations", changed(i, 16, "<H", 65), "BAD_COUNTS"),
        ("divider 0", changed(i, 18, "<H", 0), "BAD_COUNTS"),
        ("period 0", changed(i, 20, "<I", 0), "BAD_COUNTS"),
        ("buffer of 4", changed(i, 26, "<H", 4), "BAD_COUNTS"),
        ("contract beyond the end", changed(i, 32, "<I", len(i.data)), "BAD_SECTION"),
        ("contract around the end", changed(i, 28, "<II", 0xFFFFFFF0, 0x20), "BAD_SECTION"),
        ("channels in the header", changed(i, CHANNELS, "<I", 76), "BAD_SECTION"),
        ("program not aligned", changed(i, PROGRAM, "<I", program + 2), "BAD_SECTION"),
        ("vectors that wrap", changed(i, 60, "<I", 0x10000000), "BAD_SECTION"),
        ("empty range", changed(i, channels, "<ii", 1, 0), "BAD_CHANNEL"),
        ("wide range", changed(i, channels, "<i", -(2**30)), "BAD_CHANNEL"),
        ("shift 31", changed(i, channels + 8, "B", 31), "BAD_CHANNEL"),
        ("safe out of range", changed(i, channels + 4 * 12 + 8, "<i", 2**30), "BAD_CHANNEL"),
        ("unknown operation", changed(i, program, "B", 7), "BAD_ORDER"),
        ("dense first", changed(i, program, "B", 2), "BAD_ORDER"),
        ("one operation", changed(i, 16, "<H", 1), "BAD_ORDER"),
        ("width", changed(i, program + 2, "<H", 5), "BAD_WIDTH"),
        ("wide", changed(i, dense + 4, "<H", 4097), "BAD_WIDTH"),
        ("small buffer", changed(i, 26, "<H", 8), "BAD_WIDTH"),
        ("multiplier", changed(i, program + 12 + 16, "<i", 2**30 - 1), "BAD_OPERATION"),
        ("mean", changed(i, program + 12, "<i", -(2**30)), "BAD_OPERATION"),
        ("low above high", changed(i, program + 8, "<hh", 5, 4), "BAD_OPERATION"),
        ("int8 bound", changed(i, program + 10, "<h", 128), "BAD_OPERATION"),
        ("flag", changed(i, program + 1, "B", 2), "BAD_ORDER"),
        ("input shift", changed(i, program + 12 + 32, "b", -31), "BAD_OPERATION"),
        ("short program", changed(i, 44, "<I", len(i.program.packed) - 4), "BAD_PROGRAM"),
        ("long program", changed(i, 44, "<I", len(i.program.packed) + 4), "BAD_PROGRAM"),
        ("instructions", changed(i, shield, "<H", 1025), "BAD_SHIELD"),
        ("registers", changed(i, shield + 2, "B", 97), "BAD_SHIELD"),
        ("stages", changed(i, shield + 3, "B", 9), "BAD_SHIELD"),
        ("constants", changed(i, shield + 4, "<H", constants + 1), "BAD_SHIELD"),
        ("outputs", changed(i, shield + 6, "<H", 3), "BAD_SHIELD"),
        ("unknown instruction", changed(i, code, "B", 11), "BAD_INSTRUCTION"),
        ("read before written", changed(i, code, "5B", 2, 0, 40, 40, 0), "BAD_INSTRUCTION"),
        ("target register", changed(i, code, "5B", 1, 95, 0, 0, 0), "BAD_INSTRUCTION"),
        ("input out of range", changed(i, code, "5B", 1, 0, 7, 0, 0), "BAD_INSTRUCTION"),
        ("constant out of range", changed(i, code, "5B", 0, 0, constants % 256, constants // 256, 0), "BAD_INSTRUCTION"),
        ("output never written", changed(i, code - 2, "B", 95), "BAD_INSTRUCTION"),
    ]


@pytest.mark.parametrize(("what", "data", "check"), [pytest.param(*r, id=r[0]) for r in refusals()])
def test_a_bad_image_is_refused_by_its_check(what: str, data: bytes, check: str) -> None:
    del what
    assert c_host.open_check(data) == CHECK[check]


def test_an_address_that_is_not_aligned_is_refused() -> None:
    data = c_images.image("discrete").data
    buffer = c_host.aligned(b"\0" + data)
    none = ctypes.c_void_p(None)
    assert c_host.library().pe_batch(c_host.pointer(buffer[1:]), len(data), 0, none, none, none, none, none, none) == CHECK["BAD_PLACE"]


@pytest.mark.slow
@pytest.mark.parametrize("name", c_images.NAMES)
def test_damage_never_leads_astray(name: str, tmp_path: Path) -> None:
    path = tmp_path / "image.bin"
    path.write_bytes(c_images.image(name).data)
    for seed in range(2):
        done = subprocess.run([c_host.build(sanitize=True).fuzz, path, str(seed), "20000"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout.split()[1]) > 1000
