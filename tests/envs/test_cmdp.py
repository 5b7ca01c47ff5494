"""The sanity set's cmdp: its exact values are those of its simulation, and its best policy is the linear program's, by another road too."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import puffer_edge
from puffer_edge import envs
from puffer_edge.envs.sanity import cmdp
from puffer_edge.spaces import Floats

N = 40_000
UNIFORM = np.full((cmdp.STEPS, len(cmdp.STATES), cmdp.CHOICES), 1 / cmdp.CHOICES)


@pytest.fixture
def best(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(puffer_edge.__file__).parents[1] / "benchmarks"))
    import linear_program

    return linear_program.best


def lived(policy: Floats) -> Floats:
    """(N, 2) returns and costs of episodes under a policy that is looked up by what is observed."""
    environment, rng = envs.load("cmdp"), np.random.default_rng(0)
    state, total = environment.start(3, range(N)), np.zeros((N, 2))
    for t in range(cmdp.STEPS):
        seen = environment.observe(state)
        assert (seen[:, -1] == t).all() and (seen[:, :-1].sum(-1) == 1.0).all()
        chosen = (rng.random((N, 1)) >= policy[t, seen[:, :-1].argmax(-1)].cumsum(-1)).sum(-1)
        state, reward, cost, terminated = environment.advance(state, chosen[:, None].astype(np.float64), 3, range(N), t)
        total += np.stack([reward, cost], -1)
        assert (terminated == (t == cmdp.STEPS - 1)).all()
    return total


def test_the_exact_value_is_that_of_its_episodes(best: Any) -> None:
    for policy in (UNIFORM, best(), best(cmdp.LIMIT), best(cmdp.LIMIT, draws=False)):
        found = lived(policy)
        error = np.abs(found.mean(0) - cmdp.value(policy)) / (found.std(0) / np.sqrt(N))
        assert (error < 3.5).all(), error


def test_the_linear_program_and_the_dual_agree() -> None:
    """min over λ ≥ 0 of max over policies of return − λ·(cost − limit): the inner one by going backwards, the outer one by bisection."""
    reward, cost, following = cmdp.arrays()

    def relaxed(weight: float) -> tuple[float, float]:
        worth = np.zeros((len(cmdp.STATES), 2))
        for _ in range(cmdp.STEPS):
            each = np.stack([reward, cost], -1) + following @ worth
            chosen = (each @ [1.0, -weight]).argmax(-1)
            worth = np.take_along_axis(each, chosen[:, None, None].repeat(2, -1), 1)[:, 0]
        return float(worth[0] @ [1.0, -weight] + weight * cmdp.LIMIT), float(worth[0, 1])

    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if relaxed(middle)[1] > cmdp.LIMIT else (low, middle)
    assert relaxed(high)[0] == pytest.approx(cmdp.OPTIMUM, abs=1e-6)


def test_the_best_policy_draws_and_is_worth_it(best: Any) -> None:
    policy = best(cmdp.LIMIT)
    gained, spent = cmdp.value(policy)
    assert gained == pytest.approx(cmdp.OPTIMUM, abs=1e-6) and spent == pytest.approx(cmdp.LIMIT, abs=1e-9)
    assert policy[0, 0, 1] == pytest.approx(0.649, abs=1e-3)  # a mix where every episode begins
    assert cmdp.value(best()) == pytest.approx((7.509, 2.317), abs=1e-3)
    likeliest = np.eye(cmdp.CHOICES)[policy.argmax(-1)]
    assert cmdp.value(likeliest)[1] == pytest.approx(0.616, abs=1e-3)


def test_no_policy_that_does_not_draw_comes_near(best: Any) -> None:
    policy = best(cmdp.LIMIT, draws=False)
    assert np.isin(policy[0], (0.0, 1.0)).all()
    gained, spent = cmdp.value(policy)
    assert spent <= cmdp.LIMIT and gained == pytest.approx(5.159, abs=1e-3)
    for choices in itertools.product(range(cmdp.CHOICES), repeat=len(cmdp.STATES)):  # those that do not look at the clock
        fixed = cmdp.value(np.broadcast_to(np.eye(cmdp.CHOICES)[list(choices)], UNIFORM.shape))
        assert fixed[0] <= gained or fixed[1] > cmdp.LIMIT


def test_every_state_is_seen_in_its_place() -> None:
    seen = cmdp.observations()
    assert seen.shape == (cmdp.STEPS, len(cmdp.STATES), len(cmdp.STATES) + 1)
    assert seen[7, 2].tolist() == [0.0, 0.0, 1.0, 0.0, 0.0, 7.0]
