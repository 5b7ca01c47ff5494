"""Fixed point and shield around an environment, as the native engine runs it, give the bits of the plant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.contract import Contract
from puffer_edge.envs.check import check
from puffer_edge.envs.composition import Composition, compose, shield_function
from puffer_edge.envs.draw import Draws
from puffer_edge.envs.plant import Plant
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.integer.shield import Shield, input_ranges, stage_names
from tests.samples import many_channels

POLE, PENDULUM, BANDIT = envs.load("cartpole"), envs.load("pendulum"), envs.load("bandit")


def shielded(name: str) -> Composition:
    environment = envs.load(name)
    return compose(environment, Shield.build(environment.contract, environment.shield))


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
    with pytest.raises(Unsupported, match="numpy functions"):
        compose(replace(POLE, dynamics=None))
    with pytest.raises(Unsupported, match="one of 2 ticks"):
        compose(replace(POLE, contract=replace(POLE.contract, policy_divider=2)))
