"""A short run of benchmarks/parity.py: no engine may differ in one bit."""

from __future__ import annotations

import ctypes
import importlib
import tempfile
from pathlib import Path
from types import ModuleType

import pytest

import puffer_edge
from puffer_edge.errors import Unsupported

SETTINGS = {"steps": 20_000, "micropython": 0, "rp2040": 0, "seed": 7}


@pytest.fixture
def parity(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(puffer_edge.__file__).parents[1] / "benchmarks"))
    return importlib.import_module("parity")


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    from puffer_edge.firmware.build import build_host

    with tempfile.TemporaryDirectory() as folder:
        try:
            return ctypes.CDLL(str(build_host(Path(folder)).library))
        except Unsupported as error:
            pytest.skip(f"{error} (toolchain)")


@pytest.mark.parametrize("net", [("1x8", "tanh", "clip"), ("2x16", "relu", "discrete"), ("2x64", "tanh", "tanh")], ids="-".join)
def test_no_engine_differs(parity: ModuleType, library: ctypes.CDLL, net: tuple[str, str, str]) -> None:
    pytest.importorskip("tflite")
    pytest.importorskip("tflite_micro")
    row = parity.row(library, net, SETTINGS)
    assert (row["c_steps"], row["c_different"]) == (20_000, 0)
    assert (row["tflm_inputs"], row["tflm_different"]) == (20_000, 0)
    assert 0.05 < row["shield_acted"] < 0.95
