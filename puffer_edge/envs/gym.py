"""Gymnasium environments, ``gym:ID``: their instances live behind an ``Environment`` whose state is the number of an instance.

Such an environment goes forward only: it cannot be put back into a state, so a training on it does not go on to the bit, and it runs on
the torch engine. Observations that have no bounds in the space get bounds from ``TRIES`` random episodes: twice the most that was met.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.draw import Draws
from puffer_edge.envs.environment import Environment
from puffer_edge.errors import InvalidInput, MissingExtra, Unsupported
from puffer_edge.spaces import Bools, Floats

MOST = 4096
"""Instances that live at a time; beyond them the one that was stepped longest ago is taken for the next episode."""
TRIES = 20
UNBOUNDED = 1e6
"""A bound of a space beyond this counts as none."""
MAX_STEPS = 1000
"""Of an episode, where the registry names no number."""
RATE_HZ = 50.0
"""Where the environment names no rate (``metadata["render_fps"]``)."""


@dataclass
class Instance:
    """One living environment.

    Attributes:
        env: the Gymnasium environment, without a time limit.
        observation: (n,) the last one.
        over: whether its episode has ended; stepping it further changes nothing.
    """

    env: Any
    observation: Floats
    over: bool = False


@dataclass(eq=False)
class Instances:
    """The instances of one environment, by number.

    Attributes:
        identity: Gymnasium's ID.
        discrete: whether its action is one whole number.
        whole: whether its actions are whole numbers.
        dtype: of its actions.
    """

    identity: str
    discrete: bool
    whole: bool
    dtype: Any
    alive: OrderedDict[int, Instance] = field(default_factory=OrderedDict)
    made: int = 0

    def reset(self, draws: Draws) -> Floats:
        """(n, 1 + n_observations) numbers of instances, and what each observes first."""
        return np.stack([self._begin(draws.seed, int(k), int(step)) for k, step in zip(draws.environment, draws.step)])

    def observe(self, state: Floats) -> Floats:
        """(n, n_observations) of (n, S)."""
        return np.array(state[:, 1:])

    def step(self, state: Floats, action: Floats) -> tuple[Floats, Floats, Floats, Bools]:
        """Step the instances of (n, S) states with (n, m) actions.

        Raises:
            InvalidInput: an instance was given up, or has gone on since: it cannot be put back.
        """
        following = state.copy()
        reward, cost, over = np.zeros(len(state)), np.zeros(len(state)), np.zeros(len(state), bool)
        for k, number in enumerate(state[:, 0].astype(int).tolist()):
            held = self.alive.get(number)
            if held is None or not np.array_equal(held.observation, state[k, 1:], equal_nan=True):
                raise InvalidInput(f"{self.identity} goes forward only, in up to {MOST} episodes at a time: it cannot be put back into a state")
            self.alive.move_to_end(number)
            if not held.over:
                seen, reward[k], held.over, truncated, info = held.env.step(self._action(action[k]))
                cost[k] = float(info.get("cost", 0.0))
                held.observation = np.asarray(seen, np.float64).ravel()
                if truncated:
                    raise Unsupported(f"{self.identity} ends episodes by a clock of its own: register it with max_episode_steps instead")
            over[k], following[k, 1:] = held.over, held.observation
        return following, reward, cost, over

    def _begin(self, seed: int, episode: int, step: int) -> Floats:
        if len(self.alive) >= MOST:
            _, old = self.alive.popitem(last=False)
            env = old.env
        else:
            env = make(self.identity)
        seen, _ = env.reset(seed=int(np.random.SeedSequence([seed, episode, step]).generate_state(1)[0]))
        self.made += 1
        self.alive[self.made] = Instance(env, np.asarray(seen, np.float64).ravel())
        return np.concatenate([[float(self.made)], self.alive[self.made].observation])

    def _action(self, action: Floats) -> Any:
        if self.discrete:
            return round(float(action[0]))
        return np.rint(action).astype(self.dtype) if self.whole else action.astype(self.dtype)


def make(identity: str) -> Any:
    """A Gymnasium environment without its time limit.

    Raises:
        MissingExtra: Gymnasium is not installed.
        InvalidInput: there is none of that ID, or its package is not installed.
    """
    try:
        import gymnasium
    except ImportError:
        raise MissingExtra("train", f"gym:{identity}") from None
    if not re.fullmatch(r"[A-Za-z0-9_./-]{1,80}", identity):
        raise InvalidInput(f"{identity!r} is no ID of Gymnasium: write gym:CartPole-v1")
    try:
        return gymnasium.make(identity, max_episode_steps=-1, disable_env_checker=True)
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise InvalidInput(f"Gymnasium makes no {identity}: {error}") from None


def wrap(identity: str) -> Environment:
    """A Gymnasium environment as one of ours, named ``gym:ID``.

    Raises:
        MissingExtra: Gymnasium is not installed.
        InvalidInput: there is none of that ID, or it has more channels than a contract holds.
        Unsupported: its spaces are not a vector of numbers and a Discrete, MultiDiscrete or bounded Box.
    """
    wanted = "its observations must be a Box of numbers, its actions a Discrete, MultiDiscrete or bounded Box"
    env = make(identity)
    from gymnasium import spaces

    seen, acted = env.observation_space, env.action_space
    if not isinstance(seen, spaces.Box) or not isinstance(acted, (spaces.Discrete, spaces.MultiDiscrete, spaces.Box)):
        raise Unsupported(f"{identity} has {seen} and {acted}: {wanted}")
    if isinstance(acted, spaces.Box) and not acted.is_bounded():
        raise Unsupported(f"{identity} has actions without bounds, {acted}: a contract needs them")
    actions, levels, head = _actions(acted)
    contract = Contract(
        re.sub(r"[^A-Za-z0-9_.-]", "_", identity.rpartition("/")[2])[:15],
        _observations(env),
        actions,
        head,
        float(env.metadata.get("render_fps") or RATE_HZ),
        levels,
    )
    held = Instances(identity, isinstance(acted, spaces.Discrete), not isinstance(acted, spaces.Box), acted.dtype)
    spec = env.spec
    from gymnasium import registry

    limit = getattr(registry.get(identity), "max_episode_steps", None) or MAX_STEPS
    solved = float(spec.reward_threshold) if spec is not None and spec.reward_threshold is not None else float("inf")
    shield = ({"stage": "limit"},)
    return Environment(
        f"gym:{identity}", contract, 1 + contract.n_observations, limit, solved, shield, held.reset, held.observe, held.step, pure=False
    )


def _actions(space: Any) -> tuple[tuple[ActionChannel, ...], tuple[tuple[float, ...], ...], str]:
    from gymnasium import spaces

    if isinstance(space, spaces.Box):
        low, high = (np.asarray(x, np.float64).ravel() for x in (space.low, space.high))
        still = np.clip(0.0, low, high)
        return (
            tuple(ActionChannel(f"a{k}", "1", float(a), float(b), float(s), float(s)) for k, (a, b, s) in enumerate(zip(low, high, still))),
            (),
            "clip",
        )
    sizes = [int(space.n)] if isinstance(space, spaces.Discrete) else [int(n) for n in np.ravel(space.nvec)]
    first = np.ravel(space.start).astype(float).tolist()
    channels = tuple(ActionChannel(f"a{k}", "1", f, f + max(n - 1, 1), f, f) for k, (n, f) in enumerate(zip(sizes, first)))
    if isinstance(space, spaces.Discrete):
        return channels, tuple((first[0] + k,) for k in range(sizes[0])), "discrete"
    return channels, tuple(tuple(f + k for k in range(n)) for n, f in zip(sizes, first)), "multi_discrete"


def _observations(env: Any) -> tuple[ObservationChannel, ...]:
    """Channels with the space's bounds, or with measured ones."""
    low, high = (np.asarray(x, np.float64).ravel() for x in (env.observation_space.low, env.observation_space.high))
    most = np.zeros(len(low))
    open_ = (np.abs(low) > UNBOUNDED) | (np.abs(high) > UNBOUNDED)
    if open_.any():
        env.action_space.seed(0)
        for episode in range(TRIES):
            seen, _ = env.reset(seed=episode)
            for _ in range(MAX_STEPS):
                most = np.maximum(most, np.abs(np.asarray(seen, np.float64).ravel()))
                seen, _, over, cut, _ = env.step(env.action_space.sample())
                if over or cut:
                    break
        reach = 2.0 ** np.ceil(np.log2(np.maximum(2 * most, 2.0**-6)))
        low, high = np.where(open_, -reach, low), np.where(open_, reach, high)
    return tuple(ObservationChannel(f"o{k}", "1", float(a), float(b)) for k, (a, b) in enumerate(zip(low, high)))
