"""Going on: a run that was stopped or killed ends with the bits of one that never was, and what cannot be gone on from says why."""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from puffer_edge import envs
from puffer_edge.errors import BundleError, InvalidInput, WriteFailed
from puffer_edge.train import PPOSettings, Run, checkpoint, resume, train
from puffer_edge.train.algorithms.ppo import PPO
from puffer_edge.train.recording import FINAL_EPISODES, Recorder
from puffer_edge.train.run import checkpoint_step

SMALL = PPOSettings(steps=512, rows=4, horizon=16, epochs=1, minibatch=64, hidden=(8,), evaluations=4, evaluation_episodes=3)


def assert_same_end(found: Run, expected: Run) -> None:
    """Every array of the last checkpoint, the policy kept, the log and the result are equal, apart from wall time."""
    (about, mine), (_, theirs) = (checkpoint.read(run.checkpoints()[-1]) for run in (found, expected))
    assert mine.keys() == theirs.keys() and about["exact"]
    for key, value in theirs.items():
        np.testing.assert_array_equal(mine[key], value, err_msg=key)
    assert (found.path / "policy.safetensors").read_bytes() == (expected.path / "policy.safetensors").read_bytes()
    timed = ("steps_per_second", "seconds", "time_")
    logs = [[{k: v for k, v in row.items() if not k.startswith(timed)} for row in run.metrics()] for run in (found, expected)]
    assert logs[0] == logs[1]
    results = [run.result | {"seconds": 0, "resumed": 0} for run in (found, expected)]
    assert results[0] == results[1]
    assert found.checkpoints()[-1].name == expected.checkpoints()[-1].name


@pytest.mark.parametrize("name", ["cartpole", "pendulum"])
@pytest.mark.parametrize("stops", [(256,), (64, 192, 320)])
def test_stopping_and_going_on_gives_the_bits_of_never_stopping(name: str, stops: tuple[int, ...], tmp_path: Path) -> None:
    settings = replace(SMALL, scale_reward=name == "pendulum")
    whole = train(name, seed=5, out=tmp_path / "whole", settings=settings)
    run = train(name, seed=5, out=tmp_path / "parts", settings=settings, progress=lambda p: p.steps < stops[0])
    for stop in (*stops[1:], settings.steps + 1):
        assert run.result["status"] == "stopped"
        run = resume(tmp_path / "parts", progress=lambda p, at=stop: p.steps < at)
    assert run.result["resumed"] == [{"steps": stop, "exact": True, "because": []} for stop in stops]
    assert_same_end(run, whole)


def test_what_was_logged_after_the_checkpoint_is_logged_once(tmp_path: Path) -> None:
    def interrupt(progress: Any) -> None:
        if progress.steps == 192:
            raise KeyboardInterrupt

    whole = train("cartpole", out=tmp_path / "whole", settings=SMALL)
    broken = train("cartpole", out=tmp_path / "broken", settings=SMALL, progress=interrupt)
    assert broken.result["status"] == "interrupted" and broken.metrics()[-1]["steps"] == 192
    run = resume(broken.path)
    assert run.result["resumed"][0]["steps"] == 128
    assert_same_end(run, whole)


def test_a_run_that_ended_within_its_last_evaluation_is_evaluated_when_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train("cartpole", out=tmp_path / "whole", settings=SMALL)
    evaluate = Recorder._evaluate

    def interrupted(self: Recorder, policy: Any, episodes: int, seed: int) -> Any:
        if episodes == FINAL_EPISODES:
            raise KeyboardInterrupt
        return evaluate(self, policy, episodes, seed)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "_evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train("cartpole", out=tmp_path / "cut", settings=SMALL)
    assert Run.load(tmp_path / "cut").result["status"] == "killed"
    assert_same_end(resume(tmp_path / "cut"), whole)


