"""Each of the sanity set pays what its docstring says to the policy that has its feature, and less to one that lacks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.spaces import Floats

N = 2000
Act = Callable[[Floats, int, np.random.Generator], Any]


def returns(name: str, act: Act) -> Floats:
    """(N,) or (N, agents) returns of a policy of (observation, step, generator), each agent until it terminates."""
    environment, rng = envs.load(name), np.random.default_rng(0)
    state = environment.start(1, range(N))
    total: Any = 0.0
    alive: Any = True
    for t in range(environment.max_steps):
        action = np.asarray(act(environment.observe(state), t, rng), np.float64)
        shape = (N, environment.contract.n_actions) if environment.agents == 1 else (N, environment.agents, environment.contract.n_actions)
        state, reward, _, terminated = environment.advance(state, action.reshape(shape), 1, range(N), t)
        total, alive = total + reward * alive, alive & ~terminated
    assert not np.any(alive), f"an optimal episode of {name} ends by itself"
    result: Floats = total
    return result


def test_bandit_pays_1_for_the_best_arm() -> None:
    means = [returns("bandit", lambda o, t, r, arm=arm: np.full(N, arm)).mean() for arm in range(4)]
    np.testing.assert_allclose(means, [0.0, 0.3, 1.0, 0.6], atol=0.01)


def test_squared_pays_1_on_the_way_to_the_target() -> None:
    np.testing.assert_allclose(returns("squared", lambda o, t, r: np.sign(o)), 1.0, rtol=1e-12)
    assert len(np.unique(envs.load("squared").start(1, range(N))[:, 2:], axis=0)) == 8


def test_memory_pays_1_for_the_sign_that_was_shown_and_half_without_memory() -> None:
    held: dict[str, Any] = {}

    def remembers(o: Floats, t: int, r: np.random.Generator) -> Any:
        held.setdefault("sign", o[:, 0].copy())
        return held["sign"]

    assert (returns("memory", remembers) == 1.0).all()
    assert returns("memory", lambda o, t, r: np.ones(N)).mean() == pytest.approx(0.5, abs=0.05)


def test_grid_pays_1_on_arrival_by_a_shortest_way() -> None:
    def walks(o: Floats, t: int, r: np.random.Generator) -> Any:
        cells = o.reshape(N, 8, 8)
        way = np.argwhere(cells == -1.0)[:, 1:] - np.argwhere(cells == 1.0)[:, 1:]
        down = np.where(way[:, 1] == 0, np.sign(way[:, 0]), 0)
        return np.stack([np.sign(way[:, 1]), down], -1)

    environment = envs.load("grid")
    shown = environment.observe(environment.start(1, range(N)))
    assert ((shown == 1.0).sum(-1) == 1).all() and ((shown == -1.0).sum(-1) == 1).all() and len(np.unique(shown, axis=0)) > 1500
    state, total, going = environment.start(1, range(N)), np.zeros(N), np.ones(N, bool)
    for t in range(14):
        action = np.where(going[:, None], walks(np.where(going[:, None], environment.observe(state), shown), t, np.random.default_rng()), 0.0)
        following, reward, _, terminated = environment.advance(state, action, 1, range(N), t)
        total, state, going = total + reward * going, np.where(going[:, None], following, state), going & ~terminated
    assert not going.any()
    np.testing.assert_array_equal(total, 1.0)
    _, reward, cost, _ = environment.advance(environment.start(1, range(N)), np.zeros((N, 2)), 1, range(N), 0)
    assert (reward == -0.1).all() and (cost == 1.0).all()


def test_password_pays_1_for_five_right_digits_and_seldom_by_chance() -> None:
    secret = np.array([0, 1, 1, 0, 1])
    assert (returns("password", lambda o, t, r: o @ secret) == 1.0).all()
    assert returns("password", lambda o, t, r: r.integers(0, 2, N)).mean() == pytest.approx(1 / 32, abs=0.015)


def test_stochastic_pays_a_random_policy_more_than_any_deterministic_one() -> None:
    drawn = returns("stochastic", lambda o, t, r: r.random(N) < 0.75).mean()
    always = [returns("stochastic", lambda o, t, r, choice=choice: np.full(N, choice)).mean() for choice in (0, 1)]
    np.testing.assert_allclose((drawn, *always), (0.92, 0.0, 2 / 3), atol=0.01)


def test_spaces_pays_a_third_for_each_part_that_is_seen() -> None:
    def answers(o: Floats, t: int, r: np.random.Generator) -> Any:
        return np.stack([np.sign(o[:, 0]) * (np.abs(o[:, 0]) > 200), o[:, 1], o[:, 2:].mean(-1) > 0.5], -1)

    np.testing.assert_allclose(returns("spaces", answers), 1.0, rtol=1e-12)
    at_random = returns("spaces", lambda o, t, r: np.stack([r.integers(-1, 2, N), r.integers(0, 2, N), r.integers(0, 2, N)], -1))
    assert at_random.mean() == pytest.approx((1 / 3 + 1 / 2 + 1 / 2) / 3, abs=0.02)


def test_multiagent_pays_each_agent_1_for_its_own_action_and_nothing_after_its_end() -> None:
    np.testing.assert_allclose(returns("multiagent", lambda o, t, r: o), 1.0, rtol=1e-12)
    assert (returns("multiagent", lambda o, t, r: -o) == 0.0).all()
    environment = envs.load("multiagent")
    state = environment.start(0, [0])
    seen = []
    for _ in range(8):
        state, reward, _, terminated, alive = environment.step(state, environment.observe(state))
        assert alive[0].tolist() == [True, len(seen) < 4]
        seen.append((reward[0].tolist(), terminated[0].tolist()))
    assert seen[3] == ([0.125, 0.25], [False, True]) and seen[4] == ([0.125, 0.0], [False, True]) and seen[7] == ([0.125, 0.0], [True, True])
