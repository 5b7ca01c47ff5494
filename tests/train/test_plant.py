"""Trainings on a plant as it is, behind shields with a price or a mask: saved, gone on with exactly, and told apart in the log."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from puffer_edge import envs
from puffer_edge.commands.sources import policy_of
from puffer_edge.contract import Contract
from puffer_edge.device.bundle import Bundle
from puffer_edge.envs.imperfect import imperfect
from puffer_edge.envs.imperfections import Actuator, Imperfections, Jitter, Sensor
from puffer_edge.errors import BundleError, InvalidInput, Unsupported
from puffer_edge.train import PPOSettings, Run, SACSettings, algorithm_names, checkpoint, resume, settings_for, train
from puffer_edge.train.algorithms.discrete_sac import DiscreteSAC
from puffer_edge.train.algorithms.ppo import PPO
from puffer_edge.train.algorithms.sac import SAC
from puffer_edge.train.groups import Logged, groups
from puffer_edge.train.seeds import train_seeds

SMALL = PPOSettings(steps=512, rows=4, horizon=16, epochs=1, minibatch=64, hidden=(8,), evaluations=4, evaluation_episodes=3)
OFF = SACSettings(steps=256, rows=4, horizon=16, hidden=(8,), minibatch=16, warmup=64, evaluations=2, evaluation_episodes=2)
PLANT = Imperfections(
    delay_us=30_000,
    jitter_us=Jitter("uniform", low_us=0, high_us=25_000),
    pending=2,
    dropout=0.1,
    sensors={"angular_velocity": Sensor(noise=0.1, bias=0.1, resolution=0.05, stuck=0.02, stuck_steps=3)},
    actuators={"torque": Actuator(dead_zone=0.1, low=-1.9)},
    parameters={"mass": (0.8, 1.2)},
)
SLEW = ({"stage": "slew", "per_second": {"torque": 2.0}}, {"stage": "limit"})


def arrays(run: Run) -> dict[str, Any]:
    return checkpoint.read(run.checkpoints()[-1])[1]


@pytest.mark.parametrize(("algorithm", "engine"), [("ppo", "native"), ("ppo", "torch"), ("sac", "native"), ("sac", "torch")])
def test_a_training_on_a_plant_goes_on_to_the_bits_of_never_stopping(algorithm: str, engine: str, tmp_path: Path) -> None:
    settings = replace(SMALL if algorithm == "ppo" else OFF, engine=engine, shield_penalty=0.1, shield_change_penalty=0.5)
    about: dict[str, Any] = {"algorithm": algorithm, "seed": 5, "settings": settings, "plant": PLANT, "shield": SLEW}
    whole = train("pendulum", out=tmp_path / "whole", **about)
    half = train("pendulum", out=tmp_path / "parts", progress=lambda p: p.steps < settings.steps // 2, **about)
    assert half.result["status"] == "stopped"
    found, wanted = arrays(resume(half.path)), arrays(whole)
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)
    again = Run.load(tmp_path / "parts")
    assert again.result["resumed"][0]["exact"]
    assert Imperfections.from_dict(again.settings["plant"]) == PLANT == Imperfections.from_dict(again.policy.origin["plant"])
    assert [c.name for c in again.policy.contract.observations[-2:]] == ["torque_1", "torque_2"]
    assert again.policy.contract.expected_delay_us == 42_500
    with pytest.raises(BundleError, match="another"):
        other = imperfect(envs.load("pendulum"), replace(PLANT, pending=1))
        checkpoint.load(PPO if algorithm == "ppo" else SAC, whole.checkpoints()[-1], other)


@pytest.mark.parametrize("algorithm", [name for name in algorithm_names() if name not in ("ppo", "sac", "discrete-sac")])
def test_every_other_algorithm_takes_a_plant_and_a_price(algorithm: str, tmp_path: Path) -> None:
    changes = {"steps": 128, "rows": 4, "horizon": 16, "hidden": (8,), "engine": "torch", "evaluations": 1, "evaluation_episodes": 2}
    changes |= {} if algorithm == "trpo" else {"cost_limit": 1.0}
    settings = settings_for("pendulum", algorithm=algorithm, changes=changes | {"shield_penalty": 0.1})
    run = train("pendulum", algorithm, out=tmp_path, settings=settings, plant=PLANT, shield=SLEW)
    assert run.result["status"] == "complete" and run.policy.contract.observations[-1].name == "torque_2"


def test_what_chooses_among_all_there_is_refuses_a_mask() -> None:
    with pytest.raises(Unsupported, match="shield_mask is of ppo"):
        DiscreteSAC("cartpole", settings_for("cartpole", algorithm="discrete-sac", changes={"shield_mask": True}))


def test_the_log_tells_the_shields_merit_from_the_policys(tmp_path: Path) -> None:
    narrow = ({"stage": "limit", "low": {"torque": -0.001}, "high": {"torque": 0.001}},)
    run = train("pendulum", seed=1, out=tmp_path / "a", settings=SMALL, shield=narrow)
    rows = [row for row in run.metrics() if "eval_rew_mean" in row]
    assert len(rows) == 4 and all(row["eval_intervention_rate"] > 0 for row in rows)
    assert any(row["eval_rew_mean"] != row["eval_unshielded_rew_mean"] for row in rows)
    assert all(row["eval_unshielded_cost_mean"] is not None for row in rows)
    behind, alone = run.result["evaluation"], run.result["evaluation_unshielded"]
    assert behind["intervention_rate"] > 0 == alone["intervention_rate"] and {"return", "cost"} <= behind.keys() & alone.keys()
    idle = train("pendulum", seed=1, out=tmp_path / "b", settings=SMALL, shield=({"stage": "limit"},))
    assert idle.result["evaluation"]["return"] == idle.result["evaluation_unshielded"]["return"]


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_a_mask_keeps_a_policy_from_what_the_shield_would_change(engine: str) -> None:
    guard = ({"stage": "slew", "per_second": {"force": 600.0}}, {"stage": "limit"})  # 12 N a tick: from 0 either way, from 10 N no further than −2
    found = {}
    for masked in (False, True):
        ppo = PPO("cartpole", replace(SMALL, engine=engine, shield_mask=masked), shield=guard)
        rates: list[float] = []
        ppo.learn(512, lambda p: rates.append(p.metrics["intervention_rate"]))
        found[masked] = max(rates)
    assert found[False] > 0.3 and found[True] == 0.0
    with pytest.raises(InvalidInput, match="gives numbers: take shield_penalty"):
        PPO("pendulum", replace(SMALL, shield_mask=True))


def test_a_price_is_of_the_training_and_not_of_an_evaluation(tmp_path: Path) -> None:
    free, dear = (
        train("pendulum", seed=1, out=tmp_path / str(price), settings=replace(SMALL, learning_rate=0.0, shield_penalty=price), shield=SLEW)
        for price in (0.0, 2.0)
    )
    assert free.result["evaluation"]["return"] == dear.result["evaluation"]["return"]
    a, b = (next(row for row in run.metrics() if row.get("ep_rew_mean") is None or row["ep_rew_mean"] < 0) for run in (free, dear))
    assert a["intervention_rate"] == b["intervention_rate"] > 0


def test_seeds_share_a_plant_and_a_plot_tells_plants_apart(tmp_path: Path) -> None:
    late = Imperfections(delay_us=20_000)
    found = train_seeds("cartpole", 2, out=tmp_path / "late", settings=SMALL, processes=1, plant=late)
    assert all(run.settings["plant"] == {"delay_us": 20_000} for run in found.runs.values())
    ideal = train("cartpole", out=tmp_path / "ideal", settings=SMALL)
    made = groups([Logged.load(run.path) for run in (*found.runs.values(), ideal)])
    assert sorted(group.label for group in made) == ["ppo plant=delay_us:20000", "ppo plant=ideal"]


OWN = '''
import gymnasium
import numpy as np


class Cart(gymnasium.Env):
    """A mass on a rail, which a slow Python loop moves; pushing costs."""

    metadata = {"render_fps": 50}
    observation_space = gymnasium.spaces.Box(-4.0, 4.0, (2,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def __init__(self):
        self.mass, self.max_episode_steps = 1.0, 20

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.v = self.np_random.uniform(-1, 1), 0.0
        return np.array([self.x, self.v], np.float32), {}

    def step(self, action):
        self.v = min(2.0, max(-2.0, self.v + 0.1 * float(action[0]) / self.mass))
        self.x = min(4.0, max(-4.0, self.x + 0.1 * self.v))
        return np.array([self.x, self.v], np.float32), -abs(self.x), False, False, {"cost": abs(float(action[0]))}
'''
LATE = replace(PLANT, sensors={"o0": PLANT.sensors["angular_velocity"]}, actuators={}, parameters={})
WAYS: dict[str, Any] = {"rows": 4, "horizon": 16, "hidden": (8,), "evaluations": 2, "evaluation_episodes": 2}


@pytest.fixture
def cart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a class of one's own, in the working folder."""
    pytest.importorskip("gymnasium")
    name = f"cart_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return f"{name}:Cart"