KILLED = """
import sys
from puffer_edge.train import PPOSettings, Run, resume, train
from puffer_edge.train.run import is_run
from pathlib import Path
folder, settings = Path(sys.argv[1]), PPOSettings.from_dict(__import__("json").loads(sys.argv[2]))
if is_run(folder):
    resume(folder)
else:
    train("cartpole", seed=2, out=folder, settings=settings)
"""


@pytest.mark.slow
def test_kill_at_any_moment_loses_at_most_one_interval(tmp_path: Path) -> None:
    """Killed six times between 0 and 250 ms after it logs again, then left in peace: the end is that of a run that nobody touched."""
    settings = replace(SMALL, steps=64 * 300, evaluations=10, checkpoint_every=256)
    moments = random.Random(7)
    folder = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, str(folder), json.dumps(settings.to_dict())]
    log, kills = folder / "metrics.jsonl", 0
    for _ in range(6):
        before = log.read_bytes() if log.exists() else b""
        process = subprocess.Popen(command)
        while process.poll() is None and (not log.exists() or log.read_bytes() in (before, b"")):
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.25))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        run = Run.load(folder)
        steps = [row["steps"] for row in run.metrics()]
        assert checkpoint_step(run.checkpoints()[-1]) >= steps[-1] - 256 and run.result["status"] in ("killed", "complete")
        assert run.policy.origin["environment"] == "cartpole"
    assert kills >= 3, "the training was over before it could be killed"
    run = resume(folder)
    assert len(run.result["resumed"]) >= 1
    whole = train("cartpole", seed=2, out=tmp_path / "whole", settings=settings)
    assert_same_end(run, whole)


def test_the_latest_checkpoints_and_the_best_are_kept(tmp_path: Path) -> None:
    settings = replace(SMALL, checkpoint_every=64, checkpoints=2)
    run = train("pendulum", seed=1, out=tmp_path, settings=settings, shield=False)
    found = [checkpoint_step(path) for path in run.checkpoints()]
    assert found == sorted({run.result["kept_step"], 448, 512})
    manifest, _ = checkpoint.read(run.checkpoints()[-1])
    assert {"engine", "instruction_set", "threads", "torch", "numpy"} <= set(manifest["bits_depend_on"])


def test_going_on_further_than_planned_is_said_to_be_another_training(tmp_path: Path) -> None:
    train("cartpole", out=tmp_path, settings=SMALL)
    with pytest.raises(InvalidInput, match=r"has done 512 steps of 512: .* more steps"):
        resume(tmp_path)
    run = resume(tmp_path, steps=640)
    (resumed,) = run.result["resumed"]
    assert run.result["steps"] == 640 and not resumed["exact"] and "steps were 512 and are 640" in resumed["because"][0]
    assert Run.load(tmp_path).settings["settings"]["steps"] == 640


def test_other_versions_go_on_but_say_that_bits_may_differ(tmp_path: Path) -> None:
    run = train("cartpole", out=tmp_path, settings=SMALL, progress=lambda p: p.steps < 128)
    manifest, arrays = checkpoint.read(run.checkpoints()[-1])
    manifest["bits_depend_on"] |= {"torch": "1.0"}
    checkpoint.write(run.checkpoints()[-1], arrays, manifest)
    (resumed,) = resume(tmp_path).result["resumed"]
    assert not resumed["exact"] and resumed["because"][0].startswith("torch was 1.0 and is ")


