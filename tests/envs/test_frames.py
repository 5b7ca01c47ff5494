"""Frame stacking: the last observations, newest first, through every way in which an environment runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.envs.check import check
from puffer_edge.envs.draw import Draws
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.frames import named, stack
from puffer_edge.envs.plant import Plant
from puffer_edge.errors import InvalidInput, Unsupported
from tests.envs.test_agents import RETURNING


def test_a_stack_holds_what_was_seen() -> None:
    bare, whole, rng = envs.load("pendulum"), envs.load("pendulum-frames4"), np.random.default_rng(0)
    assert [ch.name for ch in whole.contract.observations][2:5] == ["angular_velocity", "cosine_1", "sine_1"]
    draws = Draws.of_episodes(3, np.arange(5))
    state, stacked = bare.reset(draws), whole.reset(draws)
    seen = [bare.observe(state)] * 4
    for _ in range(10):
        np.testing.assert_array_equal(whole.observe(stacked), np.concatenate(seen[:4], 1))
        action = rng.uniform(-2, 2, (5, 1))
        (state, *ours), (stacked, *theirs) = bare.step(state, action), whole.step(stacked, action)
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs))
        seen = [bare.observe(state), *seen]


@pytest.mark.parametrize("bare", [RETURNING, envs.load("multiagent")], ids=lambda e: e.name)
def test_each_agent_has_a_past_of_its_own_that_begins_with_it(bare: Environment) -> None:
    n, agents, whole, rng = bare.contract.n_observations, bare.agents, stack(bare, 3), np.random.default_rng(0)
    draws = Draws.of_episodes(3, np.arange(5))
    state, stacked = bare.reset(draws), whole.reset(draws)
    seen = np.stack([bare.observe(state)] * 3)
    returned = 0
    for _ in range(8):
        np.testing.assert_array_equal(whole.observe(stacked), np.concatenate(seen, -1))
        action = rng.uniform(-2, 2, (5, agents, 1))
        (state, *ours), (stacked, *theirs) = (e.step(s, action, *([draws] if e.random_steps else [])) for e, s in ((bare, state), (whole, stacked)))
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
        now, alive = bare.observe(state), ours[3]
        seen = np.stack([now, *seen[:-1]])
        seen[:, ~alive.astype(bool)] = now[~alive.astype(bool)]
        returned += int((~alive.astype(bool)).sum())
    assert n * 3 == whole.contract.n_observations and returned > 5 and whole.agents == agents


@pytest.mark.parametrize("name", ["cartpole-frames3", "mountain_car-frames2", "multiagent-frames2"])
def test_it_is_an_environment_like_any_other(name: str) -> None:
    environment = envs.load(name)
    check(environment)
    assert Plant(environment, 3).reset().shape == (3 * environment.agents, environment.contract.n_observations)
    assert environment.name == name


def test_names_and_what_is_refused() -> None:
    assert (named("cartpole-frames12"), named("cartpole"), named("a-framesx")) == (("cartpole", 12), ("cartpole", 1), ("a-framesx", 1))
    for wrong in ("cartpole-frames1", "cartpole-frames0", "cartpole-frames99"):
        with pytest.raises(InvalidInput, match="frames must lie in 2 … 16"):
            envs.load(wrong)
    with pytest.raises(InvalidInput, match="did you mean cartpole"):
        envs.load("catpole-frames2")
    with pytest.raises(Unsupported, match="not written as scalar functions"):
        stack(replace(envs.load("cartpole"), dynamics=None), 2)
    with pytest.raises(InvalidInput, match="must differ"):
        stack(stack(envs.load("acrobot"), 8), 2)
