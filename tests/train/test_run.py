"""The folder that a training writes: what is in it, whatever way the training ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puffer_edge.errors import BundleError, Diverged, InvalidInput
from puffer_edge.train import PPOSettings, Run, algorithm_names, resume, train

SMALL = PPOSettings(steps=512, rows=4, horizon=16, epochs=1, minibatch=64, hidden=(8,), evaluations=4, evaluation_episodes=3)


def test_training_needs_torch_only_when_it_trains() -> None:
    script = """
import sys
sys.modules["torch"] = None
from puffer_edge.errors import MissingExtra
from puffer_edge.train import Run, preset, train
try:
    train("cartpole")
except MissingExtra as error:
    print(error)
"""
    text = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "pip install 'puffer-edge[train]'" in text


def test_unknown_names_are_answered() -> None:
    assert algorithm_names() == ("cpo", "discrete-sac", "pid-lagrangian", "ppo", "ppo-lagrangian", "sac", "trpo", "trpo-lagrangian")
    with pytest.raises(InvalidInput, match=r"no algorithm 'poo'.*did you mean ppo"):
        train("cartpole", "poo")
    with pytest.raises(InvalidInput, match="no run"):
        Run.load("nowhere")


def test_a_run_can_be_read_back(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    run = train("cartpole", seed=3, out=tmp_path, settings=SMALL)
    assert {p.name for p in tmp_path.iterdir()} == {"settings.toml", "result.json", "metrics.jsonl", "policy.safetensors", "checkpoints", "curve.svg"}
    again = Run.load(tmp_path)
    assert again.settings == run.settings and again.result == run.result
    assert PPOSettings.from_dict(again.settings["settings"]) == SMALL
    for mine, theirs in zip(run.policy.layers, again.policy.layers):
        np.testing.assert_array_equal(mine.weight, theirs.weight)
    assert again.policy.origin["environment"] == "cartpole" and again.policy.origin["seed"] == 3
    rows = again.metrics()
    evaluations = [row for row in rows if "eval_rew_mean" in row]
    assert len(rows) == 8 + 4 and [row["steps"] for row in evaluations] == [128, 256, 384, 512]
    assert rows[0]["ep_rew_mean"] is None or rows[0]["ep_rew_mean"] > 0
    best = max(row["eval_rew_mean"] for row in evaluations)
    assert run.result["kept_step"] == [row["steps"] for row in evaluations if row["eval_rew_mean"] == best][-1]
    assert run.result["status"] == "complete" and run.result["evaluation"]["episodes"] == 100
    summary = run.summary()
    assert summary["environment"] == "cartpole" and summary["return"] == run.result["evaluation"]["return"] and not summary["interrupted"]


def test_a_budget_that_is_not_a_whole_number_of_updates_still_ends_with_an_evaluation(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    rows = train("pendulum", steps=100, out=tmp_path, settings=SMALL).metrics()
    assert rows[-1]["steps"] == 128 and "eval_rew_mean" in rows[-1]


def _interrupting(progress: Any) -> bool:
    if progress.steps >= 192:
        raise KeyboardInterrupt
    return True


@pytest.mark.parametrize(("callback", "status"), [(_interrupting, "interrupted"), (lambda p: p.steps < 192, "stopped")])
def test_a_training_that_is_stopped_keeps_what_there_is(callback: Any, status: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    run = train("cartpole", out=tmp_path, settings=SMALL, progress=callback)
    assert run.result["status"] == status and run.result["steps"] == 192 and run.result["kept_step"] == 128
    assert run.summary()["interrupted"] and Run.load(tmp_path).result == run.result


def test_a_training_stopped_before_its_first_evaluation_keeps_the_last_policy(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    run = train("cartpole", out=tmp_path, settings=SMALL, progress=lambda p: False)
    assert run.result["kept_step"] == 64


def test_a_training_that_fails_keeps_the_last_good_policy(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from puffer_edge.train.algorithms import ppo

    def break_it(progress: Any) -> None:
        if progress.steps == 192:
            with torch.no_grad():
                next(iter(broken[0].net.parameters()))[0, 0] = torch.inf

    broken: list[Any] = []
    original = ppo.PPO.__init__

    def remember(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        broken.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ppo.PPO, "__init__", remember)
        with pytest.raises(Diverged):
            train("cartpole", out=tmp_path, settings=SMALL, progress=break_it)
    run = Run.load(tmp_path)
    assert run.result["status"] == "failed" and run.result["kept_step"] == 128 and "evaluation" not in run.result
    assert run.summary()["status"] == "failed"


def test_a_damaged_run_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    train("cartpole", out=tmp_path, settings=SMALL, progress=lambda p: False)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"steps": 1')
    assert len(Run.load(tmp_path).metrics()) == 1
    settings = (tmp_path / "settings.toml").read_text()
    for old, new, message in (
        ("format = 2", "format = 99", "format 99"),
        ("format = 2", 'format = "2"', "format 2, this version reads"),
        (settings[-20:], "", "damaged"),
        ('algorithm = "ppo"', 'algorithm = "dqn"', "does not say by which algorithm"),
        ("[ppo]\n", "[ppo]\nlr = 1.0\n", "no setting lr"),
    ):
        (tmp_path / "settings.toml").write_text(settings.replace(old, new))
        with pytest.raises(BundleError, match=message):
            Run.load(tmp_path)
    (tmp_path / "settings.toml").write_text(settings)
    (tmp_path / "result.json").write_text("[]")
    with pytest.raises(BundleError, match="no table"):
        Run.load(tmp_path)


def test_a_run_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    run = train("cartpole", out=tmp_path, settings=SMALL, progress=lambda p: False)
    (tmp_path / "settings.toml").unlink()
    (tmp_path / "settings.json").write_text(json.dumps(run.settings | {"format": 1}))
    assert Run.load(tmp_path).settings == run.settings | {"format": 1}


def test_several_callbacks_are_all_called_and_any_may_stop(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    seen: list[str] = []
    callbacks = [lambda p: seen.append("first"), lambda p: seen.append("second") or p.steps < 128, lambda p: seen.append("third")]
    run = train("cartpole", out=tmp_path, settings=SMALL, progress=callbacks)
    assert seen == ["first", "second", "third"] * 2 and run.result["status"] == "stopped"


def test_a_run_can_be_read_while_it_is_written_and_nobody_else_may_write(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    seen: list[dict[str, Any]] = []

    def look(progress: Any) -> bool:
        seen.append(Run.load(tmp_path).result)
        for other in (lambda: train("cartpole", out=tmp_path, settings=SMALL), lambda: resume(tmp_path)):
            with pytest.raises(InvalidInput, match="is writing to"):
                other()
        return progress.steps < 192

    train("cartpole", out=tmp_path, settings=SMALL, progress=look)
    assert [row["status"] for row in seen] == ["running"] * 3 and [row["kept_step"] for row in seen] == [0, 0, 128]


def test_an_earlier_run_is_kept(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    small = PPOSettings(steps=128, rows=4, horizon=16, minibatch=32, epochs=1, hidden=(4,), evaluations=1, evaluation_episodes=2)
    first = train("cartpole", seed=1, out=tmp_path / "run", settings=small)
    train("cartpole", seed=2, out=tmp_path / "run", settings=small)
    train("cartpole", seed=3, out=tmp_path / "run", settings=small)
    assert [Run.load(tmp_path / name).settings["seed"] for name in ("run.1", "run.2", "run")] == [1, 2, 3]
    assert Run.load(tmp_path / "run.1").result == first.result
