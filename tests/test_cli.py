"""The command line as a user meets it: real processes, exit codes, messages with the way out, JSON that parses."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puffer_edge.device.board import open_board
from puffer_edge.device.bundle import Bundle
from puffer_edge.policy import Policy
from tests import samples


def cli(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "puffer_edge.cli", *map(str, words)], capture_output=True, text=True, check=False, timeout=120)


def error_of(*words: object) -> tuple[int, str]:
    """Exit code and what was said on stderr, without rich's line breaks and frames."""
    finished = cli(*words)
    assert "Traceback" not in finished.stderr
    return finished.returncode, " ".join(finished.stderr.replace("│", " ").split())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return samples.bundle(tmp_path_factory.mktemp("cli") / "bundle")


@pytest.fixture(scope="module")
def policy(bundle: Bundle) -> Path:
    return bundle.path / "policy.safetensors"


def test_help_teaches_every_command() -> None:
    text = cli("--help").stdout
    for name in (
        "train",
        "watch",
        "plot",
        "eval",
        "distil",
        "export",
        "install",
        "check",
        "start",
        "stop",
        "status",
        "simulate",
        "targets",
        "envs",
        "doctor",
    ):
        assert f" {name} " in text
        assert "show this help" in cli(name, "--help").stdout


def test_lists_as_json() -> None:
    assert {t["name"] for t in json.loads(cli("targets", "--json").stdout)} >= {"rp2040", "esp32", "host"}
    assert {e["name"] for e in json.loads(cli("envs", "--json").stdout)} >= {"cartpole", "pendulum"}
    checks: list[dict[str, Any]] = json.loads(cli("doctor", "--json").stdout)
    assert {"name", "ok", "found", "fix"} <= set(checks[0]) and all(c["fix"] for c in checks if not c["ok"])


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["train", "cartpoel"], 2, "did you mean cartpole"),
        (["train", "cartpole", "--steps", "0"], 2, "steps"),
        (["train", "cartpole", "--algo", "ppo-lagrangian"], 2, "needs a limit: cost_limit is what an episode of cartpole may cost (--cost-limit)"),
        (["train", "cartpole", "--algo", "pid-lagrangian", "--cost-limit", "-1"], 2, "cost_limit must be a finite number of at least 0"),
        (["eval", "no/such/run"], 2, "no policy at"),
        (["export", "no/such/run", "--target", "rp2040", "--out", "x"], 2, "no policy at"),
        (["install", "no/such/bundle", "--board", "sim"], 2, "puffer-edge export"),
        (["check", "no/such/bundle", "--board", "sim"], 2, "puffer-edge export"),
        (["frobnicate"], 2, "Available subcommands"),
    ],
)
def test_wrong_input_says_the_way_out(words: list[str], code: int, message: str, tmp_path: Path) -> None:
    found, text = error_of(*words)
    assert (found, message in text) == (code, True), text


def test_an_unknown_target_lists_the_known_ones(policy: Path, tmp_path: Path) -> None:
    code, text = error_of("export", policy, "--target", "rp2041", "--out", tmp_path / "x")
    assert code == 2 and "rp2040" in text
    assert not (tmp_path / "x").exists()


def test_a_flag_of_another_algorithm_names_those_that_have_it() -> None:
    code, text = error_of("train", "cartpole", "--cost-limit", "3")
    assert code == 2
    assert "--cost-limit is no setting of ppo; --algo ppo-lagrangian, pid-lagrangian, trpo-lagrangian, cpo have it" in text
    code, text = error_of("train", "pendulum", "--algo=sac", "--no-scale-multiplier")
    assert code == 2
    assert "--no-scale-multiplier is no setting of sac" in text


def test_a_missing_port_says_how_to_find_one(bundle: Bundle) -> None:
    code, text = error_of("install", bundle.path, "--board", "/dev/ttyNONE7")
    assert code == 9 and "/dev/ttyNONE7" in text
    code, text = error_of("check", bundle.path, "--board", "socket://127.0.0.1:1")
    assert code == 9 and "127.0.0.1:1" in text


@pytest.mark.parametrize(
    ("text", "message"), [("x = [", "is no TOML"), ("a = " + "[" * 100_000, "is no TOML"), ("a = 1", "[[stage]]"), ("stage = [1]", "is a mapping")]
)
def test_a_wrong_shield_file_is_named(policy: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "shield.toml").write_text(text)
    code, said = error_of("export", policy, "--target", "host", "--out", tmp_path / "out", "--shield-file", tmp_path / "shield.toml")
    assert (code, message in said, (tmp_path / "out").exists()) == (2, True, False), said


