"""The MicroPython runtime in a real MicroPython VM at the end of a serial line: bits, heap, time, and a line that misbehaves."""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from puffer_edge.device.board import Board
from puffer_edge.device.ports import SocketLink
from puffer_edge.errors import LinkError, Refused
from puffer_edge.firmware.shared import protocol
from puffer_edge.firmware.shared.frames import Decoder, encode, frame_bytes
from puffer_edge.integer.image import Image
from puffer_edge.integer.reference import Runner
from tests.firmware import micropython_cases, micropython_vm
from tests.firmware.c_images import NAMES, image
from tests.firmware.micropython_vm import SIMULATOR, modules, simulator

# 100 ticks, from the frame's first byte to the reply's last, without one allocation.
HEAP = """
import gc, micropython
from array import array
from time import ticks_us
from puffer_edge_device import engine, frames, protocol
from puffer_edge_device.device import Device
from puffer_edge_device.link import Link

class Chip:
    name = unique_id = b'test'
    clock_hz = 1000000
    watched = False
    def __init__(self):
        self.data, self.at, self.sent = b'', 0, 0
    def read(self):
        if self.at == len(self.data):
            return -1
        self.at += 1
        return self.data[self.at - 1]
    def write(self, buffer, length):
        self.sent += 1
    def start_watchdog(self, ms):
        return True
    def feed(self):
        pass
    def free_bytes(self):
        return 0

class Driver:
    k = 0
    def read(self, buffer):
        self.k += 1
        for i in range(len(buffer)):
            buffer[i] = (self.k * 7919 * (i + 1) & 0x3FFFF) - 0x20000
        return self.k % 5 != 0
    def write(self, action):
        pass

chip, driver = Chip(), Driver()
device = Device(chip, driver)
link = Link(chip, device)
digests = device.image.digests[1:]
n = device.image.n

def frame(kind, sequence, payload):
    out = bytearray(frames.frame_bytes(len(payload)))
    return bytes(out[:frames.encode(kind, sequence, payload, out)])

def turns(count):
    for _ in range(count):
        link.poll()
        device.due = ticks_us()
        device.poll()

def measured(name, count):
    gc.collect()
    before = gc.mem_alloc()
    micropython.heap_lock()
    try:
        turns(count)
        left = 'ok'
    except MemoryError:
        left = 'allocated'
    micropython.heap_unlock()
    print(name, left, gc.mem_alloc() - before, chip.sent, device.counters[0])

step = protocol.MESSAGES['step'][0]
def request(k):
    flags = (0, 0, 0, 2, 4)[k % 5]
    return bytes((flags, 0, 0, 0)) + bytes((k * 37 + i * 11) & 255 for i in range(0 if flags == 2 else 4 * n))

chip.data = b''.join(frame(step, k, request(k)) for k in range(100))
device.arm(0, *digests)
turns(20)
measured('lock_step', 400)
device.disarm()
device.arm(1, *digests)
turns(3)
measured('free_run', 100)
device.disarm()
"""


@pytest.mark.parametrize("printed", [False, True], ids=["bytecode", "printed"])
@pytest.mark.parametrize("machine", ["wasm", "unix-32"])
@pytest.mark.parametrize("name", NAMES)
def test_a_tick_allocates_nothing(machine: str, name: str, printed: bool, tmp_path: Path) -> None:
    this = image(name)
    files = {"policy-1.bin": this.data}
    if printed:
        files["shield.py"] = f"DIGEST = {this.shield.digest!r}\n{this.shield.to_micropython()}".encode()
    lock_step, free_run = micropython_vm.run(machine, HEAP, tmp_path, files)
    assert lock_step == "lock_step ok 0 100 100"
    assert free_run == "free_run ok 0 100 103"


# Machine code checks no bounds: the loader's checks are all there is. Damaged images, sealed again, one after the other.
HOSTILE = """
from hashlib import sha256
from array import array
from puffer_edge_device.image import Image, BadImage
from puffer_edge_device.engine import Engine
from micropython_cases import Random
good = open('policy-1.bin', 'rb').read()[:-32]
random = Random(11)
refused = 0
for k in range(600):
    data = bytearray(good)
    for _ in range(1 + k % 3):
        data[random.below(80 if k % 2 else len(data))] = random.below(256)
    with open('hostile.bin', 'wb') as f:
        f.write(data + sha256(data).digest())
    try:
        image = Image('hostile.bin')
    except BadImage:
        refused += 1
        continue
    engine = Engine(image)
    observation = array('i', (random.int32() for _ in range(image.n)))
    for flags in (0, 0, 0, 2, 4, 1):
        engine.tick(observation, flags)
        for j in range(image.m):
            assert image.actions[4 * j] <= engine.applied[j] <= image.actions[4 * j + 1]
print(refused)
"""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("machine", ["unix-64", "unix-32"])
def test_a_hostile_image_does_no_harm_to_machine_code(machine: str, name: str, tmp_path: Path) -> None:
    cases = Path(micropython_cases.__file__).read_bytes()
    [refused] = micropython_vm.run(machine, HOSTILE, tmp_path, {"policy-1.bin": image(name, 8).data, "micropython_cases.py": cases})
    assert 100 < int(refused) < 600


