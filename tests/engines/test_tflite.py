"""verify of a bundle's TensorFlow Lite files: TFLite-Micro, LiteRT, and the C of ``tflm`` around TFLite-Micro."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from puffer_edge.device import target
from puffer_edge.device.bundle import Bundle
from puffer_edge.engines import Row, verify
from puffer_edge.export.bundle import export
from tests import samples

for package in ("tflite", "tflite_micro", "ai_edge_litert"):
    pytest.importorskip(package)
BOARD = replace(target.load("host"), formats=("tflite", "tflm"))


def bundle(folder: Path, name: str, head: str, profile: str = "int8", seed: int = 0) -> Bundle:
    policy = samples.network(name, head, seed)
    x, starts = samples.episodes(policy.contract, 400)
    return export(policy, BOARD, folder, x, ({"stage": "limit"},), starts=starts, profile=profile)


def table(held: Bundle, count: int = 1500) -> dict[str, Row]:
    return {
        f"{row.format} {row.engine.rpartition(', ')[2] if 'LiteRT' in row.engine else ''}".strip(): row
        for row in verify(held, count, only=("tflite",))
    }


@pytest.mark.parametrize(("name", "head", "profile"), [("mlp", "tanh", "int8"), ("mlp", "clip", "int4")])
def test_every_interpreter_has_its_row(name: str, head: str, profile: str, tmp_path: Path) -> None:
    rows = table(bundle(tmp_path / "b", name, head, profile))
    assert set(rows) == {"policy.tflite", "policy.tflite reference kernels", "policy.tflite default kernels", "tflm"}
    assert all(row.vectors >= 1500 and row.mismatches == 0 for row in rows.values()), rows
    assert all((row.max_difference == 0) == (row.bound == 0) for row in rows.values()), rows


def test_memory_is_followed_and_litert_says_that_it_is_not_compared(tmp_path: Path) -> None:
    rows = table(bundle(tmp_path / "b", "lstm", "clip"))
    for name in ("policy.tflite", "tflm"):
        assert rows[name].vectors >= 1500 and rows[name].mismatches == 0, rows[name]
    assert rows["policy.tflite reference kernels"].vectors == 0 and "another kernel" in rows["policy.tflite reference kernels"].note


def test_another_policys_file_is_found(tmp_path: Path) -> None:
    first, second = (bundle(tmp_path / str(seed), "mlp", "clip", seed=seed) for seed in (0, 1))
    held = {name: (first.path / name).read_bytes() for name in first.manifest["files"]}
    held["policy.tflite"] = (second.path / "policy.tflite").read_bytes()
    wrong = Bundle.write(tmp_path / "wrong", {k: v for k, v in first.manifest.items() if k not in ("files", "format")}, held)
    assert all(row.mismatches > 500 for row in table(wrong).values())
