"""Gymnasium's environments as ours: the same numbers as Gymnasium's own, trained, evaluated and resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.envs.draw import Draws
from puffer_edge.errors import InvalidInput, Unsupported

gymnasium = pytest.importorskip("gymnasium")


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1"])
def test_it_is_gymnasiums(name: str) -> None:
    environment, theirs = envs.load(f"gym:{name}"), gymnasium.make(name)
    seed = int(np.random.SeedSequence([5, 2, 0]).generate_state(1)[0])
    seen, _ = theirs.reset(seed=seed)
    state = environment.reset(Draws.of_episodes(5, [2]))
    rng, over = np.random.default_rng(0), False
    for _ in range(100):
        np.testing.assert_array_equal(environment.observe(state)[0], np.asarray(seen, np.float64))
        if over:
            break
        action = np.array([[float(rng.integers(0, 2))]])
        state, reward, _, ended = environment.step(state, action)
        seen, their_reward, over, _, _ = theirs.step(int(action[0, 0]) if name != "Pendulum-v1" else action[0].astype(np.float32))
        assert reward[0] == pytest.approx(float(their_reward), rel=1e-12) and bool(ended[0]) == over


def test_a_contract_is_made_of_the_spaces() -> None:
    c = envs.load("gym:CartPole-v1").contract
    assert (c.head, c.levels, c.n_observations, c.rate_hz) == ("discrete", ((0.0,), (1.0,)), 4, 50.0)
    assert c.observations[0].high == pytest.approx(4.8) and 2.0 <= c.observations[1].high <= 32.0, "a bound that the space lacks is measured"
    p = envs.load("gym:Pendulum-v1")
    assert (p.contract.head, p.contract.actions[0].low, p.max_steps, p.name) == ("clip", -2.0, 200, "gym:Pendulum-v1")


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidInput, match="Gymnasium makes no CatPole-v1"):
        envs.load("gym:CatPole-v1")
    with pytest.raises(InvalidInput, match="is no ID of Gymnasium"):
        envs.load("gym:os:system")
    with pytest.raises(Unsupported, match="must be a Box"):
        envs.load("gym:FrozenLake-v1")
    environment = envs.load("gym:CartPole-v1")
    state = environment.reset(Draws.of_episodes(0, [0, 1]))
    environment.step(state, np.zeros((2, 1)))
    with pytest.raises(InvalidInput, match="goes forward only"):
        environment.step(state, np.zeros((2, 1)))


def test_a_training_on_it_resumes_and_says_that_it_is_not_exact(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from puffer_edge.train import resume, settings_for, train

    settings = replace(settings_for("gym:CartPole-v1"), steps=512, rows=4, horizon=32, evaluations=2, evaluation_episodes=3, hidden=(8,))
    run = train("gym:CartPole-v1", out=tmp_path / "run", settings=settings, progress=lambda p: p.steps < 256)
    assert run.result["engine"] == "torch" and "scalar functions" in run.result["engine_note"]
    again = resume(tmp_path / "run")
    assert again.result["status"] == "complete" and again.result["resumed"][-1]["exact"] is False
