"""Gymnasium's environments as ours: the same numbers as Gymnasium's own, trained, evaluated and resumed."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.envs import gym
from puffer_edge.envs.draw import Draws
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.living import seed_of
from puffer_edge.errors import DoesNotFit, InvalidInput, MissingExtra, Unsupported, WorkerFailed
from puffer_edge.integer.image import Image

gymnasium = pytest.importorskip("gymnasium")
games = pytest.importorskip("tests.envs.games")
NESTED, FAULTY = "tests.envs.games:Nested", "tests.envs.games:Faulty"


def stepped(environment: Environment, steps: int, action: float = 0.0) -> tuple[Any, ...]:
    """What the last of so many equal steps of one row gave, its state first."""
    state, found = environment.reset(Draws.of_episodes(0, [0])), ()
    for _ in range(steps):
        state, *found = environment.step(state, np.full((1, environment.contract.n_actions), action))
    return (state, *found)


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1"])
def test_it_is_gymnasiums(name: str) -> None:
    environment, theirs = envs.load(f"gym:{name}"), gymnasium.make(name)
    seed = int(np.random.SeedSequence([5, 2, 0]).generate_state(1)[0])
    seen, _ = theirs.reset(seed=seed)
    state = environment.reset(Draws.of_episodes(5, [2]))
    rng, over = np.random.default_rng(0), False
    for _ in range(100):
        np.testing.assert_array_equal(environment.observe(state)[0], np.asarray(seen, np.float64))
        if over:
            break
        action = np.array([[float(rng.integers(0, 2))]])
        state, reward, _, ended = environment.step(state, action)
        seen, their_reward, over, _, _ = theirs.step(int(action[0, 0]) if name != "Pendulum-v1" else action[0].astype(np.float32))
        assert reward[0] == pytest.approx(float(their_reward), rel=1e-12) and bool(ended[0]) == over


def test_a_contract_is_made_of_the_spaces() -> None:
    c = envs.load("gym:CartPole-v1").contract
    assert (c.head, c.levels, c.n_observations, c.rate_hz) == ("discrete", ((0.0,), (1.0,)), 4, 50.0)
    assert c.observations[0].high == pytest.approx(4.8) and 8.0 <= c.observations[1].high <= 64.0, "a bound that the space lacks is measured"
    p = envs.load("gym:Pendulum-v1")
    assert (p.contract.head, p.contract.actions[0].low, p.max_steps, p.name) == ("clip", -2.0, 200, "gym:Pendulum-v1")


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidInput, match="Gymnasium makes no CatPole-v1"):
        envs.load("gym:CatPole-v1")
    with pytest.raises(InvalidInput, match="is no ID of Gymnasium"):
        envs.load("gym:os:system")
    environment = envs.load("gym:CartPole-v1")
    state = environment.reset(Draws.of_episodes(0, [0, 1]))
    environment.step(state, np.zeros((2, 1)))
    with pytest.raises(InvalidInput, match="goes forward only"):
        environment.step(state, np.zeros((2, 1)))


def test_a_training_on_it_resumes_to_the_bit(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from puffer_edge.train import resume, settings_for, train

    settings = replace(settings_for("gym:CartPole-v1"), steps=512, rows=4, horizon=32, evaluations=2, evaluation_episodes=3, hidden=(8,))
    run = train("gym:CartPole-v1", out=tmp_path / "run", settings=settings, progress=lambda p: p.steps < 256)
    assert run.result["engine"] == "torch, one process steps" and "scalar functions" in run.result["engine_note"]
    again = resume(tmp_path / "run")
    assert again.result["status"] == "complete" and again.result["resumed"] == [{"steps": 256, "exact": True, "because": []}]
    whole = train("gym:CartPole-v1", out=tmp_path / "whole", settings=settings)
    assert (again.path / "policy.safetensors").read_bytes() == (whole.path / "policy.safetensors").read_bytes()


def test_choices_and_nests_are_numbers_with_names() -> None:
    lake = envs.load("gym:FrozenLake-v1")
    assert lake.contract.n_observations == 16 and lake.observe(lake.reset(Draws.of_episodes(0, [0]))).tolist() == [[1.0] + [0.0] * 15]
    nested = envs.load(NESTED)
    names = [channel.name for channel in nested.contract.observations]
    assert names == ["arm_mode_0", "arm_mode_1", "arm_mode_2", "arm_position_0", "arm_position_1", "lamps_0", "lamps_1"], "a mask is none"
    assert nested.contract.levels == ((5.0,), (6.0,), (7.0,)) and nested.allowed is not None


def test_masks_and_costs_come_along() -> None:
    environment = envs.load(NESTED)
    assert environment.allowed is not None
    state = environment.reset(Draws.of_episodes(0, [0, 1]))
    for _ in range(18):
        allowed = environment.allowed(state)
        state, reward, cost, _ = environment.step(state, np.where(allowed[:, :1], 5.0, 6.0))
        x = environment.observe(state)[:, 3]
        np.testing.assert_array_equal(reward, -np.abs(x))
        np.testing.assert_array_equal(cost, np.abs(x) > 3)
        np.testing.assert_array_equal(environment.allowed(state), np.stack([x > -9, x == x, x < 9], 1))
    assert (x <= -9).all()


def test_a_clock_of_its_own_ends_an_episode() -> None:
    environment = envs.load(NESTED)
    assert not stepped(environment, 19, 6.0)[3][0] and stepped(environment, 20, 6.0)[3][0]
    assert environment.living is not None
    one = environment.living()
    seen, allowed, number, flag = np.zeros((1, 7)), np.ones((1, 3), bool), np.zeros(1), np.zeros(1, bool)
    one.reset(0, seen, allowed)
    cuts = [one.step(np.array([[6.0]]), seen, number, number.copy(), flag, flag.copy(), allowed) for _ in range(20)]
    assert cuts == [False] * 19 + [True] and not flag[0], "its clock is no termination: what follows is worth something"


def test_a_living_environment_goes_to_another_process() -> None:
    environment = envs.load(NESTED)
    made = pickle.loads(pickle.dumps(environment.living))
    seen = np.zeros((1, 7))
    made().reset(seed_of(0, 3), seen, np.ones((1, 3), bool))
    np.testing.assert_array_equal(seen, environment.observe(environment.reset(Draws.of_episodes(0, [3]))))


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        (
            {"a": (np.array([0.0, np.nan], np.float32), 0)},
            r"Faulty: of the observation, \['a'\]\[0\]\[1\] is nan in step 3: its space allows -1",
        ),
        ({"a": (np.array([0.0, 2.0], np.float32), 0)}, r"\['a'\]\[0\]\[1\] is 2.0 in step 3"),
        ({"a": (np.zeros(2, np.float32), 4)}, r"\['a'\]\[1\] is 4 in step 3"),
        ({"a": (np.zeros(1, np.float32), 0)}, r"\['a'\]\[0\] has shape \(1,\) in step 3"),
        ({"a": (np.array(["0", "1"]), 0)}, r"\['a'\]\[0\] is of type <U1 in step 3"),
        ({"b": 1}, r"\['a'\] is missing"),
    ],
)
def test_an_observation_outside_its_space_is_named(fault: Any, match: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = envs.load(FAULTY)
    monkeypatch.setattr(games.Faulty, "fault", fault)
    with pytest.raises(InvalidInput, match=match):
        stepped(environment, 3)


def test_what_is_checked_always(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = envs.load(FAULTY)
    late = gym.CHECKED + 5
    monkeypatch.setattr(games.Faulty, "at", late)
    for fault, match in (
        ({"a": (np.array([0.0, np.nan], np.float32), 0)}, f"a_0_1 is nan in step {late}"),
        ({"a": (np.zeros(2, np.float32), 4)}, r"\['a'\]\[1\] is 4"),
        ({"a": (np.zeros(1, np.float32), 0)}, rf"has shape \(1,\) in step {late}"),
    ):
        monkeypatch.setattr(games.Faulty, "fault", fault)
        with pytest.raises(InvalidInput, match=match):
            stepped(environment, late)
    monkeypatch.setattr(games.Faulty, "fault", None)
    monkeypatch.setattr(games.Faulty, "reward", float("nan"))
    with pytest.raises(InvalidInput, match=f"the reward is nan in step {late} of an episode: it must be finite"):
        stepped(environment, late)


@pytest.mark.parametrize(("cost", "words"), [("much", "one number"), (None, "one number"), ([1.0, 2.0], "one number"), (float("nan"), "finite")])
def test_a_cost_that_is_no_number_is_named(cost: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(games.Faulty, "cost", cost)
    with pytest.raises(InvalidInput, match=rf"info\['cost'\] is .* in step 3 of an episode: it must be {words}"):
        stepped(envs.load(FAULTY), 3)


@pytest.mark.parametrize("cost", [True, 2, np.float32(2.0), np.array([2.0])])
def test_a_cost_may_be_any_kind_of_number(cost: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(games.Faulty, "cost", cost)
    assert stepped(envs.load(FAULTY), 3)[2].tolist() == [float(np.asarray(cost).item())]


@pytest.mark.parametrize(
    ("gave", "match"),
    [
        ((1.0, False, {}), r"Faulty: step gave 4 values \(.*, 1.0, False, dict\) in step 1 of an episode: it must give observation, reward"),
        ((None, False, False, {}), r"the reward is None in step 1 of an episode: it must be one number"),
        ((np.ones(2), False, False, {}), r"the reward is array\(\[1., 1.\]\) in step 1"),
        ((1.0, False, False, None), r"5 values \(.*, 1.0, False, False, None\)"),
    ],
)
def test_what_a_step_gave_wrong_is_said(gave: Any, match: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = envs.load(FAULTY)
    right = games.Faulty.step
    monkeypatch.setattr(games.Faulty, "step", lambda self, action: (right(self, action)[0], *gave))
    with pytest.raises(InvalidInput, match=match):
        stepped(environment, 1)


def test_what_raises_in_an_evaluation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = envs.load(FAULTY)

    def leaves(self: Any, *_: Any, **__: Any) -> Any:
        raise SystemExit

    monkeypatch.setattr(games.Faulty, "step", leaves)
    with pytest.raises(WorkerFailed, match=r"games:Faulty: step of instance 1 raised SystemExit: \n.*test_gym\.py, line \d+: raise SystemExit"):
        stepped(environment, 1)
    monkeypatch.setattr(games.Faulty, "reset", leaves)
    with pytest.raises(WorkerFailed, match="games:Faulty: reset of episode 0 of seed 0 raised SystemExit"):
        stepped(environment, 1)


def test_a_reset_of_the_old_kind_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(games.Faulty, "reset", lambda self, seed=None, options=None: np.zeros(6))
    with pytest.raises(InvalidInput, match="games:Faulty: reset gave one ndarray: it must give the observation and info"):
        envs.load(FAULTY)
    monkeypatch.setattr(games.Faulty, "reset", lambda self: (np.zeros(6), {}))
    with pytest.raises(InvalidInput, match=r"games:Faulty: making the environment raised TypeError: .*unexpected keyword argument 'seed'"):
        envs.load(FAULTY)
    monkeypatch.setattr(games.Faulty, "observation_space", gymnasium.spaces.Dict({"a": gymnasium.spaces.Text(5)}))
    with pytest.raises(Unsupported, match=r"games:Faulty: of the observations, \['a'\] is Text, which has no fixed size"):
        envs.load(FAULTY)


def test_a_space_that_changes_between_episodes_is_named() -> None:
    one = gym.GymLiving(games.Faulty(), "mine")
    seen, allowed = np.zeros((1, 6)), np.ones((1, 1), bool)
    one.reset(0, seen, allowed)
    one.env.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    with pytest.raises(InvalidInput, match=r"mine changed a space between episodes, from Box.*\(1,\).* to Box.*\(2,\)"):
        one.reset(1, seen, allowed)


@pytest.mark.parametrize("n", [4, 0.001, 1e5])
def test_a_range_gets_fraction_bits_that_hold_it(n: float) -> None:
    one = gym.GymLiving(games.Faulty(), "mine")
    face = replace(gym.face_of(one), low=np.full(6, -n), high=np.full(6, n))
    contract = face.contract("x", 50.0, games.Faulty)
    assert contract.observations[0].high == n and contract.observation_high[0] / 2.0 ** contract.observation_bits[0] == pytest.approx(n, rel=1e-3)


@pytest.mark.parametrize("name", ["InvertedPendulum-v5", "Ant-v5"])
def test_mujoco_as_it_is(name: str) -> None:
    pytest.importorskip("mujoco")
    environment, theirs = envs.load(f"gym:{name}"), gymnasium.make(name)
    c = environment.contract
    assert (c.n_observations, c.n_actions, environment.max_steps) == (*theirs.observation_space.shape, *theirs.action_space.shape, 1000)
    state, (seen, _) = environment.reset(Draws.of_episodes(0, [0])), theirs.reset(seed=seed_of(0, 0))
    for _ in range(3):
        np.testing.assert_array_equal(environment.observe(state)[0], seen)
        state, *_ = environment.step(state, np.full((1, c.n_actions), 0.25))
        seen, *_ = theirs.step(np.full(c.n_actions, 0.25, np.float32))


def test_more_channels_than_a_board_takes_are_refused_by_its_image() -> None:
    c = envs.load("cartpole").contract
    wide = replace(c, observations=tuple(replace(c.observations[0], name=f"o{k}") for k in range(105)))
    with pytest.raises(DoesNotFit, match="needs 105 observation channels, a board has 64"):
        Image(wide, None, None, None)  # type: ignore[arg-type]


def test_mujoco_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise gymnasium.error.DependencyNotInstalled('MuJoCo is not installed, run `pip install "gymnasium[mujoco]"`')

    monkeypatch.setattr(gymnasium, "make", missing)
    with pytest.raises(MissingExtra, match=r"puffer-edge\[mujoco\]"):
        envs.load("gym:Ant-v5")
