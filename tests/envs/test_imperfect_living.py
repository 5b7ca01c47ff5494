"""What lies around an environment that lives does to it what it does to one of functions: the same bits where both are the same plant."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs import living, snapshot
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.imperfect import imperfect
from puffer_edge.envs.imperfections import Actuator, Imperfections, Jitter, Sensor
from puffer_edge.envs.plant import Plant
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.spaces import Bools, Floats

PERIOD_US = 20_000.0
FUNCTIONS = {name: envs.load(name) for name in ("servo", "pendulum", "multiagent")}


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain Python, whose bits are those of compiled code: compiling so many environments would take longer."""
    monkeypatch.setattr(Dynamics, "_fast", lambda self, count: None)


class Box:
    """An environment of functions as a black box that goes forward only; what a seed starts is its episode 0 of that seed."""

    changing = ("seed", "elapsed", "gone", "state")

    def __init__(self, name: str) -> None:
        self.environment = FUNCTIONS[name]
        self.agents, self.seed, self.elapsed = self.environment.agents, 0, 0
        self.gone = np.zeros((1, self.agents), bool)

    def reset(self, seed: int, seen: Floats, allowed: Bools) -> None:
        self.seed, self.elapsed, self.gone = seed, 0, np.zeros((1, self.agents), bool)
        self.state = self.environment.start(seed, [0])
        seen[...] = self.environment.observe(self.state).reshape(seen.shape)

    def step(self, action: Floats, seen: Floats, reward: Floats, cost: Floats, terminated: Bools, alive: Bools, allowed: Bools) -> bool:
        found = self.environment.advance_agents(self.state, action[None], self.seed, [0], self.elapsed, self.gone)
        self.state, self.gone = found[0], found[3]
        for array, value in zip((reward, cost, terminated, alive), found[1:]):
            array[...] = value[0]
        self.elapsed += 1
        seen[...] = self.environment.observe(self.state).reshape(seen.shape)
        return False

    def close(self) -> None:
        pass


class ServoBox(Box):
    def __init__(self) -> None:
        super().__init__("servo")


class PendulumBox(Box):
    def __init__(self) -> None:
        super().__init__("pendulum")


class MultiBox(Box):
    def __init__(self) -> None:
        super().__init__("multiagent")


BOXES = {"servo": ServoBox, "pendulum": PendulumBox, "multiagent": MultiBox}


def boxed(name: str) -> Environment:
    e = FUNCTIONS[name]
    return living.of_contract(e.contract, BOXES[name], agents=e.agents, max_steps=e.max_steps)


class Probe:
    """Shows the action that acted last, and pays it; one number of it is a choice in "choices"."""

    friction = 0.1
    """Of the class."""

    def __init__(self) -> None:
        self.gain, self.gains = 1.0, []  # type: ignore[var-annotated]

    def reset(self, seed: int, seen: Floats, allowed: Bools) -> None:
        seen[...] = 0.0
        self.gains.append(self.gain)

    def step(self, action: Floats, seen: Floats, reward: Floats, cost: Floats, terminated: Bools, alive: Bools, allowed: Bools) -> bool:
        seen[0, 0], reward[0], cost[0], terminated[0], alive[0] = action[0, 0], action[0, 0], self.gain, False, True
        return False

    def close(self) -> None:
        pass


def probe(levels: tuple[float, ...] = ()) -> Environment:
    about: dict[str, Any] = {"head": "discrete", "levels": tuple((x,) for x in levels)} if levels else {"head": "clip", "levels": ()}
    contract = Contract(
        "probe", (ObservationChannel("acted", "1", -64, 64),), (ActionChannel("push", "1", -64, 64, safe=0.0, initial=0.0),), about["head"],
        1e6 / PERIOD_US, about["levels"],
    )  # fmt: skip
    return living.of_contract(contract, Probe, max_steps=6000)


def walk(environment: Environment, actions: Floats, seed: int, episodes: list[int]) -> list[Any]:
    """What episodes show, pay and cost, and when they end, step by step."""
    state, found = environment.start(seed, episodes), []
    gone = np.zeros((len(episodes), environment.agents), bool)
    found.append(environment.observe(state))
    for t, action in enumerate(actions):
        state, *gave, _ = environment.advance_agents(state, np.tile(action, (len(episodes), 1, 1)), seed, episodes, t, gone)
        gone = gave[2]
        found += [environment.observe(state), *gave]
        if gone.all():  # an environment that lives stays there
            break
    return found


ALL = Imperfections(
    delay_us=0.6 * PERIOD_US,
    jitter_us=Jitter("normal", mean_us=0, deviation_us=2000, low_us=-4000, high_us=49_000),
    observation_delay_steps=1,
    pending=2,
    dropout=0.1,
)


