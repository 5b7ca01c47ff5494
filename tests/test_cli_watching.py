"""The dashboard, watch and plot as a user meets them; terminals are pseudo-terminals."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

pytest.importorskip("torch")

from puffer_edge.commands import dashboard
from puffer_edge.commands.dashboard import Dashboard, sparkline
from puffer_edge.train import PPOSettings, train

SMALL = PPOSettings(steps=256, rows=4, horizon=16, epochs=1, minibatch=64, hidden=(8,), evaluations=2, evaluation_episodes=2)
CLI = [sys.executable, "-m", "puffer_edge.cli"]
ABOUT = {"environment": "cartpole", "algorithm": "ppo", "seed": 3, "settings": {"steps": 1000}}


def text_of(board: Dashboard, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    board._console = console
    with console.capture() as captured:
        console.print(board.view())
    return captured.get()


def on_a_terminal(*words: object) -> tuple[int, str]:
    """Exit code and all that a command wrote to a terminal of its own."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "100", "LINES": "40", "TERM": "xterm"}
    with subprocess.Popen([*CLI, *map(str, words)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        written = b""
        try:
            while more := os.read(ours, 65536):
                written += more
        except OSError:  # the other end is closed
            pass
        os.close(ours)
    return process.returncode, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())


def test_the_dashboard_shows_what_rows_hold(tmp_path: Path) -> None:
    board = Dashboard(Console(file=io.StringIO(), force_terminal=True))
    board.begin(tmp_path / "mine", ABOUT, 0)
    spent = {"time_collect": 1.0, "time_update": 3.0}
    for steps in (100, 200):
        row = {"steps": steps, "seconds": steps / 10, "steps_per_second": 12345.0, "ep_rew_mean": 41.0 + steps, "cost_rate": 0.5}
        board.take(row | {"intervention_rate": 0.25, "approx_kl": 0.015, "policy_lag": 2.0, "lambda": 0.7, "cost_limit": 25.0, "mine": 7.5} | spent)
    board.take({"steps": 200, "eval_rew_mean": 480.0, "eval_rew_low": 470.0, "eval_rew_high": 490.0, "eval_cost_mean": 1.5, "seconds": 20.0})
    board.take({"steps": 200, "eval_rew_mean": 90.0, "eval_rew_low": 80.0, "eval_rew_high": 95.0, "eval_cost_mean": 1.5, "seconds": 20.0})
    text = text_of(board)
    board.close(None)
    for words in (
        "cartpole · ppo · seed 3",
        "200 / 1,000 steps  20%",
        "12,345 steps/s   0:00:20 gone, 0:01:20 to go",
        "241 of the last 100 training episodes",
        "90 80 … 95 evaluated at step 200",
        "best 480 at 200",
        "0.5 a step, 25 allowed, 0.7 λ, 1.5 an episode evaluated",
        "25.00% of steps changed",
        "collect 25%  ■ update 75%",
        "mine",
    ):
        assert words in text, text
    assert re.search(r"KL +0\.015", text) and re.search(r"policy lag +2 ", text) and re.search(r"mine +7\.5", text)


def test_the_best_under_a_limit_keeps_it(tmp_path: Path) -> None:
    board = Dashboard(Console(file=io.StringIO(), force_terminal=True))
    board.begin(tmp_path / "mine", ABOUT, 0)
    board.take({"steps": 100, "ep_rew_mean": 1.0, "ep_cost_mean": 7.0, "cost_limit": 5.0, "lambda": 0.25, "cost_rate": 0.5})
    for steps, gained, cost in ((100, 90.0, 9.0), (200, 60.0, 4.5), (300, 80.0, 4.6), (400, 50.0, 0.0)):
        board.take({"steps": steps, "eval_rew_mean": gained, "eval_cost_mean": cost, "eval_cost_error": 0.5})
    text = text_of(board)
    board.close(None)
    assert "best 60 at 200" in text
    assert "0.5 a step, 7 an episode, 5 allowed, 0.25 λ, 0 an episode evaluated" in text


@pytest.mark.parametrize("width", [40, 60, 100, 200])
def test_it_fits_the_terminal_before_and_after_the_first_numbers(width: int) -> None:
    board = Dashboard(Console(file=io.StringIO(), force_terminal=True))
    board.begin(Path("a" * 300), ABOUT, 0)
    before = text_of(board, width)
    board.take({"steps": 10, "seconds": 0.0, "ep_rew_mean": None, "policy_loss": None, "a" * 50: 1e-12})
    after = text_of(board, width)
    board.close(None)
    for text in (before, after):
        assert {len(line) for line in text.splitlines()} == {min(width, 110)}


def test_no_number_is_cut_on_a_narrow_terminal() -> None:
    """The consoles of the commands leave wrapping to the terminal, which cannot wrap inside a frame."""
    console = Console(file=io.StringIO(), width=40, force_terminal=True, color_system=None, soft_wrap=True)
    board = Dashboard(console)
    board.begin(Path("run"), ABOUT, 0)
    spent = {"time_collect": 1.0, "time_update": 3.0, "time_evaluate": 2.0, "time_checkpoint": 1.0, "time_log": 1.0}
    board.take({"steps": 900, "seconds": 3600.0, "steps_per_second": 1_234_567.0, "ep_rew_mean": 1.0} | spent)
    with console.capture() as captured:
        console.print(board.view())
    board.close(None)
    text = " ".join(captured.get().replace("│", "").split())
    assert "1,234,567 steps/s 1:00:00 gone" in text and "log 12%" in text and "checkpoint 12%" in text


def test_drawing_takes_its_share_of_the_time_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    now, drawn, costs = [100.0], [], [0.0]
    monkeypatch.setattr(dashboard.time, "perf_counter", lambda: now[0])
    board = Dashboard(Console(file=io.StringIO(), force_terminal=True))
    board.begin(Path("run"), ABOUT, 0)

    def draw() -> None:
        drawn.append(now[0])
        now[0] += costs[0]

    monkeypatch.setattr(board, "draw", draw)
    for cost, apart in ((0.0, dashboard.INTERVAL_S), (0.1, 0.1 * dashboard.SHARE)):
        drawn.clear()
        costs[0] = cost
        for _ in range(1000):
            board.write({"steps": 1.0})
            now[0] += apart / 50
        assert len(drawn) > 10
        assert all(later - earlier >= apart for earlier, later in zip(drawn[1:], drawn[2:]))


def test_sparklines() -> None:
    assert sparkline([], 8) == "" and sparkline([2.0, 2.0], 8) == "▄▄"
    assert sparkline([0.0, 1.0], 8) == "▁█" and len(sparkline([float(k) for k in range(1000)], 32)) == 32


def test_a_long_training_keeps_a_curve_of_the_whole() -> None:
    board = Dashboard(Console(file=io.StringIO(), force_terminal=True))
    for step in range(10_000):
        board.take({"steps": step, "ep_rew_mean": float(step)})
    assert len(board._returns) < 4 * dashboard.POINTS and board._returns[0] == 0 and board._returns[-1] > 9000


def test_train_on_a_terminal_draws_and_plain_does_not(tmp_path: Path) -> None:
    settings = tmp_path / "small.toml"
    settings.write_text("[ppo]\nsteps = 256\nrows = 4\nhorizon = 16\nminibatch = 64\nhidden = [8]\nevaluations = 2\nevaluation_episodes = 2\n")
    code, text = on_a_terminal("train", "cartpole", "--settings", settings, "--out", tmp_path / "run")
    assert code == 0 and "256 / 256 steps  100%" in text and "explained variance" in text and "trained cartpole for 256 steps" in text, text
    code, text = on_a_terminal("train", "cartpole", "--settings", settings, "--out", tmp_path / "run2", "--plain")
    assert code == 0 and "explained variance" not in text and "trained cartpole for 256 steps" in text, text
    code, text = on_a_terminal("watch", tmp_path / "run")
    assert code == 0 and "256 / 256 steps  100%" in text and "is complete" in text, text


def test_watch_and_plot_from_the_command_line(tmp_path: Path) -> None:
    for seed in (0, 1):
        train("cartpole", seed=seed, out=tmp_path / f"seed-{seed}", settings=SMALL)

    def cli(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*CLI, *map(str, words)], capture_output=True, text=True, check=False, timeout=120)

    drawn = cli("plot", tmp_path, "--out", tmp_path / "x.svg", "--json")
    found = json.loads(drawn.stdout)
    assert found["groups"][0]["seeds"] == [0, 1] and found["groups"][0]["end"] == [256, 256] and found["groups"][0]["interval"]
    assert (tmp_path / "x.svg").read_text().startswith("<svg")
    table = cli("plot", tmp_path / "seed-0", "--metric", "entropy", "--smooth", "0.5", "--out", tmp_path / "y.svg").stdout
    assert "last entropy" in table and f"drawn in {tmp_path / 'y.svg'}" in table
    (tmp_path / "seed-1" / "metrics.jsonl").unlink()
    found = json.loads(cli("plot", tmp_path, "--out", tmp_path / "x.svg", "--json").stdout)
    assert found["groups"][0]["seeds"] == [0] and found["left_out"] == [f"left out: {tmp_path / 'seed-1'} has no metrics.jsonl"]
    assert "left out: " in cli("plot", tmp_path, "--out", tmp_path / "x.svg").stdout
    (tmp_path / "seed-0" / "metrics.jsonl").write_text("{\n[]\n")
    for words, message in (
        (("plot", tmp_path / "seed-1"), "seed-1 has no metrics.jsonl"),
        (("plot", tmp_path), "there are: none; 2 lines of"),
        (("plot", tmp_path, "--out", "x.pdf"), ".svg or .png"),
        (("plot",), "runs"),
        (("plot", tmp_path / "nowhere"), "no run in"),
        (("watch", tmp_path), "no run in"),
        (("watch", tmp_path / "seed-0"), "draws on a terminal"),
        (("train", "cartpole", "--seeds", "2", "--wandb"), "leave out --seeds"),
    ):
        finished = cli(*words)
        assert finished.returncode in (2, 3) and message in finished.stderr, finished.stderr


def test_a_name_between_colons_is_no_picture(capsys: pytest.CaptureFixture[str]) -> None:
    """rich would print "faulty:Four: 2 of 7" with a picture in its midst."""
    from rich.console import Console

    from puffer_edge.commands import console

    for held in (console.OUT, console.SIDE, console.WIDE):
        assert isinstance(held, Console) and held.render_str("my_module:Four: broken", emoji=held._emoji).plain == "my_module:Four: broken"
