"""The sanity set, each a test of one feature of the trainer, in the native engine: what PPO must solve within 100,000 steps, and what it cannot."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from puffer_edge import envs  # noqa: E402
from puffer_edge.train.algorithms.ppo import PPO  # noqa: E402
from puffer_edge.train.native import why_not  # noqa: E402
from puffer_edge.train.settings import PPOSettings  # noqa: E402

BEST = {"bandit": 1.0, "masked": 1.0, "multiagent": 1.0, "password": 1.0, "spaces": 1.0, "squared": 1.0, "stochastic": 0.92}
"""Return of the best policy that draws its actions."""


def trained(name: str) -> float:
    if why_not():
        pytest.skip(f"{why_not()} (toolchain)")
    settings = PPOSettings(engine="native", steps=100_000, rows=16, horizon=64, entropy_weight=0.01)
    learner = PPO(envs.load(name), settings).learn()
    return float(np.mean(learner.recent_returns))


@pytest.mark.parametrize("name", BEST)
def test_it_learns(name: str) -> None:
    assert trained(name) == pytest.approx(BEST[name], abs=0.04)


def test_without_memory_memory_is_a_guess() -> None:
    assert trained("memory") == pytest.approx(0.5, abs=0.15)


def test_the_whole_set_is_here() -> None:
    """Elsewhere: double_integrator in ``test_sac.py``, which has its optimum; cartpole_no_velocity in ``test_recurrent.py``, grid in
    ``test_pictures.py``; cmdp, which has a limit of cost, in ``benchmarks/cmdp.py``."""
    assert {*BEST, "memory", "double_integrator", "cartpole_no_velocity", "grid", "cmdp"} == set(envs.sanity_names())
