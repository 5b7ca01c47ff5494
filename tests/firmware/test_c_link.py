"""The C side of the link, on the host board: every message, every refusal, installs that are cut, free running."""

from __future__ import annotations

import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest

from puffer_edge.device.link import Link
from puffer_edge.errors import Refused
from puffer_edge.firmware import build
from puffer_edge.firmware.shared import protocol
from puffer_edge.firmware.shared.frames import encode, frame_bytes
from puffer_edge.integer.image import Image
from puffer_edge.integer.reference import Runner
from tests.firmware import c_host, c_images

DRIVER = """
#include <stdio.h>
#include "pe_board.h"
#include "pe_protocol.h"
static FILE *out;
static uint32_t reads, noise = 1;
int pe_board_open_driver(void) { out = fopen("%s", "w"); return 1; }
uint32_t pe_board_read(int32_t *o)
{
    for (int k = 0; k < 4; k++) {
        noise = noise * 1103515245u + 12345u;
        o[k] = (int32_t)(noise >> 14) - (1 << 17);
    }
    return ++reads == 10 ? PE_STEP_INVALID : 0;
}
void pe_board_write(const int32_t *a) { fprintf(out, "%%d\\n", (int)a[0]); fflush(out); }
"""


def expected(image: Image, ticks: int) -> tuple[list[int], list[int]]:
    """What the reference proposes and applies on the observations that DRIVER gives."""
    runner, noise = Runner(image.program, image.shield), 1
    raw, applied = [], []
    for k in range(ticks):
        row = []
        for _ in range(4):
            noise = (noise * 1103515245 + 12345) % 2**32
            row.append((noise >> 14) - (1 << 17))
        tick = runner.tick([row], protocol.STEP_INVALID if k == 9 else 0)
        raw.append(int(tick.raw[0, 0]))
        applied.append(int(tick.applied[0, 0]))
    return raw, applied


def refused(link: Link, message: str, payload: bytes, error: str) -> int:
    """The detail of the refusal that must come."""
    with pytest.raises(Refused) as caught:
        link.ask(message, payload)
    assert caught.value.code == protocol.ERRORS[error]
    return caught.value.detail


@pytest.mark.parametrize("name", c_images.NAMES)
def test_install_replay_arm_step(name: str, tmp_path: Path) -> None:
    image = c_images.image(name)
    with c_host.board(tmp_path) as (link, _):
        assert c_host.hello(link)["state"] == protocol.STATES["empty"]
        assert c_host.install(link, image.data, 256 if name != "clip" else 77) == 1
        greeting = c_host.hello(link)
        assert (greeting["state"], greeting["n"], greeting["m"]) == (1, image.contract.n_observations, image.contract.n_actions)
        assert greeting["shield"] == protocol.SHIELDS["bytecode" if image.shield.bytecode else "none"]
        answer = link.ask("contract")
        assert struct.unpack("<III", answer[:12]) == (len(image.data), len(image.contract.to_json()), 1)
        assert answer[12:] == image.digest + image.contract.digest + image.program.digest + image.shield.digest
        text = b"".join(link.ask("read_contract", struct.pack("<I", at)) for at in range(0, len(image.contract.to_json()) + 256, 256))
        assert text.decode() == image.contract.to_json()
        c_host.drive(link, "replay", image)
        assert c_host.status(link)[0] == 0
        c_host.arm(link)
        assert c_host.hello(link)["state"] == protocol.STATES["lock_step"]
        c_host.drive(link, "step", image)
        outcome = image.vectors.outcome
        counts = c_host.status(link)
        assert counts[0] == len(outcome)
        assert counts[1:9] == [int((outcome >> (16 + k) & 1).sum()) for k in range(8)]
        flags = (protocol.INVALID, protocol.STALE, protocol.MISSED, protocol.SATURATED)
        assert counts[9:13] == [int((outcome & flag != 0).sum()) for flag in flags]
        link.ask("disarm")
        assert c_host.hello(link)["state"] == protocol.STATES["disarmed"]


