"""The throughput benchmark: what is compared with what, what is marked as recorded, and peers in processes of their own."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.train import throughput
from puffer_edge.train.throughput import SMALL, WIDE, Engine, rows, with_ratios

KEYS = {"engine", "env", "hidden", "epochs", "threads", "num_envs", "steps_per_s", "peer_ratio", "recorded"}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = replace(SMALL, num_envs=2, horizon=16, minibatch=16, epochs=1, hidden=(4,))
    monkeypatch.setattr(throughput, "OURS", ((setting, "sb3"),))
    monkeypatch.setattr(throughput, "SMALL", setting)
    monkeypatch.setattr(throughput, "SECONDS", 0.01)


def row(engine: str, rate: float, peer: str | None = None, **changes: object) -> dict[str, object]:
    return throughput._row(engine, {**SMALL.__dict__, **changes}, rate, "1", peer)


def test_a_ratio_is_against_the_nearest_row_of_its_peer() -> None:
    found = [
        row("native", 1e6, "sb3"),
        row("native", 6e5, "torch", hidden=[256, 256]),
        row("torch", 2e5, "torch", hidden=[256, 256]),
        row("native", 6.26e6, "pufferlib", epochs=1),
        row("sb3", 5e3, num_envs=1),
        row("sb3", 1e4),
    ]
    whole = with_ratios(found)
    assert [(r["peer_ratio"], r["peer_recorded"]) for r in whole[:4]] == [(100.0, False), (3.0, False), (None, None), (10.0, True)]
    names = [(r["engine"], r["recorded"]) for r in whole[6:]]
    assert ("pufferlib", True) in names and "sb3" not in [name for name, _ in names], "a peer that was measured is not shown as recorded"
    assert all(set(r) >= KEYS for r in whole)


def test_our_engines_are_measured(tiny: None) -> None:
    pytest.importorskip("torch")
    found = list(rows(quick=True))
    assert [r["engine"] for r in found] == [engine.name for engine in throughput.ENGINES if engine.why_not() is None]
    assert all(r["steps_per_s"] > 0 and r["threads"] >= 1 and not r["recorded"] and set(r) >= KEYS for r in found)


def test_where_no_engine_runs_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "ENGINES", (Engine("abacus", lambda: "it has no beads", {}),))
    with pytest.raises(Unsupported, match="abacus: it has no beads"):
        list(rows(quick=True))


@pytest.mark.slow
def test_stable_baselines_is_measured_in_a_process_of_its_own(tiny: None) -> None:
    if importlib.util.find_spec("stable_baselines3") is None:
        pytest.skip("stable-baselines3 is not installed")
    found = [r for r in rows() if r["engine"] == "sb3"]
    assert len(found) == 1 and found[0]["steps_per_s"] > 0 and found[0]["version"]


def test_peers_that_are_missing_broken_or_unknown(tmp_path: Path) -> None:
    assert throughput._run("x", sys.executable, ["-c", "raise SystemExit(3)"], 1, absent=3) is None
    with pytest.raises(Unsupported, match="x ended with exit code 1: ValueError: no"):
        throughput._run("x", sys.executable, ["-c", "raise ValueError('no')"], 1)
    with pytest.raises(Unsupported, match="could not be measured with nowhere/python"):
        throughput._run("x", "nowhere/python", [], 1)
    with pytest.raises(InvalidInput, match="no peer 'sb4'"):
        list(rows(pythons={"sb4": "python"}))
    with pytest.raises(InvalidInput, match="name the folder of a CleanRL checkout"):
        throughput._cleanrl(tmp_path, sys.executable)


def test_cleanrl_says_its_own_speed(tmp_path: Path) -> None:
    (tmp_path / "cleanrl").mkdir()
    script = tmp_path / "cleanrl" / "ppo.py"
    script.write_text("import sys\nprint('SPS: 100', 'SPS: 9', sep='\\n')\nassert sys.argv[1] == '--total-timesteps'\nprint('SPS: 6543')\n")
    assert throughput._cleanrl(tmp_path, sys.executable)["steps_per_s"] == 6543
    script.write_text("print('nothing')")
    with pytest.raises(Unsupported, match="printed no 'SPS"):
        throughput._cleanrl(tmp_path, sys.executable)


def test_what_is_trained_is_what_the_goals_speak_of() -> None:
    assert WIDE.num_envs * WIDE.horizon == 4 * WIDE.minibatch and SMALL.num_envs * SMALL.horizon == 4 * SMALL.minibatch


@pytest.mark.slow
def test_the_command_prints_json() -> None:
    pytest.importorskip("torch")
    command = "from puffer_edge.train import throughput as t; t.OURS = t.OURS[:1]; t.SECONDS = 0.01; from puffer_edge.cli import main; main()"
    ended = subprocess.run([sys.executable, "-c", command, "bench", "train", "--quick", "--json"], capture_output=True, text=True, timeout=100)
    told = json.loads(ended.stdout)
    assert {"processor", "cores", "python", "numpy"} <= set(told["machine"]) and all(set(r) >= KEYS for r in told["rows"])
    wrong = subprocess.run([sys.executable, "-m", "puffer_edge.cli", "bench", "train", "--peer-python", "sb3"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "NAME=INTERPRETER" in wrong.stderr
