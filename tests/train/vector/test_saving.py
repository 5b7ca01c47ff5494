"""Environments that live are saved and go on to the bit, or it is said why not."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("gymnasium")

from puffer_edge import envs  # noqa: E402
from puffer_edge.envs import snapshot  # noqa: E402
from puffer_edge.envs.plant import Plant  # noqa: E402
from puffer_edge.errors import Unsupported, WorkerFailed  # noqa: E402
from puffer_edge.train import checkpoint, resume, train  # noqa: E402
from puffer_edge.train.algorithms.ppo import PPO  # noqa: E402
from puffer_edge.train.algorithms.sac import SAC  # noqa: E402
from puffer_edge.train.sac_settings import SACSettings  # noqa: E402
from puffer_edge.train.settings import PPOSettings  # noqa: E402
from puffer_edge.train.vector import saving  # noqa: E402
from puffer_edge.train.vector.processes import Processes  # noqa: E402
from puffer_edge.train.vector.saving import Saving  # noqa: E402
from puffer_edge.train.vector.serial import Serial  # noqa: E402
from tests.train.vector.counters import counting  # noqa: E402
from tests.train.vector.keepers import Keeper, keeping  # noqa: E402


def weights(learner: Any) -> str:
    """SHA-256 of the weights."""
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in learner.net.parameters())).hexdigest()


def small(where: str) -> PPOSettings:
    return PPOSettings(rows=4, horizon=32, minibatch=64, epochs=2, hidden=(8,), vector=where, workers=2, engine="torch")


@pytest.mark.parametrize("where", ["serial", "processes"])
@pytest.mark.parametrize("name", ["gym:CartPole-v1", "gym:Pendulum-v1"])
def test_stopping_and_going_on_gives_the_bits_of_never_stopping(name: str, where: str, tmp_path: Path) -> None:
    whole, half = PPO(name, small(where), seed=3), PPO(name, small(where), seed=3)
    whole.learn(512)
    half.learn(256).save(tmp_path / "half")
    half.close()
    manifest, _ = checkpoint.read(tmp_path / "half")
    assert manifest["exact"] and manifest["because"] == ""
    again = PPO.load(tmp_path / "half").learn(256)
    assert weights(again) == weights(whole) and weights(half) != weights(whole)
    assert list(again.recent_returns) == list(whole.recent_returns)
    whole.close()
    again.close()


def test_serial_goes_on_from_processes(tmp_path: Path) -> None:
    """The states are the same, wherever the environments lived."""
    saved = []
    for where in ("serial", "processes"):
        learner = PPO(keeping(), small(where)).learn(256)
        learner.save(tmp_path / where)
        saved.append(checkpoint.read(tmp_path / where)[1])
        learner.close()
    assert saved[0].keys() == saved[1].keys()
    for name, held in saved[0].items():
        np.testing.assert_array_equal(held, saved[1][name], err_msg=name)


def test_sac_goes_on_too(tmp_path: Path) -> None:
    settings = SACSettings(rows=2, horizon=16, warmup=32, minibatch=16, hidden=(8,), engine="torch", replay=512, vector="serial")
    whole, half = SAC("gym:Pendulum-v1", settings).learn(128), SAC("gym:Pendulum-v1", settings).learn(64)
    half.save(tmp_path / "half")
    assert weights(SAC.load(tmp_path / "half").learn(64)) == weights(whole)


@pytest.mark.parametrize("kind", ["", "telling"])
def test_all_kinds_of_values_are_saved(kind: str) -> None:
    Saving(keeping(kind)).check()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("lock", r"counter cannot be saved: \.gate\['inner'\]\[0\] is of type _thread\.lock, which no plain values make"),
        ("many", r"\.bodies\[\d\], an object of the class tests\.train\.vector\.keepers\.Arm, has not been made by a new environment"),
        ("global", r"\d+ steps after it was put back its \w+ is not that of the environment that went on"),
        ("class", r"\d+ steps after it was put back its reward is not that"),
        ("forgetful", r"put back its state is not that of the environment that went on"),
    ],
)
def test_what_does_not_go_on_alike_is_named(kind: str, message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        Saving(keeping(kind)).check()


@pytest.mark.parametrize("name", ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "FrozenLake-v1"])
def test_gymnasiums_own_are_saved(name: str) -> None:
    Saving(envs.load(f"gym:{name}")).check()


@pytest.mark.parametrize("name", ["Ant-v5", "Walker2d-v5"])
def test_mujocos_are_saved_with_what_the_last_step_computed(name: str) -> None:
    """Ant's reward begins with a position of the step before, which is no part of MuJoCo's own state."""
    pytest.importorskip("mujoco")
    Saving(envs.load(f"gym:{name}")).check()


@pytest.mark.parametrize("name", ["Nested", "Wandering", "Matches"])
def test_those_of_a_module_are_saved(name: str) -> None:
    pytest.importorskip("pettingzoo")
    Saving(envs.load(f"tests.envs.games:{name}")).check()


def test_pettingzoos_own_are_saved() -> None:
    pytest.importorskip("mpe2")
    Saving(envs.load("pettingzoo:mpe2.simple_spread_v3")).check()
    with pytest.raises(Unsupported, match=r"landmarks\[\d\], an object of the class .*Landmark, is also found elsewhere in a new environment"):
        Saving(envs.load("pettingzoo:mpe2.simple_speaker_listener_v4")).check()


@pytest.mark.parametrize("where", [Serial, lambda e, n: Processes(e, n, 2)], ids=["serial", "processes"])
def test_a_state_that_does_not_fit_begins_new_episodes(where: Any) -> None:
    plant = Plant(keeping(), 4, 1, world=where(keeping(), 4))
    for _ in range(3):
        plant.step(np.ones((4, 1)))
    saved = plant.save_state()
    assert not plant.forgets
    data = bytes(saved["world.living"])
    assert b"tests.train.vector.keepers.Arm" in data
    saved["world.living"] = np.frombuffer(data.replace(b"keepers.Arm", b"keepers.Leg"), np.uint8)
    plant.load_state(saved)
    assert "an object of the class tests.train.vector.keepers.Leg, has not been made" in plant.forgets
    assert plant.episode.tolist() == [4, 5, 6, 7] and not plant.elapsed.any()
    del saved["world.ends"]
    plant.load_state(saved)
    assert "are not 4 whole ones" in plant.forgets and plant.episode.tolist() == [4, 5, 6, 7]
    plant.step(np.ones((4, 1)))
    plant.world.close()


@pytest.mark.parametrize(
    "node",
    [
        ["object", "os._Environ", [["x", 1]]],
        ["constant", "posix.system"],
        ["generator", "default_rng", {}],
        ["array", "|O", [1], "C", "AAAAAAAAAAA="],
        ["same", 7],
        ["nothing"],
        [],
        {"a": 1},
    ],
)
def test_bytes_that_are_no_state_make_nothing(node: Any) -> None:
    target = Keeper("")
    whole = ["object", "tests.train.vector.keepers.Keeper", [["kind", node]]]
    with pytest.raises(Unsupported):
        snapshot.put(target, json.dumps(whole).encode())


def test_a_worker_that_dies_while_it_is_saved_is_named() -> None:
    world = Processes(keeping(), 4, 2, timeout_s=5.0)
    world.start(np.arange(4), 0, np.arange(4))
    world._saving.check()
    os.kill(world._processes[1].pid, signal.SIGKILL)
    with pytest.raises(WorkerFailed, match="worker 1 of counter died with exit code -9"):
        world.save_state()


def test_what_cannot_be_saved_goes_on_and_says_why(tmp_path: Path) -> None:
    settings = PPOSettings(steps=256, rows=4, horizon=16, minibatch=64, hidden=(8,), evaluations=1, evaluation_episodes=2, vector="serial")
    train(keeping("lock"), out=tmp_path / "run", settings=settings, progress=lambda p: p.steps < 128)
    (resumed,) = resume(tmp_path / "run", environment=keeping("lock")).result["resumed"]
    assert not resumed["exact"] and resumed["because"][0].startswith("counter cannot be saved: .gate['inner'][0] is of type _thread.lock")


@pytest.mark.parametrize(
    ("fault", "doubt"), [("hang", "did not answer for"), ("die", "its process ended with exit code -9"), ("exit", "raised SystemExit: 3"), ("", "")]
)
def test_what_hangs_or_ends_its_process_while_it_is_tried_does_so_elsewhere(fault: str, doubt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "PROOF_S", 1.0)
    saver = Saving(counting(fault, 5), apart_s=0.5)
    if not doubt:
        saver.check()
        return
    with pytest.raises(Unsupported, match=f"counter cannot be saved: while it was tried, .*{doubt}"):
        saver.check()


def test_an_environment_that_exits_ends_no_training_unsaid() -> None:
    with pytest.raises(Unsupported, match="raised SystemExit: 3"):
        Saving(counting("exit", 5)).check()
    learner = PPO(counting("exit", 5), small("serial"))
    with pytest.raises(WorkerFailed, match=r"counter \(row 0, seed \d+, step 5\) raised SystemExit: 3"):
        learner.learn(512)
    learner.close()
