"""Each imperfection does to a plant what its numbers say, alike in plain Python, numpy and the native engine's pointer; none of them does nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.check import check
from puffer_edge.envs.composition import compose
from puffer_edge.envs.draw import Draws
from puffer_edge.envs.dynamics import Dynamics, Parameter
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.frames import stack
from puffer_edge.envs.imperfect import imperfect
from puffer_edge.envs.imperfections import Actuator, Imperfections, Jitter, Sensor
from puffer_edge.envs.plant import Plant
from puffer_edge.envs.scalar import Row
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.intake.plant_toml import read_plant
from puffer_edge.integer.shield import Shield
from puffer_edge.spaces import Floats

PENDULUM, SERVO = envs.load("pendulum"), envs.load("servo")
PERIOD_US = 10_000.0


def _reset(draw: Row, state: Row, parameters: Row) -> None:
    state[0], state[1] = 0.0, 0.0


def _observe(state: Row, observation: Row) -> None:
    observation[0], observation[1] = state[0], state[1]


def _step(draw: Row, state: Row, action: Row, parameters: Row) -> Any:
    """Counts steps, and keeps the action that acted; pays it, and costs 1."""
    state[0], state[1] = state[0] + 1.0, action[0] * parameters[0]
    return action[0], 1.0, False


PROBE = Environment.of_scalars(
    Contract(
        "probe",
        (ObservationChannel("steps", "1", 0.0, 8192.0), ObservationChannel("acted", "1", -4.0, 4.0)),
        (ActionChannel("push", "1", -4.0, 4.0, safe=0.0, initial=0.5),),
        "clip",
        rate_hz=1e6 / PERIOD_US,
    ),
    Dynamics(2, 2, 1, _reset, _observe, _step, (Parameter("gain", "1", 1.0),)),
    max_steps=6000,
    solved=0.0,
)
"""Shows what reaches the plant, and when."""


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain Python, whose bits are those of compiled code: compiling so many environments would take longer."""
    monkeypatch.setattr(Dynamics, "_fast", lambda self, count: None)


def walk(environment: Environment, actions: Floats, seed: int = 3, n: int = 2) -> tuple[Floats, Floats]:
    """Observations (T + 1, n, …) and states of n episodes that all take ``actions`` (T, m)."""
    state = environment.start(seed, range(n))
    seen, states = [environment.observe(state)], [state]
    for t, action in enumerate(actions):
        state = environment.advance(state, np.tile(action, (n, 1)), seed, np.arange(n), t)[0]
        seen.append(environment.observe(state))
        states.append(state)
    return np.array(seen), np.array(states)


RAMP = np.linspace(-2, 2, 40)[:, None]
EVERYTHING = Imperfections(
    delay_us=12_000,
    jitter_us=Jitter("normal", mean_us=0, deviation_us=2000, low_us=-4000, high_us=9000),
    observation_delay_steps=1,
    pending=2,
    dropout=0.1,
    sensors={"angular_velocity": Sensor(0.01, 0.02, 0.005, 0.1, 0.05, 5)},
    actuators={"torque": Actuator(dead_zone=0.1, low=-1.5, high=1.75)},
    parameters={"mass": (0.8, 1.2)},
)


@pytest.mark.parametrize("name", ["cartpole", "servo", "multiagent", "stochastic"])
def test_without_imperfections_the_bits_are_those_of_the_plant(name: str) -> None:
    bare = envs.load(name)
    assert imperfect(bare, Imperfections()) is bare
    nothing = imperfect(bare, Imperfections(jitter_us=Jitter("constant", mean_us=0.0)))  # all of the machinery, and no effect
    assert nothing.contract == bare.contract and nothing.state_size > bare.state_size
    c, rng, n = bare.contract, np.random.default_rng(0), 8
    guard = Shield.build(c, bare.shield)
    a, b = Plant(bare, n, seed=5, shield=guard), Plant(nothing, n, seed=5, shield=guard)
    for _ in range(300):
        proposal = rng.uniform([x.low for x in c.actions], [x.high for x in c.actions], (a.rows, c.n_actions))
        x, y = a.step(proposal), b.step(proposal)
        for field in ("observation", "final_observation", "reward", "cost", "terminated", "truncated", "applied", "stages"):
            np.testing.assert_array_equal(getattr(x, field), getattr(y, field))


