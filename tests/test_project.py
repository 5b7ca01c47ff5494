"""The repository as a whole: what pages say exists, what must not be in a file is not, and versions have one home."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

import puffer_edge
from puffer_edge.firmware.shared import protocol

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for folder in (".", "docs", "docs/learning") for path in (ROOT / folder).glob("*.md"))

FORBIDDEN = {
    "a path of one machine": r"""(?<![\w.}/:])/(root|home|work|Users)/\w""",
    "the host of a package registry": r"https?://[\w.-]*(pypi|pythonhosted|npmjs|pytorch\.org/whl)",
    "an index option": r"--(extra-)?index-url|--registry[ =]",
    "an unfinished thought": r"\b(TO-?DO|FIX-?ME)\b",
    "a conflict": r"^(<{7}|>{7}) ",
}


@pytest.fixture(scope="module")
def texts(tracked: list[str]) -> dict[str, str]:
    """Text of every tracked file by name; binaries and links are left out."""
    paths = {name: ROOT / name for name in tracked if not (ROOT / name).is_symlink()}
    return {name: data.decode() for name, path in paths.items() if b"\0" not in (data := path.read_bytes())}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(what: str, texts: dict[str, str]) -> None:
    pattern = re.compile(FORBIDDEN[what], re.MULTILINE)
    faults = [f"{name}: {match.group()}" for name, text in texts.items() for match in pattern.finditer(text)]
    assert not faults, "\n".join(faults)


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands() -> list[tuple[str, str]]:
    """(page, line) for every line of the shell blocks in the pages."""
    return [
        (page.name, line.strip().removeprefix("$ "))
        for page in PAGES
        for block in re.findall(r"```(?:sh|bash|console|shell)\n(.*?)```", page.read_text(), re.DOTALL)
        for line in block.splitlines()
    ]


def test_commands_on_the_pages_exist() -> None:
    from puffer_edge.cli import COMMANDS

    faults = []
    for page, line in commands():
        faults += [f"{page}: make {name}" for name in re.findall(r"\bmake ([a-z]+)\b", line) if name not in make_targets()]
        faults += [f"{page}: {line}" for name in re.findall(r"(?:^|bin/)puffer-edge ([a-z]+)", line) if name not in COMMANDS]
    assert not faults, "\n".join(faults)
    if (ROOT / "README.md").exists():
        assert {"make demo", "make test"} <= {line.split("#")[0].strip() for page, line in commands() if page == "README.md"}


def test_files_on_the_pages_exist() -> None:
    faults = []
    for page in PAGES:
        text = page.read_text()
        links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text) for link in link]
        faults += [f"{page.name}: {link}" for link in links if link and ":" not in link and not (page.parent / link).exists()]
        named = re.findall(r"`((?:\.ci|benchmarks|docs|examples|export|firmware|hil|puffer_edge|targets|tests)/[\w./-]*\w)`", text)
        faults += [f"{page.name}: {name}" for name in named if "NAME" not in name and not (ROOT / name).exists()]
    assert not faults, "\n".join(faults)


def test_the_changelog_knows_both_versions() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{puffer_edge.__version__}]" in text
    assert re.search(rf"^Device protocol: {protocol.VERSION}$", text, re.MULTILINE)


def test_every_pin_is_exact() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+(; python_version (<|>=) '3\.\d+')?", pin) for pin in pins)
    node = json.loads((ROOT / "package.json").read_text())["dependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in node.values())


def test_the_makefile_helps() -> None:
    text = subprocess.run(["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(f"make {name} " in text for name in ("setup", "demo", "test", "lint", "firmware", "toolchains", "clean"))
