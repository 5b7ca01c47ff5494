"""What surrounds an environment in the native engine gives the bits of the plant, and does with delay, noise and parameters what it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.contract import Contract
from puffer_edge.envs.check import check
from puffer_edge.envs.composition import MAX_DELAY, Composition, compose, shield_function
from puffer_edge.envs.draw import Draws
from puffer_edge.envs.plant import Plant
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.integer.shield import Shield, input_ranges, stage_names
from puffer_edge.spaces import Floats
from tests.samples import many_channels

POLE, PENDULUM, BANDIT = envs.load("cartpole"), envs.load("pendulum"), envs.load("bandit")


def shielded(name: str, **surroundings: Any) -> Composition:
    environment = envs.load(name)
    return compose(environment, Shield.build(environment.contract, environment.shield), **surroundings)


@pytest.mark.parametrize("name", [*envs.names(), "squared", "spaces", "bandit"])
def test_a_composition_gives_the_bits_of_the_plant(name: str) -> None:
    environment, rng, n = envs.load(name), np.random.default_rng(0), 16
    slew = {"stage": "slew", "per_second": {a.name: (a.high - a.low) * environment.contract.rate_hz / 4 for a in environment.contract.actions}}
    guard = Shield.build(environment.contract, (slew, *environment.shield))
    plant, whole = Plant(replace(environment, max_steps=150), n, seed=9, shield=guard), compose(environment, guard)
    state = whole.environment.start(9, range(n))
    c, acted = environment.contract, 0
    span = np.array([1.5 * max(abs(a.low), abs(a.high)) for a in c.actions])
    for _ in range(400):
        np.testing.assert_array_equal(whole.environment.observe(state), c.physical_observation(plant.last))
        proposal = span * rng.uniform(-1, 1, (n, c.n_actions))
        episodes, elapsed = plant.episode.copy(), plant.elapsed.copy()
        step = plant.step(proposal)
        draws = Draws(9, episodes, elapsed)
        state, reward, cost, terminated = whole.environment.step(state, proposal, draws)
        for mine, theirs in (
            (whole.environment.observe(state), step.final_observation),
            (reward, step.reward),
            (cost, step.cost),
            (terminated, step.terminated),
            (whole.applied(state), step.applied),
            (whole.stages(state), step.stages),
        ):
            np.testing.assert_array_equal(mine, theirs)
        acted += int((step.stages != 0).sum())
        ended = np.flatnonzero(step.terminated | step.truncated)
        state[ended] = whole.environment.start(9, plant.episode[ended])
        np.testing.assert_array_equal(whole.read(state, "inner"), plant.state)
    assert acted > 0, "the shield must act now and then"


@pytest.mark.parametrize("name", envs.names())
def test_a_composition_is_an_environment(name: str) -> None:
    check(shielded(name).environment)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("contract", [e.contract for e in map(envs.load, envs.names())] + [many_channels()], ids=lambda c: c.name)
def test_the_shield_as_a_function_gives_the_bits_of_the_shield(contract: Contract, plain: bool) -> None:
    """Over its inputs' whole ranges, edges included; the fallback too."""
    if not plain:
        pytest.importorskip("numba")
    rng, rows = np.random.default_rng(0), 2_000 if plain else 100_000
    ranges = input_ranges(contract)
    first, m = contract.observations[0], contract.actions
    chain = [
        {"stage": "envelope", "bounds": {first.name: (first.low / 2, first.high / 2)}, "law": {m[0].name: {first.name: 0.25 / first.high}}},
        {"stage": "slew", "per_second": {a.name: (a.high - a.low) * contract.rate_hz / 4 for a in m}},
        {"stage": "limit"},
    ]
    guard = Shield.build(contract, chain)
    values = np.stack([rng.integers(low, high + 1, rows) for _, low, high in ranges], -1)
    edges = np.array([(low, high) for _, low, high in ranges])
    at = rng.random(values.shape) < 0.1
    values[at] = np.broadcast_to(edges[:, 0], values.shape)[at]
    n, k = contract.n_observations, contract.n_actions
    last = (values[:, :n] << contract.shield_shift).astype(np.int32)
    int32 = values.astype(np.int32)
    applied, stages = guard.apply(last, int32[:, n : n + k], int32[:, n + k : n + 2 * k], int32[:, -1])
    function, out = shield_function(guard), np.zeros((rows, k + 1), np.int64)
    _over_rows(function, values, out, plain)
    np.testing.assert_array_equal(out[:, :-1], applied)
    np.testing.assert_array_equal(out[:, -1], stages)
    assert len(np.unique(stages)) > 3 and {s["stage"] for s in chain} <= set(stage_names())