@pytest.mark.parametrize(
    ("name", "algorithm", "about"),
    [
        ("gym:CartPole-v1", "ppo", {}),
        ("gym:CartPole-v1", "trpo", {"hold_steps": 2}),
        ("gym:Pendulum-v1", "sac", {"parameters": {"g": (9.0, 11.0)}, "actuators": {"a0": Actuator(dead_zone=0.1)}}),
        ("gym:Reacher-v5", "ppo", {}),
        ("own", "ppo-lagrangian", {"parameters": {"mass": (0.5, 2.0)}, "hold_steps": 2}),
    ],
)
def test_a_training_around_what_lives_goes_on_to_the_bits_of_never_stopping(
    name: str, algorithm: str, about: dict[str, Any], cart: str, tmp_path: Path
) -> None:
    if "Reacher" in name:
        pytest.importorskip("mujoco")
    name, plant = cart if name == "own" else name, replace(LATE, **about)
    changes = WAYS | {"steps": 256} | ({"minibatch": 16, "warmup": 64} if algorithm == "sac" else {})
    changes |= {"cost_limit": 1.0} if algorithm == "ppo-lagrangian" else {}
    settings = settings_for(name, algorithm=algorithm, changes=changes)
    words: dict[str, Any] = {"algorithm": algorithm, "seed": 5, "settings": settings, "plant": plant}
    task = replace(envs.load(name), max_steps=20)
    whole = train(task, out=tmp_path / "whole", **words)
    half = train(task, out=tmp_path / "parts", progress=lambda p: p.steps < 128, **words)
    assert half.result["status"] == "stopped"
    again = resume(half.path, environment=task)
    assert again.result["resumed"][0]["exact"], again.result["resumed"]
    found, wanted = arrays(again), arrays(whole)
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)
    c, bare = again.policy.contract, task.contract
    assert [o.name for o in c.observations[-2:]] == ["a0_1", "a0_2"] or len(bare.actions) > 1
    assert c.n_observations == bare.n_observations + 2 * bare.n_actions and c.rate_hz == bare.rate_hz / plant.hold_steps
    assert Imperfections.from_dict(again.settings["plant"]) == plant == Imperfections.from_dict(again.policy.origin["plant"])
    assert policy_of(whole.path)[1].imperfections == plant


