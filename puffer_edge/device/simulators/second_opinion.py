"""A simulated RP2040 without node: rp2040py with UART0 on a TCP port. Slower than ``rp2040.mjs``, and lenient where silicon faults.

The options are those of ``rp2040.mjs``, less ``--modules``. Started through the boot ROM's reset vector, as the chip is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

FLASH_BYTES = 2 << 20
NAP_S = 0.002
SSI, READ_ID, ID_AT = 0x18000000, 0x4B, 5
UNIQUE_ID = b"PESIM\0\0\2"


class Chip:
    """The emulated chip and its line.

    Args:
        rom: the boot ROM.
        flash: content of the flash chip.
    """

    def __init__(self, rom: bytes, flash: bytes) -> None:
        from rp2040py.clock.simulation_clock import SimulationClock
        from rp2040py.rp2040 import RP2040
        from rp2040py.simulator import Simulator

        clock = SimulationClock()
        self.mcu: Any = RP2040(clock)
        self.mcu.load_bootrom([int.from_bytes(rom[k : k + 4], "little") for k in range(0, len(rom), 4)])
        self.mcu.flash[: len(flash)] = flash
        self.simulator: Any = Simulator(rp2040=self.mcu, clock=clock)
        self.leaving = bytearray()
        self._arriving = bytearray()
        self._resets = False
        self.mcu.uart[0].on_byte = self.leaving.append
        self.mcu.watchdog.on_watchdog_trigger = self._watchdog
        self._add_unique_id(self.mcu.find_peripheral(SSI))
        self._start()

    def _add_unique_id(self, flash: Any) -> None:
        """Teach the flash chip the one command of the firmware that rp2040py leaves out: after 4 dummy bytes, 8 of the id."""
        plain = flash._shift_byte

        def shift(byte: int) -> int:
            out, sent = plain(byte), flash._tx_buffer
            return UNIQUE_ID[(len(sent) - 1 - ID_AT) % 8] if sent[0] == READ_ID and len(sent) > ID_AT else int(out)

        flash._shift_byte = shift

    def _watchdog(self) -> None:
        self._resets = True
        self.simulator.stop()

    def _start(self) -> None:
        core, rom = self.mcu.core, self.mcu.bootrom
        core.vtor = 0
        core.sp, core.pc = rom[0], rom[1] & ~1

    @property
    def listens(self) -> bool:
        """The program has switched its UART on."""
        return bool(self.mcu.uart[0].enabled)

    @property
    def idle(self) -> bool:
        """It waits for an interrupt, and nothing is on the line."""
        return bool(self.mcu.core.waiting) and not self._arriving

    def run(self, data: bytes) -> None:
        """Put bytes on the line, and run for some milliseconds."""
        from rp2040py.execute_batch import execute_batch

        self._arriving += data
        uart = self.mcu.uart[0]
        while self._arriving and uart.enabled and not uart.rx_fifo.full:
            uart.feed_byte(self._arriving.pop(0))
        core = self.mcu.core
        if core.pending_interrupts & core.enabled_interrupts:
            core.waiting = False  # rp2040py sleeps on when the interrupt came just before the instruction that waits for it
        self.simulator.stopped = False
        execute_batch(self.simulator, 1)
        if self._resets:
            self._resets = False
            self._arriving.clear()
            self.mcu.reset(preserve_flash=True, from_watchdog=True)
            self._start()


class Line:
    """A TCP port with one caller at a time; the newest one has it."""

    def __init__(self, port: int) -> None:
        self._server = socket.create_server(("127.0.0.1", port))
        self._server.setblocking(False)
        self.port = self._server.getsockname()[1]
        self._caller: socket.socket | None = None

    def exchange(self, out: bytes, wait_s: float) -> bytes:
        """Send bytes, and return what has arrived."""
        with contextlib.suppress(BlockingIOError):
            caller, _ = self._server.accept()
            caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._caller is not None:
                self._caller.close()
            self._caller = caller
        if self._caller is None:
            threading.Event().wait(wait_s)
            return b""
        try:
            self._caller.settimeout(None)
            self._caller.sendall(out)
            self._caller.settimeout(wait_s)
            data = self._caller.recv(4096)
        except (TimeoutError, BlockingIOError):
            return b""
        except OSError:
            data = b""
        if not data:
            self._caller.close()
            self._caller = None
        return data


def main() -> None:
    """Run until standard input closes."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--bootrom", "--flash", "--state"):
        parser.add_argument(name, type=Path, required=name != "--state")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    flash = bytearray(b"\xff" * FLASH_BYTES)
    if options.state and options.state.is_file() and options.state.stat().st_size == FLASH_BYTES:
        flash[:] = options.state.read_bytes()
    firmware = options.flash.read_bytes()
    flash[: len(firmware)] = firmware
    chip = Chip(options.bootrom.read_bytes(), bytes(flash))

    def keep() -> None:
        sys.stdin.buffer.read()
        if options.state:
            options.state.write_bytes(bytes(chip.mcu.flash[:FLASH_BYTES]))
        os._exit(0)

    threading.Thread(target=keep, daemon=True).start()
    while not chip.listens:
        chip.run(b"")
    line = Line(options.port)
    print(json.dumps({"port": line.port}), flush=True)
    while True:
        out, chip.leaving[:] = bytes(chip.leaving), b""
        chip.run(line.exchange(out, NAP_S if chip.idle else 0.0))


if __name__ == "__main__":
    main()
