"""Several seeds: the interquartile mean by hand, its interval against all resamples there are, and side by side as in turn."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from puffer_edge.errors import InvalidInput
from puffer_edge.train import PPOSettings, curve, iqm
from puffer_edge.train.run import Run
from puffer_edge.train.seeds import train_seeds

SMALL = PPOSettings(steps=256, rows=4, horizon=16, epochs=1, minibatch=64, hidden=(8,), evaluations=2, evaluation_episodes=2)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([3.0], 3.0),
        ([1.0, 2.0, 9.0], 4.0),
        ([9.0, 1.0, 2.0, 3.0], 2.5),
        ([0.0, 1.0, 2.0, 3.0, 100.0], 2.0),
        ([[0.0, 8.0], [1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], 3.5),
    ],
)
def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end(scores: list[float], expected: float) -> None:
    assert iqm.iqm(scores) == expected


def test_the_interval_is_that_of_all_resamples() -> None:
    scores = np.array([1.0, 4.0, 2.0, 8.0, 5.0])
    every = [iqm.iqm(pick) for pick in itertools.product(scores, repeat=5)]
    np.testing.assert_allclose(iqm.interval(scores), np.percentile(every, (2.5, 97.5)), atol=0.1)
    assert iqm.interval([2.0, 2.0]) == (2.0, 2.0) and iqm.interval(scores) == iqm.interval(scores)


def test_resamples_are_drawn_for_each_task_on_its_own() -> None:
    """Tasks whose scores cancel within each run: drawn by whole runs the mean would not move at all."""
    low, high = iqm.interval([[0.0, 3.0], [1.0, 2.0], [3.0, 0.0]])
    assert low < 1.5 < high


@pytest.mark.parametrize("scores", [[], [np.nan], np.zeros((2, 2, 2))])
def test_what_is_no_table_of_scores_is_refused(scores: object) -> None:
    with pytest.raises(InvalidInput, match="finite numbers of shape"):
        iqm.iqm(scores)  # type: ignore[arg-type]


def shapes(svg: str, kind: str) -> int:
    return len(ElementTree.fromstring(svg).findall(f"{{http://www.w3.org/2000/svg}}{kind}"))


def test_the_curve_of_one_run_and_of_several() -> None:
    rows = [[{"steps": s, "ep_rew_mean": None if s < 2 else s + k} for s in range(1, 2000)] for k in range(3)]
    for k, run in enumerate(rows):
        run += [{"steps": s, "eval_rew_mean": s * (k + 1.0)} for s in (500, 1000)]
    one, three = curve.picture(rows[:1], "a < b"), curve.picture(rows, "three")
    assert shapes(one, "polyline") == 2 and shapes(one, "polygon") == 0 and shapes(one, "circle") == 2 and "a &lt; b" in one
    assert shapes(three, "polyline") == 4 and shapes(three, "polygon") == 1 and len(three) < 30_000
    assert shapes(curve.picture([[{"steps": 3, "eval_rew_mean": 5.0}]], "one point"), "circle") == 1
    assert "no episode has ended yet" in curve.picture([[]], "nothing")


@pytest.mark.slow
def test_side_by_side_gives_the_bits_of_in_turn(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    seen: list[int] = []
    turn = train_seeds("cartpole", 2, 3, out=tmp_path / "turn", settings=SMALL, processes=1, watch=lambda done, total, run: seen.append(done))
    side = train_seeds("cartpole", 2, 3, out=tmp_path / "side", settings=SMALL, processes=2)
    assert seen == [1, 2] and turn.returns == side.returns and list(turn.returns) == [3, 4]
    for seed in (3, 4):
        files = [tmp_path / way / f"seed-{seed}" / "policy.safetensors" for way in ("turn", "side")]
        assert files[0].read_bytes() == files[1].read_bytes()
    summary = json.loads((tmp_path / "side" / "seeds.json").read_text())
    assert summary["iqm"] == iqm.iqm(list(side.returns.values())) and summary["interval"] == list(iqm.interval(list(side.returns.values())))
    assert shapes((tmp_path / "side" / "curve.svg").read_text(), "polyline") == 3


def test_a_seed_that_fails_is_counted_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from puffer_edge.errors import Diverged
    from puffer_edge.train.algorithms.ppo import PPO

    whole = PPO.update

    def update(self: PPO, rollout: object) -> dict[str, float]:
        if self.seed == 1:
            raise Diverged("by order of this test")
        return whole(self, rollout)  # type: ignore[arg-type]

    monkeypatch.setattr(PPO, "update", update)
    found = train_seeds("cartpole", 3, out=tmp_path, settings=SMALL, processes=1)
    assert found.failed == (1,) and list(found.returns) == [0, 2] and Run.load(tmp_path / "seed-1").result["status"] == "failed"
    assert [row["return"] is None for row in found.summary()["seeds"]] == [False, True, False]
    assert "2 seeds, 1 more failed" in (tmp_path / "curve.svg").read_text()


def test_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    for words in ({"seeds": 0}, {"first": -1}, {"seeds": 10**9}, {"processes": 0}):
        with pytest.raises(InvalidInput, match=r"seeds must lie in|processes must be"):
            train_seeds("cartpole", out=tmp_path, settings=SMALL, **words)  # type: ignore[arg-type]