def test_both_engines_meet_the_same_bits_and_a_saved_plant_goes_on_to_them() -> None:
    whole, rng, n = replace(imperfect(PENDULUM, EVERYTHING), max_steps=30), np.random.default_rng(0), 6
    check(whole)  # plain Python and numba's code, too
    guard = Shield.build(whole.contract, whole.shield)
    a, native = Plant(whole, n, seed=9, shield=guard), compose(whole, guard).environment
    state = native.start(9, range(n))
    for t in range(80):
        np.testing.assert_array_equal(native.observe(state), whole.contract.physical_observation(a.last))
        if t == 40:
            b = Plant(whole, n, seed=9, shield=guard)
            b.load_state(a.save_state())
            a = b
        proposal, episodes, elapsed = rng.uniform(-3, 3, (n, 1)), a.episode.copy(), a.elapsed.copy()
        found = a.step(proposal)
        state, reward, cost, terminated = native.advance(state, proposal, 9, episodes, elapsed)
        for mine, theirs in (
            (native.observe(state), found.final_observation),
            (reward, found.reward),
            (cost, found.cost),
            (terminated, found.terminated),
        ):
            np.testing.assert_array_equal(mine, theirs)
        ended = np.flatnonzero(found.terminated | found.truncated)
        state[ended] = native.start(9, a.episode[ended])


