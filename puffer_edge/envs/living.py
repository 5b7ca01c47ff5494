"""Environments that go forward only, as an ``Environment``: instances live behind a state that is the number of an instance and what it saw.

Gymnasium's and PettingZoo's come in through here, and a simulator of your own that keeps ``world.Living``. A training on one runs
on the torch engine, and goes on to the bit where ``train.vector.saving`` can prove it. Where bounds are not known they are measured in random
episodes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.actions import bits
from puffer_edge.envs.draw import Draws
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.world import Living, raised
from puffer_edge.errors import InvalidInput, PufferEdgeError, Unsupported, WorkerFailed
from puffer_edge.spaces import OBSERVATION_LIMIT, Bools, Floats

MOST = 4096
"""Instances that live at a time; beyond them the one that was stepped longest ago is taken for the next episode."""
TRIES, TRIED_STEPS = 20, 5000
"""Random episodes, and steps of all of them, from which unknown bounds are measured."""
REACH = 8.0
"""An unknown bound is so many times the most that they met, rounded up to a power of two: a trained policy goes further than a random one."""
UNBOUNDED = 1e6
"""A bound beyond this counts as none."""
MAX_STEPS = 1000
"""Of an episode, where nobody names a number."""


Factory = Callable[[], Living]
"""Makes one environment; it can be pickled, so that another process can."""


@lru_cache(MOST)
def seed_of(seed: int, episode: int) -> int:
    """What ``Living.reset`` gets in an episode of a seed: 32 bits, the same in every process."""
    return int(np.random.SeedSequence([seed, episode, 0]).generate_state(1)[0])


@dataclass(frozen=True, eq=False)
class Face:
    """What a policy meets of a living environment.

    Attributes:
        names: of the observed numbers.
        low: (n,) lowest; infinite or beyond ``UNBOUNDED`` where it is not known.
        high: (n,) highest.
        actions: channels, levels and head, as a contract's.
        levels: see there.
        head: see there.
        agents: A.
        masked: whether the environment says which choices are allowed.
        turn: whether agents act in turn, and the last number says whose it is.
    """

    names: tuple[str, ...]
    low: Floats
    high: Floats
    actions: tuple[ActionChannel, ...]
    levels: tuple[tuple[float, ...], ...]
    head: str
    agents: int = 1
    masked: bool = False
    turn: bool = False

    @staticmethod
    def of(contract: Contract, agents: int = 1, masked: bool = False) -> Face:
        """What a contract says of it."""
        low, high = (np.array([getattr(ch, end) for ch in contract.observations], np.float64) for end in ("low", "high"))
        names = tuple(ch.name for ch in contract.observations)
        return Face(names, low, high, contract.actions, contract.levels, contract.head, agents, masked)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Choices of every group; () for a continuous head."""
        if self.head == "multi_discrete":
            return tuple(len(row) for row in self.levels)
        return (len(self.levels),) if self.head == "discrete" else ()

    @property
    def n_outputs(self) -> int:
        """Width of the network's last layer."""
        return sum(self.sizes) or len(self.actions)

    def contract(self, name: str, rate_hz: float, factory: Factory) -> Contract:
        """The contract, with bounds measured on ``factory``'s environment where they are not known."""
        low, high = self.low.copy(), self.high.copy()
        open_ = (np.abs(low) > UNBOUNDED) | (np.abs(high) > UNBOUNDED)
        if open_.any():
            reach = 2.0 ** np.ceil(np.log2(np.maximum(REACH * self._most(factory), 2.0**-6)))
            low, high = np.where(open_, -reach, low), np.where(open_, reach, high)
        high = np.where(high > low, high, low + 1.0)  # a number that never changes
        rows = zip(self.names, low.tolist(), high.tolist())
        channels = tuple(ObservationChannel(n, "1", a, b, bits(a, b, OBSERVATION_LIMIT)) for n, a, b in rows)
        return Contract(name, channels, self.actions, self.head, rate_hz, self.levels)

    def _most(self, factory: Factory) -> Floats:
        """(n,) largest magnitudes that random episodes met."""
        rng, most, left = np.random.default_rng(0), np.zeros(len(self.names)), TRIED_STEPS
        rows, living = Arrays.of(self, 1), factory()
        for episode in range(TRIES):
            living.reset(episode, rows.seen[0], rows.allowed[0])
            most = np.maximum(most, np.abs(rows.seen[0]).max(0))
            for _ in range(min(left, MAX_STEPS)):
                cut = rows.step(living, 0, self.random(rng, rows.allowed[0]))
                most = np.maximum(most, np.abs(rows.seen[0]).max(0))
                left -= 1
                if cut or rows.terminated[0].all():
                    break
        living.close()
        return most

    def random(self, rng: np.random.Generator, allowed: Bools) -> Floats:
        """(A, m) physical actions, drawn from those that are allowed."""
        if not self.sizes:
            return rng.uniform([c.low for c in self.actions], [c.high for c in self.actions], (self.agents, len(self.actions)))
        edges = np.cumsum(self.sizes)[:-1]
        groups = [[group if group.any() else ~group for group in np.split(row, edges)] for row in allowed]  # who does not act may have none
        picks = [[int(rng.choice(np.flatnonzero(group))) for group in row] for row in groups]
        if self.head == "discrete":
            return np.array([self.levels[pick[0]] for pick in picks])
        return np.array([[self.levels[j][k] for j, k in enumerate(pick)] for pick in picks])


