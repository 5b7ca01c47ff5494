"""Runs the MicroPython runtime on an emulated core and counts the instructions of whole ticks: interpreter, kernels, shield.

MicroPython's own ``ports/qemu`` (1.25), with the runtime frozen in, gives the firmware::

    make -C ports/qemu BOARD=MPS2_AN385 FROZEN_MANIFEST=…/firmware/micropython/manifest.py                       # Cortex-M3, armv7m
    make -C ports/qemu BOARD=VIRT_RV32 "RV32_ARCH=rv32imac -misa-spec=2.2" FROZEN_MANIFEST=…/manifest.py         # rv32imc

QEMU runs with ``-icount shift=0``: its virtual clock advances 1 ns an instruction, and a timer of the board reads it. Instructions
are emulated; cycles are not known here.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from puffer_edge.errors import PufferEdgeError
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer.image import Image
from puffer_edge.integer.vectors import Vectors

COMMON = ("-display", "none", "-monitor", "none", "-serial", "stdio", "-semihosting", "-icount", "shift=0")
RAW, END, PROMPT = b"\x01", b"\x04", b"raw REPL; CTRL-B to exit\r\n>"
CHUNK = 512
REPEATS = 20
STEPS = 8

PREPARE = """
import gc, sys, io, binascii
from machine import mem32
class Clock:  # the port has no module time; what the runtime reads from it for its report is left out of the count
    ticks_us = int
    ticks_add = ticks_diff = max
sys.modules["time"] = Clock
import puffer_edge_device.image as image
import puffer_edge_device.engine as engine
from array import array
data = bytearray({size})
image.open = lambda path, mode: io.BytesIO(data)
"""
MEASURE = """
e = engine.Engine(image.Image("policy"))
assert engine.kernels.NATIVE
{start}
observations = [{observations}]
def run(times):
    tick, now = e.tick, {now}
    begin = now()
    for _ in range(times):
        for o in observations:
            tick(o, 0)
    return (now() - begin) * {down}
print(e.tick(observations[0], 1), list(e.applied))
gc.collect()  # so that no collection falls into what is counted: a tick itself allocates nothing
run(1)
print(run({repeats}) - run(0))
"""


@dataclass(frozen=True)
class Machine:
    """An emulated machine.

    Attributes:
        core: its instruction set.
        board: its name in MicroPython's QEMU port.
        command: QEMU and its machine.
        start: statement that starts the timer.
        now: expression whose value is called to read it.
        down: 1 if it counts up, -1 if down.
        instructions: in one count of the timer.
    """

    core: str
    board: str
    command: tuple[str, ...]
    start: str
    now: str
    down: int
    instructions: int


CORTEX_M3 = Machine(
    "armv7m",
    "MPS2_AN385",
    ("qemu-system-arm", "-M", "mps2-an385"),
    "mem32[0x40000008] = 0xffffffff; mem32[0x40000004] = 0x3fffffff; mem32[0x40000000] = 1",  # CMSDK timer 0, 25 MHz
    "lambda: mem32[0x40000004]",
    -1,
    40,
)
RV32 = Machine(
    "rv32imc", "VIRT_RV32", ("qemu-system-riscv32", "-M", "virt", "-bios", "none"), "", "lambda: mem32[0x0200BFF8]", 1, 100
)  # mtime, 10 MHz


class Prompt:
    """MicroPython's raw prompt in a QEMU process."""

    def __init__(self, machine: Machine, firmware: Path) -> None:
        command = [*machine.command, *COMMON, "-kernel", str(firmware)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._send(b"\r" + RAW)
        self._until(PROMPT)

    def run(self, text: str) -> str:
        """Run a program and return what it printed.

        Raises:
            PufferEdgeError: it raised.
        """
        self._send(text.encode() + END)
        answer = self._until(END + b">")
        words, _, problem = answer.removeprefix(b"OK").partition(END)
        if problem.strip(END + b">"):
            raise PufferEdgeError(f"MicroPython: {problem.decode(errors='replace')}")
        return words.decode()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()

    def _send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def _until(self, end: bytes) -> bytes:
        assert self.process.stdout is not None
        held = bytearray()
        while not held.endswith(end):
            byte = self.process.stdout.read(1)
            if not byte:
                raise PufferEdgeError(f"QEMU ended after {bytes(held[-200:])!r}")
            held += byte
        return bytes(held)


def count(machine: Machine, firmware: Path, image: Image, steps: Vectors) -> float:
    """Mean instructions of a tick in which the network runs, over some observations; the first tick is compared with the reference."""
    prompt = Prompt(machine, firmware)
    try:
        prompt.run(PREPARE.format(size=len(image.data)))
        for at in range(0, len(image.data), CHUNK):
            part = image.data[at : at + CHUNK]
            prompt.run(f"data[{at}:{at + len(part)}] = binascii.unhexlify('{part.hex()}')")
        rows = [steps.observation[k] for k in range(STEPS) if not steps.flags[k] & (protocol.STEP_MISSED | protocol.STEP_INVALID)]
        listed = ", ".join(f"array('i', {row.tolist()})" for row in rows)
        words = {"start": machine.start, "observations": listed, "now": machine.now, "down": machine.down, "repeats": REPEATS}
        first, counted = prompt.run(MEASURE.format(**words)).strip().splitlines()
    finally:
        prompt.close()
    if first != f"{int(steps.outcome[0])} {steps.applied[0].tolist()}" or not steps.flags[0] & protocol.STEP_RESET:
        raise PufferEdgeError(f"the first tick gave {first}, the reference {int(steps.outcome[0])} {steps.applied[0].tolist()}")
    return int(counted) * machine.instructions / (REPEATS * len(rows))
