"""Curves of several runs: who belongs together, means over unequal lengths, intervals, and what is said of damaged or unfinished runs."""

from __future__ import annotations

import io
import json
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from puffer_edge.errors import InvalidInput, MissingExtra
from puffer_edge.train import PPOSettings, curve, groups, iqm, train

SMALL = PPOSettings(steps=64, rows=4, horizon=16, epochs=1, minibatch=64, hidden=(8,), evaluations=1, evaluation_episodes=2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two groups of cartpole, one run of pendulum; their logs are written by the tests."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1, 2):
        train("cartpole", seed=seed, out=folder / f"a{seed}", settings=SMALL)
    train("cartpole", seed=0, out=folder / "b0", settings=replace(SMALL, learning_rate=0.01, steps=128, evaluations=2))
    train("pendulum", seed=0, out=folder / "p0", settings=SMALL)
    return folder


def log(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    (folder / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def returns(values: Mapping[int, float]) -> list[dict[str, Any]]:
    return [{"steps": step, "eval_rew_mean": value, "seconds": step / 10} for step, value in values.items()]


def load(folder: Path) -> list[groups.Logged]:
    return [groups.Logged.load(path) for path in groups.find([folder])]


def test_groups_means_and_notes(runs: Path) -> None:
    log(runs, "a0", returns({10: 0.0, 20: 10.0, 30: 20.0}))
    log(runs, "a1", returns({10: 2.0, 30: 4.0}))
    log(runs, "a2", returns({20: 5.0, 40: 9.0, 50: 9.0}))
    with (runs / "a1" / "metrics.jsonl").open("a") as file:
        file.write("{half a row}\n")
    log(runs, "b0", returns({10: 1.0}) + [{"steps": 20, "eval_rew_mean": 3.0, "eval_rew_low": 2.0, "eval_rew_high": 5.0}])
    log(runs, "p0", [{"steps": 10, "entropy": 1.0}])
    a, b, p = sorted(groups.groups(load(runs)), key=lambda g: (g.environment, -len(g.members)))
    assert (a.label, b.label, p.label) == ("ppo learning_rate=0.001", "ppo learning_rate=0.01", "ppo")
    assert a.curve.middle[:, 0].tolist() == [20.0, 30.0]  # where all three have values
    np.testing.assert_allclose(a.curve.middle[:, 1], [iqm.iqm([10, 3, 5]), iqm.iqm([20, 4, 7])])
    low, high = iqm.interval([20, 4, 7], resamples=groups.RESAMPLES)
    np.testing.assert_allclose(a.curve.band[-1], [30.0, low, high])
    assert sorted(a.last) == [4.0, 9.0, 20.0] and a.summary()["last"] == iqm.iqm([20, 4, 9]) and a.summary()["end"] == [30.0, 50.0]
    notes = " ".join(a.notes())
    assert "line 3 of metrics.jsonl is damaged" in notes and "the mean ends at 30" in notes
    assert b.curve.band.tolist() == [[20.0, 2.0, 5.0]] and b.summary()["interval"] is None
    assert p.without == [str(runs / "p0")] and not p.last and p.summary()["last"] is None and "has no such metric" in p.notes()[0]


def test_seconds_and_smoothing(runs: Path) -> None:
    for name in ("a0", "a1", "a2", "b0", "p0"):
        log(runs, name, returns({10: 8.0, 20: 0.0}))
    (group, *_) = groups.groups(load(runs), x="seconds", smooth=0.5)
    np.testing.assert_allclose(group.curve.middle, [[1.0, 8.0], [2.0, (0.25 * 8 + 0.5 * 0) / 0.75]])
    log(runs, "a0", [{"steps": 1, "eval_rew_mean": 1.0}])
    with pytest.raises(InvalidInput, match="no seconds"):
        groups.groups(load(runs), x="seconds")


def test_runs_that_are_unfinished_or_there_twice_are_named(runs: Path, tmp_path: Path) -> None:
    for name in ("a0", "copy"):
        shutil.copytree(runs / "a0", tmp_path / name)
        log(tmp_path, name, returns({10: 8.0, 20: 0.0}))
    result = tmp_path / "copy" / "result.json"
    result.write_text(result.read_text().replace('"complete"', '"running"'))
    (group,) = groups.groups(load(tmp_path))
    notes = " ".join(group.notes())
    assert f"{tmp_path / 'copy'} is killed" in notes and "seed 0 is there more than once" in notes


def test_wrong_input(runs: Path, tmp_path: Path) -> None:
    log(runs, "a0", returns({10: 8.0}))
    one = [groups.Logged.load(runs / "a0")]
    for wrong, words in (
        (lambda: groups.find([tmp_path]), "no run in"),
        (lambda: groups.groups(one, "nope"), "there are: eval_rew_mean"),
        (lambda: groups.groups(one, smooth=1.0), "below 1"),
    ):
        with pytest.raises(InvalidInput, match=words):
            wrong()


def test_the_picture_holds_every_curve(runs: Path) -> None:
    for name in ("a0", "a1", "a2", "b0", "p0"):
        log(runs, name, returns({10: 8.0, 20: 0.0, 30: 3.0}))
    found = groups.groups(load(runs))
    panels = {e: [g.curve for g in found if g.environment == e] for e in ("cartpole", "pendulum")}
    text = curve.comparison(panels, "steps", "a & b")
    root = ET.fromstring(text)
    assert root.attrib["viewBox"] == f"0 0 {curve.WIDTH} {2 * curve.HEIGHT}"
    first, second = (element for element in root if element.tag.endswith("g"))
    lines = [sum(part.tag.endswith("polyline") for part in panel) for panel in (first, second)]
    assert lines == [3 + 1 + 1, 1]  # three seeds and their mean, one run alone; one run
    assert "ppo learning_rate=0.01, seed 0" in text and "a &amp; b" in text


def test_a_limit_is_a_line_and_the_axis_ends_near_it() -> None:
    points = np.array([[0.0, 400.0], [10.0, 1.0]])
    panels = {title: [curve.Curve("mine", [points], points, np.zeros((0, 3)))] for title in ("cost", "return")}
    cost, free = (g for g in ET.fromstring(curve.comparison(panels, "steps", "mean", {"cost": 2.0})) if g.tag.endswith("g"))
    dashed = [[part for part in panel if "stroke-dasharray" in part.attrib] for panel in (cost, free)]
    assert (len(dashed[0]), len(dashed[1])) == (1, 0)
    lines = [next(part for part in panel if part.tag.endswith("polyline")).attrib["points"].split() for panel in (cost, free)]
    (top, bottom), limit = ([float(pair.split(",")[1]) for pair in lines[0]], float(dashed[0][0].attrib["y1"]))
    assert curve.TOP <= top < limit < bottom  # 400 at the axis' end, not above the panel
    assert (bottom - limit) / (bottom - top) == pytest.approx(1 / 9.45, rel=1e-2)  # 1, 2, and 5 · 2 and a twentieth


def test_a_png_is_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib import image

    from puffer_edge.train.raster import png

    points = np.array([[0.0, 0.0], [10.0, 5.0]])
    band = np.array([[0.0, -1.0, 1.0], [10.0, 4.0, 6.0]])
    text = curve.comparison({"one": [curve.Curve("mine", [points], points, band)]}, "steps", "return")
    pixels = image.imread(io.BytesIO(png(text, scale=1)))
    assert pixels.shape == (curve.HEIGHT, curve.WIDTH, 4)
    blue = (np.abs(pixels[..., :3] - np.array([0x00, 0x72, 0xB2]) / 255) < 0.02).all(-1)
    rows, columns = np.nonzero(blue[curve.TOP :])
    assert columns.min() == pytest.approx(curve.LEFT, abs=2) and columns.max() == pytest.approx(curve.WIDTH - curve.RIGHT, abs=2)
    assert rows[columns.argmin()] > rows[columns.argmax()]  # it rises
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match="report"):
        png(text)