def test_processes_meet_the_bits_of_one_process_around_what_lives(cart: str, tmp_path: Path) -> None:
    found = {}
    for vector, workers in (("serial", 1), ("processes", 2)):
        settings = settings_for(cart, changes=WAYS | {"steps": 256, "vector": vector, "workers": workers})
        run = train(cart, seed=3, out=tmp_path / vector, settings=settings, plant=replace(LATE, parameters={"mass": (0.5, 2.0)}))
        found[vector] = checkpoint.read(run.checkpoints()[-1])[1]
    weights = [key for key in found["serial"] if key in found["processes"]]
    assert len(weights) == len(found["serial"]) == len(found["processes"])
    for key in weights:
        np.testing.assert_array_equal(found["serial"][key], found["processes"][key], err_msg=key)


def test_who_waits_for_nobody_trains_around_what_lives(cart: str, tmp_path: Path) -> None:
    settings = settings_for(cart, changes=WAYS | {"steps": 256, "vector": "asynchronous", "workers": 2})
    assert train(cart, out=tmp_path / "run", settings=settings, plant=LATE).result["status"] == "complete"


def test_a_limit_still_needs_costs_around_what_lives(tmp_path: Path) -> None:
    pytest.importorskip("gymnasium")
    settings = settings_for("gym:Pendulum-v1", algorithm="ppo-lagrangian", changes=WAYS | {"cost_limit": 1.0})
    with pytest.raises(InvalidInput, match="has no costs"):
        train("gym:Pendulum-v1", "ppo-lagrangian", out=tmp_path, settings=settings, plant=LATE)


def cli(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "puffer_edge.cli", *map(str, words)], capture_output=True, text=True, check=False, timeout=120)


def test_the_command_line_trains_evaluates_exports_and_checks_with_a_plant(tmp_path: Path) -> None:
    file, out = tmp_path / "plant.toml", tmp_path / "run"
    file.write_text('delay_us = 20_000\npending = 1\n[sensors."angle"]\nnoise = 0.01\n')
    small = ("--steps", 512, "--rows", 4, "--horizon", 16, "--epochs", 1, "--evaluation-episodes", 2, "--evaluations", 1)
    trained = json.loads(cli("train", "cartpole", "--plant", file, "--out", out, *small, "--json").stdout)
    assert trained["status"] == "complete"
    assert Run.load(out).settings["plant"] == {"delay_us": 20_000, "pending": 1, "sensors": {"angle": {"noise": 0.01}}}
    with_it, without = (json.loads(cli("eval", out, "--episodes", 5, "--json", *words).stdout) for words in ((), ("--ideal",)))
    assert with_it["plant"]["delay_us"] == 20_000 and without["plant"] == {"pending": 1}
    assert with_it["float"]["return"] != without["float"]["return"]
    file.write_text("delay_us = 60_000\npending = 1\n")
    worse = json.loads(cli("eval", out, "--episodes", 5, "--json", "--plant", file).stdout)
    assert worse["plant"]["delay_us"] == 60_000
    assert "exclude each other" in cli("eval", out, "--ideal", "--plant", file).stderr
    assert "leave out --plant" in " ".join(cli("train", "--resume", out, "--plant", file).stderr.split())
    cli("export", out, "--target", "host", "--out", tmp_path / "bundle", "--json")
    contract: Contract = Bundle.load(tmp_path / "bundle").image.contract
    assert contract.observations[-1].name == "force_1" and contract.expected_delay_us == 20_000
    checked = json.loads(cli("check", tmp_path / "bundle", "--board", "loopback", "--episodes", 2, "--json").stdout)
    assert checked["mismatches"] == 0