def play(board: Board, this: Image, message: str) -> None:
    """The image's own vectors and 300 random steps: every bit is the reference's."""
    rng = np.random.default_rng(3)
    v, n = this.vectors, this.contract.n_observations
    steps = [(v.observation[k], int(v.flags[k])) for k in range(len(v))]
    wild = rng.integers(-(2**31), 2**31, (300, n)) >> rng.integers(0, 24, (300, n))
    steps += [(wild[k].astype(np.int32), int(rng.choice([0, 0, 0, 0, 2, 4, 6, 1]))) for k in range(300)]
    reference = Runner(this.program, this.shield)
    for k, (observation, flags) in enumerate(steps):
        reply = getattr(board, message)(observation, flags)
        want = reference.tick(observation[None], flags)
        assert (reply.raw.tolist(), reply.applied.tolist()) == (want.raw[0].tolist(), want.applied[0].tolist()), k
        assert (reply.outcome, reply.state) == (want.outcome[0], want.state[0]), k


@pytest.mark.parametrize("name", NAMES)
def test_every_bit_is_the_references(name: str, tmp_path: Path) -> None:
    this = image(name)
    with micropython_vm.board(tmp_path) as board:
        assert board.identity.state == "empty"
        held = board.install(this.data)
        assert board.contract() == this.contract
        play(board, this, "replay")
        board.arm(held.contract, held.program, held.shield)
        play(board, this, "step")
        assert board.status().ticks == len(this.vectors) + 300


def test_an_install_survives_a_reset_and_a_new_start(tmp_path: Path) -> None:
    first, second = image("tanh"), image("bare")
    with micropython_vm.board(tmp_path) as board:
        board.install(first.data)
        board.install(second.data)
        assert board.reset().state == "disarmed"
        assert (board.digests().image, board.digests().installs) == (second.digest, 2)
    (tmp_path / "policy-2.bin").write_bytes(b"damaged")
    with micropython_vm.board(tmp_path) as board:
        assert (board.digests().image, board.digests().installs) == (first.digest, 1)


def test_a_printed_shield_takes_over(tmp_path: Path) -> None:
    this = image("tanh")
    files = {"shield.py": f"DIGEST = {this.shield.digest!r}\n{this.shield.to_micropython()}", "policy-1.bin": this.data}
    with micropython_vm.board(tmp_path, files) as board:
        assert board.identity.shield == "printed"
        play(board, this, "replay")


FREE = """
from time import ticks_ms
written = 0
hang = False
def read(buffer):
    if hang:
        while True:
            pass
    for i in range(len(buffer)):
        buffer[i] = 100 * i
def write(action):
    global written, hang
    written += 1
    hang = written == {hang}
    print('wrote', list(action))
"""


def test_free_running_keeps_its_rate_and_answers_in_between(tmp_path: Path) -> None:
    this = image("tanh")
    with micropython_vm.board(tmp_path, {"user.py": FREE.format(hang=0), "policy-1.bin": this.data}) as board:
        board.arm(this.contract.digest, this.program.digest, this.shield.digest, protocol.ARM_FREE_RUN)
        start, before = time.monotonic(), board.status().ticks
        while time.monotonic() < start + 1.0:
            assert board.hello().state == "free_run"
        elapsed, after = time.monotonic() - start, board.status()
        assert after.missed == after.invalid == 0
        ticks = after.ticks - before + after.deadline_misses
        assert abs(ticks * this.contract.period_us * 1e-6 - elapsed) < 0.1
        with pytest.raises(Refused, match="armed"):
            board.install(this.data)
        board.disarm()
        assert board.hello().state == "disarmed"


def test_a_driver_that_hangs_ends_in_the_safe_output(tmp_path: Path) -> None:
    """The watchdog resets the board; the first thing written after that is the safe output."""
    this = image("tanh")
    with simulator(tmp_path, {"user.py": FREE.format(hang=6), "policy-1.bin": this.data}) as port, Line(port) as line:
        line.until(b"wrote")
        payload = bytes([protocol.ARM_FREE_RUN]) + this.contract.digest + this.program.digest + this.shield.digest
        line.ask("arm", payload)
        safe = f"wrote {this.contract.action_safe.tolist()}".encode()
        seen = line.until(safe, after=line.seen.rfind(safe) + 1)
        assert seen.count(b"wrote") == 7
        assert struct.unpack_from("<H6B", line.ask("hello"))[5] == protocol.STATES["disarmed"]