def test_errors_are_json_too(policy: Path) -> None:
    finished = cli("export", policy, "--target", "nothing", "--out", "x", "--json")
    assert json.loads(finished.stdout)["error"] == "InvalidInput" and finished.returncode == 2


def test_a_policy_too_large_says_needs_has_and_what_to_try(tmp_path: Path) -> None:
    env = samples.load("pendulum")
    samples.policy(env.contract, (400, 400)).save(tmp_path / "policy.safetensors")
    code, text = error_of("export", tmp_path / "policy.safetensors", "--target", "esp32", "--out", tmp_path / "b")
    assert code == 4 and "needs" in text and "has" in text and "--hidden" in text
    assert not (tmp_path / "b").exists()


def test_nan_in_the_weights_is_refused(policy: Path, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(policy, "numpy") as file:
        about, tensors = file.metadata(), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    tensors["layers.0.weight"][0, 0] = np.nan
    save_file(tensors, tmp_path / "policy.safetensors", metadata=about)
    code, text = error_of("export", tmp_path / "policy.safetensors", "--target", "host", "--out", tmp_path / "b")
    assert code == 2 and "NaN" in text


def test_export_writes_a_bundle_and_eval_compares(policy: Path, tmp_path: Path) -> None:
    manifest = json.loads(cli("export", policy, "--target", "host", "--out", tmp_path / "b", "--json").stdout)
    assert Bundle.load(tmp_path / "b").image.digest.hex() == manifest["digests"]["image"]
    result = json.loads(cli("eval", policy, "--integer", "--episodes", 5, "--json").stdout)
    assert result["episodes"] == 5
    for kind in ("float", "integer"):
        low, high = result[kind]["interval"]
        assert low <= result[kind]["return"] <= high
    assert abs(result["float"]["return"] - result["integer"]["return"]) < 0.05 * abs(result["float"]["return"])
    assert json.loads(cli("eval", policy, "--no-shield", "--episodes", 2, "--json").stdout)["shield"] == []


def test_eval_films_its_first_episode(policy: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for suffix, frames in (("gif", 200), ("png", 1)):
        path = tmp_path / f"out.{suffix}"
        assert json.loads(cli("eval", policy, "--episodes", 1, "--video", path, "--json").stdout)["video"] == str(path)
        with image.open(path) as film:
            assert getattr(film, "n_frames", 1) == frames
    for path, message in ((tmp_path / "out.mp4", "a .gif or a .png"), (tmp_path / "no" / "out.gif", "there is no folder")):
        code, said = error_of("eval", policy, "--episodes", 1, "--video", path)
        assert code == 2 and message in said and not path.exists()


def test_a_policy_without_an_environment_is_verified_and_not_checked(tmp_path: Path) -> None:
    homeless = dataclasses.replace(samples.network("mlp"), origin={})
    homeless.save(tmp_path / "p")
    finished = cli("export", tmp_path / "p", "--target", "host", "--out", tmp_path / "out")
    assert finished.returncode == 0 and f"next: puffer-edge verify {tmp_path / 'out'}" in finished.stdout
    page = (tmp_path / "out" / "report.html").read_text()
    assert "puffer-edge install" in page and "puffer-edge check" not in page
    code, said = error_of("check", tmp_path / "out", "--board", "sim")
    assert code == 2 and "names no environment" in said and "'install' replays its vectors" in said


def test_a_rate_that_no_tick_holds_is_refused_with_what_would_fit(policy: Path, tmp_path: Path) -> None:
    code, text = error_of("export", policy, "--target", "rp2040", "--out", tmp_path / "b", "--rate", 20_000)
    assert code == 4 and "emulated" in text and "fits up to" in text
    assert not (tmp_path / "b").exists()
    for words in ("--rate 0 --target rp2040", "--rate nan --target rp2040", "--all-targets --target rp2040", ""):
        code, text = error_of("export", policy, "--out", tmp_path / "b", *words.split())
        assert code == 2 and ("--rate lies above 0" if "--rate" in words else "one of the two") in text


def test_all_targets_get_their_bundle_or_a_reason(policy: Path, tmp_path: Path) -> None:
    found = json.loads(cli("export", policy, "--all-targets", "--out", tmp_path, "--rate", 2000, "--json").stdout)
    rows = {row["target"]: row for row in found["targets"]}
    assert rows["rp2040"]["fits"] and rows["rp2040"]["label"] == "emulated"
    assert not rows["esp32"]["fits"] and "2000 Hz" in rows["esp32"]["refused"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(name for name, row in rows.items() if row["fits"])
    words = cli("export", policy, "--all-targets", "--out", tmp_path).stdout
    assert "modelled" in words and "not predicted" in words and "refused" not in words


def test_a_policy_survives_its_file(policy: Path) -> None:
    assert Policy.load(policy).contract.name == "pendulum"


@contextmanager
def simulated(*words: object) -> Iterator[str]:
    """A board that stays, as 'puffer-edge simulate' gives it: its address."""
    command = [sys.executable, "-m", "puffer_edge.cli", "simulate", *map(str, words), "--json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["board"]
        process.communicate(timeout=20)


DRIVER = """
import json
seen = []
def read(buffer):
    buffer[0], buffer[1], buffer[2] = 65536, 0, 0
    return True
def write(action):
    seen.append(action[0])
WATCHDOG = False
"""


@pytest.mark.toolchain("node")
def test_a_board_runs_free_with_the_users_driver_until_it_is_stopped(tmp_path: Path) -> None:
    bundle = samples.bundle(tmp_path / "esp32", board="esp32")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "user.py").write_text(DRIVER)
    with simulated("esp32", "--state", tmp_path / "state") as board:
        code, text = error_of("start", bundle.path, "--board", board)
        assert code == 9 and "install" in text  # nothing is installed yet
        assert cli("install", bundle.path, "--board", board).returncode == 0
        assert json.loads(cli("start", bundle.path, "--board", board, "--json").stdout)["state"] == "free_run"
        code, text = error_of("check", bundle.path, "--board", board)
        assert code == 3 and "puffer-edge stop" in text
        time.sleep(1.0)
        counters = json.loads(cli("status", bundle.path, "--board", board, "--json").stdout)["counters"]
        assert counters["ticks"] > 10 and counters["missed"] == counters["invalid"] == 0
        assert json.loads(cli("stop", bundle.path, "--board", board, "--json").stdout)["state"] == "disarmed"


def test_a_board_without_the_users_code_refuses_to_run_free(bundle: Bundle) -> None:
    with simulated("host") as board:
        assert cli("install", bundle.path, "--board", board).returncode == 0
        code, text = error_of("start", bundle.path, "--board", board)
        assert code == 9 and "read" in text and "write" in text
        found = json.loads(cli("check", bundle.path, "--board", board, "--episodes", 1, "--json").stdout)
        assert found["mismatches"] == 0 and found["note"] is None


def test_an_abandoned_check_does_not_lock_the_board(bundle: Bundle) -> None:
    image = bundle.image
    with simulated("host") as board:
        with open_board(board, bundle) as device:
            device.install(image.data)
            device.arm(image.contract.digest, image.program.digest, image.shield.digest)
        found = json.loads(cli("check", bundle.path, "--board", board, "--episodes", 1, "--json").stdout)
        assert found["mismatches"] == 0


def test_a_check_says_when_the_board_is_another_than_the_bundles(tmp_path: Path) -> None:
    bundle = samples.bundle(tmp_path / "esp32", board="esp32")
    with simulated("host") as board:
        assert cli("install", bundle.path, "--board", board).returncode == 0
        found = json.loads(cli("check", bundle.path, "--board", board, "--episodes", 1, "--json").stdout)
    assert found["mismatches"] == 0 and "the bundle is for esp32, the board says it is host" in found["note"]
    assert "compiled for this computer" in found["simulated"]


def test_square_brackets_are_no_markup(tmp_path: Path) -> None:
    code, text = error_of("eval", tmp_path / "[red]" / "[/x]")
    assert code == 2 and "[red]/[/x]" in text


def test_an_unwritable_report_is_found_before_the_check(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    code, _ = error_of("check", bundle.path, "--board", "loopback", "--report", tmp_path / "file")
    assert code == 1 and (tmp_path / "file").read_text() == "mine"


def test_stop_says_only_what_it_knows(bundle: Bundle) -> None:
    with simulated("host") as board:
        assert "no safe output" in cli("stop", bundle.path, "--board", board).stdout
        assert cli("install", bundle.path, "--board", board).returncode == 0
        assert "the safe output acts" in cli("stop", bundle.path, "--board", board).stdout


def test_a_failed_check_leaves_the_last_report(bundle: Bundle, tmp_path: Path) -> None:
    assert cli("check", bundle.path, "--board", "loopback", "--episodes", 1, "--report", tmp_path / "r").returncode == 0
    before = (tmp_path / "r" / "check.json").read_text()
    assert cli("check", bundle.path, "--board", "socket://127.0.0.1:1", "--report", tmp_path / "r").returncode == 9
    assert (tmp_path / "r" / "check.json").read_text() == before
