"""Settings in layers: preset, file, flags; what a file may say, and that what is written is read."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from puffer_edge import envs
from puffer_edge.errors import InvalidInput
from puffer_edge.train import PPOSettings, Run, preset, settings_for
from puffer_edge.train.settings_file import format_settings, preset_names, read_run, read_settings


def test_each_layer_lies_over_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[ppo]\nhorizon = 32\nhidden = [8, 8]\nclip = 0.1\n")
    found = settings_for("pendulum", file, changes={"clip": 0.3})
    assert found == dataclasses.replace(preset("pendulum"), horizon=32, hidden=(8, 8), clip=0.3)
    assert found.discount == 0.9 != PPOSettings().discount, "the preset is below"
    assert settings_for("elsewhere") == PPOSettings()


def test_every_environment_has_a_preset() -> None:
    assert set(envs.names()) <= set(preset_names()) <= {*envs.names(), *envs.sanity_names()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[ppo]\nlr = 1.0\n", r"mine.toml: ppo has no setting lr: it has engine, threads, vector"),
        ("steps = 5\n", r"has steps, which is no table of settings \(a setting goes under \[ppo\]\)"),
        ("[dqn]\n", r"has dqn, which is no table of settings: there is \[ppo\], \[sac\], \[discrete-sac\], \[trpo\]"),
        ("", r"has no table \[ppo\]"),
        ("[ppo\n", "is not TOML"),
        ("[ppo]\nsteps = 'none'\n", "steps must be a whole number"),
        ("[ppo]\nsteps = 2.0\n", "steps must be a whole number"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=message):
        settings_for("cartpole", file)


def test_none_is_written_as_a_word(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[ppo]\ntarget_kl = 0.02\n")
    assert settings_for("cartpole", file).target_kl == 0.02
    file.write_text('[ppo]\ntarget_kl = "none"\n')
    assert settings_for("cartpole", file).target_kl is None


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Awkward names, numbers and nested stages; and every setting that there is."""
    settings = PPOSettings(hidden=(3,), target_kl=1e-05, learning_rate=1e-300).to_dict()
    about: dict[str, Any] = {
        "format": 2,
        "environment": 'my"own\\module:näme\n',
        "algorithm": "ppo",
        "seed": 2**40,
        "versions": {"a b": "1.0\x7f"},
        "shield": [{"stage": "x", "law": {"force": {"an.gle": -1.5}}, "bounds": {"a": (0.1, 2)}, "on": True}, {"stage": "limit"}],
        "plant": {"delay_us": 1.5, "jitter_us": {"kind": "measured", "measured_us": [1, 2.5]}, "sensors": {"an.gle": {"noise": 0.1}}},
    }
    file = tmp_path / "settings.toml"
    file.write_text(format_settings(about, "ppo", settings), encoding="utf-8")
    found = read_run(file, 2)
    assert found == {**json.loads(json.dumps(about)), "settings": settings}
    assert read_settings(file) == settings, "a run's file serves as a user's"
    file.write_text(format_settings({"seed": math.inf}, "ppo", {}))
    assert "seed = inf" in file.read_text()


def cli(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "puffer_edge.cli", *map(str, words)], capture_output=True, text=True, timeout=120)


def test_the_command_line_shows_and_takes_every_setting() -> None:
    text = " ".join(cli("train", "pendulum", "--help").stdout.replace("│", " ").split())
    for field in dataclasses.fields(PPOSettings):
        assert f"--{field.name.replace('_', '-')}" in text
    assert "γ. (default: 0.9)" in text, "the preset's value is the default"


@pytest.mark.slow
def test_the_command_line_trains_goes_on_and_refuses(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    file, run = tmp_path / "mine.toml", tmp_path / "run"
    file.write_text("[ppo]\nsteps = 512\nrows = 4\nhorizon = 16\nhidden = [8]\nevaluations = 2\nevaluation_episodes = 2\n")
    done = json.loads(cli("train", "pendulum", "--settings", file, "--hidden", 4, 4, "--target-kl", 0.5, "--out", run, "--json").stdout)
    assert done["status"] == "complete" and done["steps"] == 512
    kept = Run.load(run).settings["settings"]
    assert (kept["hidden"], kept["target_kl"], kept["rows"], kept["discount"]) == ([4, 4], 0.5, 4, 0.9)
    for words, message in (
        ([], "has done 512 steps of 512"),
        (["--steps", 640, "--clip", 0.3, "--seed", 1], "leave out --seed, --clip (--steps may change)"),
        (["cartpole", "--steps", 640], "is a run of pendulum, not of cartpole"),
    ):
        failed = cli("train", "--resume", run, *words)
        assert failed.returncode == 2 and message in " ".join(failed.stderr.split()), failed.stderr
    further = cli("train", "--resume", run, "--steps", 640, "--json")
    assert json.loads(further.stdout)["steps"] == 640 and "steps were 512 and are 640" in further.stderr
    assert "--lr" in cli("train", "cartpole", "--lr", 1).stderr
