"""A short run of benchmarks/matrix.py: every kind of network through every format and engine; profiles and heads take turns."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

import puffer_edge
from puffer_edge.integer.scales import PROFILES
from tests import samples

VECTORS = 500
ALWAYS = ("c", "c, one file", "policy.fixed.onnx", "policy.integer.onnx", "policy.shielded.onnx", "policy.onnx", "policy.qdq.onnx")


@pytest.fixture
def matrix(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(puffer_edge.__file__).parents[1] / "benchmarks"))
    return importlib.import_module("matrix")


@pytest.mark.parametrize("k", range(len(samples.NETWORKS)), ids=samples.NETWORKS)
def test_every_format_computes_what_the_program_does(matrix: ModuleType, k: int) -> None:
    profile, head = list(PROFILES)[k % 4], samples.HEADS[k // 2 % 4]
    rows = matrix.rows(samples.NETWORKS[k], profile, head, VECTORS, 11)
    ran = {row["format"]: row for row in rows if row["vectors"]}
    assert set(ALWAYS) <= set(ran)
    for kind in ("wasm", "micropython", "uf2", "tvm"):  # each needs something of the machine
        wanted = [row for row in rows if row["format"].startswith(kind)]
        assert wanted and all(row["vectors"] >= 400 or row["engine"] in ("none", "did not run") or "did not run" in row["note"] for row in wanted)
    assert [row for row in rows if row["mismatches"]] == []
