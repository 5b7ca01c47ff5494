"""`puffer-edge import` from the command line: one line to a bundle, questions with exit code 2, observations that travel with the run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from puffer_edge.cli import main
from puffer_edge.intake.observations import read_observations
from puffer_edge.policy import Policy
from tests.intake.hostile import torch_file
from tests.intake.test_layout import PPOContinuous

EXAMPLE = Path(__file__).parents[2] / "examples" / "import_sb3.py"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = 0
    try:
        main([str(a) for a in arguments])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    (tmp_path / "model.pt").write_bytes(torch_file(PPOContinuous().state_dict()))
    return tmp_path / "model.pt"


def complete(path: Path) -> None:
    text = path.read_text().replace('name = "?"', 'name = "arm"').replace('rate_hz = "?"', "rate_hz = 50").replace('unit = "?"', 'unit = "1"')
    text = text.replace('safe = "?"', "safe = 0")
    path.write_text(re.sub(r'high = "\?"', "high = 3", re.sub(r'low = "\?"', "low = -3", text)))


def test_asked_answered_exported(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "my run"
    code, _, err = run(capsys, "import", model, "--out", out)
    assert code == 2 and f"puffer-edge import {model} --contract '{out}/contract.toml' --out '{out}'" in err
    code, _, err = run(capsys, "import", model, "--contract", out / "contract.toml", "--out", out)
    assert code == 2 and "line 2: name is still '?'" in err and not (out / "policy.safetensors").exists()
    complete(out / "contract.toml")
    code, said, err = run(capsys, "import", model, "--contract", out / "contract.toml", "--out", out)
    assert code == 0 and "NormalizeObservation" in err and f"next: puffer-edge export '{out}' --target esp32" in said
    policy = Policy.load(out / "policy.safetensors")
    assert policy.contract.name == "arm" and "environment" not in policy.origin
    code, said, err = run(capsys, "export", out, "--target", "esp32", "--out", tmp_path / "bundle", "--json")
    assert code == 0 and json.loads(said)["contract"] == policy.contract.digest.hex()
    assert "no observations to calibrate on" in err


def test_a_template_that_is_there_is_not_overwritten(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "import", model, "--out", tmp_path / "run")
    (tmp_path / "run" / "contract.toml").write_text("# mine")
    code, _, err = run(capsys, "import", model, "--out", tmp_path / "run")
    assert code == 2 and "There is a contract at" in err and (tmp_path / "run" / "contract.toml").read_text() == "# mine"


def test_observations_travel_with_the_run(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, seen = tmp_path / "run", np.random.default_rng(0).uniform(-2, 2, (200, 4))
    np.savez(tmp_path / "seen.npz", observations=seen, starts=np.arange(200) % 50 == 0)
    run(capsys, "import", model, "--out", out)
    complete(out / "contract.toml")
    code, said, _ = run(capsys, "import", model, "--contract", out / "contract.toml", "--observations", tmp_path / "seen.npz", "--out", out, "--json")
    assert code == 0 and json.loads(said)["layers"] == ["Layer"] * 3
    kept = read_observations(out / "observations.npz", 4)
    assert np.array_equal(kept["observations"], seen) and kept["starts"].sum() == 4
    code, said, err = run(capsys, "export", out, "--target", "host", "--out", tmp_path / "bundle", "--json")
    assert code == 0 and "observations" not in err


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        (np.zeros((5, 3)), r"\(N, 4\), not \(5, 3\)"),
        (np.zeros((0, 4)), r"not \(0, 4\)"),
        (np.full((5, 4), np.nan), "5 rows with NaN"),
        ({"observations": np.zeros((5, 4)), "starts": np.ones(3, bool)}, "5 observations and 'starts' of shape"),
        ({"other": np.zeros((5, 4))}, r"not \(0,\)"),
        (np.zeros((5, 4), complex), "array of plain numbers"),
    ],
)
def test_observations_of_another_form(arrays: Any, match: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    np.savez(tmp_path / "o.npz", **arrays) if isinstance(arrays, dict) else np.save(tmp_path / "o.npy", arrays)
    path = tmp_path / ("o.npz" if isinstance(arrays, dict) else "o.npy")
    run(capsys, "import", model, "--out", out)
    complete(out / "contract.toml")
    code, _, err = run(capsys, "import", model, "--contract", out / "contract.toml", "--observations", path, "--out", out)
    assert code == 2 and re.search(match, err) and not (out / "policy.safetensors").exists()


def test_a_training_is_not_overwritten(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.json").write_text("{}")
    code, _, err = run(capsys, "import", model, "--out", tmp_path)
    assert code == 2 and "holds a training of this package" in err


def test_two_contracts_or_another_environment(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "import", model, "--env", "pendulum", "--contract", tmp_path / "c.toml", "--out", tmp_path / "run")
    assert code == 2 and "not both" in err
    code, _, err = run(capsys, "import", model, "--env", "pendulum", "--out", tmp_path / "run")
    assert code == 2 and "observes 4 numbers, the contract pendulum 3 (cosine, sine, angular_velocity)" in err


@pytest.mark.toolchain("node")
def test_the_example(tmp_path: Path) -> None:
    finished = subprocess.run([sys.executable, EXAMPLE, "300"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "imported SAC" in finished.stdout and "0 mismatches" in finished.stdout
