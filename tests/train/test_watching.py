"""What a training tells those who watch: numbers of callbacks, time by phase, writers that are closed whatever happens, a log that is read."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from puffer_edge.errors import InvalidInput
from puffer_edge.train import PPOSettings, Run, train
from puffer_edge.train.log import Log
from puffer_edge.train.phases import Phases

SMALL = PPOSettings(steps=256, rows=4, horizon=16, epochs=1, minibatch=64, hidden=(8,), evaluations=2, evaluation_episodes=2)


class Heard:
    """A writer that remembers."""

    def __init__(self) -> None:
        self.begun: list[tuple[Path, Mapping[str, Any], int]] = []
        self.rows: list[dict[str, Any]] = []
        self.closed: list[Any] = []

    def begin(self, folder: Path, about: Mapping[str, Any], steps: int) -> None:
        self.begun.append((folder, about, steps))

    def write(self, row: Mapping[str, float | None]) -> None:
        self.rows.append(dict(row))

    def close(self, result: Mapping[str, Any] | None) -> None:
        self.closed.append(result)


def test_numbers_of_callbacks_are_logged_and_seen_by_later_ones(tmp_path: Path) -> None:
    seen: list[float] = []
    heard = Heard()
    run = train(
        "cartpole",
        out=tmp_path,
        settings=SMALL,
        progress=[
            lambda p: {"half": p.steps / 2, "none": float("nan")},
            lambda p: seen.append(p.metrics["half"]),
            lambda p: {"three": np.float32(3)},
        ],
        writers=[heard],
    )
    updates = [row for row in run.metrics() if "policy_loss" in row]
    assert [(row["half"], row["none"], row["three"]) for row in updates] == [(row["steps"] / 2, None, 3.0) for row in updates]
    assert seen == [32.0, 64.0, 96.0, 128.0] and heard.rows == run.metrics()
    assert heard.begun == [(tmp_path, run.settings | {"shield": heard.begun[0][1]["shield"]}, 0)] and heard.closed == [run.result]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"policy_loss": 1.0}, "may not log 'policy_loss'"),
        ({"eval_mine": 1.0}, "may not log 'eval_mine'"),
        ({"mine": "1"}, "only numbers"),
        ({"mine": True}, "only numbers"),
        (3, "returns None, False"),
    ],
)
def test_what_a_callback_may_not_return(answer: Any, words: str, tmp_path: Path) -> None:
    heard = Heard()
    with pytest.raises(InvalidInput, match=words):
        train("cartpole", out=tmp_path, settings=SMALL, progress=lambda p: answer, writers=[heard])
    assert heard.closed == [None] and [row["steps"] for row in heard.rows] == [64]
    assert Run.load(tmp_path).result["status"] == "failed"


def test_every_writer_is_closed_though_another_one_fails(tmp_path: Path) -> None:
    class Failing(Heard):
        def write(self, row: Mapping[str, float | None]) -> None:
            raise OSError("no room")

        def close(self, result: Mapping[str, Any] | None) -> None:
            raise OSError("none at all")

    heard = Heard(), Heard()
    with pytest.raises(OSError, match="none at all"):
        train("cartpole", out=tmp_path, settings=SMALL, writers=[heard[0], Failing(), heard[1]])
    assert heard[0].closed == heard[1].closed == [None] and Run.load(tmp_path).result["status"] == "failed"


@pytest.mark.parametrize("engine", ["torch", "auto"])
def test_the_time_of_a_training_is_shared_out(engine: Any, tmp_path: Path) -> None:
    from dataclasses import replace

    began = time.perf_counter()
    rows = train("cartpole", out=tmp_path, settings=replace(SMALL, engine=engine), progress=lambda p: None).metrics()
    whole = time.perf_counter() - began
    spent = {name: sum(row.get(name) or 0.0 for row in rows) for row in rows for name in row if name.startswith("time_")}
    assert {"time_collect", "time_update", "time_evaluate", "time_checkpoint", "time_log", "time_callbacks"} <= spent.keys()
    assert {"time_policy", "time_environment"} <= spent.keys() or engine == "auto"
    assert min(spent.values()) >= 0 and 0 < sum(spent.values()) <= whole
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds) and seconds[-1] <= whole


def test_a_phase_within_another_counts_for_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    phases = Phases()
    with phases("outer"):
        now[0] += 1.0
        with phases("inner"):
            now[0] += 2.0
        now[0] += 4.0
        assert phases.take() == {"time_outer": 5.0, "time_inner": 2.0}
        now[0] += 8.0
    now[0] += 16.0  # belongs to nobody
    assert phases.take() == {"time_outer": 8.0, "time_inner": 0.0}


def test_a_log_is_read_as_it_grows_and_what_is_no_row_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"steps": 1}\n{"steps": 2\n[3]\n{"steps": null}\n{"steps": 5, "x": "y"}\n{"steps": 6}\n{"steps"')
    log = Log(path)
    assert log.more() == [{"steps": 1}, {"steps": 6}] and log.damaged == [2, 3, 4, 5]
    with path.open("a") as file:
        file.write(': 7, "x": null}\n')
    assert log.more() == [{"steps": 7, "x": None}] and log.more() == []
    path.write_text('{"steps": 1}\n')
    assert log.more() is None


def test_a_run_with_a_damaged_line_gives_all_others(tmp_path: Path) -> None:
    run = train("cartpole", out=tmp_path, settings=SMALL)
    whole = run.metrics()
    lines = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_bytes(b"".join([lines[0], b"\x00\xff\n", *lines[1:]]))
    assert run.metrics() == whole == [json.loads(line) for line in lines]
