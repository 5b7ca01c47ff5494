"""Every example runs as it is printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.toolchain("node")
@pytest.mark.parametrize("target", ["host", "rp2040", "esp32"])
def test_own_policy(target: str, tmp_path: Path) -> None:
    script = EXAMPLES / "own_policy.py"
    finished = subprocess.run([sys.executable, script, target], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "512 vectors replayed" in finished.stdout and "0 differ" in finished.stdout