def damaged(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(change(path.read_bytes())) and None


def manifest_with(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        manifest, arrays = checkpoint.read(path)
        checkpoint.write(path, arrays, manifest | changes)

    return change


def without(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        manifest, arrays = checkpoint.read(path)
        checkpoint.write(path, {key: value for key, value in arrays.items() if key != name}, manifest)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damaged(lambda data: data[:-100]), "damaged"),
        (damaged(lambda data: data[:5]), "header says"),
        (damaged(lambda data: b""), "header says 0 bytes"),
        (damaged(lambda data: b"\xff" * 8 + data[8:]), "header says 18,446,744,073,709,551,615 bytes"),
        (damaged(lambda data: data[:-1] + bytes([data[-1] ^ 1])), "was altered: its SHA-256"),
        (damaged(lambda data: data.replace(b'\\"seed\\": 0', b'\\"seed\\": 1')), "was altered: its SHA-256"),
        (damaged(lambda data: b"PK\3\4" + data), "not a checkpoint of this package"),
        (manifest_with(format=4), "format 4, this version reads format 3: upgrade"),
        (manifest_with(format=1), "format 1, this version reads format 3: go on with the version that wrote it"),
        (manifest_with(algorithm="dqn"), "belongs to the algorithm 'dqn', not 'ppo'"),
        (manifest_with(environment={"name": "pendulum"}), "belongs to the environment 'pendulum', not 'cartpole'"),
        (manifest_with(settings=SMALL.to_dict() | {"hidden": [9]}), "of another shape"),
        (manifest_with(settings=SMALL.to_dict() | {"rows": 8}), "another number of rows"),
        (manifest_with(state={}), "lacks a part"),
        (without("net.actor.0.weight"), "lacks a part"),
        (without("plant.state"), "state is missing"),
        (without("native.state"), "saved state of the native engine is missing"),
    ],
)
def test_a_checkpoint_that_is_not_what_it_should_be_is_refused(change: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    PPO("cartpole", replace(SMALL, engine="native" if "native" in message else "torch")).save(path)
    change(path)
    with pytest.raises((BundleError, InvalidInput), match=message):
        PPO.load(path, envs.load("cartpole"))


def test_another_environment_of_the_same_name_is_refused(tmp_path: Path) -> None:
    pole = envs.load("cartpole")
    PPO("cartpole", SMALL).save(tmp_path / "c.safetensors")
    with pytest.raises(BundleError, match="its max_steps was 500 and is 200"):
        PPO.load(tmp_path / "c.safetensors", replace(pole, max_steps=200))


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    PPO("cartpole", SMALL).save(path)
    data, places = path.read_bytes(), np.random.default_rng(0)
    for place in places.integers(0, len(data), 200):
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << places.integers(8))]) + data[place + 1 :])
        with pytest.raises(BundleError):
            checkpoint.read(path)


def test_a_run_whose_files_are_missing_cannot_be_gone_on_with(tmp_path: Path) -> None:
    run = train("cartpole", out=tmp_path, settings=SMALL, progress=lambda p: p.steps < 128)
    log = run.path / "metrics.jsonl"
    log.write_text(log.read_text()[:-40])
    with pytest.raises(BundleError, match="lines are lost"):
        resume(tmp_path)
    for path in run.checkpoints():
        path.unlink()
    with pytest.raises(BundleError, match="no checkpoint to go on from"):
        resume(tmp_path)


def test_a_disk_that_is_full_from_the_start_is_not_said_to_hold_a_run(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(WriteFailed, match=r"could not be written to .* Nothing of the run is there yet: make room, or give another folder"):
            train("cartpole", out=tmp_path / "full", settings=SMALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 3000])
def test_a_disk_that_fills_up_is_named_and_the_run_before_it_stays(room: int, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the system itself refuses the write, in its middle."""
    whole = train("cartpole", out=tmp_path / "whole", settings=SMALL)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(progress: Any) -> None:
        if progress.steps == 192:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))

    try:
        with pytest.raises(WriteFailed, match=r"could not be written to .* KiB are free there\. The run up to step 128 is whole: make room"):
            train("cartpole", out=tmp_path / "full", settings=SMALL, progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    run = Run.load(tmp_path / "full")
    assert run.result["status"] in ("killed", "failed") and run.result["kept_step"] >= 128
    assert not list((tmp_path / "full").rglob(".*")), "half-written files are left"
    assert_same_end(resume(run.path), whole)
