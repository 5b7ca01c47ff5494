"""Targets are data, and every file in the folder is good data."""

from __future__ import annotations

import pytest

from puffer_edge import find
from puffer_edge.device import target
from puffer_edge.errors import InvalidInput

FORMATS = {path.stem for path in find.folder("puffer_edge.export").glob("*.py")} - {"__init__", "bundle", "page", "source"}
GOOD = find.folder(target.PACKAGE).joinpath("rp2040.toml").read_text("utf-8")


@pytest.mark.parametrize("name", target.names())
def test_every_target_loads_and_is_whole(name: str) -> None:
    board = target.load(name)
    assert board.name == name
    assert len(name.encode()) <= 12  # the field of "hello"
    assert 0 < board.image_max_bytes <= board.ram_for_policy_bytes
    assert board.simulator is None or "imulated" in board.simulator.says
    assert board.serial is not None or board.firmware in ("linux", "wasm", "sources")
    assert len(board.formats) == len(set(board.formats))
    assert set(board.formats) <= FORMATS, "a target lists a format that has no file in export/"
    assert board.image_max_bytes <= 1024 * (board.flash_kib or 1 << 30)
    assert board.ram_for_policy_bytes <= 1024 * (board.ram_kib or 1 << 30)


def test_an_unknown_name_lists_the_names_and_the_closest() -> None:
    with pytest.raises(InvalidInput, match=r"'rp240' \(did you mean rp2040\?\): esp32, esp32c3, esp32s3, host"):
        target.load("rp240")
    with pytest.raises(InvalidInput, match=r"'\.\./secret': "):
        target.load("../secret")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("chip = ", "chips = ", "unknown field chips; missing field chip"),
        ("clock_mhz = 125", 'clock_mhz = "125"', "clock_mhz must be int"),
        ("dtr = true", "dtr = 1", "dtr must be bool"),
        ("[serial]", "[serials]", r"unknown field serials"),
        ("flash_kib = ", "serial = 9\nflash_kib = ", "serial is a table|is no TOML"),
        ("sources = [", "sources = []\nx = [", "unknown field x"),
        ('kind = "rp2040js"', 'kind = "magic"', "simulator.kind one of"),
        ('firmware = "c"', 'firmware = "rust"', "firmware is one of"),
        ("title = ", "title ", "is no TOML"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(old: str, new: str, words: str) -> None:
    assert target.parse("x", GOOD).chip == "RP2040"
    with pytest.raises(InvalidInput, match=words):
        target.parse("x", GOOD.replace(old, new, 1))