def test_refusals(tmp_path: Path) -> None:
    image, other = c_images.image("discrete"), c_images.image("bare")
    seen = struct.pack("<5i", 0, 0, 0, 0, 0)
    with c_host.board(tmp_path) as (link, _):
        for message, payload in (("contract", b""), ("read_contract", bytes(4)), ("replay", seen), ("arm", bytes(97))):
            refused(link, message, payload, "no_policy")
        refused(link, "step", seen, "not_armed")
        refused(link, "install_data", bytes(5), "bad_order")
        refused(link, "install_commit", b"", "bad_order")
        assert refused(link, "install_begin", struct.pack("<I32s", 2**20, b""), "too_large") == 192 * 1024
        assert refused(link, "arm", bytes(96), "bad_length") == 97
        c_host.install(link, image.data)
        assert refused(link, "replay", seen[:-4], "bad_length") == 20
        assert refused(link, "replay", struct.pack("<I", protocol.STEP_MISSED) + bytes(4), "bad_length") == 4
        digests = link.ask("contract")[44:]
        for bit in range(3):
            wrong = bytearray(digests)
            wrong[32 * bit] ^= 1
            assert refused(link, "arm", b"\0" + wrong, "digest_mismatch") == 1 << bit
        assert refused(link, "arm", b"\2" + digests, "not_here") == 2
        refused(link, "arm", b"\1" + digests, "no_driver")
        refused(link, "service", b"", "not_here")
        c_host.arm(link)
        for message, payload in (("arm", b"\0" + digests), ("replay", seen), ("service", b""), ("install_commit", b""), ("install_data", bytes(5))):
            refused(link, message, payload, "armed")
        refused(link, "install_begin", bytes(36), "armed")
        link.ask("disarm")
        c_host.begin(link, other.data)
        first, second, *_ = c_host.chunks(other.data)
        link.ask("install_data", first)
        assert refused(link, "install_data", first[:40], "bad_order") == 256
        assert refused(link, "install_data", second + b"x", "bad_length") == 260
        refused(link, "install_commit", b"", "bad_order")
        link.ask("install_data", second)


def test_a_bad_image_leaves_the_old_policy(tmp_path: Path) -> None:
    image, other = c_images.image("discrete"), c_images.image("bare")
    with c_host.board(tmp_path) as (link, _):
        c_host.install(link, image.data)
        before = link.ask("contract")
        link.ask("install_begin", struct.pack("<I32s", len(other.data), b"another"))
        for chunk in c_host.chunks(other.data):
            link.ask("install_data", chunk)
        refused(link, "install_commit", b"", "bad_digest")
        unsealed = bytearray(other.data)
        unsealed[-1] ^= 1
        vectors_at = struct.unpack_from("<I", other.data, 56)[0]
        wrong_vector, wrong_header = bytearray(other.data), bytearray(other.data)
        wrong_vector[vectors_at + 3 * other.vectors.row_bytes(other.contract) - 1] ^= 1
        wrong_header[12] = 0
        for data, error, detail in (
            (bytes(unsealed), "bad_image", 0),
            (c_images.sealed(wrong_header), "bad_image", 4),
            (c_images.sealed(wrong_vector), "self_test", 2),
        ):
            c_host.begin(link, data)
            for chunk in c_host.chunks(data):
                link.ask("install_data", chunk)
            assert refused(link, "install_commit", b"", error) == detail
        assert link.ask("contract") == before
        c_host.arm(link)
        c_host.drive(link, "step", image)


