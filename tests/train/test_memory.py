"""A training does not grow: the short form of benchmarks/memory.py."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="resident memory is read from Linux, and trimmed by glibc")
def test_a_training_does_not_grow() -> None:
    pytest.importorskip("torch")
    script = Path(__file__).parents[2] / "benchmarks" / "memory.py"
    command = [sys.executable, str(script), "--start", "200000", "--end", "800000", "--no-save"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
