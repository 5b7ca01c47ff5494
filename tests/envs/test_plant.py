"""A plant pairs episodes, resets row by row, keeps the observation before a reset, and applies what the shield lets through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.envs.plant import Plant
from puffer_edge.errors import Diverged, InvalidInput, Unsupported
from puffer_edge.integer.shield import Shield

POLE, PENDULUM = envs.load("cartpole"), envs.load("pendulum")


@pytest.mark.parametrize("n", [1, 3, 7])
def test_episode_k_starts_alike_whatever_n_is(n: int) -> None:
    plant = Plant(POLE, n, seed=5)
    starts = {int(k): row.copy() for k, row in zip(plant.episode, plant.state)}
    while len(starts) < 20:
        step = plant.step(np.full((n, 1), 10.0))
        starts |= {int(plant.episode[row]): plant.state[row].copy() for row in np.flatnonzero(step.terminated)}
    for k, start in starts.items():
        np.testing.assert_array_equal(start, POLE.start(5, [k])[0])


def test_observations_are_what_a_device_sees() -> None:
    plant = Plant(PENDULUM, 4, seed=1)
    step = plant.step(np.ones((4, 1)))
    exact = PENDULUM.observe(plant.state)
    np.testing.assert_array_equal(step.observation, PENDULUM.contract.physical_observation(plant.last))
    np.testing.assert_allclose(step.observation, exact, atol=2.0**-17)
    assert (step.observation != exact).any()


def test_a_terminated_row_starts_again_alone() -> None:
    plant = Plant(POLE, 2, seed=0)
    plant.state[0] = (2.39, 5.0, 0.0, 0.0)
    before = plant.state[1].copy()
    step = plant.step(np.zeros((2, 1)))
    assert step.terminated.tolist() == [True, False] and not step.truncated.any()
    assert step.final_observation[0, 0] > 2.4 and abs(step.observation[0, 0]) <= 0.05
    np.testing.assert_array_equal(step.final_observation[1], step.observation[1])
    np.testing.assert_array_equal(plant.state[1], POLE.step(before[None], np.zeros((1, 1)))[0][0])
    assert plant.episode.tolist() == [2, 1] and plant.elapsed.tolist() == [0, 1]


def test_truncation_keeps_the_observation_before_the_reset() -> None:
    plant = Plant(replace(PENDULUM, max_steps=3), 2, seed=0)
    for _ in range(2):
        assert not plant.step(np.zeros((2, 1))).truncated.any()
    last = PENDULUM.step(plant.state, np.zeros((2, 1)))[0]
    step = plant.step(np.zeros((2, 1)))
    assert step.truncated.all() and not step.terminated.any()
    np.testing.assert_allclose(step.final_observation, PENDULUM.observe(last), atol=2.0**-17)
    assert plant.episode.tolist() == [2, 3]


def test_termination_at_the_last_step_is_not_truncation() -> None:
    plant = Plant(replace(POLE, max_steps=1), 1)
    plant.state[0] = (2.39, 5.0, 0.0, 0.0)
    step = plant.step(np.zeros((1, 1)))
    assert step.terminated[0] and not step.truncated[0]


def test_the_shield_acts_on_what_was_applied_before() -> None:
    shield = Shield.build(PENDULUM.contract, ({"stage": "slew", "per_second": {"torque": 10.0}},))
    plant = Plant(replace(PENDULUM, max_steps=3), 1, shield=shield)
    applied = []
    for _ in range(4):
        step = plant.step(np.array([[2.0]]))
        applied.append(PENDULUM.contract.physical_action(step.applied)[0, 0])
        assert step.stages[0] == 1
    assert applied == [0.5, 1.0, 1.5, 0.5], "after a reset the slew starts from the contract's initial value"


def test_proposals_beyond_the_range_are_clamped_without_a_shield() -> None:
    step = Plant(POLE, 2).step(np.array([[99.0], [-99.0]]))
    np.testing.assert_array_equal(POLE.contract.physical_action(step.applied), [[10.0], [-10.0]])
    assert not step.stages.any()


def test_what_was_given_out_stays_as_it_was() -> None:
    plant = Plant(POLE, 1)
    plant.state[0] = (2.39, 5.0, 0.0, 0.0)
    step = plant.step(np.array([[10.0]]))
    assert plant.previous[0, 0] == 0 and step.applied[0, 0] == 10 << 16


def test_saved_state_goes_on_to_the_same_bits() -> None:
    rng, a = np.random.default_rng(0), Plant(POLE, 3, seed=2)
    force = rng.uniform(-10, 10, (200, 3, 1))
    for k in range(50):
        a.step(force[k])
    b = Plant(POLE, 3, seed=2)
    b.load_state(a.save_state())
    for k in range(50, 200):
        x, y = a.step(force[k]), b.step(force[k])
        np.testing.assert_array_equal(x.observation, y.observation)
    np.testing.assert_array_equal(a.episode, b.episode)
    with pytest.raises(InvalidInput, match="number of rows"):
        Plant(POLE, 2).load_state(a.save_state())


def test_reset_starts_over_and_takes_a_seed() -> None:
    plant = Plant(POLE, 2, seed=0)
    first = plant.reset()
    plant.step(np.zeros((2, 1)))
    np.testing.assert_array_equal(plant.reset(), first)
    assert (plant.reset(seed=1) != first).any()
    np.testing.assert_array_equal(plant.reset(), Plant(POLE, 2, seed=1).reset())


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(InvalidInput, match="at least 1 row"):
        Plant(POLE, 0)
    with pytest.raises(InvalidInput, match="not negative"):
        Plant(POLE, 1, seed=-1)
    with pytest.raises(InvalidInput, match="another contract"):
        Plant(POLE, 1, shield=Shield.none(PENDULUM.contract))
    with pytest.raises(Diverged, match="row 1"):
        Plant(POLE, 2).step(np.array([[0.0], [np.nan]]))
    with pytest.raises(InvalidInput, match="observed a NaN"):
        Plant(replace(POLE, observe=lambda state: state * np.nan), 1)
    with pytest.raises(Unsupported, match="one of 2 ticks"):
        Plant(replace(POLE, contract=replace(POLE.contract, policy_divider=2)), 1)
