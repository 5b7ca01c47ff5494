"""Gymnasium's vector environments as worlds: in every mode of autoreset the same episodes as one environment alone gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.envs.gym_vector import VectorWorld
from puffer_edge.envs.living import seed_of
from puffer_edge.errors import InvalidInput, Unsupported

gymnasium = pytest.importorskip("gymnasium")
games = pytest.importorskip("tests.envs.games")
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv  # noqa: E402

ROWS, STEPS = 3, 45


class Itself(VectorEnv):  # type: ignore[misc]
    """Another vector environment than Gymnasium's own: all that it does is in a Sync one, but nobody resets it row by row."""

    def __init__(self, num_envs: int = 1, mode: AutoresetMode = AutoresetMode.NEXT_STEP) -> None:
        self.inner = SyncVectorEnv([games.Nested] * num_envs, autoreset_mode=mode)
        self.num_envs, self.metadata = num_envs, {"autoreset_mode": mode}
        for name in ("single_observation_space", "single_action_space", "observation_space", "action_space"):
            setattr(self, name, getattr(self.inner, name))

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        assert options is None
        return self.inner.reset(seed=seed)

    def step(self, action: Any) -> Any:
        return self.inner.step(action)


class Later(Itself):
    """It has no idea how it resets."""

    def __init__(self, num_envs: int = 1) -> None:
        super().__init__(num_envs)
        self.metadata = {}


def rollout(world: VectorWorld) -> dict[int, list[tuple[Any, ...]]]:
    """What happened in each episode: observations, the last among them, rewards and ends; dead rows are looked over."""
    happened: dict[int, list[tuple[Any, ...]]] = {}
    episode, following = np.arange(ROWS), ROWS
    world.start(np.arange(ROWS), 7, episode)
    for _ in range(STEPS):
        world.step(np.full((ROWS, 1, 1), 6.0))
        for k in np.flatnonzero(world.alive[:, 0]):
            row = (world.seen[k, 0].tolist(), world.reward[k, 0], bool(world.terminated[k, 0]), bool(world.cut[k]), world.cost[k, 0])
            happened.setdefault(int(episode[k]), []).append(row)
        over = np.flatnonzero(world.terminated[:, 0] | world.cut)
        assert not world.reward[~world.alive].any() and not world.terminated[~world.alive].any()
        if len(over):
            episode[over] = following + np.arange(len(over))
            following += len(over)
            world.start(over, 7, episode[over])
    return happened


def alone(episode: int) -> list[tuple[Any, ...]]:
    """The same of one environment without any vector around it."""
    made = envs.load("tests.envs.games:Nested").living
    assert made is not None
    one, seen, allowed = made(), np.zeros((1, 7)), np.ones((1, 3), bool)
    reward, cost, terminated, alive = np.zeros(1), np.zeros(1), np.zeros(1, bool), np.ones(1, bool)
    one.reset(seed_of(7, episode), seen, allowed)
    rows, cut = [], False
    while not cut:
        cut = one.step(np.full((1, 1), 6.0), seen, reward, cost, terminated, alive, allowed)
        rows.append((seen[0].tolist(), reward[0], bool(terminated[0]), cut, cost[0]))
    return rows


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_every_mode_gives_the_episodes_of_one_alone(mode: AutoresetMode) -> None:
    world = VectorWorld(SyncVectorEnv([games.Nested] * ROWS, autoreset_mode=mode), "mine")
    happened = rollout(world)
    world.close()
    assert world.allowed is not None and sorted(happened) == list(range(9))
    for episode in range(6):
        assert happened[episode] == alone(episode), f"{mode}, episode {episode}"
    assert any(rows[-1][4] for rows in happened.values() if rows[-1][3]), "the step that ends an episode costs something too"


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_one_that_resets_itself(mode: AutoresetMode) -> None:
    happened = rollout(VectorWorld(Itself(ROWS, mode), "mine"))
    for episode in range(6):
        rows = happened[episode]
        assert len(rows) == 20 and [row[3] for row in rows] == [False] * 19 + [True]
        assert [row[0][4] for row in rows] == list(range(1, 21)), "the last observation is the episode's own, the first one that of the next"
    world = VectorWorld(Itself(ROWS, mode), "mine")
    world.start(np.arange(ROWS), 0, np.arange(ROWS))
    world.step(np.full((ROWS, 1, 1), 6.0))
    with pytest.raises(Unsupported, match="begins an episode only where one of its own has ended"):
        world.start(np.array([1]), 0, np.array([9]))


def test_a_dead_row_shows_the_first_observation() -> None:
    world = VectorWorld(Itself(ROWS), "mine")
    world.start(np.arange(ROWS), 0, np.arange(ROWS))
    for _ in range(20):
        world.step(np.full((ROWS, 1, 1), 6.0))
    assert world.cut.all() and (world.seen[:, 0, 4] == 20).all()
    world.start(np.arange(1, ROWS), 0, np.arange(1, ROWS))
    world.step(np.full((ROWS, 1, 1), 6.0))
    assert world.alive[:, 0].tolist() == [True, False, False] and (world.seen[1:, 0, 4] == 0).all()


def test_by_name() -> None:
    environment = envs.load("gymvec:CartPole-v1")
    assert environment.world is not None and environment.max_steps == 501 and environment.solved == 475.0
    world = environment.world(4)
    world.start(np.arange(4), 0, np.arange(4))
    world.step(np.zeros((4, 1, 1)))
    assert world.seen.shape == (4, 1, 4) and np.ptp(world.seen[:, 0, 0]) > 0
    own = envs.load("tests.envs.test_gym_vector:Itself")
    assert own.world is not None and own.contract.n_observations == 7 and own.allowed is not None
    with pytest.raises(Unsupported, match="does not say how it resets"):
        envs.load("tests.envs.test_gym_vector:Later")
    with pytest.raises(InvalidInput, match="Gymnasium makes no CatPole-v1"):
        envs.load("gymvec:CatPole-v1")


def test_nan_is_named() -> None:
    class Broken(Itself):
        def step(self, action: Any) -> Any:
            seen, *rest = super().step(action)
            seen["arm"]["position"][1, 0] = np.nan
            return (seen, *rest)

    world = VectorWorld(Broken(ROWS), "mine")
    world.start(np.arange(ROWS), 0, np.arange(ROWS))
    with pytest.raises(InvalidInput, match="mine: arm_position_0 of row 1 is nan in step 1"):
        world.step(np.full((ROWS, 1, 1), 6.0))


@pytest.mark.parametrize(
    ("name", "match"), [("reward", "gave row 1 the reward nan"), ("cost", "gave row 1 the reward .* and the cost nan"), ("mask", "in info which")]
)
def test_what_a_step_of_many_rows_gave_wrong_is_named(name: str, match: str) -> None:
    class Broken(Itself):
        def step(self, action: Any) -> Any:
            seen, reward, over, cut, infos = super().step(action)
            if name == "mask":
                return seen, reward, over, cut, {**infos, "action_mask": np.ones((ROWS, 3))}
            (reward if name == "reward" else infos["cost"])[1] = np.nan
            return seen, reward, over, cut, infos

    world = VectorWorld(Broken(ROWS), "mine")
    world.start(np.arange(ROWS), 0, np.arange(ROWS))
    with pytest.raises((InvalidInput, Unsupported), match=match):
        world.step(np.full((ROWS, 1, 1), 6.0))
