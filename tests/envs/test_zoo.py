"""PettingZoo's environments as ours: agents that die and return, that differ, and that act in turn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.envs.draw import Draws
from puffer_edge.envs.living import Arrays
from puffer_edge.envs.zoo import AtOnce, InTurn, play
from puffer_edge.errors import InvalidInput, MissingExtra, Unsupported

pytest.importorskip("gymnasium")
pettingzoo = pytest.importorskip("pettingzoo")
games = pytest.importorskip("tests.envs.games")
WANDERING, UNEQUAL, MATCHES = (f"tests.envs.games:{name}" for name in ("Wandering", "Unequal", "Matches"))


def begun(env: Any, seed: int = 0) -> tuple[AtOnce | InTurn, Arrays]:
    """A living environment at the start of an episode, and what it writes into."""
    one = play(env, "mine")
    rows = Arrays.of(one.agents.face, 1)
    one.reset(seed, rows.seen[0], rows.allowed[0])
    return one, rows


def test_agents_die_and_return() -> None:
    one, rows = begun(games.Wandering())
    zero, alive, terminated, seen = np.zeros((3, 1)), [], [], []
    for step in range(8):
        cut = rows.step(one, 0, zero)
        alive.append(rows.alive[0].tolist())
        terminated.append(rows.terminated[0].tolist())
        seen.append(rows.seen[0, :, 0].tolist())
        np.testing.assert_array_equal(rows.reward[0], rows.alive[0] * 1.0)
        np.testing.assert_array_equal(rows.cost[0], rows.alive[0] * 0.5)
        assert cut == (step == 7)
    here = [list(map(int, row)) for row in alive]
    assert here == [[1, 1, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 1, 1]], "who acted"
    ended = [list(map(int, row)) for row in terminated]
    assert ended == [[0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 1], [1, 0, 1], [1, 0, 0], [1, 0, 0], [1, 0, 1]], "a returning agent goes on"
    assert [row[1] for row in seen] == list(range(1, 9)) and seen[1][2] == 2.0, "the last observation is there; who returns sees before it acts"
    assert [set(actions) for actions in one.env.heard[:3]] == [{"a", "b"}, {"a", "b"}, {"a", "b", "c"}]


def test_an_environment_of_agents() -> None:
    environment = envs.load(WANDERING)
    assert (environment.agents, environment.max_steps, environment.contract.n_observations, environment.allowed) == (3, 8, 1, None)
    state = environment.reset(Draws.of_episodes(0, [0, 1]))
    assert environment.observe(state).shape == (2, 3, 1)
    for k in range(8):
        state, reward, _, terminated, alive = environment.step(state, np.zeros((2, 3, 1)))
        assert (environment.observe(state)[:, 1, 0] == k + 1).all() and (reward == alive).all()
    assert terminated.all(), "the clock of its own ends it here for all"
    _, reward, _, terminated, alive = environment.step(state, np.zeros((2, 3, 1)))
    assert terminated.all() and not alive.any() and not reward.any(), "what has ended rests"


def test_agents_that_differ_are_padded_and_grouped() -> None:
    environment = envs.load(UNEQUAL)
    c = environment.contract
    assert [ch.name for ch in c.observations] == ["o0", "o1", "o2", "group_0", "group_1"]
    assert (c.head, c.levels) == ("multi_discrete", ((0.0, 1.0, 2.0, 3.0), (0.0, 1.0, 2.0)))
    state = environment.reset(Draws.of_episodes(0, [0]))
    assert environment.observe(state)[0].tolist() == [[0, 1, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]
    assert environment.allowed is not None
    assert environment.allowed(state)[0, :2].astype(int).tolist() == [[1, 1, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]]
    one, rows = begun(games.Unequal())
    rows.step(one, 0, np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 0.0]]))
    heard = one.env.heard[-1]
    assert (heard["a"].tolist(), heard["b"]) == ([1, 2], 4), "numbered from 0 to the policy, as its space says to the environment"


def test_boxes_that_differ_share_the_widest_bounds() -> None:
    class Boxes(games.Wandering):  # type: ignore[misc,name-defined]
        def action_space(self, agent: str) -> Any:
            return games.spaces.Box(-1.0 if agent == "a" else 0.0, 2.0, (2 if agent == "a" else 1,))

    one, rows = begun(Boxes())
    face = one.agents.face
    assert (face.head, [(ch.low, ch.high) for ch in face.actions], face.masked) == ("clip", [(-1.0, 2.0), (-1.0, 2.0)], False)
    rows.step(one, 0, np.full((3, 2), -1.0))
    assert (one.env.heard[-1]["a"].tolist(), one.env.heard[-1]["b"].tolist()) == ([-1.0, -1.0], [0.0]), "clipped to its own"


def test_agents_in_turn() -> None:
    one, rows = begun(games.Matches(), seed=2)
    assert rows.allowed[0].astype(int).tolist() == [[1, 1, 1], [1, 0, 0]] and rows.seen[0, :, -1].tolist() == [1.0, 0.0]
    for taken, left, turn in ((2, 4, 1), (2, 1, 0)):
        action = np.full((2, 1), 2.0)
        action[1 - turn, 0] = taken
        assert not rows.step(one, 0, action)
        assert rows.alive[0].all() and not rows.terminated[0].any() and not rows.reward[0].any()
        assert rows.seen[0, :, -1].tolist() == [1.0 - turn, float(turn)] and (rows.seen[0, :, :-1].argmax(-1) == left).all()
    assert rows.allowed[0, 0].astype(int).tolist() == [1, 0, 0], "one match is left"
    assert not rows.step(one, 0, np.zeros((2, 1)))
    assert rows.reward[0].tolist() == [1.0, -1.0] and rows.terminated[0].all(), "the one who waits loses in the other's turn"
    assert (rows.seen[0, :, :-1].argmax(-1) == 0).all(), "the last observation is there"
    one.reset(0, rows.seen[0], rows.allowed[0])
    assert rows.seen[0, :, :-1].argmax(-1).tolist() == [5, 5]


def test_a_clock_in_turns_cuts() -> None:
    class Timed(games.Matches):  # type: ignore[misc,name-defined]
        def step(self, action: Any) -> None:
            if self.truncations[self.agent_selection]:
                self._was_dead_step(action)
                return
            super().step(action)
            self.truncations = dict.fromkeys(self.agents, True)

    one, rows = begun(Timed())
    assert rows.step(one, 0, np.zeros((2, 1))) and not rows.terminated[0].any() and rows.alive[0].all()
    assert not one.env.agents, "PettingZoo's own end has come"


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    one, rows = begun(games.Wandering())
    one.env.agents = [*one.env.agents, "d"]
    with pytest.raises(InvalidInput, match=r"mine: d not among possible_agents \(a, b, c\)"):
        rows.step(one, 0, np.zeros((3, 1)))
    mixed = games.Wandering()
    monkeypatch.setattr(mixed, "action_space", lambda agent: games.spaces.Box(0, 1, (1,)) if agent == "b" else games.spaces.Discrete(2))
    with pytest.raises(Unsupported, match="a, c choose and b drive numbers"):
        play(mixed, "mine")
    wordy = games.Wandering()
    monkeypatch.setattr(wordy, "observation_space", lambda agent: games.spaces.Dict({"say": games.spaces.Text(3)}))
    with pytest.raises(Unsupported, match=r"mine, agent a: \['say'\] is Text"):
        play(wordy, "mine")
    nobody = games.Wandering()
    del nobody.possible_agents
    with pytest.raises(Unsupported, match="does not say possible_agents"):
        play(nobody, "mine")
    changing, rows = begun(games.Wandering())
    monkeypatch.setattr(changing.env, "action_space", lambda agent: games.spaces.Discrete(3))
    with pytest.raises(InvalidInput, match="mine: a changed a space between episodes"):
        changing.reset(1, rows.seen[0], rows.allowed[0])


@pytest.mark.parametrize("fault", [np.array([np.nan], np.float32), np.array([11.0], np.float32), np.zeros(2, np.float32)])
def test_an_agents_observation_outside_its_space_is_named(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one, rows = begun(games.Wandering())
    monkeypatch.setattr(one.env, "_seen", lambda: {"a": np.zeros(1, np.float32), "b": fault})
    with pytest.raises(InvalidInput, match=r"mine, b: of the observation, the value.* in step 1"):
        rows.step(one, 0, np.zeros((3, 1)))


@pytest.mark.parametrize(
    ("part", "value", "match"),
    [
        (0, {"a": np.zeros(1, np.float32)}, r"mine: b got no observation in step 1 of an episode; only a did"),
        (0, None, r"mine: observations are None in step 1 of an episode: they must be a dict by agent"),
        (1, 1.0, r"mine: rewards are 1\.0 in step 1"),
        (1, {"a": 1.0}, r"mine, b: it acted and got no reward in step 1"),
        (1, {"a": 1.0, "b": None}, r"mine, b: the reward is None in step 1"),
        (2, False, r"mine: terminations are False in step 1"),
        (3, None, r"mine: truncations are None in step 1"),
        (4, None, r"mine: infos are None in step 1"),
        (4, {"a": None}, r"mine, a: info is None in step 1 of an episode: it must be a dict"),
        (None, None, r"mine: step gave 4 values \(dict, dict, dict, dict\) in step 1 of an episode: it must give observations, rewards"),
    ],
)
def test_what_a_step_of_many_gave_wrong_is_said(part: int | None, value: Any, match: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = games.Wandering.step

    def wrong(self: Any, actions: Any) -> Any:
        gave = list(right(self, actions))
        if part is None:
            return (*gave[:3], gave[4])
        gave[part] = value
        return tuple(gave)

    monkeypatch.setattr(games.Wandering, "step", wrong)
    one, rows = begun(games.Wandering())
    with pytest.raises(InvalidInput, match=match):
        rows.step(one, 0, np.zeros((3, 1)))


@pytest.mark.parametrize(
    ("gave", "match"),
    [
        ({"a": np.zeros(1), "b": np.zeros(1)}, "mine: reset gave one dict: it must give observations and infos, each a dict by agent"),
        (({"a": np.zeros(1), "b": np.zeros(1)}, None), "mine: infos are None in step 0"),
        (({"a": np.zeros(1)}, {}), "mine: b got no observation in step 0"),
        (({"a": np.zeros(1), "b": np.zeros(1)}, {"a": None}), "mine, a: info is None in step 0"),
    ],
)
def test_what_a_reset_of_many_gave_wrong_is_said(gave: Any, match: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = games.Wandering.reset
    monkeypatch.setattr(games.Wandering, "reset", lambda self, seed=None, options=None: (right(self), gave)[1])
    with pytest.raises(InvalidInput, match=match):
        play(games.Wandering(), "mine")


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("agent_selection", "third", r"mine: third not among possible_agents \(first, second\)"),
        ("infos", {"first": None}, "mine, first: info is None in step 1"),
        ("rewards", None, "mine: rewards are None in step 1"),
        ("rewards", {"first": 0.0}, "mine, second: it acted and got no reward in step 1"),
    ],
)
def test_what_a_turn_left_wrong_is_said(name: str, value: Any, match: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = games.Matches.step
    monkeypatch.setattr(games.Matches, "step", lambda self, action: (right(self, action), setattr(self, name, value)))
    one, rows = begun(games.Matches())
    with pytest.raises(InvalidInput, match=match):
        rows.step(one, 0, np.zeros((2, 1)))


def test_modules() -> None:
    environment = envs.load("pettingzoo:tests.envs.games")
    assert (environment.name, environment.agents, environment.contract.name) == ("pettingzoo:tests.envs.games", 3, "games")
    with pytest.raises(InvalidInput, match="there is no module 'mpe3'"):
        envs.load("pettingzoo:mpe3.simple_v3")
    with pytest.raises(InvalidInput, match=r"neither parallel_env\(\) nor env\(\)"):
        envs.load("pettingzoo:json")
    with pytest.raises(InvalidInput, match="names no module"):
        envs.load("pettingzoo:../x")


def test_without_pettingzoo_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("puffer_edge.envs.zoo.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"puffer-edge\[multiagent\]"):
        envs.load("pettingzoo:mpe2.simple_spread_v3")


@pytest.mark.filterwarnings("ignore:The old environment creation API:DeprecationWarning")
@pytest.mark.parametrize(
    "module, agents, masked", [("mpe2.simple_spread_v3", 3, False), ("mpe2.simple_tag_v3", 4, False), ("pettingzoo.classic.tictactoe_v3", 2, True)]
)
def test_games_of_others_train(module: str, agents: int, masked: bool, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("mpe2")
    from puffer_edge.train import settings_for, train

    name = f"pettingzoo:{module}"
    environment = envs.load(name)
    assert environment.agents == agents and (environment.allowed is not None) == masked
    settings = replace(settings_for(name), steps=1, rows=2, horizon=32, minibatch=32, epochs=1, evaluations=1, evaluation_episodes=2, vector="serial")
    run = train(name, out=tmp_path / "run", settings=settings)
    assert run.result["status"] == "complete" and np.isfinite(run.result["evaluation"]["return"])