class Line:
    """The raw line, for what is no conversation."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.seen = b""
        self.decoder = Decoder(protocol.MAX_PAYLOAD)
        self.sequence = 0

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def until(self, text: bytes, after: int = 0) -> bytes:
        while text not in self.seen[after:]:
            data = self.socket.recv(65536)
            assert data, self.seen
            self.seen += data
        return self.seen

    def ask(self, name: str, payload: bytes = b"") -> bytes:
        self.sequence += 1
        kind = protocol.MESSAGES[name][0]
        self.socket.sendall(framed(kind, self.sequence, payload))
        while True:
            data = self.socket.recv(65536)
            self.seen += data
            for found, sequence, reply in self.decoder.feed(data):
                assert (found, sequence) == (kind | protocol.REPLY, self.sequence), reply
                return reply


def framed(kind: int, sequence: int, payload: bytes) -> bytes:
    out = bytearray(frame_bytes(len(payload)))
    return bytes(out[: encode(kind, sequence, payload, out)])


def test_noise_and_a_new_client_disturb_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    with simulator(tmp_path) as port:
        for _ in range(5):
            with Line(port) as line:
                line.socket.sendall(rng.bytes(3000).replace(b"\r\x03", b""))
        with Line(port) as line:
            line.socket.sendall(b"\x07half a frame")
        with Board(SocketLink(f"socket://127.0.0.1:{port}")) as board:
            assert board.identity.kind == "micropython"
            board.install(image("bare").data)
            assert board.status().bad_frames > 0


def test_a_flood_loses_no_byte(tmp_path: Path) -> None:
    """10,000 requests at once, more than all buffers hold: the sender waits, every one is answered, in order."""
    count = 10_000
    with simulator(tmp_path) as port, Line(port) as line:
        data = b"".join(framed(protocol.MESSAGES["status"][0], k & 255, b"") for k in range(count))
        line.socket.settimeout(0.01)
        decoder, answers, at, received = Decoder(protocol.MAX_PAYLOAD), 0, 0, b""
        deadline = time.monotonic() + 60
        while answers < count and time.monotonic() < deadline:
            try:
                at += line.socket.send(data[at : at + 65536]) if at < len(data) else 0
                received = line.socket.recv(1 << 20)
            except TimeoutError:
                continue
            for found, sequence, _ in decoder.feed(received):
                assert (found, sequence) == (protocol.MESSAGES["status"][0] | protocol.REPLY, answers & 255)
                answers += 1
        assert (answers, decoder.bad) == (count, 0)


def test_the_prompt_is_one_message_away(tmp_path: Path) -> None:
    with simulator(tmp_path) as port, Line(port) as line:
        line.ask("service")
        line.until(b">>> ")
        line.socket.sendall(b"print(6 * 7)\r")
        line.until(b"42\n")
        line.socket.sendall(b"\x04")  # a soft reset starts the runtime again
        time.sleep(0.1)
        line.socket.sendall(b"\0")
        assert len(line.ask("hello")) == struct.calcsize(protocol.MESSAGES["hello"][2])


def test_the_line_is_a_serial_line_to_pyserial(tmp_path: Path) -> None:
    serial = pytest.importorskip("serial")
    with simulator(tmp_path) as port, serial.serial_for_url(f"socket://127.0.0.1:{port}", timeout=10) as line:
        line.write(framed(protocol.MESSAGES["hello"][0], 9, b""))
        decoder = Decoder(protocol.MAX_PAYLOAD)
        answers: list[tuple[int, int, bytes]] = []
        while not answers:
            answers += decoder.feed(line.read(1))
        assert answers[0][:2] == (protocol.MESSAGES["hello"][0] | protocol.REPLY, 9)


@pytest.mark.parametrize("end", ["stdin", "SIGTERM"])
def test_the_simulator_ends_with_its_parent(end: str, tmp_path: Path) -> None:
    command = ["node", str(SIMULATOR), "--modules", str(modules()), "--root", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        port = json.loads(process.stdout.readline())["port"]
        if end == "stdin":
            process.stdin.close()
        else:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    with pytest.raises(LinkError):
        SocketLink(f"socket://127.0.0.1:{port}")


@pytest.mark.parametrize("machine", ["unix-64", "unix-32"])
def test_the_loop_of_a_real_board_on_a_terminal(machine: str, tmp_path: Path) -> None:
    """``main.py``, ``board.py`` and the machine-code kernels, with a stand-in for the chip's ``machine`` module alone."""
    this = image("discrete")
    with micropython_vm.terminal(machine, tmp_path, {"user.py": FREE.format(hang=0).encode()}) as (line, process), Board(line) as board:
        held = board.install(this.data)
        play(board, this, "replay")
        board.arm(held.contract, held.program, held.shield, protocol.ARM_FREE_RUN)
        time.sleep(0.3)
        status = board.status()
        assert status.ticks + status.deadline_misses >= 25 and status.cycles_max > 0
        board.disarm()
        with pytest.raises(Refused, match="cannot do that"):
            board.service()
        board._ask("reset")
        assert process.wait(timeout=10) == 3


@pytest.mark.parametrize("machine", ["unix-64", "unix-32"])
def test_what_mpremote_sends_gives_the_prompt(machine: str, tmp_path: Path) -> None:
    with micropython_vm.terminal(machine, tmp_path, {}) as (line, process), Board(line):
        line.send(b"\r\x03")
        assert process.wait(timeout=10) == 0, "main.py has ended: a board shows its prompt then"