def test_an_episode_starts_as_it_would_without_and_a_seed_decides_it() -> None:
    whole, size = imperfect(PENDULUM, EVERYTHING), PENDULUM.state_size
    np.testing.assert_array_equal(whole.start(4, range(50))[:, :size], PENDULUM.start(4, range(50)))
    first, again, other = (walk(whole, RAMP, seed)[0] for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    noisy = envs.load("stochastic")  # whose own steps are random: they stay what they were
    late = imperfect(
        noisy, Imperfections(jitter_us=Jitter("uniform", low_us=0, high_us=1), sensors={noisy.contract.observations[0].name: Sensor(noise=0.1)})
    )
    calm = Draws(4, np.arange(9), np.zeros(9, np.uint64))
    state = late.step(late.start(4, range(9)), np.zeros((9, 1)), calm)[0]
    calm = Draws(4, np.arange(9), np.zeros(9, np.uint64))
    np.testing.assert_array_equal(state[:, : noisy.state_size], noisy.step(noisy.start(4, range(9)), np.zeros((9, 1)), calm)[0])


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("steps", [1, 3])
def test_a_delay_of_whole_steps_makes_an_action_act_so_many_later(steps: int) -> None:
    late = imperfect(PROBE, Imperfections(delay_us=steps * PERIOD_US))
    assert late.contract.expected_delay_us == steps * PERIOD_US
    acted = walk(late, RAMP)[0][1:, 0, 1]
    np.testing.assert_array_equal(acted[steps:], RAMP[:-steps, 0])
    np.testing.assert_array_equal(acted[:steps], 0.5)


@pytest.mark.usefixtures("plain")
def test_a_part_of_a_step_is_shared_by_two_actions() -> None:
    acted = walk(imperfect(PROBE, Imperfections(delay_us=1.25 * PERIOD_US)), RAMP)[0][1:, 0, 1]
    np.testing.assert_allclose(acted[2:], 0.25 * RAMP[:-2, 0] + 0.75 * RAMP[1:-1, 0], rtol=1e-12)
    np.testing.assert_allclose(acted[:2], (0.5, 0.25 * 0.5 + 0.75 * RAMP[0, 0]), rtol=1e-12)


@pytest.mark.usefixtures("plain")
def test_what_is_held_acts_for_so_many_steps_and_its_rewards_add_up() -> None:
    held = imperfect(PROBE, Imperfections(hold_steps=4, delay_us=1.5 * PERIOD_US))
    assert held.contract.rate_hz == PROBE.contract.rate_hz / 4 and held.max_steps == PROBE.max_steps // 4
    state = held.start(0, [0])
    before = 0.5
    for t, action in enumerate(RAMP):
        state, reward, cost, _ = held.step(state, action[None])
        assert held.observe(state)[0, 0] == 4 * (t + 1) and cost[0] == 4.0
        np.testing.assert_allclose(reward[0], 1.5 * before + 2.5 * action[0], rtol=1e-12)
        before = action[0]
    pole = imperfect(envs.load("cartpole"), Imperfections(hold_steps=4))
    state = pole.start(0, [0])
    for _ in range(20):
        state, reward, _, ended = pole.step(state, np.full((1, 1), 10.0))
        if ended[0]:
            break
    assert 1 <= reward[0] < 4, "an episode ends between the steps of a held action"


def delays(jitter: Jitter, delay_us: float = 0.0, count: int = 4000) -> Floats:
    """Delays that a run of so many steps met, read from the state, µs."""
    whole = imperfect(PROBE, Imperfections(delay_us=delay_us, jitter_us=jitter))
    state, found = whole.start(1, [0]), []
    n_line = math.ceil((delay_us + jitter.bounds_us[1]) / PERIOD_US) + 1
    for t in range(count):
        state = whole.advance(state, np.zeros((1, 1)), 1, [0], t)[0]
        found.append(state[0, whole.state_size - 1 - n_line])  # the newest of ``due``, which stands before the action that acts
    return np.array(found) * PERIOD_US


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(
    ("jitter", "mean", "deviation"),
    [
        (Jitter("constant", mean_us=2500), 2500, 0),
        (Jitter("uniform", low_us=-1000, high_us=5000), 2000, 6000 / math.sqrt(12)),
        (Jitter("normal", mean_us=2000, deviation_us=700, low_us=-2000, high_us=6000), 2000, 700),
        (Jitter("exponential", mean_us=1500, high_us=40_000), 1500, 1500),
        (Jitter("measured", measured_us=(100, 100, 100, 2100)), 600, math.sqrt(3 / 16) * 2000),
    ],
    ids=lambda x: x.kind if isinstance(x, Jitter) else "",
)
def test_jitter_has_the_distribution_that_is_stated(jitter: Jitter, mean: float, deviation: float) -> None:
    found = delays(jitter, delay_us=3000.0) - 3000.0
    low, high = jitter.bounds_us
    assert low - 1e-6 <= found.min() and found.max() <= high + 1e-6
    error = 4 * max(deviation, 1.0) / math.sqrt(len(found))
    np.testing.assert_allclose(found.mean(), mean, atol=error)
    np.testing.assert_allclose(found.std(), deviation, rtol=0.06, atol=1e-6)
    if jitter.kind == "measured":
        assert set(np.round(found).tolist()) == {100.0, 2100.0}
        np.testing.assert_allclose((found > 1000).mean(), 0.25, atol=0.03)
    if jitter.kind == "exponential":
        np.testing.assert_allclose((found > 1500).mean(), math.exp(-1), atol=0.03)


@pytest.mark.usefixtures("plain")
def test_an_action_that_is_overtaken_never_acts() -> None:
    """Over random delays of up to three steps, what acts at any moment is the newest action that has taken effect: a simulation in µs."""
    jitter, count = Jitter("uniform", low_us=0, high_us=3 * PERIOD_US), 60
    pushes = np.random.default_rng(0).uniform(-4, 4, (count, 1))
    acted = walk(imperfect(PROBE, Imperfections(jitter_us=jitter)), pushes, seed=1, n=1)[0][1:, 0, 1]
    effect = np.arange(count) * PERIOD_US + delays(jitter, count=count)
    moments = (np.arange(count * 500) + 0.5) * PERIOD_US / 500
    newest = [max((j for j in range(int(t // PERIOD_US) + 1) if effect[j] <= t), default=-1) for t in moments]
    wanted = np.append(pushes[:, 0], 0.5)[newest].reshape(count, 500).mean(1)
    np.testing.assert_allclose(acted, wanted, atol=0.05)


@pytest.mark.usefixtures("plain")
def test_sensors_err_as_stated() -> None:
    """What is seen of a channel that stays at 0, over episodes and samples."""
    n, steps = 400, 25

    def errors(**about: Any) -> Floats:
        return walk(imperfect(PROBE, Imperfections(sensors={"acted": Sensor(**about)})), np.zeros((steps, 1)), n=n)[0][1:, :, 1]

    noise = errors(noise=0.25)
    np.testing.assert_allclose((noise.mean(), noise.std()), (0.0, 0.25), atol=0.01)
    np.testing.assert_allclose(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1], 0.0, atol=0.04)
    assert len(np.unique(noise)) == noise.size
    bias = errors(bias=0.5)
    assert (bias == bias[0]).all() and np.abs(bias).max() <= 0.5
    np.testing.assert_allclose((bias[0].mean(), bias[0].std()), (0.0, 1 / math.sqrt(12)), atol=0.06)
    coarse = errors(noise=1.0, resolution=0.25)
    np.testing.assert_array_equal(coarse, np.rint(coarse * 4) / 4)
    both = walk(imperfect(PROBE, Imperfections(sensors={"acted": Sensor(noise=0.25)})), np.zeros((steps, 1)), n=n)
    np.testing.assert_array_equal(both[0][..., 0], both[1][..., 0])


@pytest.mark.usefixtures("plain")
def test_lost_samples_show_the_last_value_once_more() -> None:
    n, steps = 50, 200
    idle = np.zeros((steps, 1))
    lost = walk(imperfect(PROBE, Imperfections(sensors={"steps": Sensor(dropout=0.3)})), idle, n=n)[0]
    gone = np.diff(lost[..., 0], axis=0) == 0.0
    np.testing.assert_allclose(gone.mean(), 0.3, atol=0.015)
    fresh = lost[1:, :, 0] == np.arange(1, steps + 1)[:, None]
    np.testing.assert_array_equal(fresh, ~gone)
    pushes = np.random.default_rng(0).uniform(-4, 4, (steps, 1))
    whole = walk(imperfect(PROBE, Imperfections(dropout=0.2)), pushes, n=n)[0]
    together = np.diff(whole, axis=0) == 0.0
    np.testing.assert_array_equal(together[..., 0], together[..., 1])
    np.testing.assert_allclose(together[..., 0].mean(), 0.2, atol=0.015)


@pytest.mark.usefixtures("plain")
def test_a_stuck_sensor_stays_for_as_long_as_is_stated() -> None:
    steps, lasts, share = 1000, 7, 0.05
    seen = walk(imperfect(PROBE, Imperfections(sensors={"steps": Sensor(stuck=share, stuck_steps=lasts)})), np.zeros((steps, 1)), n=20)[0][..., 0]
    for episode in seen.T:
        stays = np.diff(np.flatnonzero(np.diff(episode) != 0)) - 1  # samples for which the value stayed, between two that are new
        assert (stays % lasts == 0).all() and (stays == lasts).any()
    np.testing.assert_allclose((np.diff(seen, axis=0) == 0).mean(), lasts * share / (1 - share) / (1 + lasts * share / (1 - share)), atol=0.03)


@pytest.mark.usefixtures("plain")
def test_actuators_have_a_dead_zone_and_saturate() -> None:
    def acted(**about: Any) -> Floats:
        return walk(imperfect(PROBE, Imperfections(actuators={"push": Actuator(**about)})), RAMP)[0][1:, 0, 1]

    u = RAMP[:, 0]
    np.testing.assert_allclose(acted(dead_zone=0.3), np.where(np.abs(u) <= 0.3, 0.0, u - 0.3 * np.sign(u)), atol=1e-12)
    np.testing.assert_allclose(acted(dead_zone=0.3, neutral=1.0), 1 + np.where(np.abs(u - 1) <= 0.3, 0.0, u - 1 - 0.3 * np.sign(u - 1)), atol=1e-12)
    np.testing.assert_array_equal(acted(low=-1.0, high=0.5), np.clip(u, -1.0, 0.5))


@pytest.mark.usefixtures("plain")
def test_parameters_vary_from_episode_to_episode_and_act() -> None:
    whole = imperfect(PROBE, Imperfections(parameters={"gain": (0.5, 1.5)}))
    state = whole.start(1, range(2000))
    state, *_ = whole.step(state, np.full((2000, 1), 2.0))
    gains = whole.observe(state)[:, 1] / 2
    np.testing.assert_allclose((gains.min(), gains.max(), gains.mean()), (0.5, 1.5, 1.0), atol=0.02)
    state, *_ = whole.step(state, np.full((2000, 1), 1.0))
    np.testing.assert_allclose(whole.observe(state)[:, 1], gains, rtol=1e-12)


@pytest.mark.usefixtures("plain")
def test_pending_actions_are_channels_of_the_contract() -> None:
    whole = imperfect(PROBE, Imperfections(delay_us=2 * PERIOD_US, pending=2))
    assert [c.name for c in whole.contract.observations] == ["steps", "acted", "push_1", "push_2"]
    seen = walk(whole, RAMP)[0][:, 0]
    np.testing.assert_array_equal(seen[0], (0.0, 0.0, 0.5, 0.5))
    np.testing.assert_array_equal(seen[2:, 2], RAMP[1:, 0])
    np.testing.assert_array_equal(seen[2:, 3], RAMP[:-1, 0])


@pytest.mark.usefixtures("plain")
def test_an_observation_that_is_old_is_the_one_of_so_many_steps_before() -> None:
    seen = walk(imperfect(PROBE, Imperfections(observation_delay_steps=3)), RAMP)[0][:, 0, 0]
    np.testing.assert_array_equal(seen, np.maximum(np.arange(len(RAMP) + 1) - 3, 0))


@pytest.mark.usefixtures("plain")
def test_stacked_frames_are_what_the_sensor_gave() -> None:
    whole = imperfect(stack(PROBE, 3), Imperfections(delay_us=PERIOD_US, pending=1, sensors={"acted": Sensor(noise=0.5)}))
    assert whole.name == "probe-frames3" and whole.contract.observations[3].name == "steps_1" and whole.imperfections.pending == 1
    seen = walk(whole, RAMP)[0]
    np.testing.assert_array_equal(seen[2:, :, 3:], seen[1:-1, :, :6])
    assert (seen[1:, 0, 1] != seen[1:, 1, 1]).all()


def test_a_file_says_all_of_it(tmp_path: Path) -> None:
    text = """
        delay_us = 12_000
        pending = 2
        dropout = 0.1
        observation_delay_steps = 1
        jitter_us = { kind = "normal", mean_us = 0, deviation_us = 2_000, low_us = -4_000, high_us = 9_000 }

        [sensors.angular_velocity]
        noise = 0.01
        bias = 0.02
        resolution = 0.005
        dropout = 0.1
        stuck = 0.05
        stuck_steps = 5

        [actuators.torque]
        dead_zone = 0.1
        low = -1.5
        high = 1.75

        [parameters]
        mass = [0.8, 1.2]
    """
    (tmp_path / "plant.toml").write_text(text)
    assert read_plant(tmp_path / "plant.toml") == EVERYTHING == Imperfections.from_dict(EVERYTHING.to_dict())
    (tmp_path / "settings.toml").write_text('environment = "pendulum"\n')
    assert read_plant(tmp_path / "settings.toml") == Imperfections()
    (tmp_path / "plant.toml").write_text("delay = 3\n")
    with pytest.raises(InvalidInput, match=r"plant.toml: a plant has no delay: it has delay_us, jitter_us"):
        read_plant(tmp_path / "plant.toml")
    (tmp_path / "plant.toml").write_text("# cut\n")
    with pytest.raises(InvalidInput, match=r"plant.toml is empty"):
        read_plant(tmp_path / "plant.toml")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"delay_us": -1}, "delay_us must be a finite number of at least 0, not -1"),
        ({"delay_us": 61e6}, r"an action delayed by up to 61,000,000 µs arrives after an episode of probe is over \(60,000,000 µs\)"),
        ({"observation_delay_steps": 257}, "observation_delay_steps must be a whole number in 0 … 256"),
        ({"delay_us": 2.6e6}, "a delay of up to 2,600,000 µs is more than 256 control steps of 10,000 µs"),
        ({"hold_steps": 0}, "hold_steps must be a whole number"),
        (
            {"jitter_us": {"kind": "normal", "mean_us": 0}},
            "a normal jitter is stated by mean_us, deviation_us, low_us, high_us: deviation_us is missing",
        ),
        ({"jitter_us": {"kind": "uniform", "low_us": 0, "high_us": 1, "mean_us": 1}}, "mean_us is of another kind"),
        ({"jitter_us": {"kind": "uniform", "low_us": 2, "high_us": 1}}, "put them in order"),
        ({"jitter_us": {"kind": "gamma"}}, "a jitter is constant, uniform, normal, exponential, measured, not 'gamma'"),
        ({"jitter_us": {"mean_us": 0}}, "jitter_us needs a kind"),
        ({"jitter_us": {"kind": "uniform", "low_us": -5, "high_us": 1}}, "would act before it has measured"),
        ({"jitter_us": {"kind": "measured", "measured_us": ["a"]}}, "measured_us of a jitter must be a finite number"),
        ({"sensors": {"speed": {"noise": 1}}}, "probe observes speed"),
        ({"sensors": {"acted": {"noise": -1}}}, "noise of a sensor must be a finite number of at least 0"),
        ({"sensors": {"acted": {"dropout": 1.5}}}, "dropout of a sensor must be a finite number in 0 … 1"),
        ({"sensors": {"acted": {"gain": 1}}}, "sensors.acted has no gain: it has noise, bias"),
        ({"actuators": {"pull": {}}}, "probe drives pull"),
        ({"actuators": {"push": {"low": 1, "high": 0}}}, "two numbers in order"),
        ({"actuators": {"push": {"neutral": 9}}}, "outside its range"),
        ({"parameters": {"mass": [1, 2]}}, "probe has a parameter mass"),
        ({"parameters": {"gain": [2, 1]}}, "two finite numbers in order"),
        ({"parameters": {"gain": 3}}, "two finite numbers in order"),
        ({"sensors": 3}, "sensors is a table"),
    ],
)
def test_what_cannot_be_is_said(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        imperfect(PROBE, Imperfections.from_dict(values))


def test_what_has_no_scalar_functions_cannot_have_any() -> None:
    late = Imperfections(delay_us=1.0)
    with pytest.raises(Unsupported, match="written as numpy functions"):
        imperfect(replace(PROBE, dynamics=None), late)
    with pytest.raises(Unsupported, match="has imperfections already"):
        imperfect(imperfect(PROBE, late), late)
    with pytest.raises(Unsupported, match="2 agents, which may come and go"):
        imperfect(envs.load("multiagent"), Imperfections(hold_steps=2))
    for late in (Imperfections(delay_us=1.0), Imperfections(hold_steps=2)):
        with pytest.raises(Unsupported, match="masked masks its choices: one that comes late"):
            imperfect(envs.load("masked"), late)
    with pytest.raises(InvalidInput, match="held longer than an episode"):
        imperfect(replace(PROBE, max_steps=3), Imperfections(hold_steps=4))
