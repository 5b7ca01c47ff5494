"""The prebuilt RP2040 image and the UF2 file around it."""

from __future__ import annotations

import hashlib
import json
import struct

import pytest

from puffer_edge.device import target, uf2
from puffer_edge.errors import DoesNotFit, InvalidInput, Unsupported
from puffer_edge.firmware import build
from tests.firmware import c_images

FIRMWARE = (build.PREBUILT / "rp2040.bin").read_bytes()
REPORT = json.loads((build.PREBUILT / "rp2040.json").read_text())


def test_the_report_describes_the_image() -> None:
    assert (REPORT["bytes"], REPORT["sha256"]) == (len(FIRMWARE), hashlib.sha256(FIRMWARE).hexdigest())
    assert build.boot2_checksum(FIRMWARE[:252]) == FIRMWARE[252:256]


def test_it_is_as_small_as_it_should_be() -> None:
    assert REPORT["bytes"] <= 20 * 1024
    assert REPORT["data_ram_bytes"] <= 2 * 1024
    assert build._constant((build.C / "pe_store.h").read_text(), "PE_SLOTS") >= uf2.FIRMWARE_BYTES


def test_it_is_built_from_these_sources() -> None:
    try:
        image, report = build.build_rp2040()
    except Unsupported as error:
        pytest.skip(f"{error} (toolchain)")
    if report["compiler"] != REPORT["compiler"]:
        pytest.skip(f"the prebuilt image comes from {REPORT['compiler']}, here is {report['compiler']}: another toolchain gives other bytes")
    assert image == FIRMWARE, "run make firmware"
    assert report == REPORT


def test_targets_and_uf2_agree_with_the_firmware() -> None:
    board = target.load("rp2040")
    assert (list(uf2.SLOTS), uf2.SECTOR, uf2.MAX_IMAGE) == (REPORT["slots"], REPORT["image_offset"], REPORT["max_image_bytes"])
    assert (board.image_max_bytes, board.ram_for_policy_bytes) == (REPORT["max_image_bytes"], REPORT["policy_ram_bytes"])
    assert board.serial.baud == REPORT["baud"]


def test_uf2_blocks() -> None:
    image = c_images.image("discrete").data
    data = uf2.rp2040_uf2(FIRMWARE, image)
    total = len(data) // 512
    addresses = []
    for k in range(total):
        block = data[512 * k : 512 * k + 512]
        magic0, magic1, flags, address, size, number, count, family = struct.unpack_from("<8I", block)
        assert (magic0, magic1, flags, size, number, count, family) == (0x0A324655, 0x9E5D5157, 0x2000, 256, k, total, 0xE48BFF56)
        assert struct.unpack_from("<I", block, 508) == (0x0AB16F30,)
        addresses.append(address)
    assert addresses == sorted(set(addresses))
    for sector in {a & ~4095 for a in addresses}:
        assert sum(a & ~4095 == sector for a in addresses) == 16


def test_uf2_refuses_what_does_not_fit() -> None:
    with pytest.raises(DoesNotFit, match="policy image"):
        uf2.rp2040_uf2(FIRMWARE, bytes(uf2.MAX_IMAGE + 4))
    with pytest.raises(InvalidInput, match="multiple of 256"):
        uf2.uf2([(0x10000080, b"x")])
    with pytest.raises(InvalidInput, match="two regions"):
        uf2.uf2([(0x10000000, bytes(512)), (0x10000100, b"x")])
