"""UF2 files for the RP2040: firmware and policy in one file to drag onto the board's USB drive."""

from __future__ import annotations

import hashlib
import struct
import zlib

from puffer_edge.errors import DoesNotFit, InvalidInput

FAMILY = 0xE48BFF56
PAYLOAD = 256
SECTOR = 4096
FLASH = 0x10000000
FIRMWARE_BYTES = 0x10000
"""Flash that is kept for the firmware."""
SLOTS = (0x10040000, 0x10080000)
"""Addresses of the two policy slots: a sector for the commit record, then the image (``firmware/c/pe_store.h``)."""
MAX_IMAGE = 192 * 1024

_HEAD = struct.Struct("<8I")
_RECORD = struct.Struct("<4sII32s")


def uf2(blocks: list[tuple[int, bytes]]) -> bytes:
    """Regions of flash as a UF2 file.

    The RP2040's boot loader erases a sector when it meets the first block of it, so every sector that is touched is
    written whole (erratum RP2040-E14); what no region covers is blank.

    Args:
        blocks: address and content of each region, in any order; a region begins at a multiple of 256.

    Raises:
        InvalidInput: an address is not a multiple of 256, or two regions overlap.
    """
    pages: dict[int, bytes] = {}
    for address, data in blocks:
        if address % PAYLOAD:
            raise InvalidInput(f"a region begins at {address:#x}: UF2 wants a multiple of {PAYLOAD}")
        for offset in range(0, len(data), PAYLOAD):
            if address + offset in pages:
                raise InvalidInput(f"two regions hold address {address + offset:#x}")
            pages[address + offset] = data[offset : offset + PAYLOAD].ljust(PAYLOAD, b"\xff")
    sectors = sorted({page - page % SECTOR for page in pages})
    order = [page for sector in sectors for page in range(sector, sector + SECTOR, PAYLOAD)]
    return b"".join(_block(k, len(order), page, pages.get(page, b"\xff" * PAYLOAD)) for k, page in enumerate(order))


def _block(number: int, total: int, address: int, payload: bytes) -> bytes:
    head = _HEAD.pack(0x0A324655, 0x9E5D5157, 0x2000, address, PAYLOAD, number, total, FAMILY)
    return (head + payload).ljust(508, b"\0") + struct.pack("<I", 0x0AB16F30)


def commit_record(image: bytes, sequence: int = 1) -> bytes:
    """The record that makes a slot hold ``image`` (``pe_record`` in ``firmware/c/pe_store.h``).

    Args:
        image: the policy image.
        sequence: number of the install; of two good slots the higher one runs.
    """
    body = _RECORD.pack(b"PES1", sequence, len(image), hashlib.sha256(image).digest())
    return body + struct.pack("<I", zlib.crc32(body))


def rp2040_uf2(firmware: bytes, image: bytes) -> bytes:
    """One file that puts a firmware and a policy onto an RP2040, whatever was on it.

    Args:
        firmware: ``firmware/prebuilt/rp2040.bin``, from the first byte of flash.
        image: the policy image, for slot A; slot B is emptied, so that no older install wins.

    Raises:
        DoesNotFit: the firmware or the image is larger than its place.
    """
    for what, data, has in (("the firmware", firmware, FIRMWARE_BYTES), ("the policy image", image, MAX_IMAGE)):
        if len(data) > has:
            raise DoesNotFit(f"bytes of flash for {what}", len(data), has, "rp2040", "try a smaller network")
    slot_a, slot_b = SLOTS
    return uf2([(FLASH, firmware), (slot_a, commit_record(image)), (slot_a + SECTOR, image), (slot_b, b"\xff" * SECTOR)])
