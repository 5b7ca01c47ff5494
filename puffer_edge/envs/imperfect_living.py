"""An environment that lives, a black box that steps at its own period, with the imperfections of a real plant: what comes out lives again.

They are the scalar functions of ``faults``, in the environment's own process, around what it shows and takes: before each of its steps they
find the action that acts, after them they take the sample. Their random numbers are Philox's by the seed of the episode and the step, as those
of an environment of functions whose seed that is, in episode 0.

One step of the environment takes one action: numbers act with their mean over the step, as in ``imperfect``. Of choices there is no mean: each
takes effect where a step begins, the one before or the one after its time, by a draw that keeps the mean delay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from puffer_edge.contract import Contract
from puffer_edge.envs import living
from puffer_edge.envs.draw import STREAM
from puffer_edge.envs.dynamics import Dynamics, Parameter
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.faults import OWN, Pieces
from puffer_edge.envs.imperfections import Imperfections
from puffer_edge.envs.scalar import Number, Row
from puffer_edge.envs.world import Living
from puffer_edge.errors import Unsupported
from puffer_edge.spaces import Bools, Floats

CHOICES = ("discrete", "multi_discrete")
SAMPLE = -1.0
"""In the place of a step's number: take a sample."""


def surrounded(environment: Environment, imperfections: Imperfections, contract: Contract) -> Environment:
    """The environment, under its own name, with these imperfections.

    Args:
        environment: one that lives, without any.
        imperfections: not an ideal plant's.
        contract: of what comes out.

    Raises:
        InvalidInput: a name that the environment does not have, or a delay longer than an episode.
        Unsupported: it steps all rows in one object, its agents act in turn, or its choices are to go through an actuator.
    """
    name, c, factory = environment.name, environment.contract, environment.living
    assert factory is not None
    if environment.world is not None:
        raise Unsupported(f"{name} steps all rows in one object: a plant lies around each environment. Take gym:ID, or a gymnasium.Env of your own")
    if environment.waiting is not None:
        raise Unsupported(f"the agents of {name} act in turn: it has no control period that a plant could be late by")
    if c.head in CHOICES and imperfections.actuators:
        raise Unsupported(f"{name} takes choices, which are no quantities: leave out actuators.{', actuators.'.join(imperfections.actuators)}")
    imperfections.check(c, _numbers(factory) if imperfections.parameters else (), environment.max_steps)
    made = living.environment(
        name,
        Surround(factory, c, imperfections, environment.agents),
        living.Face.of(contract, environment.agents, environment.allowed is not None),
        contract,
        max_steps=environment.max_steps // imperfections.hold_steps,
        solved=environment.solved,
        shield=environment.shield,
    )
    return replace(made, imperfections=imperfections)


def _subject(environment: Any) -> Any:
    """What holds the numbers of a living environment: Gymnasium's or PettingZoo's own object, or itself."""
    env = getattr(environment, "env", environment)
    return getattr(env, "unwrapped", env)


def _numbers(factory: living.Factory) -> tuple[str, ...]:
    """Names of its attributes that are numbers, its class's among them, and of its properties that can be set to one."""
    one = factory()
    try:
        subject = _subject(one)
        shared = {name: getattr(type(subject), name) for name in dir(type(subject))}
        settable = [name for name, x in shared.items() if _is_number(x) or getattr(x, "fset", None) is not None]
        held = {name: getattr(subject, name, None) for name in (*vars(subject), *settable) if not name.startswith("_")}
        return tuple(sorted(name for name, x in held.items() if _is_number(x)))
    finally:
        one.close()


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


