"""TensorBoard: the numbers of metrics.jsonl under the same names, also after going on; and what is said where it is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from puffer_edge.errors import MissingExtra
from puffer_edge.train import PPOSettings, resume, train
from puffer_edge.train.tensorboard import TensorBoard

SMALL = PPOSettings(steps=256, rows=4, horizon=16, epochs=1, minibatch=64, hidden=(8,), evaluations=2, evaluation_episodes=2)


def test_without_it_the_extra_is_named_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtra, match=r"pip install 'puffer-edge\[tensorboard\]'"):
        train("cartpole", out=tmp_path / "run", settings=SMALL, writers=[TensorBoard()])
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard itself
def test_its_files_hold_what_the_log_holds(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train("cartpole", out=tmp_path, settings=SMALL, writers=[TensorBoard()], progress=lambda p: p.steps < 192)
    run = resume(tmp_path, writers=[TensorBoard()])
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for name in ("policy_loss", "eval_rew_mean"):
        expected = [(row["steps"], pytest.approx(row[name], rel=1e-6)) for row in run.metrics() if row.get(name) is not None]
        assert [(event.step, event.value) for event in events.Scalars(name)] == expected and expected
