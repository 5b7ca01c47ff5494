"""Gymnasium's vector environments, ``gymvec:ID``, as a ``World``: all three modes of autoreset, with the true last observation of an episode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.envs import living
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.gym import MASK, actions_of, has_mask, layout_of, making, rate_of, short_name
from puffer_edge.envs.rendering import rendered, with_pictures
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.spaces import Bools, Floats

Rows = npt.NDArray[np.int64]


class VectorWorld:
    """N environments of a ``gymnasium.vector.VectorEnv``, which keeps ``world.World``; one agent a row.

    One that is reset row by row (autoreset disabled, or Gymnasium's own Sync and Async) starts every episode as its seed and number say. Any
    other begins episodes by itself, unpaired. Of those, one in the mode NEXT_STEP takes a step more to begin: a dead row, with its first
    observation behind it.

    Args:
        env: the vector environment.
        name: for messages.

    Raises:
        Unsupported: it does not say its mode, or a space cannot be that of a policy.
    """

    def __init__(self, env: Any, name: str) -> None:
        from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

        self.env, self.name, self.n = env, name, int(env.num_envs)
        mode = env.metadata.get("autoreset_mode")
        if mode not in tuple(AutoresetMode):
            raise Unsupported(f'{name} does not say how it resets: put a gymnasium.vector.AutoresetMode into metadata["autoreset_mode"]')
        self.same_step = mode == AutoresetMode.SAME_STEP
        self.by_row = mode == AutoresetMode.DISABLED or isinstance(env.unwrapped, (SyncVectorEnv, AsyncVectorEnv))
        masked = has_mask(env.single_observation_space)
        self.layout = layout_of(env.single_observation_space, name)
        self.actions = actions_of(env.single_action_space, name)
        rows = (self.n, 1)
        self.seen: Floats = np.zeros((*rows, self.layout.n))
        self.reward: Floats = np.zeros(rows)
        self.cost: Floats = np.zeros(rows)
        self.terminated: Bools = np.zeros(rows, bool)
        self.cut: Bools = np.zeros(self.n, bool)
        self.alive: Bools = np.ones(rows, bool)
        self.allowed: Bools | None = np.ones((*rows, self.actions.n_outputs), bool) if masked else None
        self._first = np.zeros_like(self.seen)  # of an episode that began in the step in which the last one ended
        self._ended = np.ones(self.n, bool)
        self._beginning = np.zeros(self.n, bool)
        self._steps = 0

    def start(self, rows: Rows, seed: int, episodes: Rows) -> None:
        """Start these rows in these episodes of a seed.

        Raises:
            Unsupported: a row is in the middle of an episode, and the environment resets itself at the end of one only.
        """
        self.reset(rows, [living.seed_of(seed, int(episode)) for episode in episodes])

    def reset(self, rows: Rows, seeds: list[int]) -> None:
        """Start rows, each from a seed; see ``start``."""
        if len(rows) == self.n:
            order = np.argsort(rows).tolist()
            ordered = [seeds[k] for k in order]
            self._take(self.env.reset(seed=ordered if self.by_row else ordered[0])[0], rows)
        elif self.by_row:
            chosen = np.isin(np.arange(self.n), rows)
            every: list[int | None] = [None] * self.n
            for row, value in zip(rows.tolist(), seeds):
                every[row] = value
            self._take(self.env.reset(seed=every, options={"reset_mask": chosen})[0], rows)
        elif not self._ended[rows].all():
            raise Unsupported(
                f"{self.name} begins an episode only where one of its own has ended: register it with max_episode_steps, for its clock to end them"
            )
        elif self.same_step:
            self.seen[rows] = self._first[rows]
        else:
            self._beginning[rows] = True
        self._ended[rows] = False

    def step(self, action: Floats) -> None:
        """One step of every row: (N, 1, m) physical actions."""
        self._steps += 1
        observation, reward, terminated, cut, infos = self.env.step(self.actions.values(action[:, 0]))
        dead = self._beginning.copy()
        self._beginning[:] = False
        self.reward[:, 0], self.terminated[:, 0] = reward, terminated
        self.cut[:] = cut & ~terminated
        self.cost[:, 0] = infos.get("cost", 0.0)
        if MASK in infos:
            raise Unsupported(f"{self.name} says in info which choices are allowed: of many rows in one object it must be in the observation")
        self.alive[:, 0] = ~dead
        self.reward[dead] = self.cost[dead] = 0.0
        self._ended = np.asarray((terminated | cut) & ~dead)
        self._take(observation, np.arange(self.n))
        if self.same_step and self._ended.any():
            self._first[...] = self.seen
            for k in np.flatnonzero(self._ended):
                self.layout.put(infos["final_obs"][k], self.seen[k, 0], self._steps)
                self.cost[k, 0] = _final_cost(infos.get("final_info", {}), int(k))
        if not (np.isfinite(self.reward).all() and np.isfinite(self.cost).all()):
            row = int(np.argwhere(~np.isfinite(self.reward + self.cost))[0, 0])
            raise InvalidInput(f"{self.name} gave row {row} the reward {self.reward[row, 0]} and the cost {self.cost[row, 0]} in step {self._steps}")

    def save_state(self) -> dict[str, npt.NDArray[Any]]:
        """Raises Unsupported: what many rows in one object are is not known."""
        raise Unsupported(f"{self.name} steps all rows in one object, of whose state nothing is known")

    def load_state(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Raises Unsupported."""
        raise Unsupported(f"{self.name} cannot be put back into a state")

    def close(self) -> None:
        """Give back processes and windows."""
        self.env.close()

    def _take(self, observation: Any, rows: Rows) -> None:
        """Write what rows observe, and may choose.

        Raises:
            InvalidInput: a NaN or an infinity.
        """
        seen = self.layout.numbers_of(observation, self.n)
        if not np.isfinite(seen).all():
            row, k = np.argwhere(~np.isfinite(seen))[0].tolist()
            raise InvalidInput(f"{self.name}: {self.layout.names()[k]} of row {row} is {seen[row, k]} in step {self._steps}")
        self.seen[rows, 0] = seen[rows]
        if self.allowed is not None:
            for row in rows:
                self.actions.mask(observation[MASK][row], self.allowed[row, 0], self.name)


def _final_cost(infos: Any, row: int) -> float:
    """The cost of the step that ended a row's episode: Gymnasium's own keep arrays by name there, others a dict of each row."""
    found = infos.get("cost", 0.0) if isinstance(infos, Mapping) else (infos[row] or {}).get("cost", 0.0)
    return float(found[row] if np.ndim(found) else found)


class One:
    """A vector environment of one row that keeps ``world.Living``, for whatever steps environments one by one."""

    def __init__(self, world: VectorWorld) -> None:
        self.world = world

    def reset(self, seed: int, seen: Floats, allowed: Bools) -> None:
        """Start an episode."""
        self.world.reset(np.zeros(1, np.int64), [seed])
        self._copy(seen, allowed)

    def step(self, action: Floats, seen: Floats, reward: Floats, cost: Floats, terminated: Bools, alive: Bools, allowed: Bools) -> bool:
        """One step of (1, m) physical actions; whether a clock of its own ended the episode."""
        w = self.world
        w.step(action[None])
        reward[:], cost[:], terminated[:], alive[:] = w.reward[0], w.cost[0], w.terminated[0], w.alive[0]
        self._copy(seen, allowed)
        return bool(w.cut[0])

    def picture(self) -> Any:
        """(height, width, 3) uint8 picture of it, of one that ``VectorFactory.filmed`` makes."""
        return rendered(self.world.env, self.world.name)

    def close(self) -> None:
        """Give back what it holds."""
        self.world.close()

    def _copy(self, seen: Floats, allowed: Bools) -> None:
        seen[...] = self.world.seen[0]
        allowed[...] = True if self.world.allowed is None else self.world.allowed[0]


@dataclass(frozen=True)
class VectorFactory:
    """Makes vector environments.

    Attributes:
        name: for messages.
        made: gives one of so many rows.
    """

    name: str
    made: Callable[..., Any]

    def world(self, n: int) -> VectorWorld:
        """n rows."""
        return VectorWorld(self.made(n), self.name)

    def __call__(self) -> One:
        """One row, living."""
        return One(self.world(1))

    def filmed(self) -> VectorFactory:
        """One whose environments have pictures."""
        return replace(self, made=with_pictures(self.name, self.made, 1))


def make(identity: str, n: int, **how: Any) -> Any:
    """``gymnasium.make_vec`` of an ID.

    Args:
        identity: the ID.
        n: number of rows.
        how: ``render_mode``, where it is to be filmed.

    Raises:
        MissingExtra: Gymnasium is not installed, or MuJoCo is not.
        InvalidInput: there is none of that ID, or its package is not installed.
    """
    return making("gymvec", identity, lambda gymnasium: gymnasium.make_vec(identity, num_envs=n, **how))


def wrap(identity: str) -> Environment:
    """A vector environment of Gymnasium as one of ours, named ``gymvec:ID``; ``world`` makes many rows at once.

    Raises:
        MissingExtra: Gymnasium is not installed.
        InvalidInput: there is none of that ID.
        Unsupported: a space cannot be that of a policy, or it does not say how it resets.
    """
    return of_factory(VectorFactory(f"gymvec:{identity}", partial(make, identity)))


def of_factory(factory: VectorFactory) -> Environment:
    """An environment of ours; its episodes end by the vector environment's own clock."""
    one = factory.world(1)
    env, a = one.env, one.actions
    spec = getattr(env, "spec", None)
    limit = getattr(spec, "max_episode_steps", None) or getattr(env.unwrapped, "max_episode_steps", None)
    face = living.Face(one.layout.names(), *one.layout.bounds(), a.channels, a.levels, a.head, masked=one.allowed is not None)
    one.close()
    contract = face.contract(short_name(factory.name), rate_of(env), factory)
    solved = float(getattr(spec, "reward_threshold", None) or "inf")
    # one more than its own, so that its clock is the one that ends an episode, and a dead first step has room
    made = living.environment(factory.name, factory, face, contract, max_steps=(limit or living.MAX_STEPS) + 1, solved=solved)
    return replace(made, world=factory.world)