@dataclass(eq=False)
class Arrays:
    """What living environments write into, one row an environment: see ``world.Living``."""

    seen: Floats
    allowed: Bools
    reward: Floats
    cost: Floats
    terminated: Bools
    alive: Bools

    @staticmethod
    def of(face: Face, n: int) -> Arrays:
        """Arrays of n environments."""
        rows = (n, face.agents)
        return Arrays(
            np.zeros((*rows, len(face.names))), np.ones((*rows, face.n_outputs), bool), np.zeros(rows), np.zeros(rows),
            np.zeros(rows, bool), np.ones(rows, bool),
        )  # fmt: skip

    def step(self, living: Living, row: int, action: Floats) -> bool:
        """Step one environment into its row; whether its own clock ended the episode."""
        k = row
        return living.step(action, self.seen[k], self.reward[k], self.cost[k], self.terminated[k], self.alive[k], self.allowed[k])


@dataclass
class Instance:
    """One living environment.

    Attributes:
        living: it.
        last: (…,) its part of the state, as it was given out last.
        over: whether its episode has ended; stepping it further changes nothing.
    """

    living: Living
    last: Floats
    over: bool = False


@dataclass(eq=False)
class Instances:
    """The instances of one environment, by number, behind functions of a state.

    A state is the number, then what every agent sees, then, where there are masks, which choices are allowed.

    Attributes:
        name: of the environment.
        factory: makes one.
        face: what a policy meets.
    """

    name: str
    factory: Factory
    face: Face
    alive: OrderedDict[int, Instance] = field(default_factory=OrderedDict)
    made: int = 0

    @property
    def state_size(self) -> int:
        """S."""
        f = self.face
        return 1 + f.agents * (len(f.names) + (f.n_outputs if f.masked else 0))

    def reset(self, draws: Draws) -> Floats:
        """(n, S) states of newly started episodes."""
        state, rows = np.zeros((len(draws.environment), self.state_size)), Arrays.of(self.face, 1)
        for k, episode in enumerate(draws.environment):
            living = self.alive.popitem(last=False)[1].living if len(self.alive) >= MOST else self._called("making it", self.factory)
            where = f"reset of episode {int(episode)} of seed {draws.seed}"
            self._called(where, living.reset, seed_of(draws.seed, int(episode)), rows.seen[0], rows.allowed[0])
            self.made += 1
            state[k, 0], state[k, 1:] = self.made, self._joined(rows)
            self.alive[self.made] = Instance(living, state[k, 1:].copy())
        return state

    def observe(self, state: Floats) -> Floats:
        """(n, n_observations) of (n, S) states; (n, A, n_observations) of several agents."""
        f = self.face
        seen = np.array(state[:, 1 : 1 + f.agents * len(f.names)])
        return seen if f.agents == 1 else seen.reshape(-1, f.agents, len(f.names))

    def allowed(self, state: Floats) -> Bools:
        """(n, n_outputs), or (n, A, n_outputs): the choices that may be taken next."""
        f = self.face
        mask: Bools = state[:, 1 + f.agents * len(f.names) :] != 0
        return mask if f.agents == 1 else mask.reshape(-1, f.agents, f.n_outputs)

    def waiting(self, state: Floats) -> Bools:
        """(n, A): who waits for another's turn."""
        return np.asarray(self.observe(state)[..., -1] == 0.0).reshape(len(state), -1)

    def step(self, state: Floats, action: Floats) -> Any:
        """Step the instances of (n, S) states; where an environment's own clock ends an episode, all its agents have terminated here.

        Of several agents a fifth array says who acted.

        Raises:
            InvalidInput: an instance was given up, or has gone on since: it cannot be put back.
            WorkerFailed: an environment raised something.
        """
        f, n = self.face, len(state)
        following, rows = state.copy(), Arrays.of(f, 1)
        reward, cost, over = np.zeros((n, f.agents)), np.zeros((n, f.agents)), np.ones((n, f.agents), bool)
        alive = np.zeros((n, f.agents), bool)
        action = action.reshape(n, f.agents, -1)
        for k, number in enumerate(state[:, 0].astype(int).tolist()):
            held = self.alive.get(number)
            if held is None or not np.array_equal(held.last, state[k, 1:], equal_nan=True):
                raise InvalidInput(f"{self.name} goes forward only, in up to {MOST} episodes at a time: it cannot be put back into a state")
            self.alive.move_to_end(number)
            if held.over:
                continue
            self._put(rows, held.last)
            cut = self._called(f"step of instance {number}", rows.step, held.living, 0, action[k])
            reward[k], cost[k], over[k], alive[k] = rows.reward[0], rows.cost[0], rows.terminated[0] | cut, rows.alive[0]
            held.over = bool(over[k].all())
            held.last = following[k, 1:] = self._joined(rows)
        return (following, reward[:, 0], cost[:, 0], over[:, 0]) if f.agents == 1 else (following, reward, cost, over, alive)

    def draw(self, state: Floats, canvas: Any) -> None:
        """Put what an environment shows of itself onto a canvas; it must still be in this (S,) state.

        Raises:
            Unsupported: it has no picture.
        """
        canvas.paste(picture(self.alive[int(state[0])].living, self.name))

    def _called(self, where: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """What it gives; whatever an environment's own code raises becomes an error that names it."""
        try:
            return function(*arguments)
        except PufferEdgeError:
            raise
        except (Exception, SystemExit) as error:
            raise WorkerFailed(f"{self.name}: {where} raised {raised(error)}") from error

    def _joined(self, rows: Arrays) -> Floats:
        parts = (rows.seen, rows.allowed) if self.face.masked else (rows.seen,)
        return np.concatenate([np.asarray(part, np.float64).ravel() for part in parts])

    def _put(self, rows: Arrays, last: Floats) -> None:
        """What the instance wrote before: a living environment may leave in place what did not change."""
        n = rows.seen.size
        rows.seen[0] = last[:n].reshape(rows.seen.shape[1:])
        if self.face.masked:
            rows.allowed[0] = last[n:].reshape(rows.allowed.shape[1:])


def environment(
    name: str,
    factory: Factory,
    face: Face,
    contract: Contract,
    *,
    max_steps: int = MAX_STEPS,
    solved: float = float("inf"),
    shield: tuple[Mapping[str, Any], ...] = ({"stage": "limit"},),
) -> Environment:
    """A living environment as one that plants, closed loops and boards take.

    Args:
        name: under which ``envs.load`` finds it.
        factory: makes one.
        face: what a policy meets.
        contract: of it.
        max_steps: an episode is truncated after so many steps, if the environment does not do it before.
        solved: mean return that counts as solved.
        shield: default shield, one mapping a stage.
    """
    held = Instances(name, factory, face)
    return Environment(
        name, contract, held.state_size, max_steps, solved, shield, held.reset, held.observe, held.step,
        agents=face.agents, pure=False, living=factory, allowed=held.allowed if face.masked else None,
        waiting=held.waiting if face.turn else None,
    )  # fmt: skip


@contextmanager
def filmed(environment: Environment) -> Iterator[Environment]:
    """The same, of instances made to be drawn, which are closed at the end; it has a ``draw``.

    Args:
        environment: one that lives.

    Raises:
        Unsupported: it has no pictures.
    """
    assert environment.living is not None
    face = Face.of(environment.contract, environment.agents, environment.allowed is not None)
    held = Instances(environment.name, filming(environment.living), face)
    try:
        yield replace(environment, living=held.factory, world=None, reset=held.reset, step=held.step, draw=held.draw)
    finally:
        for instance in held.alive.values():
            instance.living.close()


def filming(factory: Any) -> Factory:
    """A factory of the same that can be drawn: what its own ``filmed()`` gives, where it has one."""
    made: Factory = factory.filmed() if hasattr(factory, "filmed") else factory
    return made


def picture(one: Any, name: str) -> Any:
    """(height, width, 3) uint8 picture of a living environment, by its own ``picture()``.

    Raises:
        Unsupported: it has none.
    """
    if not hasattr(one, "picture"):
        raise Unsupported(f"{name} has no picture: give the class that keeps world.Living a method picture(), for (height, width, 3) uint8")
    return one.picture()


def of_contract(
    contract: Contract, factory: Factory, *, agents: int = 1, masked: bool = False, max_steps: int = MAX_STEPS, solved: float = float("inf")
) -> Environment:
    """A simulator of your own that keeps ``world.Living``, with its contract: an ``Environment`` to name as ``my_module:MINE``."""
    face = Face.of(contract, agents, masked)
    return environment(contract.name, factory, face, contract, max_steps=max_steps, solved=solved)
