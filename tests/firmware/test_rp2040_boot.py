"""The RP2040 image on an emulated chip, from the first instruction of the real boot ROM, with its flash functions."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest

from puffer_edge.device.uf2 import commit_record, rp2040_uf2
from puffer_edge.errors import Refused
from puffer_edge.firmware import build
from puffer_edge.firmware.shared import protocol
from puffer_edge.firmware.shared.frames import encode, frame_bytes
from tests.firmware import c_host, c_images
from tests.firmware.rp2040_chip import Chip

# Every value that is written, at the bottom of the stack's own bank of RAM; the 20th read is the last.
LOG = 0x20041000
DRIVER = """
#include "pe_board.h"
static int32_t ticks;
int pe_board_open_driver(void) { return 1; }
uint32_t pe_board_read(int32_t *o)
{
    for (int k = 0; k < 4; k++)
        o[k] = 100 * ticks;
    if (++ticks == 20)
        END
    return 0;
}
void pe_board_write(const int32_t *a)
{
    volatile int32_t *log = (int32_t *)0x20041000;
    log[++log[0]] = a[0];
}
"""

FIRMWARE = (build.PREBUILT / "rp2040.bin").read_bytes()
STEPS = 3_000_000
SLOT_A, SLOT_B = 0x40000, 0x80000


def content(uf2: bytes) -> bytes:
    """Flash after a UF2 file was dragged onto the drive."""
    flash = bytearray(b"\xff" * 2**21)
    for at in range(0, len(uf2), 512):
        address, size = struct.unpack_from("<II", uf2, at + 12)
        flash[address - 0x10000000 : address - 0x10000000 + size] = uf2[at + 32 : at + 32 + size]
    return bytes(flash)


def digest_of(chip: Chip) -> bytes:
    """The image that the chip runs."""
    return chip.ask("contract")[12:44]


def test_the_rom_takes_boot2_as_it_is_and_not_with_one_bit_changed() -> None:
    assert Chip(FIRMWARE).reaches_flash(STEPS)
    for at in (0, 40, 200, 255):
        broken = bytearray(FIRMWARE)
        broken[at] ^= 0x10
        assert not Chip(bytes(broken)).reaches_flash(STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("name", c_images.NAMES)
def test_one_file_boots_and_computes_the_vectors(name: str) -> None:
    image = c_images.image(name)
    chip = Chip(content(rp2040_uf2(FIRMWARE, image.data))).boot()
    assert c_host.hello(chip)["state"] == protocol.STATES["disarmed"]
    assert digest_of(chip) == image.digest
    c_host.drive(chip, "replay", image)
    c_host.arm(chip)
    c_host.drive(chip, "step", image)
    assert c_host.status(chip)[0] == len(image.vectors)


@pytest.mark.slow
def test_installs_through_the_roms_flash_functions() -> None:
    first, second = c_images.image("bare"), c_images.image("tanh")
    chip = Chip(FIRMWARE).boot()
    assert c_host.hello(chip)["state"] == protocol.STATES["empty"]
    assert c_host.install(chip, first.data) == 1
    assert chip.flash[SLOT_A + 4096 :][: len(first.data)] == first.data
    assert chip.flash[SLOT_A:][:48] == commit_record(first.data)
    assert c_host.install(chip, second.data, 100) == 2
    assert chip.flash[SLOT_B + 4096 :][: len(second.data)] == second.data
    c_host.drive(chip, "replay", second)
    chip = Chip(chip.flash).boot()
    assert digest_of(chip) == second.digest
    assert c_host.install(chip, first.data) == 3
    assert chip.flash[: len(FIRMWARE)] == FIRMWARE
    with pytest.raises(Refused):
        chip.ask("arm", bytes(97))


@pytest.mark.slow
@pytest.mark.parametrize(("command", "at"), [(0x20, SLOT_B), (0x20, SLOT_B + 4096), (0x02, SLOT_B + 4096 + 300), (0x02, SLOT_B + 20)])
def test_flash_that_does_not_hold_what_was_written_is_found_by_reading_it_again(command: int, at: int) -> None:
    """A worn byte: an erase leaves it, or a program gets one of its bits wrong. The old policy goes on."""
    first, second = c_images.image("bare"), c_images.image("tanh")
    chip = Chip(FIRMWARE).boot()
    assert c_host.install(chip, first.data) == 1
    ssi = chip.mcu.find_peripheral(0x18000000)
    plain = ssi._apply_command

    def worn() -> None:
        opcode = ssi._tx_buffer[0] if ssi._tx_buffer else 0
        start = int.from_bytes(ssi._tx_buffer[1:4], "big") if len(ssi._tx_buffer) > 3 else -1
        plain()
        if opcode == command and start <= at < start + (4096 if command == 0x20 else 256):
            chip.mcu.flash[at] ^= 0x10

    ssi._apply_command = worn
    with pytest.raises(Refused) as caught:
        c_host.install(chip, second.data)
    assert caught.value.code == protocol.ERRORS["flash"]
    assert caught.value.detail & 0xFFFFFF == at
    assert digest_of(chip) == first.digest
    assert digest_of(Chip(chip.flash).boot()) == first.digest


@pytest.mark.slow
def test_an_install_cut_between_requests_or_in_its_last_write_leaves_the_old_policy() -> None:
    old, new = c_images.image("bare"), c_images.image("tanh", 16)
    chip = Chip(content(rp2040_uf2(FIRMWARE, old.data))).boot()
    flashes = []
    c_host.begin(chip, new.data)
    for chunk in c_host.chunks(new.data):
        chip.ask("install_data", chunk)
        flashes.append(chip.flash)
    chip.ask("install_commit")
    assert digest_of(Chip(chip.flash).boot()) == new.digest
    for flash in flashes[::5] + flashes[-1:]:
        assert digest_of(Chip(flash).boot()) == old.digest
    for kept in (1, 4, 20, 47):
        torn = bytearray(flashes[-1])
        torn[SLOT_B : SLOT_B + kept] = chip.flash[SLOT_B : SLOT_B + kept]
        assert digest_of(Chip(bytes(torn)).boot()) == old.digest


@pytest.mark.slow
def test_an_install_cut_at_any_instruction_leaves_the_old_policy() -> None:
    old, new = c_images.image("bare", 16), c_images.image("bare", 32)
    flash = content(rp2040_uf2(FIRMWARE, old.data))
    announced = struct.pack("<I", len(new.data)) + hashlib.sha256(new.data).digest()
    data = list(c_host.chunks(new.data))
    for cut in range(500, 60_000, 7_300):
        for done, message, payload in ((0, "install_begin", announced), (3, "install_data", data[3]), (len(data), "install_commit", b"")):
            chip = Chip(flash).boot()
            if done:
                c_host.begin(chip, new.data)
            for chunk in data[:done]:
                chip.ask("install_data", chunk)
            frame = bytearray(frame_bytes(len(payload)))
            chip.send(bytes(frame[: encode(protocol.MESSAGES[message][0], 99, payload, frame)]))
            chip.run(cut)
            assert digest_of(Chip(chip.flash).boot()) == old.digest


@pytest.mark.slow
def test_a_damaged_newest_slot_gives_way_to_the_other() -> None:
    first, second = c_images.image("bare"), c_images.image("tanh")
    flash = bytearray(content(rp2040_uf2(FIRMWARE, first.data)))
    flash[SLOT_B : SLOT_B + 48] = commit_record(second.data, 2)
    flash[SLOT_B + 4096 : SLOT_B + 4096 + len(second.data)] = second.data
    assert digest_of(Chip(bytes(flash)).boot()) == second.digest
    flash[SLOT_B + 4096 + 1000] ^= 1
    assert digest_of(Chip(bytes(flash)).boot()) == first.digest
    flash[SLOT_A + 30] ^= 1
    assert c_host.hello(Chip(bytes(flash)).boot())["state"] == protocol.STATES["empty"]


@pytest.mark.slow
def test_reset_and_service() -> None:
    chip = Chip(content(rp2040_uf2(FIRMWARE, c_images.image("bare").data))).boot()
    chip.ask("reset")
    chip.run(100_000)
    assert chip.was_reset
    chip = Chip(chip.flash).boot()
    c_host.arm(chip)
    with pytest.raises(Refused, match="armed"):
        chip.ask("service")
    chip.ask("disarm")
    chip.ask("service")
    chip.run(200_000)
    assert chip.core.pc < 0x4000  # in the ROM


ENDS = {"fault": "*(volatile uint32_t *)0xe000ed04 = 1u << 31; /* pends an NMI */", "hang": "for (;;) {}"}


@pytest.mark.slow
@pytest.mark.toolchain("arm-none-eabi-gcc")
@pytest.mark.parametrize("end", ENDS)
def test_free_running_until_the_driver_fails(end: str, tmp_path: Path) -> None:
    image = c_images.image("discrete")
    source = tmp_path / "driver.c"
    source.write_text(DRIVER.replace("END", ENDS[end]))
    firmware, _ = build.build_rp2040(source)
    chip = Chip(content(rp2040_uf2(firmware, image.data)))
    chip.mcu.write_uint32(LOG, 0)
    chip.boot()
    c_host.arm(chip, protocol.ARM_FREE_RUN)
    assert c_host.hello(chip)["state"] == protocol.STATES["free_run"]
    for _ in range(600):
        chip.run(100_000)
    assert chip.was_reset
    safe = int(image.contract.action_safe[0])
    count = chip.mcu.read_uint32(LOG)
    values = [chip.mcu.read_uint32(LOG + 4 + 4 * k) for k in range(count)]
    assert count == 2 + 19 + (end == "fault")  # at boot, on arming, nineteen ticks, and the fault handler's
    assert len(set(values)) > 1
    assert values[:2] == [safe, safe]
    assert end == "hang" or values[-1] == safe
