"""Environments as PettingZoo's: its own tests pass, and what the agents get is what the scalar functions say."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from pettingzoo.utils import parallel_to_aec

from puffer_edge import envs
from puffer_edge.bridges.pettingzoo import Parallel
from puffer_edge.errors import InvalidInput

with warnings.catch_warnings():  # it imports a game of its own, in the way that it calls old
    warnings.filterwarnings("ignore", message="The old environment creation API", category=DeprecationWarning)
    from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test


@pytest.mark.parametrize("name", ["multiagent", "cartpole", "spaces"])
def test_pettingzoos_own_tests_pass(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    parallel_api_test(Parallel(name), num_cycles=300)
    parallel_seed_test(lambda: Parallel(name), num_cycles=20)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* space for each agent probably should be|Observation is a single number")
        api_test(parallel_to_aec(Parallel(name)), num_cycles=100)


def test_an_agent_whose_part_is_over_leaves_and_the_clock_ends_nobody_twice() -> None:
    env = Parallel("multiagent")
    seen, infos = env.reset(seed=3)
    assert {agent: x.tolist() for agent, x in seen.items()} == {"agent_0": [-1.0], "agent_1": [1.0]} and infos == {"agent_0": {}, "agent_1": {}}
    total: dict[str, float] = dict.fromkeys(env.possible_agents, 0.0)
    for t in range(8):
        assert env.agents == (["agent_0", "agent_1"] if t < 4 else ["agent_0"])
        _, reward, terminated, truncated, infos = env.step({agent: env.possible_agents.index(agent) for agent in env.agents})
        assert not any(truncated.values()) and all(info == {"cost": 0.0} for info in infos.values())
        assert terminated.get("agent_1", t != 3) == (t == 3) or t > 3
        for agent, paid in reward.items():
            total[agent] += paid
    assert total == {"agent_0": 1.0, "agent_1": 1.0} and env.agents == [] and env.step({}) == ({}, {}, {}, {}, {})


def test_the_clock_truncates_an_agent_that_is_still_there() -> None:
    env = Parallel("pendulum")
    env.reset(seed=0)
    for t in range(envs.load("pendulum").max_steps):
        _, _, terminated, truncated, _ = env.step({"agent_0": np.zeros(1, np.float32)})
        assert (terminated, truncated) == ({"agent_0": False}, {"agent_0": t == 199})
    assert env.agents == []


@pytest.mark.parametrize("actions", [{"agent_0": 0}, {"agent_0": 0, "agent_1": 2}, {"agent_0": 0, "agent_1": -1}, {"agent_0": 0.5, "agent_1": 0}])
def test_a_wrong_action_is_named(actions: dict[str, Any]) -> None:
    env = Parallel("multiagent")
    env.reset(seed=0)
    with pytest.raises(InvalidInput, match=r"lacks an action of agent_1|whole numbers from 0 to below"):
        env.step(actions)
