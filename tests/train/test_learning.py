"""PPO learns: every seed reaches the target on fresh episodes, and on Gymnasium's own environments too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.policy import Policy
from puffer_edge.train import train

pytest.importorskip("torch")
EPISODES = 20


def gymnasium_return(name: str, policy: Policy) -> float:
    """Mean return on Gymnasium's environment, the policy fed with its raw float observations, no shield and no fixed point."""
    gymnasium = pytest.importorskip("gymnasium")
    env, returns = gymnasium.make(name), np.zeros(EPISODES)
    for k in range(EPISODES):
        observation, _ = env.reset(seed=k)
        ended = False
        while not ended:
            action: Any = int(policy.choose(observation)) if policy.head.kind == "discrete" else policy.act(observation).astype(np.float32)
            observation, reward, terminated, truncated, _ = env.step(action)
            returns[k] += reward
            ended = terminated or truncated
    return float(returns.mean())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("name", "theirs"), [("cartpole", "CartPole-v1"), ("pendulum", "Pendulum-v1")])
def test_every_seed_solves(name: str, theirs: str, seed: int, tmp_path: Path) -> None:
    run, solved = train(name, seed=seed, out=tmp_path), envs.load(name).solved
    assert run.result["evaluation"]["return"] >= solved
    assert run.result["evaluation_unshielded"]["return"] >= solved
    assert gymnasium_return(theirs, run.policy) >= solved