def test_installs_survive_and_cut_ones_leave_no_trace(tmp_path: Path) -> None:
    first, second = c_images.image("discrete"), c_images.image("tanh")
    with c_host.board(tmp_path) as (link, process):
        c_host.install(link, first.data)
        c_host.begin(link, second.data)
        for chunk in list(c_host.chunks(second.data))[:-1]:
            link.ask("install_data", chunk)
        process.kill()
    with c_host.board(tmp_path) as (link, _):
        assert link.ask("contract")[12:44] == first.digest
        assert c_host.install(link, second.data) == 2
        assert c_host.install(link, first.data) == 3
    with c_host.board(tmp_path) as (link, _):
        answer = link.ask("contract")
        assert (answer[8:12], answer[12:44]) == (struct.pack("<I", 3), first.digest)
    damaged = bytearray((tmp_path / "slot_a.bin").read_bytes())
    damaged[5000] ^= 1
    (tmp_path / "slot_a.bin").write_bytes(damaged)
    with c_host.board(tmp_path) as (link, _):
        assert link.ask("contract")[12:44] == second.digest
        link.ask("reset")
        assert link.ask("contract")[12:44] == second.digest
    for name in ("slot_a.bin", "slot_b.bin"):
        (tmp_path / name).write_bytes(b"\0" * 5000)
    with c_host.board(tmp_path) as (link, _):
        assert c_host.hello(link)["state"] == protocol.STATES["empty"]


def test_repetitions_are_answered_and_not_executed(tmp_path: Path) -> None:
    image = c_images.image("discrete")
    with c_host.board(tmp_path) as (link, _):
        c_host.install(link, image.data)
        c_host.arm(link)
        out = bytearray(frame_bytes(20))
        frame = bytes(out[: encode(protocol.MESSAGES["step"][0], 250, struct.pack("<5i", 0, 1, 2, 3, 4), out)])
        answers = []
        for _ in range(3):
            link.send(frame)
            answers.append(link.receive(2))
        assert len(set(answers)) == 1
        link.send(b"\x05noise" + b"\0" + frame[:9] + b"\0\0\0" + bytes(range(1, 256)) * 3 + b"\0")
        broken = bytearray(frame)
        broken[6] ^= 0x80
        link.send(bytes(broken))
        counts = c_host.status(link)
        assert (counts[0], counts[14], counts[13]) == (1, 2, 4)
        assert c_host.hello(link)["state"] == protocol.STATES["lock_step"]


def test_free_running_drives_the_actuator_behind_the_shield(tmp_path: Path) -> None:
    image = c_images.image("discrete")
    log, source, folder = tmp_path / "log.txt", tmp_path / "driver.c", tmp_path / "state"
    folder.mkdir()
    source.write_text(DRIVER % log)
    safe = int(image.contract.action_safe[0])
    with c_host.board(folder, source) as (link, _):
        c_host.install(link, image.data)
        assert [int(v) for v in log.read_text().split()] == [safe]
        c_host.drive(link, "replay", image)
        c_host.arm(link)
        c_host.drive(link, "step", image)
        link.ask("disarm")
        assert {int(v) for v in log.read_text().split()} == {safe}
        at_rest = len(log.read_text().split())
        c_host.arm(link, protocol.ARM_FREE_RUN)
        refused(link, "step", struct.pack("<5i", 0, 0, 0, 0, 0), "armed")
        deadline = time.monotonic() + 20
        while c_host.status(link)[0] < 30 and time.monotonic() < deadline:
            time.sleep(0.02)
        link.ask("disarm")
        ticks, counts = c_host.status(link)[0], c_host.status(link)
        written = [int(v) for v in log.read_text().split()][at_rest:]
        assert len(written) == ticks + 2
        assert (written[0], written[-1], counts[9]) == (safe, safe, 1)
        raw, applied = expected(image, ticks)
        assert written[1:-1] == applied
        assert raw != applied and applied[9] == safe
        link.ask("contract")
        assert len(log.read_text().split()) == at_rest + len(written)


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed (toolchain)")
def test_clang_agrees_that_the_sources_are_clean(tmp_path: Path) -> None:
    for path in sorted(build.C.glob("*.c")):
        subprocess.run(["clang", *build.STRICT, f"-I{build.C}", "-c", path, "-o", tmp_path / "object.o"], check=True)
