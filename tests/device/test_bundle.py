"""Bundles: what is changed, missing, added, newer or half written is refused, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from puffer_edge import files as atomic
from puffer_edge.device.bundle import Bundle
from puffer_edge.errors import BundleError, InvalidInput, PufferEdgeError
from tests import samples

LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return samples.bundle(tmp_path_factory.mktemp("bundle") / "b")


@pytest.fixture
def copy(original: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original.path, tmp_path / "copy"))


def edit_manifest(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


def test_a_bundle_reads_back(original: Bundle) -> None:
    again = Bundle.load(original.path)
    assert again.image.data == (original.path / "policy.bin").read_bytes()
    assert len(again.vectors) >= 256
    assert again.policy.contract.digest == again.image.contract.digest
    assert again.environment == "pendulum" and again.target == "host"


def test_every_file_is_covered_by_a_digest(original: Bundle, tmp_path: Path) -> None:
    for name in original.manifest["files"]:
        folder = Path(shutil.copytree(original.path, tmp_path / "b"))
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(bytes(data))
        with pytest.raises(BundleError, match="SHA-256"):
            Bundle.load(folder)
        shutil.rmtree(folder)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "vectors.bin").unlink()
    with pytest.raises(BundleError, match=r"lacks vectors\.bin"):
        Bundle.load(copy)


def test_a_cut_file_says_both_sizes(copy: Path) -> None:
    data = (copy / "policy.bin").read_bytes()
    (copy / "policy.bin").write_bytes(data[:-7])
    with pytest.raises(BundleError, match=f"{len(data) - 7} bytes, the manifest says {len(data)}"):
        Bundle.load(copy)


def test_a_file_that_is_not_listed_is_named_and_never_overwritten(copy: Path) -> None:
    (copy / "micropython").mkdir(exist_ok=True)
    (copy / "micropython" / "user.py").write_text("my drivers")
    assert Bundle.load(copy).unlisted == ["micropython/user.py"]
    with pytest.raises(InvalidInput, match=r"user\.py"):
        Bundle.write(copy, {"name": "x"}, {"policy.bin": b"1"})
    assert (copy / "micropython" / "user.py").read_text() == "my drivers"


def test_a_link_in_place_of_a_file_is_refused(copy: Path) -> None:
    (copy / "policy.bin").rename(copy.parent / "elsewhere")
    (copy / "policy.bin").symlink_to(copy.parent / "elsewhere")
    with pytest.raises(BundleError, match=r"policy\.bin"):
        Bundle.load(copy)


def test_a_newer_bundle_is_refused(copy: Path) -> None:
    edit_manifest(copy, format=99)
    with pytest.raises(BundleError, match="format 99"):
        Bundle.load(copy)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "c:\\x", ""])
def test_paths_that_leave_the_bundle_are_refused(copy: Path, name: str) -> None:
    entries = json.loads((copy / "manifest.json").read_text())["files"]
    edit_manifest(copy, files=entries | {name: {"sha256": "0" * 64, "bytes": 1}})
    with pytest.raises(BundleError, match="outside the bundle"):
        Bundle.load(copy)


def test_digests_that_belong_to_another_image_are_refused(copy: Path) -> None:
    digests = json.loads((copy / "manifest.json").read_text())["digests"]
    edit_manifest(copy, digests=digests | {"shield": "0" * 64})
    with pytest.raises(BundleError, match="shield"):
        Bundle.load(copy)


def test_no_bundle_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="puffer-edge export"):
        Bundle.load(tmp_path / "nothing")


def test_a_folder_that_is_no_bundle_is_never_overwritten(original: Bundle, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="no bundle"):
        Bundle.write(tmp_path, {}, {})
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_another_folder_with_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text('{"name": "a web app", "files": ["index.html"]}')
    with pytest.raises(InvalidInput, match="no bundle"):
        Bundle.write(tmp_path / "app", {}, {})


def test_links_and_devices_are_never_replaced(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(copy)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(InvalidInput, match="no folder"):
            Bundle.write(tmp_path / name, {}, {})
    assert (tmp_path / "link").is_symlink() and (tmp_path / "pipe").is_fifo()


def test_a_full_disk_leaves_the_old_bundle(original: Bundle, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    before = {p.name for p in copy.parent.iterdir()}
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(atomic.os, "fsync", full)
        Bundle.write(copy, {"name": "x"}, {"policy.bin": b"1"})
    assert Bundle.load(copy).image.digest == original.image.digest
    assert {p.name for p in copy.parent.iterdir()} == before


def test_writing_over_a_bundle_replaces_it_whole(original: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    samples.bundle(folder, hidden=(4,))
    second = samples.bundle(folder, hidden=(6,))
    assert Bundle.load(folder).image.digest == second.image.digest
    assert os.listdir(tmp_path) == ["b"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=200) | JSON.map(json.dumps))
def test_any_manifest_is_read_or_refused(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(PufferEdgeError):
        Bundle.load(copy)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_manifest_with_one_field_replaced_is_read_or_refused(original: Bundle, copy: Path, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(original.manifest)))
    value = data.draw(st.none() | st.integers(2, 9) | st.text(max_size=5) | st.lists(st.integers(), max_size=2) | st.just({}))
    shutil.copyfile(original.path / "manifest.json", copy / "manifest.json")
    edit_manifest(copy, **{key: value})
    if key in ("format", "files", "digests", "shield"):
        with pytest.raises(PufferEdgeError):
            Bundle.load(copy)
    else:
        try:
            assert Bundle.load(copy).image.digest == original.image.digest
        except PufferEdgeError as error:
            assert key in str(error) or "manifest" in str(error)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"files":' * 100_000])
def test_a_manifest_nested_without_end_is_no_manifest(copy: Path, original: Bundle, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.load(copy)
    with pytest.raises(InvalidInput, match="is no bundle"):
        Bundle.write(copy, {}, {})


@pytest.mark.parametrize("changes", [{"left_out": ["c"]}, {"calibration": None}, {"cost": 3}, {"shield": {"stages": [["limit"]]}}])
def test_fields_that_commands_look_into_have_their_type(copy: Path, changes: dict[str, Any]) -> None:
    edit_manifest(copy, **changes)
    with pytest.raises(BundleError, match="incomplete"):
        Bundle.load(copy)
