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


def test_an_environment_that_lives_has_none() -> None:
    pytest.importorskip("gymnasium")
    with pytest.raises(Unsupported, match="not written as scalar functions"):
        imperfect(envs.load("gym:CartPole-v1"), Imperfections(delay_us=1))


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
