"""Gymnasium environments, ``gym:ID``, MuJoCo's among them, and environment classes of your own that derive from ``gymnasium.Env``."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from puffer_edge.envs import living
from puffer_edge.envs.actions import Actions
from puffer_edge.envs.emulation import Layout
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.rendering import rendered, with_pictures
from puffer_edge.envs.world import shown
from puffer_edge.errors import InvalidInput, MissingExtra, Unsupported
from puffer_edge.spaces import Bools, Floats

RATE_HZ = 50.0
"""Where the environment names no rate (``metadata["render_fps"]``)."""
CHECKED = 100
"""Observations of every environment that are compared with its space number by number; later ones by shape, choices and NaN."""
PROMISED = "it must give observation, reward, terminated, truncated and info, a dict"
MASK = "action_mask"
"""Key of the observation, or of ``info``, that says which choices are allowed."""


def make(identity: str, **how: Any) -> Any:
    """A Gymnasium environment without its time limit.

    Args:
        identity: its ID.
        how: ``render_mode``, where it is to be filmed.

    Raises:
        MissingExtra: Gymnasium is not installed, or MuJoCo is not.
        InvalidInput: there is none of that ID, or its package is not installed.
    """
    return making("gym", identity, lambda gymnasium: gymnasium.make(identity, max_episode_steps=-1, disable_env_checker=True, **how))


def making(family: str, identity: str, made: Callable[[Any], Any]) -> Any:
    """What a call of Gymnasium for an ID makes; see ``make``."""
    try:
        import gymnasium
    except ImportError:
        raise MissingExtra("train", f"{family}:{identity}") from None
    if not re.fullmatch(r"[A-Za-z0-9_./-]{1,80}", identity):
        raise InvalidInput(f"{identity!r} is no ID of Gymnasium: write {family}:CartPole-v1")
    try:
        return made(gymnasium)
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        if isinstance(error, (gymnasium.error.DependencyNotInstalled, ImportError)) and "mujoco" in str(error).lower():
            raise MissingExtra("mujoco", f"{family}:{identity}") from None
        raise InvalidInput(f"Gymnasium makes no {identity}: {error}") from None


class Observed:
    """The numbers of one agent's observations, checked against their space: fully at first, then by what is cheap.

    Args:
        name: of the environment, for messages.
        layout: of the space, without a mask.
    """

    def __init__(self, name: str, layout: Layout) -> None:
        self.name, self.layout = name, layout
        self._checked = 0

    def put(self, value: Any, out: Floats, step: int) -> None:
        """Write the numbers of an observation (n,).

        Raises:
            InvalidInput: it is not of its space; the message names path, index and step.
        """
        try:
            if self._checked < CHECKED:
                self.layout.check(value, step)
                self._checked += 1
            self.layout.put(value, out, step)
        except InvalidInput as error:
            raise InvalidInput(f"{self.name}: of the observation, {error}") from None
        if not math.isfinite(out.dot(out)) and not np.isfinite(out).all():  # the first is quick, but huge numbers overflow in it
            k = int(np.flatnonzero(~np.isfinite(out))[0])
            raise InvalidInput(f"{self.name}: {self.layout.names()[k]} is {out[k]} in step {step}")


class GymLiving:
    """A Gymnasium environment that keeps ``world.Living``: one agent.

    Args:
        env: the Gymnasium environment.
        name: for messages.
    """

    changing = ("_steps", "env")
    """Attributes that ``puffer_edge.envs.snapshot`` looks at."""

    def __init__(self, env: Any, name: str) -> None:
        self.env, self.name = env, name
        self.masked = has_mask(env.observation_space)
        self.observed = Observed(name, layout_of(env.observation_space, name))
        self.actions = actions_of(env.action_space, name)
        self._spaces = env.observation_space, env.action_space
        self._steps = 0

    def reset(self, seed: int, seen: Floats, allowed: Bools) -> None:
        """Start an episode."""
        self._steps = 0
        observation, info = self._begin(seed)
        for now, before in zip((self.env.observation_space, self.env.action_space), self._spaces):
            if now is not before and now != before:
                raise InvalidInput(f"{self.name} changed a space between episodes, from {before} to {now}: a policy has one for all")
        allowed[...] = True
        self._put(observation, info, seen, allowed)

    def step(self, action: Floats, seen: Floats, reward: Floats, cost: Floats, terminated: Bools, alive: Bools, allowed: Bools) -> bool:
        """One step of (1, m) physical actions; whether a clock of its own ended the episode."""
        self._steps += 1
        gave = self.env.step(self.actions.value(action[0]))
        try:
            observation, gained, over, cut, info = gave
            paid = info.get("cost", 0.0)
            terminated[0], alive[0] = over, True
        except (TypeError, ValueError, AttributeError):
            raise InvalidInput(f"{self.name}: step gave {shown(gave)} in step {self._steps} of an episode: {PROMISED}") from None
        reward[0], cost[0] = earned(gained, paid, self.name, self._steps)
        self._put(observation, info, seen, allowed)
        return bool(cut and not over)

    def picture(self) -> Any:
        """(height, width, 3) uint8 picture of it, of one that ``GymFactory.filmed`` makes."""
        return rendered(self.env, self.name)

    def close(self) -> None:
        """Give back windows and simulators."""
        self.env.close()

    def _begin(self, seed: int) -> tuple[Any, dict[str, Any]]:
        gave = self.env.reset(seed=seed)
        if not (isinstance(gave, tuple) and len(gave) == 2 and isinstance(gave[1], dict)):
            raise InvalidInput(f"{self.name}: reset gave {shown(gave)}: it must give the observation and info, a dict")
        return gave

    def tells_mask(self) -> bool:
        """Whether it says which choices are allowed; an episode is begun for it, to look into its ``info``."""
        return self.masked or MASK in self._begin(0)[1]

    def _put(self, observation: Any, info: Any, seen: Floats, allowed: Bools) -> None:
        self.observed.put(observation, seen[0], self._steps)
        mask = observation.get(MASK) if self.masked else info.get(MASK)
        if mask is not None:
            self.actions.mask(mask, allowed[0], self.name)


def earned(reward: Any, cost: Any, name: str, step: int) -> tuple[float, float]:
    """Reward and cost of a step, which may be any kind of number, as floats.

    Raises:
        InvalidInput: one is no finite number; the message names the step, counted from the episode's start.
    """
    if isinstance(reward, float) and isinstance(cost, float) and math.isfinite(reward + cost):
        return reward, cost
    found = []
    for what, value in (("the reward", reward), ("info['cost']", cost)):
        array = np.asarray(value)  # numpy's numbers, and arrays of one
        if array.dtype.kind not in "biuf" or array.size != 1:
            raise InvalidInput(f"{name}: {what} is {value!r} in step {step} of an episode: it must be one number")
        found.append(float(array.item()))
        if not math.isfinite(found[-1]):
            raise InvalidInput(f"{name}: {what} is {found[-1]} in step {step} of an episode: it must be finite")
    return found[0], found[1]


def layout_of(space: Any, name: str) -> Layout:
    """The layout of an observation space, without a mask in it.

    Raises:
        Unsupported: a space in it has no fixed size; the message names the environment and the path.
    """
    try:
        return Layout.of(space, frozenset({MASK}) if has_mask(space) else frozenset())
    except Unsupported as error:
        raise Unsupported(f"{name}: of the observations, {error}") from None


def actions_of(space: Any, name: str) -> Actions:
    """The head that drives an action space; see ``Actions.of``, whose errors name the environment here."""
    try:
        return Actions.of(space)
    except Unsupported as error:
        raise Unsupported(f"{name}: of the actions, {error}") from None


def has_mask(space: Any) -> bool:
    """Whether an observation space holds an action mask beside something to observe."""
    from gymnasium import spaces

    return isinstance(space, spaces.Dict) and MASK in space.spaces and len(space.spaces) > 1


@dataclass(frozen=True)
class GymFactory:
    """Makes living Gymnasium environments, in any process.

    Attributes:
        name: for messages.
        made: gives the Gymnasium environment, and with ``render_mode`` one that can be filmed.
    """

    name: str
    made: Callable[..., Any]

    def __call__(self) -> GymLiving:
        """One more."""
        return GymLiving(self.made(), self.name)

    def filmed(self) -> GymFactory:
        """One whose environments have pictures; see ``with_pictures``."""
        return replace(self, made=with_pictures(self.name, self.made))

    def tells_cost(self) -> bool:
        """Whether its steps say in their info what they cost, by the first step of an episode; True where masks would have to be looked at."""
        env = self.made()
        try:
            _, info = env.reset(seed=0)
            if MASK in info or has_mask(env.observation_space):
                return True
            env.action_space.seed(0)
            return "cost" in env.step(env.action_space.sample())[4]
        finally:
            env.close()


def wrap(identity: str) -> Environment:
    """A Gymnasium environment as one of ours, named ``gym:ID``.

    Raises:
        MissingExtra: Gymnasium or MuJoCo is not installed.
        InvalidInput: there is none of that ID, or it has more channels than a contract holds.
        Unsupported: a space has no fixed size, the actions mix choices and boxes, or an action has no bounds.
    """
    factory = GymFactory(f"gym:{identity}", partial(make, identity))
    one = factory()
    from gymnasium import registry

    limit = getattr(registry.get(identity), "max_episode_steps", None)
    return of_env(factory, one, limit)


def of_env(factory: GymFactory, one: GymLiving, max_steps: int | None) -> Environment:
    """An environment of ours.

    Args:
        factory: makes more.
        one: a first one; it is closed.
        max_steps: of an episode; None where nobody names a number.
    """
    try:
        face = face_of(one)
        env, spec = one.env, one.env.spec
        contract = face.contract(short_name(factory.name), rate_of(env), factory)
    except (InvalidInput, Unsupported) as error:
        raise type(error)(f"{factory.name}: {error}".replace(f"{factory.name}: {factory.name}", factory.name)) from None
    finally:
        one.close()
    solved = float(spec.reward_threshold) if spec is not None and spec.reward_threshold is not None else float("inf")
    return living.environment(factory.name, factory, face, contract, max_steps=max_steps or living.MAX_STEPS, solved=solved)


def short_name(name: str) -> str:
    """A contract's name from an environment's."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", re.split(r"[:/.]", name)[-1]).lstrip("_.-")[:15]


def rate_of(env: Any) -> float:
    """Steps a second, from ``metadata["render_fps"]``."""
    return float((env.metadata or {}).get("render_fps") or RATE_HZ)


def classes() -> tuple[type, ...]:
    """``gymnasium.Env`` and ``VectorEnv``, if a module that derives from one can have been imported."""
    loaded = sys.modules.get("gymnasium")
    return (loaded.Env, loaded.vector.VectorEnv) if loaded is not None else ()


def face_of(one: GymLiving) -> living.Face:
    """What a policy meets of it; an episode is begun, to see whether ``info`` has a mask."""
    layout, a = one.observed.layout, one.actions
    masked = one.tells_mask()
    if masked and not a.sizes:
        raise Unsupported("an action mask belongs to choices, these actions are a Box")
    return living.Face(layout.names(), *layout.bounds(), a.channels, a.levels, a.head, masked=masked)