@pytest.mark.parametrize(("name", "compiled"), [("servo", False), ("pendulum", False), ("pendulum", True), ("multiagent", False)])
def test_a_black_box_meets_the_bits_of_the_same_plant_in_functions(name: str, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if compiled:
        pytest.importorskip("numba")
    monkeypatch.setattr(Dynamics, "_fast", lambda self, count: self.native if compiled else None)
    bare, n, rng = FUNCTIONS[name], 3, np.random.default_rng(0)
    c = bare.contract
    sensors = {c.observations[-1].name: Sensor(noise=0.3, bias=0.2, resolution=0.01, dropout=0.1, stuck=0.1, stuck_steps=3)}
    actuators = {c.actions[0].name: Actuator(dead_zone=0.1, neutral=0.0, high=0.5)}
    about = replace(ALL, sensors=sensors, actuators=actuators, hold_steps=2)
    if bare.agents > 1:  # whose actions are choices
        about = Imperfections(pending=2, dropout=0.1, sensors=sensors)
    box, functions = imperfect(boxed(name), about), imperfect(bare, about)
    assert box.contract == functions.contract and box.max_steps == functions.max_steps
    actions = rng.uniform([a.low for a in c.actions], [a.high for a in c.actions], (6 if bare.agents > 1 else 60, bare.agents, c.n_actions))
    for episode in range(n):
        mine = walk(box, actions, 5, [episode])
        theirs = walk(functions, actions, living.seed_of(5, episode), [0])
        for a, b in zip(mine, theirs):
            np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("plain")
def test_all_of_the_machinery_and_no_effect_leaves_the_bits_as_they_are() -> None:
    bare = boxed("servo")
    assert imperfect(bare, Imperfections()) is bare
    nothing = imperfect(bare, Imperfections(jitter_us=Jitter("constant", mean_us=0.0)))
    assert nothing.contract == bare.contract and nothing.living is not bare.living
    actions = np.random.default_rng(0).uniform(-8, 8, (50, 1, 1))
    for a, b in zip(walk(bare, actions, 3, [0, 1]), walk(nothing, actions, 3, [0, 1])):
        np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("levels", [(), tuple(float(k) for k in range(40))])
def test_an_action_arrives_when_it_is_said_to(levels: tuple[float, ...]) -> None:
    actions = np.arange(40.0).reshape(-1, 1, 1)
    acted = np.array(walk(imperfect(probe(levels), Imperfections(delay_us=3 * PERIOD_US)), actions, 0, [0])[2::4])[:, 0, 0]
    np.testing.assert_array_equal(acted, np.maximum(np.arange(40) - 3, 0))


@pytest.mark.usefixtures("plain")
def test_a_part_of_a_step_mixes_numbers_and_draws_choices() -> None:
    late, actions = Imperfections(delay_us=1.3 * PERIOD_US), np.arange(40.0).reshape(-1, 1, 1)
    mean = np.array(walk(imperfect(probe(), late), actions, 0, [0])[2::4])[:, 0, 0]
    np.testing.assert_allclose(mean[2:], np.arange(40)[2:] - 1.3, atol=1e-9)
    rows = imperfect(probe(tuple(float(k) for k in range(40))), late)
    acted = np.array(walk(rows, actions, 0, list(range(400)))[2::4])[..., 0]
    assert set(np.unique(acted)) <= set(range(40)), "whole actions, nothing between two"
    lags = np.arange(40)[2:, None] - acted[2:]
    assert set(np.unique(lags)) == {1.0, 2.0}
    np.testing.assert_allclose((lags == 1.0).mean(), 0.7, atol=0.015)  # the newer of two has come with this probability


@pytest.mark.usefixtures("plain")
def test_a_held_action_acts_so_often_and_an_episode_ends_between() -> None:
    held = imperfect(probe(), Imperfections(hold_steps=4))
    found = walk(held, np.arange(1.0, 9.0).reshape(-1, 1, 1), 0, [0])
    np.testing.assert_array_equal(np.array(found[2::4])[:, 0, 0], 4 * np.arange(1.0, 9.0))
    assert held.contract.rate_hz == 1e6 / PERIOD_US / 4 and held.max_steps == 1500


@pytest.mark.usefixtures("plain")
def test_named_numbers_of_an_environment_vary_from_episode_to_episode() -> None:
    whole = imperfect(probe(), Imperfections(parameters={"gain": (0.5, 1.5)}))
    gains = walk(whole, np.zeros((1, 1, 1)), 1, list(range(300)))[3][:, 0]
    np.testing.assert_allclose((gains.min(), gains.max(), gains.mean()), (0.5, 1.5, 1.0), atol=0.06)
    np.testing.assert_array_equal(gains, walk(whole, np.zeros((1, 1, 1)), 1, list(range(300)))[3][:, 0])
    assert whole.living is not None
    one: Any = whole.living()
    one.reset(living.seed_of(1, 0), np.zeros((1, 1)), np.ones((1, 1), bool))
    assert one.inner.gains == [gains[0]], "before the episode began"
    rough: Any = imperfect(probe(), Imperfections(parameters={"friction": (0.2, 0.3)})).living
    one = rough()
    one.reset(living.seed_of(1, 0), np.zeros((1, 1)), np.ones((1, 1), bool))
    assert 0.2 <= one.inner.friction <= 0.3 and Probe.friction == 0.1
    with pytest.raises(InvalidInput, match=r"probe has a parameter mass.*friction, gain"):
        imperfect(probe(), Imperfections(parameters={"mass": (1, 2)}))


@pytest.mark.usefixtures("plain")
def test_what_is_saved_goes_on_to_the_bit_also_in_another_process() -> None:
    about = replace(ALL, sensors={"angular_velocity": Sensor(noise=0.3, bias=0.2, stuck=0.2, stuck_steps=5)})
    whole = imperfect(boxed("pendulum"), about)
    factory = whole.living
    assert factory is not None
    first, second = factory(), pickle.loads(pickle.dumps(factory))()
    c, rng = whole.contract, np.random.default_rng(0)
    rows = [living.Arrays.of(living.Face.of(c), 1) for _ in range(2)]
    for one, into, seed in ((first, rows[0], 1), (second, rows[1], 2)):
        one.reset(seed, into.seen[0], into.allowed[0])
    for _ in range(9):
        rows[0].step(first, 0, rng.uniform(-2, 2, (1, 1)))
    snapshot.put(second, snapshot.take(first))
    rows[1].seen[...] = rows[0].seen
    for _ in range(30):
        action = rng.uniform(-2, 2, (1, 1))
        for one, into in ((first, rows[0]), (second, rows[1])):
            assert not into.step(one, 0, action)
        np.testing.assert_array_equal(rows[0].seen, rows[1].seen)
        np.testing.assert_array_equal(rows[0].reward, rows[1].reward)


def test_what_cannot_lie_around_it_is_said() -> None:
    late = Imperfections(delay_us=1.0)
    with pytest.raises(Unsupported, match="2 agents, which may come and go"):
        imperfect(boxed("multiagent"), Imperfections(hold_steps=2))
    with pytest.raises(Unsupported, match="has imperfections already"):
        imperfect(imperfect(probe(), late), late)
    with pytest.raises(Unsupported, match=r"takes choices, which are no quantities: leave out actuators\.push"):
        imperfect(probe((0.0, 1.0)), Imperfections(actuators={"push": Actuator(dead_zone=0.1)}))
    with pytest.raises(InvalidInput, match="probe observes speed"):
        imperfect(probe(), Imperfections(sensors={"speed": Sensor(noise=1)}))
    masked = living.of_contract(probe((0.0, 1.0)).contract, Probe, masked=True)
    with pytest.raises(Unsupported, match="masks its choices"):
        imperfect(masked, late)
    imperfect(masked, Imperfections(dropout=0.1))
    with pytest.raises(Unsupported, match="act in turn"):
        imperfect(replace(probe(), waiting=lambda state: state), late)
    with pytest.raises(Unsupported, match=r"all rows in one object.*gym:ID"):
        imperfect(replace(probe(), world=lambda n: None), late)  # type: ignore[arg-type, return-value]


@pytest.mark.usefixtures("plain")
def test_every_row_of_a_plant_has_its_own_draws() -> None:
    plant = Plant(imperfect(probe(), Imperfections(sensors={"acted": Sensor(noise=1.0)})), 8, seed=2)
    seen = np.array([plant.step(np.zeros((8, 1))).observation[:, 0] for _ in range(50)])
    assert len(np.unique(seen)) > 380
    np.testing.assert_allclose((seen.mean(), seen.std()), (0.0, 1.0), atol=0.15)


@pytest.mark.usefixtures("plain")
def test_agents_of_pettingzoo_each_have_their_own() -> None:
    pytest.importorskip("mpe2")
    bare = envs.load("pettingzoo:mpe2.simple_spread_v3")
    late = imperfect(bare, Imperfections(delay_us=1.5e6 / bare.contract.rate_hz, pending=1, sensors={"o0": Sensor(noise=1e-3)}))
    assert late.contract.n_observations == bare.contract.n_observations + 1 and late.agents == bare.agents == 3
    plant, n = Plant(late, 2, seed=4), bare.contract.n_observations
    rng = np.random.default_rng(0)
    for _ in range(10):
        choices = rng.integers(0, 5, (6, 1)).astype(float)
        seen = plant.step(choices).observation
        np.testing.assert_array_equal(seen[:, n:], choices)
