"""verify: every engine runs a bundle's own files, and a file that computes something else is found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from puffer_edge.device import target
from puffer_edge.device.bundle import Bundle
from puffer_edge.engines import Row, names, verify
from puffer_edge.engines._steps import by_reference, difference, make_steps
from puffer_edge.errors import BundleError, InvalidInput
from puffer_edge.export.bundle import export
from puffer_edge.firmware.shared import protocol
from tests import samples

LIMIT = ({"stage": "limit"},)


def bundle(folder: Path, name: str, head: str, profile: str = "int8", seed: int = 0, board: str = "host") -> Bundle:
    policy = samples.network(name, head, seed)
    x, starts = samples.episodes(policy.contract, 400)
    return export(policy, target.load(board), folder, x, LIMIT, starts=starts, profile=profile)


@pytest.mark.parametrize(("name", "head", "profile"), [("mlp", "clip", "int8"), ("lstm", "discrete", "int8"), ("conv_gru", "tanh", "int16x8")])
def test_every_file_of_a_bundle_is_the_program(name: str, head: str, profile: str, tmp_path: Path) -> None:
    rows = verify(bundle(tmp_path / "b", name, head, profile), 2000, only=("c", "onnx"))
    assert {"c", "policy.fixed.onnx", "policy.integer.onnx", "policy.shielded.onnx", "policy.onnx", "policy.qdq.onnx"} <= {row.format for row in rows}
    assert all(row.vectors > 200 and row.mismatches == 0 for row in rows), rows
    assert all(row.max_difference == 0 for row in rows if row.bound == 0)


def swapped(first: Bundle, second: Bundle, out: Path, *files: str) -> Bundle:
    """A bundle whose digests are right and some of whose files are another policy's."""
    held = {name: (first.path / name).read_bytes() for name in first.manifest["files"]}
    held |= {name: (second.path / name).read_bytes() for name in files}
    return Bundle.write(out, {k: v for k, v in first.manifest.items() if k not in ("files", "format")}, held)


def test_another_policys_file_is_found(tmp_path: Path) -> None:
    first, second = (bundle(tmp_path / str(seed), "mlp", "clip", seed=seed) for seed in (0, 1))
    files = ("policy.fixed.onnx", "policy.onnx", "policy.qdq.onnx", "policy.shielded.onnx")
    wrong = swapped(first, second, tmp_path / "wrong", *files)
    rows = {row.format: row for row in verify(wrong, 2000, only=("onnx",))}
    assert all(rows[name].mismatches > 50 and rows[name].max_difference > rows[name].bound for name in files)
    assert rows["policy.integer.onnx"].mismatches == 0
    command = [sys.executable, "-m", "puffer_edge.cli", "verify", str(wrong.path), "--vectors", "500", "--engine", "onnx", "c", "--json"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 8 and "differ" in finished.stderr
    assert {row["format"] for row in json.loads(finished.stdout)["rows"]} > {"c", "policy.onnx"}


def with_file(first: Bundle, out: Path, name: str, data: bytes) -> Bundle:
    """The same bundle with other bytes in a file, and the digest to them."""
    held = {each: (first.path / each).read_bytes() for each in first.manifest["files"]} | {name: data}
    return Bundle.write(out, {k: v for k, v in first.manifest.items() if k not in ("files", "format")}, held)


@pytest.mark.parametrize("head", ["clip", "discrete"])
def test_nan_is_a_difference(head: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    first = bundle(tmp_path / "b", "mlp", head)
    model = onnx.load_from_string((first.path / "policy.onnx").read_bytes())
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2:
            values = np.full(tuple(tensor.dims), np.nan, np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    rows = {row.format: row for row in verify(with_file(first, tmp_path / "nan", "policy.onnx", model.SerializeToString()), 500, only=("onnx",))}
    assert rows["policy.onnx"].mismatches > 0 and rows["policy.qdq.onnx"].mismatches == 0


@pytest.mark.parametrize(("name", "engine"), [("policy.integer.onnx", "onnx"), ("policy.onnx", "onnx"), ("policy.tflite", "tflite")])
def test_a_damaged_file_is_named(name: str, engine: str, tmp_path: Path) -> None:
    first = bundle(tmp_path / "b", "mlp", "clip")
    data = (first.path / name).read_bytes()
    for k, wrong in enumerate((b"damaged", data[:40])):
        with pytest.raises(BundleError, match=f"{name} does not load"):
            verify(with_file(first, tmp_path / str(k), name, wrong), 100, only=(engine,))
    if engine == "onnx":
        other = (first.path / "policy.shielded.onnx").read_bytes()
        with pytest.raises(BundleError, match=f"{name} does not run"):
            verify(with_file(first, tmp_path / "other", name, other), 100, only=(engine,))


def test_an_unknown_engine_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="onnx"):
        verify(bundle(tmp_path / "b", "mlp", "clip"), 100, only=("onxn",))
    assert {"c", "onnx", "boards"} <= set(names())


def test_steps_hold_what_breaks_engines() -> None:
    c = samples.image_contract("clip")
    steps = make_steps(c, 20_000, 0)
    assert steps.count >= 20_000 and (steps.flags[:, 0] & protocol.STEP_RESET).all()
    for flag in (protocol.STEP_MISSED, protocol.STEP_INVALID, protocol.STEP_RESET):
        assert ((steps.flags & flag) != 0).mean() > 0.005
    assert (steps.observation == 2**31 - 1).any() and (steps.observation == -(2**31)).any()
    assert (steps.observation > c.observation_high).any() and (steps.observation == c.observation_low).any()


def test_a_single_bit_counts(tmp_path: Path) -> None:
    image = bundle(tmp_path / "b", "gru", "clip").image
    steps = make_steps(image.contract, 200, 1)
    wanted, other = by_reference(image, steps), by_reference(image, steps)
    assert difference(wanted, other).steps == 0
    other.state[7] ^= np.uint32(1)
    other.applied[9, 0] += 5
    assert difference(wanted, other).steps == 2 and difference(wanted, other).largest == 5


def test_what_did_not_run_is_no_pass() -> None:
    row = Row("c", "did not run", "int8", 0, 0, 0.0, 0.0, note="no compiler")
    assert row.summary()["vectors"] == 0 and row.summary()["note"]
