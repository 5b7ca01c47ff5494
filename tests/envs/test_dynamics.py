"""The dynamics are Gymnasium's: compared from the same states with the same actions, not from the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.integer.shield import Shield

gymnasium = pytest.importorskip("gymnasium")
STEPS = 5000


def test_cartpole_gives_the_bits_of_gymnasium() -> None:
    environment, rng = envs.load("cartpole"), np.random.default_rng(1)
    state = rng.uniform((-2.5, -5, -0.22, -5), (2.5, 5, 0.22, 5), (STEPS, 4))
    choice = rng.integers(0, 2, STEPS)
    following, reward, _, terminated = environment.step(state, np.asarray(environment.contract.levels)[choice])
    theirs = gymnasium.make("CartPole-v1").unwrapped
    theirs.reset(seed=0)
    for k in range(STEPS):
        theirs.state, theirs.steps_beyond_terminated = state[k], None
        _, their_reward, their_end, _, _ = theirs.step(choice[k])
        np.testing.assert_array_equal(theirs.state, following[k])
        assert (their_reward, their_end) == (reward[k], terminated[k])
    assert 0.1 < terminated.mean() < 0.9, "both outcomes must be met"


def test_a_whole_cartpole_trajectory_gives_the_bits_of_gymnasium() -> None:
    environment, rng = envs.load("cartpole"), np.random.default_rng(2)
    theirs = gymnasium.make("CartPole-v1").unwrapped
    theirs.reset(seed=3)
    state, ended = np.array([theirs.state]), False
    while not ended:
        choice = int(rng.integers(0, 2))
        _, _, ended, _, _ = theirs.step(choice)
        state, _, _, terminated = environment.step(state, np.array([environment.contract.levels[choice]]))
        np.testing.assert_array_equal(theirs.state, state[0])
        assert terminated[0] == ended


def test_pendulum_gives_the_states_of_gymnasium() -> None:
    environment, rng = envs.load("pendulum"), np.random.default_rng(1)
    state = rng.uniform((-10, -8), (10, 8), (STEPS, 2))
    torque = rng.uniform(-2.2, 2.2, (STEPS, 1)).astype(np.float32)
    following, reward, _, _ = environment.step(state, torque.astype(np.float64))
    observation = environment.observe(following).astype(np.float32)
    theirs = gymnasium.make("Pendulum-v1").unwrapped
    theirs.reset(seed=0)
    for k in range(STEPS):
        theirs.state = state[k]
        their_observation, their_reward, _, _, _ = theirs.step(torque[k])
        np.testing.assert_array_equal(theirs.state, following[k])
        np.testing.assert_array_equal(their_observation, observation[k])
        assert their_reward == pytest.approx(reward[k], rel=1e-9), "Gymnasium squares by libm's power"


@pytest.mark.parametrize(("name", "theirs"), [("cartpole", "CartPole-v1"), ("pendulum", "Pendulum-v1")])
def test_episodes_are_as_long_as_gymnasiums(name: str, theirs: str) -> None:
    assert envs.load(name).max_steps == gymnasium.spec(theirs).max_episode_steps


def test_the_cartpole_law_brings_the_pole_back() -> None:
    """From states just outside the envelope, the shield's law alone, in the device's integers, saves most rows."""
    environment, rng = envs.load("cartpole"), np.random.default_rng(0)
    c = environment.contract
    envelope = {**environment.shield[0], "bounds": {"position": (-1e-3, 1e-3), "angle": (-1e-3, 1e-3)}}
    law, rows = Shield.build(c, (envelope,)), 2000
    for low, high, least in (
        ((-1, -1, 0.12, -0.5), (1, 1, 0.13, 1), 0.95),
        ((1.8, -0.5, -0.1, -1), (1.85, 1, 0.1, 1), 0.8),
    ):
        state, alive = rng.uniform(low, high, (rows, 4)), np.ones(rows, bool)
        nothing = np.zeros((rows, 1), np.int32)
        for _ in range(300):
            applied, _ = law.apply(c.observe(state)[0], nothing, nothing, nothing[:, 0])
            state, _, _, terminated = environment.step(state, c.physical_action(applied))
            alive &= ~terminated
        assert alive.mean() > least
        assert (np.abs(state[alive, 2]) < 0.05).mean() > 0.95
