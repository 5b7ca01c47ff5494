"""Environments as Gymnasium's: its checks and Stable-Baselines3's pass, all rows at once give what one at a time gives, and SB3 learns."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from puffer_edge import envs
from puffer_edge.bridges.gymnasium import Single, Vector, identity
from puffer_edge.envs import picture
from puffer_edge.envs.plant import Plant
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.integer.shield import Shield

EVERY = [name for name in (*envs.names(), *envs.sanity_names()) if envs.load(name).agents == 1]


@pytest.mark.parametrize("name", EVERY)
def test_the_checks_of_gymnasium_and_of_stable_baselines_pass(name: str) -> None:
    env = gymnasium.make(identity(name))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(symmetric and normalized|normalize).*")  # our actions are in physical units
        check_env(env.unwrapped, skip_render_check=not env.unwrapped.metadata["render_modes"])
        pytest.importorskip("stable_baselines3.common.env_checker").check_env(env.unwrapped)


@pytest.mark.parametrize("shield", [False, True])
def test_a_picture_is_of_the_state(shield: bool) -> None:
    pytest.importorskip("PIL")
    env = gymnasium.make("puffer_edge/Servo-v1", shield=shield, render_mode="rgb_array")
    env.reset(seed=3)
    first = env.render()
    assert isinstance(first, np.ndarray) and (first == picture.frame(envs.load("servo"), envs.load("servo").start(0, [3])[0])).all()
    for _ in range(5):
        env.step(np.array([10.0], np.float32))
    assert (env.render() != first).any()
    rows = gymnasium.make_vec("puffer_edge/Servo-v1", num_envs=2, shield=shield, render_mode="rgb_array")
    rows.reset(seed=2)
    one, other = rows.render() or ()
    assert (one != other).any() and (other == first).all()


def test_what_cannot_be_rendered_is_said() -> None:
    servo = envs.load("servo")
    assert Single(servo).render() is None
    with pytest.raises(InvalidInput, match="call reset"):
        Single(servo, render_mode="rgb_array").render()
    with pytest.raises(InvalidInput, match="not 'human'"):
        Single(servo, render_mode="human")
    with pytest.raises(Unsupported, match="servo has no picture"):
        Single(replace(servo, draw=None), render_mode="rgb_array")


def test_every_environment_of_one_agent_is_registered_and_no_other() -> None:
    found = {key for key in gymnasium.registry if key.startswith("puffer_edge/")}
    assert found == {identity(name) for name in EVERY}
    assert "puffer_edge/CartPole-v1" in found and "puffer_edge/MountainCarContinuous-v1" in found


def same(ours: Any, theirs: Any) -> None:
    """The same keys, types and bits, however deep."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            same(ours[key], theirs[key])
    elif isinstance(theirs, tuple) or (isinstance(theirs, np.ndarray) and theirs.dtype == object):
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
    else:
        np.testing.assert_array_equal(ours, theirs, strict=isinstance(theirs, np.ndarray))


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize(("name", "shield"), [*((name, False) for name in EVERY), ("cartpole", True)])
def test_all_rows_at_once_give_what_gymnasium_makes_of_one_at_a_time(name: str, shield: bool, mode: AutoresetMode) -> None:
    n, task = 5, replace(envs.load(name), max_steps=min(envs.load(name).max_steps, 23))
    ours, theirs = Vector(task, n, shield, mode), SyncVectorEnv([lambda: Single(task, shield)] * n, autoreset_mode=mode)
    assert (ours.single_observation_space, ours.single_action_space) == (theirs.single_observation_space, theirs.single_action_space)
    assert (ours.observation_space, ours.action_space, ours.metadata) == (theirs.observation_space, theirs.action_space, theirs.metadata)
    same(ours.reset(seed=7), theirs.reset(seed=7))
    theirs.action_space.seed(1)
    ends = cuts = 0
    for t in range(100):
        action = theirs.action_space.sample()
        a, b = ours.step(action), theirs.step(action)
        same(a, b)
        over = b[2] | b[3]
        ends, cuts = ends + int(b[2].sum()), cuts + int(b[3].sum())
        if mode is AutoresetMode.DISABLED and over.any():
            same(ours.reset(options={"reset_mask": over}), theirs.reset(options={"reset_mask": over}))
        if t == 40:
            seeds = [3, None, 1, 2**40, None]
            same(ours.reset(seed=seeds), theirs.reset(seed=seeds))
    assert ends + cuts > 2 and (cuts or task.max_steps < 23)