def _over_rows(function: Any, values: Any, out: Any, plain: bool) -> None:
    if plain:
        for row, result in zip(values.tolist(), out):
            function(row, result)
        return
    import numba

    compiled = numba.njit(function)

    @numba.njit
    def loop(values: Any, out: Any) -> None:
        for k in range(len(values)):
            compiled(values[k], out[k])

    loop(values, out)


def walk(whole: Composition, actions: Floats, seed: int = 3) -> tuple[Floats, Floats]:
    """Observations (T + 1, n, …) and states of rows that all take ``actions`` (T, m)."""
    n = 4
    state = whole.environment.start(seed, range(n))
    seen, states = [whole.environment.observe(state)], [state]
    for t, action in enumerate(actions):
        state = whole.environment.step(state, np.tile(action, (n, 1)), Draws(seed, np.arange(n), np.full(n, t, np.uint64)))[0]
        seen.append(whole.environment.observe(state))
        states.append(state)
    return np.array(seen), np.array(states)


ACTIONS = np.random.default_rng(1).uniform(-2, 2, (20, 1))


@pytest.mark.parametrize("delay", [1, 3])
def test_a_delayed_observation_is_an_old_one(delay: int) -> None:
    now, _ = walk(compose(PENDULUM), ACTIONS)
    late, _ = walk(compose(PENDULUM, observation_delay=delay), ACTIONS)
    np.testing.assert_array_equal(late[delay:], now[:-delay])
    np.testing.assert_array_equal(late[:delay], np.broadcast_to(now[0], (delay, *now[0].shape)))


@pytest.mark.parametrize("delay", [1, 3])
def test_a_delayed_action_acts_later_and_the_initial_one_until_then(delay: int) -> None:
    late, states = walk(compose(PENDULUM, action_delay=delay), ACTIONS)
    now, _ = walk(compose(PENDULUM), np.concatenate([np.zeros((delay, 1)), ACTIONS[:-delay]]))
    np.testing.assert_array_equal(late, now)
    whole = compose(PENDULUM, action_delay=delay)
    np.testing.assert_array_equal(whole.applied(states[-1])[:, 0], PENDULUM.contract.fixed_action(ACTIONS[-1:])[0, 0])
    acting = PENDULUM.contract.physical_action(PENDULUM.contract.fixed_action(ACTIONS[-1 - delay : -delay]))
    np.testing.assert_array_equal(whole.read(states[-1], "acting"), np.broadcast_to(acting, (4, 1)))


def test_noise_has_the_deviation_that_was_asked_for_and_leaves_the_state_alone() -> None:
    exact, inner = walk(compose(PENDULUM), np.zeros((400, 1)))
    noisy, states = walk(compose(PENDULUM, noise={"angular_velocity": 0.25}), np.zeros((400, 1)))
    np.testing.assert_array_equal(inner[..., :2], states[..., :2])
    np.testing.assert_array_equal(exact[..., :2], noisy[..., :2])
    error = (noisy - exact)[..., 2][np.abs(exact[..., 2]) < 6]
    np.testing.assert_allclose((error.mean(), error.std()), (0.0, 0.25), atol=0.03)
    assert len(np.unique(error)) > 0.9 * error.size


