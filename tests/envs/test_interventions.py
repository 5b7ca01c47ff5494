"""A price and a mask of interventions say what they state, with the same bits in the plant and in the composition of the native engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.contract import Contract
from puffer_edge.envs.composition import compose
from puffer_edge.envs.interventions import Interventions, tries
from puffer_edge.envs.plant import Plant
from puffer_edge.integer.shield import Shield


def slewed(contract: Contract, share: float) -> Shield:
    """At most so much of an action's range in one tick."""
    rates = {a.name: (a.high - a.low) * contract.rate_hz * share for a in contract.actions}
    return Shield.build(contract, ({"stage": "slew", "per_second": rates}, {"stage": "limit"}))


@pytest.mark.parametrize("name", ["cartpole", "servo", "squared", "masked", "multiagent", "spaces"])
def test_both_engines_price_and_mask_alike(name: str) -> None:
    environment, rng, n = envs.load(name), np.random.default_rng(0), 5
    c, agents = environment.contract, environment.agents
    guard = slewed(c, 0.3)
    terms = Interventions(0.25, 2.0, mask=bool(c.levels))
    a, b = Plant(environment, n, seed=3, shield=guard), Plant(environment, n, seed=3, shield=guard, interventions=terms)
    native = compose(environment, guard, terms).environment
    state, priced, narrowed = native.start(3, range(n)), 0, 0
    for _ in range(60):
        if c.levels:
            allowed = native.allowed(state).reshape(b.rows, -1)  # type: ignore[misc]
            np.testing.assert_array_equal(allowed, b.allowed)
            narrowed += int((b.allowed < (True if a.allowed is None else a.allowed)).sum())  # type: ignore[operator]
        proposal = rng.uniform([x.low for x in c.actions], [x.high for x in c.actions], (b.rows, c.n_actions))
        if c.head == "discrete":
            proposal = np.asarray(c.levels)[rng.integers(0, len(c.levels), b.rows)]
        episodes, elapsed, raw = b.episode.copy(), b.elapsed.copy(), c.fixed_action(proposal)
        x, y = a.step(proposal), b.step(proposal)
        change = (np.abs(raw.astype(float) - y.applied) / (c.action_high.astype(float) - c.action_low)).sum(-1)
        np.testing.assert_allclose(x.reward - y.reward, np.where(y.alive, 0.25 * (y.stages != 0) + 2.0 * change, 0.0), atol=1e-12)
        priced += int((y.stages != 0).sum())
        found = native.advance_agents(state, proposal.reshape(n, agents, -1), 3, episodes, elapsed, np.zeros((n, agents), bool))
        state = found[0]
        np.testing.assert_array_equal(found[1].reshape(-1), y.reward)
        ended = np.flatnonzero(b.elapsed == 0)
        state[ended] = native.start(3, b.episode[ended])
    assert priced > 0 and (narrowed > 0 or not c.levels)


def test_a_mask_leaves_what_the_shield_would_pass_and_all_where_it_passes_nothing() -> None:
    c = envs.load("cartpole").contract  # ±10 N
    guard, terms = slewed(c, 0.6), Interventions(mask=True)
    fixed: Any = c.fixed_action(np.array([[-10.0], [0.0], [10.0], [3.0]]))
    seen = np.zeros((4, c.n_observations), np.int32)
    assert terms.narrow(guard, seen, fixed, None).tolist() == [[True, False], [True, True], [False, True], [False, True]]
    assert terms.narrow(slewed(c, 0.1), seen, fixed, None).tolist() == [[True, False], [True, True], [False, True], [True, True]]
    own = np.array([[False, True]] * 4)
    assert terms.narrow(guard, seen, fixed, own).tolist() == own.tolist(), "what the environment forbids stays forbidden"
    assert terms.narrow(Shield.none(c), seen, fixed, None).all()


def test_groups_of_choices_are_tried_one_by_one() -> None:
    c = envs.load("spaces").contract
    levels, about = tries(c)
    assert levels.shape == about.shape == (c.n_outputs, c.n_actions)
    assert (about.sum(1) == 1).all() and [int(k) for k in about.sum(0)] == list(c.groups)
    previous = c.action_initial[None]
    allowed = Interventions(mask=True).narrow(slewed(c, 0.3), np.zeros((1, c.n_observations), np.int32), previous, None)[0]
    rows = [level for row in c.levels for level in row]
    for o, level in enumerate(rows):
        k = int(about[o].argmax())
        moves = abs(level - c.physical_action(previous)[0, k]) / (c.actions[k].high - c.actions[k].low)
        assert allowed[o] == (moves <= 0.3)