@dataclass(frozen=True, eq=False)
class Surround:
    """Makes living environments with imperfections, in any process.

    Attributes:
        inner: makes one without.
        contract: of one without.
        about: the imperfections.
        agents: A.
    """

    inner: living.Factory
    contract: Contract
    about: Imperfections
    agents: int

    def __call__(self) -> Surrounded:
        """One more."""
        return Surrounded(self.inner(), self)

    def __reduce__(self) -> tuple[Any, ...]:
        return Surround, (self.inner, self.contract, self.about, self.agents)  # without functions, which are made anew

    def filmed(self) -> Surround:
        """One whose environments have pictures."""
        return Surround(living.filming(self.inner), self.contract, self.about, self.agents)

    @property
    def whole(self) -> bool:
        """Whether an action takes effect where a step begins, by a draw."""
        return self.contract.head in CHOICES and self.about.most_us > 0.0

    @cached_property
    def pieces(self) -> Pieces:
        """The imperfections around a plant whose state is what it shows."""
        c, agents = self.contract, self.agents
        size = agents * c.n_observations

        def nothing(draw: Row, state: Row, parameters: Row) -> None:
            pass

        def copy(state: Row, observation: Row) -> None:
            line = observation.reshape(size)
            for k in range(size):
                line[k] = state[k]

        varied = tuple(Parameter(name, "1", low) for name, (low, _) in self.about.parameters.items())
        shown = Dynamics(size, c.n_observations, c.n_actions, nothing, copy, nothing, varied, agents)
        return Pieces.of(c, shown, self.about, self.whole)

    @cached_property
    def dynamics(self) -> Dynamics:
        """What begins an episode; sends the actions and finds what acts in step i of those for which they are held; and takes a sample.

        All of it as scalar functions of one row. The action is that of all agents, then i or ``SAMPLE``, then who acted.
        """
        p, agents = self.pieces, self.agents
        act, drive, still, sense, at = p.act, p.drive, p.still, p.sense, p.at
        n, width, many = p.inner.n_observation, agents * p.inner.n_action, self.about.pending * p.inner.n_action
        first, pending, whole = at["seen"].start, at["pending"].start, p.inner.n_observation + many
        sent = OWN + np.uint64(agents * (self.about.jittery + self.whole))

        def observe(state: Row, observation: Row) -> None:
            for a in range(agents):
                for k in range(n):
                    observation[a * whole + k] = state[first + a * n + k]
                for k in range(many):
                    observation[a * whole + n + k] = state[pending + a * many + k]

        def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
            moment = action[width]
            if moment < 0.0:
                for a in range(agents):
                    if action[width + 1 + a] == 0.0:
                        still(state, a)
                draw[2] = draw[2] + sent
                sense(draw, state, True)
            else:
                if moment == 0.0:
                    draw[2] = draw[2] + OWN
                    act(draw, state, action)
                drive(state, moment)
            return 0.0, 0.0, False

        reset: Callable[..., None] = p.beginning()[0]
        return Dynamics(at["end"].start, agents * whole, width + 1 + agents, reset, observe, step, p.inner.parameters, random_steps=True)


class Surrounded:
    """A living environment with imperfections, which keeps ``world.Living``.

    Args:
        inner: without any; as ``surround`` makes it.
        surround: says which.
    """

    changing = ("_seed", "_state", "_step", "inner")
    """Attributes that ``puffer_edge.envs.snapshot`` looks at."""

    def __init__(self, inner: Living, surround: Surround) -> None:
        self.inner, self.surround = inner, surround
        d, self._at = surround.dynamics, surround.pieces.at
        self._state, self._step, self._seed = np.zeros((1, d.n_state)), np.zeros(1, np.uint64), np.zeros(2, np.uint32)
        self._shown, self._action = np.zeros((1, 1, d.n_observation)), np.zeros((1, 1, d.n_action))
        self._gave = (np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8))
        self._chosen = np.ones(1, np.uint8)

    @property
    def env(self) -> Any:
        """Gymnasium's or PettingZoo's, where there is one."""
        return getattr(self.inner, "env", self.inner)

    def reset(self, seed: int, seen: Floats, allowed: Bools) -> None:
        """Start an episode."""
        self._seed[:] = seed, STREAM
        self._step[0] = 0
        if names := self.surround.about.parameters:
            self._begin()  # only for its draws, which are those of the second time
            for name, value in zip(names, self._part("parameters").tolist()):
                setattr(_subject(self.inner), name, value)
        self.inner.reset(seed, self._true(seen), allowed)
        self._begin()
        seen[...] = self._shown.reshape(seen.shape)

    def step(self, action: Floats, seen: Floats, reward: Floats, cost: Floats, terminated: Bools, alive: Bools, allowed: Bools) -> bool:
        """One control step of (A, m) physical actions; whether a clock of the environment's own ended the episode."""
        width, cut, sums = action.size, False, np.zeros((2, len(reward)))
        self._action[0, 0, :width] = action.reshape(-1)
        true, acting = self._true(seen), self._part("acting").reshape(action.shape)
        for i in range(self.surround.about.hold_steps):
            self._turn(width, i)
            cut = self.inner.step(acting, true, reward, cost, terminated, alive, allowed)
            sums += reward, cost
            if cut or terminated.all():
                break
        reward[...], cost[...] = sums
        self._action[0, 0, width + 1 :] = alive
        self._turn(width, SAMPLE)
        self._step += np.uint64(1)
        seen[...] = self._shown.reshape(seen.shape)
        return cut

    def picture(self) -> Any:
        """What the environment inside shows of itself."""
        return living.picture(self.inner, self.surround.contract.name)

    def close(self) -> None:
        """Give back what it holds."""
        self.inner.close()

    def _part(self, name: str) -> Floats:
        return self._state[0, self._at[name]]

    def _true(self, seen: Floats) -> Floats:
        """(A, n) what the environment itself shows."""
        return self._part("inner").reshape(len(seen), -1)

    def _begin(self) -> None:
        self.surround.dynamics.reset_in_place(0, self._seed, self._step, self._chosen, self._state, self._shown)

    def _turn(self, width: int, moment: float) -> None:
        self._action[0, 0, width] = moment
        self.surround.dynamics.step_in_place(0, self._seed, self._step, self._action, self._state, self._shown, *self._gave)
