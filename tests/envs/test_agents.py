"""Several agents, deaths, returns and masks in plants, compositions and closed loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs import closed_loop
from puffer_edge.envs.check import check
from puffer_edge.envs.composition import compose
from puffer_edge.envs.draw import Draws, uniform
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.frames import stack
from puffer_edge.envs.imperfect import imperfect
from puffer_edge.envs.imperfections import Imperfections
from puffer_edge.envs.plant import Plant
from puffer_edge.envs.scalar import Row, where
from puffer_edge.errors import ContractError, InvalidInput, Unsupported
from puffer_edge.integer.reference import InFloat, Runner
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import Head, Layer, Normalizer, Policy
from puffer_edge.spaces import Floats

MASKED, MULTI = envs.load("masked"), envs.load("multiagent")


def reset(draw: Row, state: Row, parameters: Row) -> None:
    state[0], state[1] = 0.0, uniform(draw, -1.0, 1.0)


def observe(state: Row, observation: Row) -> None:
    for a in range(3):
        observation[a, 0], observation[a, 1] = state[1] + a, state[0]


def step(draw: Row, state: Row, action: Row, parameters: Row, reward: Row, cost: Row, terminated: Row, alive: Row) -> None:
    """Agent 0 acts always, agent 1 in steps 0 … 2 and, having come back, 5 … 6, agent 2 in step 0; agent 0 ends it all after 9 steps."""
    t = state[0]
    for a in range(3):
        acts = (a == 0) | ((a == 1) & ((t < 3.0) | ((t >= 5.0) & (t < 7.0)))) | ((a == 2) & (t < 1.0))
        last = ((a == 0) & (t == 8.0)) | ((a == 1) & ((t == 2.0) | (t == 6.0))) | ((a == 2) & (t == 0.0))
        alive[a] = 1 if acts else 0
        reward[a] = action[a, 0] if acts else 99.0  # what the dead are paid does not count
        cost[a] = abs(action[a, 0]) if acts else 99.0
        terminated[a] = 1 if last else 0
    state[0], state[1] = t + 1.0, where(action[0, 0] > 0.0, state[1], -state[1])


TRIO = Contract(
    "trio",
    (ObservationChannel("x", "1", -4.0, 4.0), ObservationChannel("t", "1", 0.0, 10.0)),
    (ActionChannel("push", "1", -2.0, 2.0, safe=0.0, initial=0.5),),
    "clip",
    rate_hz=10.0,
)
RETURNING = Environment.of_scalars(TRIO, Dynamics(2, 2, 1, reset, observe, step, agents=3), max_steps=20, solved=1.0)
ALIVE = np.array([[1, t in (0, 1, 2, 5, 6), t == 0] for t in range(9)], bool)


def test_an_agent_dies_comes_back_and_begins_anew() -> None:
    slew = Shield.build(TRIO, ({"stage": "slew", "per_second": {"push": 5.0}},))
    plant = Plant(RETURNING, 2, seed=3, shield=slew)
    for episode in range(2):
        for t in range(9):
            found = plant.step(np.full((6, 1), 2.0))
            np.testing.assert_array_equal(found.alive.reshape(2, 3), [ALIVE[t]] * 2)
            np.testing.assert_array_equal(found.terminated.reshape(2, 3)[0], ~ALIVE[t] | [t == 8, t in (2, 6), t == 0])
            assert not found.truncated.any() and found.allowed is None
            applied = TRIO.physical_action(found.applied)[:, 0].reshape(2, 3)
            since = {0: t, 1: t - 5 if t >= 5 else t, 2: 0}
            for a in range(3):
                if ALIVE[t, a]:  # from the initial 0.5 by at most 0.5 a step, since the agent began
                    assert applied[0, a] == min(0.5 + 0.5 * (since[a] + 1), 2.0)
            np.testing.assert_array_equal(found.reward.reshape(2, 3), np.where(ALIVE[t], applied, 0.0))
            np.testing.assert_array_equal(found.cost, found.reward)
        assert plant.elapsed.tolist() == [0, 0] and plant.episode.tolist() == [2 * episode + 2, 2 * episode + 3]


def test_the_clock_truncates_those_who_live_then() -> None:
    plant = Plant(replace(RETURNING, max_steps=6), 1)
    for t in range(6):
        found = plant.step(np.zeros((3, 1)))
        assert found.truncated.tolist() == ([True, True, False] if t == 5 else [False] * 3)
    assert found.terminated.tolist() == [False, False, True] and plant.episode.tolist() == [1]


@pytest.mark.parametrize("environment", [RETURNING, MULTI], ids=lambda e: e.name)
def test_a_composition_of_several_agents_gives_the_bits_of_the_plant(environment: Environment) -> None:
    n, agents, rng, c = 5, environment.agents, np.random.default_rng(0), environment.contract
    guard = Shield.build(c, ({"stage": "slew", "per_second": {c.actions[0].name: 1.5 * c.rate_hz}}, *environment.shield))
    plant, whole = Plant(environment, n, seed=9, shield=guard), compose(environment, guard)
    check(whole.environment)
    state, acted, deaths = whole.environment.start(9, range(n)), np.zeros(n * agents), 0
    for _ in range(60):
        proposal = rng.uniform(-3, 3, (n, agents, 1))
        draws = Draws(9, plant.episode.copy(), plant.elapsed.copy())
        found = plant.step(proposal.reshape(-1, 1))
        state, reward, cost, terminated, alive = whole.environment.step(state, proposal, *([draws] if environment.random_steps else []))
        rows = alive.reshape(-1)
        np.testing.assert_array_equal(rows, found.alive)
        np.testing.assert_array_equal(whole.environment.observe(state).reshape(n * agents, -1), found.final_observation)
        for mine, theirs in ((reward, found.reward), (cost, found.cost), (terminated, found.terminated), (whole.stages(state), found.stages)):
            np.testing.assert_array_equal(mine.reshape(-1)[rows], theirs[rows])
        np.testing.assert_array_equal(whole.applied(state).reshape(-1, 1)[rows], found.applied[rows])
        acted += (found.stages != 0) & rows
        np.testing.assert_array_equal(whole.read(state, "interventions").sum(), acted.sum())
        deaths += int((~rows).sum())
        ended = np.flatnonzero(plant.elapsed == 0)
        kept = whole.read(state, "interventions").copy()
        state[ended] = whole.environment.start(9, plant.episode[ended])
        state[:, whole.columns["interventions"]] = kept
    assert acted.sum() > 20 and deaths > 20


def test_delays_of_several_agents_are_each_ones_own() -> None:
    whole = imperfect(RETURNING, Imperfections(delay_us=1e6 / RETURNING.contract.rate_hz, observation_delay_steps=1, pending=1))
    size, state = RETURNING.state_size, whole.start(0, [0])
    for t in range(7):
        before = RETURNING.observe(state[:, :size])
        proposal = np.array([[[0.25], [1.0 + t / 8], [-1.0]]])
        state, reward, _, _, alive = whole.step(state, proposal)
        wanted = [0.5 if t == 0 else 0.25, 0.5 if t in (0, 5) else 1.0 + (t - 1) / 8, 0.5]  # the initial action, when one begins
        np.testing.assert_array_equal(reward[0][alive[0]], np.array(wanted)[alive[0]])
        seen = whole.observe(state)
        np.testing.assert_array_equal(seen[..., :-1], before)
        np.testing.assert_array_equal(seen[..., -1], np.where(alive, proposal[..., 0], 0.5))


def test_saved_agents_go_on_to_the_same_bits() -> None:
    def old(state: Floats, action: Floats) -> Any:  # gives no alive: whoever has terminated acts no more
        return RETURNING.step(state, action)[:4]

    for environment in (RETURNING, replace(RETURNING, step=old)):
        a, rng = Plant(environment, 3, seed=2), np.random.default_rng(0)
        push = rng.uniform(-2, 2, (40, 9, 1))
        for k in range(13):
            a.step(push[k])
        b = Plant(environment, 3, seed=2)
        b.load_state(a.save_state())
        for k in range(13, 40):
            x, y = a.step(push[k]), b.step(push[k])
            for name in ("observation", "reward", "alive", "terminated"):
                np.testing.assert_array_equal(getattr(x, name), getattr(y, name))
        assert (a.episode > 6).all()
    deaf = Plant(environment, 1)
    seen = [deaf.step(np.ones((3, 1))).alive.tolist() for _ in range(9)]
    assert seen == [[True, t < 3, t < 1] for t in range(9)]


class Switchboard:
    """A world whose arrays a test sets: one environment of two agents, of the contract of multiagent."""

    def __init__(self) -> None:
        self.seen, self.reward, self.cost = np.zeros((1, 2, 1)), np.zeros((1, 2)), np.zeros((1, 2))
        self.terminated, self.alive, self.cut = np.zeros((1, 2), bool), np.ones((1, 2), bool), np.zeros(1, bool)
        self.allowed: Any = np.ones((1, 2, 2), bool)
        self.started: list[list[int]] = []
        self.acted: Any = None

    def start(self, rows: Any, seed: int, episodes: Any) -> None:
        self.started.append([*rows.tolist(), seed, *episodes.tolist()])

    def step(self, action: Floats) -> None:
        self.acted = action.copy()

    def close(self) -> None:
        raise AssertionError("a plant does not own its world")


def test_a_plant_over_a_world() -> None:
    world = Switchboard()
    plant = Plant(MULTI, 1, seed=4, world=world)
    found = plant.step([[1.0], [-1.0]])
    assert world.acted.tolist() == [[[1.0], [-1.0]]] and not found.truncated.any() and world.started == [[0, 4, 0]]
    world.cut[0], world.reward[:] = True, [[5.0, 6.0]]
    world.alive[0, 1] = False
    found = plant.step([[1.0], [-1.0]])
    assert found.truncated.tolist() == [True, False] and found.terminated.tolist() == [False, True]
    assert found.reward.tolist() == [5.0, 0.0] and found.alive.tolist() == [True, False] and world.started[1:] == [[0, 4, 1]]
    world.cut[0], world.alive[:], world.terminated[:] = False, False, True
    plant.step([[1.0], [-1.0]])
    assert len(world.started) == 2, "a step in which nobody acted ends no episode"
    world.reward[:] = 7.0
    assert found.reward.tolist() == [5.0, 0.0], "what was given out stays as it was"
    with pytest.raises(Unsupported, match="lives in a world of its own"):
        _ = plant.state


def test_who_acts_must_have_had_a_choice() -> None:
    world = Switchboard()
    plant = Plant(MULTI, 1, world=world)
    world.allowed[0, 1] = False
    found = plant.step([[1.0], [1.0]])
    assert found.allowed is not None and found.allowed.all(), "who has none is given all, and must not act"
    world.alive[0, 1] = False
    plant.step([[1.0], [1.0]])
    world.alive[0, 1] = True
    with pytest.raises(InvalidInput, match="multiagent allowed no choice to row 1, which acted, in episode 0, step 2: its mask must leave"):
        plant.step([[1.0], [1.0]])


def test_a_mask_comes_with_what_is_seen() -> None:
    plant, rng = Plant(MASKED, 50, seed=1), np.random.default_rng(0)
    for _ in range(40):
        assert plant.allowed is not None and (plant.allowed.reshape(50, 2, 4).sum(-1) == 1).all()
        choice = np.array([rng.choice(np.flatnonzero(row)) for row in plant.allowed])
        found = plant.step(choice[:, None].astype(float))
        assert not found.cost.any() and set(found.reward.tolist()) <= {0.0, 0.125}
        np.testing.assert_array_equal(found.allowed, plant.allowed)
    wrong = np.argmin(plant.allowed, -1)
    assert (plant.step(wrong[:, None].astype(float)).reward == -1.0).all()


def test_frames_and_compositions_keep_the_mask() -> None:
    for whole in (stack(MASKED, 3), compose(MASKED, Shield.build(MASKED.contract, MASKED.shield)).environment):
        check(whole)
        state = whole.start(5, range(9))
        assert whole.allowed is not None and MASKED.allowed is not None
        np.testing.assert_array_equal(whole.allowed(state), MASKED.allowed(state[:, :3]))
        assert whole.pointer().struct.n_choices == 8


def test_what_cannot_be_masked_is_said() -> None:
    with pytest.raises(InvalidInput, match="masks choices, but its head 'clip' gives numbers"):
        replace(RETURNING, allowed=lambda state: np.ones((len(state), 3, 1), bool))
    assert MASKED.dynamics is not None
    with pytest.raises(InvalidInput, match="mask 7 choices, the contract has 8"):
        Environment.of_scalars(MASKED.contract, replace(MASKED.dynamics, n_choices=7), max_steps=8, solved=1.0)
    with pytest.raises(ContractError, match="allowed leaves no choice to agent 0"):
        check(replace(MASKED, allowed=lambda state: np.repeat(state[:, :1] != 0.0, 8, 1)))
    with pytest.raises(ContractError, match=r"allowed gives choices: bool \(32, 3\)"):
        check(replace(MASKED, allowed=lambda state: np.ones((len(state), 3), bool)))
    other = replace(MASKED, allowed=lambda state: np.ones((len(state), 8), bool))
    assert other.scalars is None, "its pointer would give another mask"


def test_an_agent_that_comes_as_the_last_one_goes_keeps_the_episode_going() -> None:
    pytest.importorskip("pettingzoo")
    relay = envs.load("tests.envs.games:Relay")
    pytest.importorskip("torch")
    from puffer_edge.train.vector.serial import Serial

    plant = Plant(relay, 1, world=Serial(relay, 1))
    for episode in range(2):
        for t in range(6):
            assert plant.episode.tolist() == [episode] and plant.elapsed.tolist() == [t]
            found = plant.step(np.zeros((3, 1)))
            assert found.alive.tolist() == [t // 2 == k for k in range(3)]
            assert found.terminated.tolist() == [t // 2 != k or t % 2 == 1 for k in range(3)], "who did not act has terminated, to a training"
    played = closed_loop.play(relay, InFloat(constant(relay.contract, np.zeros(2))), Shield.none(relay.contract), 2)
    assert played.lengths.tolist() == [6, 6] and played.returns.tolist() == [2.0, 2.0]


def constant(contract: Contract, outputs: Floats, weight: float = 0.0) -> Policy:
    """A policy that sees its first channel by a weight, and nothing else."""
    w = np.zeros((len(outputs), contract.n_observations))
    w[:, 0] = weight * np.arange(len(outputs))
    span = np.ones(contract.n_actions)
    layer = Layer(w, np.asarray(outputs, np.float64), "none")
    return Policy(
        contract, (layer,), Normalizer(np.zeros(contract.n_observations), np.ones(contract.n_observations)), Head(contract.head, span, 0 * span)
    )


def test_a_closed_loop_runs_all_agents() -> None:
    right = constant(MULTI.contract, np.zeros(2), 1.0)
    found = closed_loop.play(MULTI, InFloat(right), Shield.none(MULTI.contract), 7)
    assert found.returns.tolist() == [1.0] * 7 and found.lengths.tolist() == [8] * 7 and len(found.outcome) == 7 * 12 and found.forbidden is None
    observations, starts = found.calibration()
    assert len(observations) == 84 and starts.sum() == 14 and np.diff(np.flatnonzero(starts)).tolist() == [8, 4] * 6 + [8]
    half = closed_loop.play(MULTI, InFloat(constant(MULTI.contract, np.array([0.0, 1.0]))), Shield.none(MULTI.contract), 3)
    assert half.returns.tolist() == [0.5] * 3 and half.costs.tolist() == [4.0] * 3, "the mean over agents"
    with pytest.raises(InvalidInput, match="2 agents: 3 rows are no whole number of episodes"):
        closed_loop.run(MULTI, Runner(InFloat(right), Shield.none(MULTI.contract), 3))
    with pytest.raises(Unsupported, match="2 agents, a board is one"):
        closed_loop.Loop(MULTI, 0, "test")


def test_a_closed_loop_begins_an_agent_anew_when_it_comes_back() -> None:
    slew = Shield.build(TRIO, ({"stage": "slew", "per_second": {"push": 5.0}},))
    found = closed_loop.play(RETURNING, InFloat(constant(TRIO, np.array([2.0]))), slew, 1)
    by_hand = np.array([1 + 1.5 + 2 * 7, 1 + 1.5 + 2 + 1 + 1.5, 1])
    np.testing.assert_allclose(found.returns, by_hand.mean())
    assert len(found.outcome) == 9 + 5 + 1 and found.calibration()[1].sum() == 4, "agent 1 begins twice"


def test_what_ships_has_no_mask_and_its_forbidden_choices_are_counted() -> None:
    found = closed_loop.play(MASKED, InFloat(constant(MASKED.contract, np.eye(8)[7])), Shield.none(MASKED.contract), 400, 3)
    assert found.forbidden == 400 - (found.lengths == 8).sum() + ((found.lengths == 8) & (found.returns < 0)).sum()
    assert found.summary(())["forbidden_share"] == found.forbidden / found.lengths.sum()
    assert found.forbidden / found.lengths.sum() == pytest.approx(0.75, abs=0.05)
    assert "forbidden_share" not in closed_loop.play(MULTI, InFloat(constant(MULTI.contract, np.zeros(2))), Shield.none(MULTI.contract), 2).summary(
        ()
    )
    with_masks = closed_loop.play(MASKED, InFloat(constant(MASKED.contract, np.arange(8.0))), Shield.none(MASKED.contract), 50, 3, masked=True)
    assert with_masks.returns.tolist() == [1.0] * 50 and with_masks.forbidden == 0, "the upper one of what is allowed"
    several = replace(envs.load("spaces"), allowed=lambda state: np.array([[True] * 3 + [False, True] + [True] * 2] * len(state)))
    pick = constant(several.contract, np.array([0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0]))
    assert closed_loop.play(several, InFloat(pick), Shield.none(several.contract), 5).forbidden == 5
    pick = constant(several.contract, np.array([0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]))
    assert closed_loop.play(several, InFloat(pick), Shield.none(several.contract), 5).forbidden == 0
    picked = constant(several.contract, np.array([0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0]))
    assert closed_loop.play(several, InFloat(picked), Shield.none(several.contract), 5, masked=True).forbidden == 0


def test_a_program_has_no_masks() -> None:
    runner = Runner(InFloat(constant(MASKED.contract, np.zeros(8))), Shield.none(MASKED.contract))
    runner.program = cast(Any, object())
    with pytest.raises(Unsupported, match="a program has no masks"):
        runner.tick(np.zeros((1, 1), np.int32), allowed=np.ones((1, 8), bool))


@pytest.mark.parametrize("masked", [False, True])
def test_who_waits_for_a_turn_chooses_nothing_forbidden(masked: bool) -> None:
    """Both take three matches, of five, six or seven: what is left may not be three, and only whose turn it is is asked."""
    pytest.importorskip("pettingzoo")
    matches = envs.load("tests.envs.games:Matches")
    three = InFloat(constant(matches.contract, np.array([0.0, 0.5, 1.0])))
    found = closed_loop.play(matches, three, Shield.none(matches.contract), 12, masked=masked)
    left = 3 - found.lengths  # 5 and 6 end at their second turn, 7 at its third; unmasked 5 and 7 by a move that is not allowed
    assert found.chosen == found.lengths.sum() and len(found.outcome) == 2 * found.chosen and (left >= 0).all()
    wins = found.returns == 0.0
    assert found.forbidden == (0 if masked else (~wins).sum()) and (wins.all() == masked) and wins.any()
    assert found.summary(())["forbidden_share"] == found.forbidden / found.chosen