def test_parameters_vary_from_episode_to_episode_and_act() -> None:
    whole = compose(POLE, vary={"pole_mass": (0.05, 0.5)})
    state = whole.environment.start(1, range(2000))
    drawn = whole.read(state, "parameters")
    np.testing.assert_array_equal(drawn[:, [0, 2, 3]], np.tile([9.8, 1.0, 0.5], (2000, 1)))
    np.testing.assert_allclose((drawn[:, 1].min(), drawn[:, 1].max(), drawn[:, 1].mean()), (0.05, 0.5, 0.275), atol=0.01)
    fixed = compose(POLE, vary={"pole_mass": (0.3, 0.3)})
    heavy = replace(POLE.dynamics, parameters=tuple(replace(p, value=0.3) if p.name == "pole_mass" else p for p in POLE.dynamics.parameters))  # type: ignore[union-attr,type-var]
    a, b = fixed.environment.start(1, [0]), heavy.start(Draws.of_episodes(1, [0]))
    b[:] = fixed.read(a, "inner")
    a = fixed.environment.step(a, np.full((1, 1), 10.0))[0]
    b = heavy.advance(b, np.full((1, 1), 10.0))[0]
    np.testing.assert_array_equal(fixed.read(a, "inner"), b)


def test_all_of_it_together_is_an_environment() -> None:
    everything = shielded("pendulum", observation_delay=2, action_delay=1, noise={"cosine": 0.05, "sine": 0.05}, vary={"mass": (0.8, 1.2)})
    assert everything.environment.random_steps
    check(everything.environment)


def test_interventions_are_counted_across_resets() -> None:
    whole = shielded("pendulum")
    state, counted = whole.environment.start(0, [0]), 0
    for _ in range(50):
        state = whole.environment.step(state, np.array([[2.0]]))[0]
        counted += int(whole.stages(state)[0] != 0)
    assert whole.read(state, "interventions")[0, 0] == counted > 0
    pytest.importorskip("numba")
    key, zeros = np.zeros(2, np.uint32), np.zeros(1, np.uint64)
    whole.environment.pointer().reset(0, key, zeros, np.ones(1, np.uint8), state, np.zeros((1, 1, 3)))
    assert whole.read(state, "interventions")[0, 0] == counted and whole.stages(state)[0] == 0


def test_what_is_no_number_is_not_hidden() -> None:
    whole = compose(POLE)
    state = whole.environment.start(0, range(3))
    _, reward, _, _ = whole.environment.step(state, np.array([[np.nan], [np.inf], [1.0]]))
    assert np.isnan(reward).tolist() == [True, True, False]
    state[1, whole.columns["inner"]] = np.nan
    following, *_ = whole.environment.step(state, np.zeros((3, 1)))
    assert np.isnan(whole.environment.observe(following)).all(-1).tolist() == [False, True, False]


def test_what_cannot_be_composed_is_said() -> None:
    with pytest.raises(InvalidInput, match="another contract"):
        compose(POLE, Shield.none(PENDULUM.contract))
    with pytest.raises(InvalidInput, match="cartpole observes no speed: it observes position"):
        compose(POLE, noise={"speed": 1.0})
    with pytest.raises(InvalidInput, match="not negative, not -1"):
        compose(POLE, noise={"angle": -1.0})
    with pytest.raises(InvalidInput, match="no parameter mass: they have gravity"):
        compose(POLE, vary={"mass": (1.0, 2.0)})
    with pytest.raises(InvalidInput, match="two finite numbers in order"):
        compose(POLE, vary={"gravity": (2.0, 1.0)})
    for delay in (-1, MAX_DELAY + 1, 1.5, True):
        with pytest.raises(InvalidInput, match="a delay is a whole number"):
            compose(POLE, action_delay=delay)  # type: ignore[arg-type]
    with pytest.raises(Unsupported, match="numpy functions"):
        compose(replace(POLE, dynamics=None))
    with pytest.raises(Unsupported, match="one of 2 ticks"):
        compose(replace(POLE, contract=replace(POLE.contract, policy_divider=2)))
