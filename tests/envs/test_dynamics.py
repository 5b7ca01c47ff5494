"""The dynamics are Gymnasium's: compared from the same states with the same actions, not from the same seed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.envs.environment import Environment
from puffer_edge.integer.shield import Shield
from puffer_edge.spaces import Floats

gymnasium = pytest.importorskip("gymnasium")
STEPS = 10_000
CLASSICS = {
    "acrobot": "Acrobot-v1",
    "cartpole": "CartPole-v1",
    "mountain_car": "MountainCar-v0",
    "mountain_car_continuous": "MountainCarContinuous-v0",
    "pendulum": "Pendulum-v1",
}


def in_plain_python(environment: Environment) -> Environment:
    """The same scalar functions, never compiled."""
    assert environment.dynamics is not None
    dynamics = replace(environment.dynamics)
    dynamics.__dict__["native"] = None
    about = {"max_steps": environment.max_steps, "solved": environment.solved, "shield": environment.shield, "name": environment.name}
    return Environment.of_scalars(environment.contract, dynamics, **about)


def chosen(environment: Environment, rng: np.random.Generator, state: Floats) -> tuple[Any, Floats]:
    """An action as Gymnasium takes it, and as we do: random, now and then beyond the range, and mostly with the car's motion on its hill."""
    c = environment.contract
    swings = environment.name.startswith("mountain") and rng.random() < 0.8
    if c.head == "discrete":
        choice = (len(c.levels) - 1) * int(state[0, 1] > 0) if swings else int(rng.integers(len(c.levels)))
        return choice, np.array([c.levels[choice]])
    bound = 1.1 * c.actions[0].high
    action = np.array([np.sign(state[0, 1]) * bound * rng.random() ** 0.1 if swings else rng.uniform(-bound, bound)], np.float32)
    return action, action.astype(np.float64)[None]


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("name", CLASSICS)
def test_a_trace_of_10000_steps_has_the_bits_of_gymnasium(name: str, plain: bool) -> None:
    if not plain:
        pytest.importorskip("numba")
    environment, rng = envs.load(name), np.random.default_rng(1)
    environment = in_plain_python(environment) if plain else environment
    theirs = gymnasium.make(CLASSICS[name]).unwrapped
    theirs.reset(seed=0)
    state, elapsed, ended = np.array([theirs.state], np.float64), 0, 0
    for _ in range(STEPS):
        their_action, action = chosen(environment, rng, state)
        their_observation, their_reward, their_end, _, _ = theirs.step(their_action)
        state, reward, _, terminated = environment.step(state, action)
        assert np.array_equal(np.array(theirs.state, np.float64), state[0])
        assert np.array_equal(their_observation, environment.observe(state)[0].astype(np.float32))
        assert (float(their_reward), bool(their_end)) == (reward[0], terminated[0])
        elapsed += 1
        if their_end or elapsed == 2000:
            theirs.reset()
            state, elapsed, ended = np.array([theirs.state], np.float64), 0, ended + bool(their_end)
    assert ended >= (0 if name == "pendulum" else 2), "ends must be met too"


@pytest.mark.parametrize("name", CLASSICS)
def test_start_states_are_drawn_from_gymnasiums_ranges(name: str) -> None:
    theirs = gymnasium.make(CLASSICS[name]).unwrapped
    starts = []
    for k in range(500):
        theirs.reset(seed=k)
        starts.append(np.array(theirs.state, np.float64))
    ours, low, high = envs.load(name).start(3, range(500)), np.min(starts, 0), np.max(starts, 0)
    np.testing.assert_allclose(ours.min(0), low, atol=0.02 * (high - low).max() + 1e-12)
    np.testing.assert_allclose(ours.max(0), high, atol=0.02 * (high - low).max() + 1e-12)


@pytest.mark.parametrize(("name", "theirs"), CLASSICS.items())
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