def test_an_episode_is_that_of_a_plant() -> None:
    """Fixed point and shield included: what a policy of ours would meet, and what its numbers are called."""
    task = envs.load("cartpole")
    rows = 6
    plant = Plant(task, rows, 0, Shield.build(task.contract, task.shield))
    env = gymnasium.make_vec("puffer_edge/CartPole-v1", num_envs=rows, shield=True)
    seen, _ = env.reset(seed=0)
    np.testing.assert_array_equal(seen, plant.reset().astype(np.float32))
    rng, running = np.random.default_rng(0), np.ones(rows, bool)
    acted = 0
    for _ in range(60):
        action = rng.integers(0, 2, rows)
        seen, reward, over, cut, info = env.step(action)
        expected = plant.step(np.array(task.contract.levels)[action])
        for ours, theirs in ((seen, expected.final_observation.astype(np.float32)), (reward, expected.reward), (over, expected.terminated)):
            np.testing.assert_array_equal(ours[running], theirs[running])
        np.testing.assert_array_equal(info["stages"][running], expected.stages[running])
        np.testing.assert_array_equal(info["cost"][running], expected.cost[running])
        acted += int((info["stages"] != 0)[running].sum())
        running &= ~(over | cut)
    assert acted and env.contract is task.contract and [c.unit for c in env.contract.observations] == ["m", "m/s", "rad", "rad/s"]


def test_without_a_shield_it_is_gymnasiums_cartpole() -> None:
    ours, theirs = gymnasium.make("puffer_edge/CartPole-v1"), gymnasium.make("CartPole-v1")
    ours.reset(seed=4)
    theirs.reset(seed=4)
    theirs.unwrapped.state = ours.unwrapped._running._state[0].copy()
    for t in range(500):
        action = t % 2
        a, b = ours.step(action), theirs.step(action)
        same(a[:4], b[:4])
        if a[2]:
            break
    assert a[2]


def test_the_clock_truncates_once_and_an_ended_episode_is_not_stepped() -> None:
    env = gymnasium.make("puffer_edge/Pendulum-v1")
    env.reset(seed=0)
    ends = [env.step(np.zeros(1, np.float32))[2:4] for _ in range(200)]
    assert ends == [(False, False)] * 199 + [(False, True)]
    with pytest.raises(InvalidInput, match="no episode of pendulum runs: call reset"):
        env.step(np.zeros(1, np.float32))
    with pytest.raises(InvalidInput, match="call reset"):
        Vector("pendulum", 2).step(np.zeros((2, 1), np.float32))


def test_seeds_repeat_and_go_on() -> None:
    env = Single("cartpole")
    first = [env.reset(seed=5)[0].tolist()] + [env.reset()[0].tolist() for _ in range(3)]
    again = [env.reset(seed=5)[0].tolist()] + [env.reset()[0].tolist() for _ in range(3)]
    assert first == again and len({tuple(x) for x in first}) == 4
    assert Single("cartpole").reset()[0].tolist() != Single("cartpole").reset()[0].tolist()
    assert Vector("cartpole", 3).reset(seed=4)[0][1].tolist() == first[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Vector("cartpole", 0), "whole number from 1"),
        (lambda: Vector("cartpole", 2, autoreset_mode="Never"), "one of NextStep, SameStep, Disabled, not 'Never'"),
        (lambda: Vector("cartpole", 2).reset(seed=[1]), "1 seeds were given for 2"),
        (lambda: Vector("cartpole", 2).reset(options={"reset_mask": np.zeros(2, bool)}), "at least one of them True"),
        (lambda: Single("catpole"), "did you mean cartpole"),
    ],
)
def test_what_is_wrong_is_said(make: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()


@pytest.mark.parametrize(("name", "action"), [("cartpole", 2), ("cartpole", 0.5), ("spaces", [0, 9]), ("pendulum", [np.nan]), ("pendulum", [0, 0])])
def test_an_action_outside_its_space_is_refused(name: str, action: Any) -> None:
    env = Single(name)
    env.reset(seed=0)
    with pytest.raises(InvalidInput, match="takes"):
        env.step(action)


def test_what_cannot_be_given_out_is_said() -> None:
    with pytest.raises(Unsupported, match=r"2 agents: use puffer_edge\.bridges\.pettingzoo\.Parallel"):
        Single("multiagent")
    with pytest.raises(Unsupported, match="use it as it is"):
        Single("gym:CartPole-v1")


def test_gymnasium_finds_it_by_the_name_of_the_module_and_loads_neither_numba_nor_torch() -> None:
    script = (
        "import gymnasium, sys; e = gymnasium.make('puffer_edge.bridges.gymnasium:puffer_edge/CartPole-v1'); e.reset(seed=0); e.step(1);"
        "print([name for name in ('numba', 'torch') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_stable_baselines_learns_on_ours() -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    env = pytest.importorskip("stable_baselines3.common.env_util").make_vec_env(lambda: Single("cartpole"), 8, seed=1)
    model = sb3.PPO("MlpPolicy", env, n_steps=128, batch_size=256, n_epochs=8, learning_rate=1e-3, gamma=0.98, seed=1, device="cpu")
    before, after = (_mean_return(model), _mean_return(model.learn(12_000)))
    assert after > before + 60.0 and after > 100.0  # a random policy's return is some 22


def _mean_return(model: Any) -> float:
    env, total = Vector("cartpole", 20), np.zeros(20)
    seen, _ = env.reset(seed=1000)
    running = np.ones(20, bool)
    for _ in range(500):
        seen, reward, over, cut, _ = env.step(model.predict(seen, deterministic=True)[0])
        total += np.where(running, reward, 0.0)
        running &= ~(over | cut)
    return float(total.mean())
