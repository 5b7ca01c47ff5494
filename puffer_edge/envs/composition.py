"""What surrounds an environment on a board, as scalar functions around its own: fixed point, shield, delay, noise, varied parameters.

What comes out is an environment again: the native engine runs it through the same pointer, and never knows. It takes proposals in
physical units and remembers what it needs in further numbers of the state. Without delay and noise it gives the bits of ``Plant``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from puffer_edge.contract import Contract
from puffer_edge.envs.draw import DRAW, normal, uniform
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Number, Row, clip, rint
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.integer.shield import Shield
from puffer_edge.spaces import Floats, Ints

MAX_DELAY = 64
"""Steps; each costs a row of the state."""


@dataclass(frozen=True, eq=False)
class Composition:
    """An environment in its surroundings.

    Attributes:
        environment: the whole, for ``pointer()`` and for numpy.
        columns: where in the state lie ``inner`` (the bare environment's), ``parameters`` (if they vary), ``seen`` (fixed-point
            observation that the policy and the shield see), ``applied`` (fixed-point action that the shield let through), ``acting``
            (physical action that reached the plant), ``stages`` (bits of the shield's stages that acted) and ``interventions`` (steps
            at which any did; a reset leaves it as it is). Of several agents each holds what belongs to one after the other.
    """

    environment: Environment
    columns: Mapping[str, slice]

    def read(self, state: Floats, column: str) -> Floats:
        """(n, …) numbers of one column of (n, S) states."""
        return state[:, self.columns[column]]

    def applied(self, state: Floats) -> Ints:
        """(n, n_actions) int32 fixed-point action of the last step, as ``StepResult.applied``; (n, agents · n_actions) of several agents."""
        return self.read(state, "applied").astype(np.int32)

    def stages(self, state: Floats) -> Ints:
        """(n,) int32 bits of the shield's stages that acted in the last step, as ``StepResult.stages``; (n, agents) of several agents."""
        found = self.read(state, "stages").astype(np.int32)
        return found[:, 0] if self.environment.agents == 1 else found


def compose(
    environment: Environment,
    shield: Shield | None = None,
    *,
    observation_delay: int = 0,
    action_delay: int = 0,
    noise: Mapping[str, float] | None = None,
    vary: Mapping[str, tuple[float, float]] | None = None,
) -> Composition:
    """Put surroundings around an environment.

    Args:
        environment: one of scalar functions.
        shield: between proposal and actuator; None applies the proposal, clamped to the contract.
        observation_delay: steps by which what is seen is old; at first it is the first observation.
        action_delay: steps between the shield and the actuator; at first the contract's initial action acts.
        noise: standard deviation of a normal error by observation channel, in its unit, drawn anew each step.
        vary: range by parameter of the dynamics; drawn uniformly for each episode.

    Raises:
        InvalidInput: an unknown channel or parameter, a delay or number out of range, or a shield for another contract.
        Unsupported: the environment is written as numpy functions, or runs its policy at fewer than every base tick.
    """
    inner = _inner(environment, shield, observation_delay, action_delay)
    c = environment.contract
    errors = _noise(c, noise or {})
    low, high = _ranges(inner, vary or {})
    columns = _columns(inner, observation_delay, action_delay, bool(vary))
    pieces = _Pieces(
        inner,
        _sensing(c, inner, errors, columns, observation_delay),
        _acting(c, shield or Shield.none(c), inner, columns),
        columns,
        low,
        high,
        np.concatenate([np.tile(c.action_initial, (action_delay + 1) * inner.agents), np.tile(c.physical_action(c.action_initial), inner.agents)]),
    )
    reset, observe = pieces.beginning(c, observation_delay)
    step = pieces.step() if inner.agents == 1 else pieces.step_many(c, action_delay)
    whole = Dynamics(
        columns["end"].start,
        inner.n_observation,
        inner.n_action,
        reset,
        observe,
        step,
        inner.parameters,
        inner.agents,
        random_steps=inner.random_steps or bool(errors.any()),
        scratch=max(inner.scratch, c.n_observations + 2 * c.n_actions + 1 + inner.agents * (c.n_actions + 1)),
        allow=inner.allow_within(),
        n_choices=inner.n_choices,
    )
    surrounded = Environment.of_scalars(
        c,
        whole,
        max_steps=environment.max_steps,
        solved=environment.solved,
        shield=environment.shield,
        name=environment.name,
        draw=environment.draw,  # its state comes first
    )
    return Composition(surrounded, {name: place for name, place in columns.items() if not name.startswith("_") and name != "end"})


def _inner(environment: Environment, shield: Shield | None, *delays: int) -> Dynamics:
    if environment.scalars is None:
        raise Unsupported(f"{environment.name} is written as numpy functions: surroundings are composed around scalar functions")
    if environment.contract.policy_divider != 1:
        raise Unsupported(f"{environment.name} runs its policy at one of {environment.contract.policy_divider} ticks, not at every one")
    if shield is not None and shield.contract.digest != environment.contract.digest:
        raise InvalidInput(f"the shield was built for another contract: {'; '.join(environment.contract.differences(shield.contract))}")
    for delay in delays:
        if isinstance(delay, bool) or not isinstance(delay, int) or not 0 <= delay <= MAX_DELAY:
            raise InvalidInput(f"a delay is a whole number of steps from 0 to {MAX_DELAY}, not {delay!r}")
    return environment.scalars


def _noise(c: Contract, noise: Mapping[str, float]) -> Floats:
    names = [channel.name for channel in c.observations]
    unknown = sorted(set(noise) - set(names))
    if unknown:
        raise InvalidInput(f"{c.name} observes no {', '.join(unknown)}: it observes {', '.join(names)}")
    for name, deviation in noise.items():
        if not 0.0 <= deviation < math.inf:
            raise InvalidInput(f"the noise of {name} is a standard deviation that is not negative, not {deviation}")
    return np.array([noise.get(name, 0.0) for name in names], np.float64)


def _ranges(inner: Dynamics, vary: Mapping[str, tuple[float, float]]) -> tuple[Floats, Floats]:
    names = [p.name for p in inner.parameters]
    unknown = sorted(set(vary) - set(names))
    if unknown:
        raise InvalidInput(f"the dynamics have no parameter {', '.join(unknown)}: they have {', '.join(names) or 'none'}")
    for name, (low, high) in vary.items():
        if not -math.inf < low <= high < math.inf:
            raise InvalidInput(f"the range of {name} must be two finite numbers in order, not {low} … {high}")
    bounds = [vary.get(p.name, (p.value, p.value)) for p in inner.parameters]
    return np.array([b[0] for b in bounds], np.float64), np.array([b[1] for b in bounds], np.float64)


def _columns(inner: Dynamics, observation_delay: int, action_delay: int, varied: bool) -> dict[str, slice]:
    """Places in the state; lines of delay begin with the oldest, and the newest action is the one that was applied. A line holds all agents."""
    agents = inner.agents
    sizes = {
        "inner": inner.n_state,
        "parameters": len(inner.parameters) if varied else 0,
        "seen": agents * inner.n_observation,
        "_observations": observation_delay * agents * inner.n_observation,
        "_actions": action_delay * agents * inner.n_action,
        "applied": agents * inner.n_action,
        "acting": agents * inner.n_action,
        "stages": agents,
        "interventions": agents,
        "end": 0,
    }
    ends = np.cumsum(list(sizes.values())).tolist()
    return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends)}


def to_integer(x: Number, scale: float, low: float, high: float) -> Number:
    """``spaces.to_fixed`` of one number, as a float64 that holds the integer; NaN of what is not finite."""
    if x - x != 0.0:
        return math.nan
    return clip(rint(x * scale), low, high) + 0.0  # no negative zero: integers have none


def integer_of(x: Number) -> Any:
    """The integer that a float64 holds; 0 of NaN, as in ``spaces.to_fixed``."""
    return int(x) if x == x else 0


def _sensing(c: Contract, inner: Dynamics, errors: Floats, columns: Mapping[str, slice], delay: int) -> Callable[..., None]:
    """The function that moves the observations on by one step and puts the newest at the end."""
    observe, n, noisy = _line(inner), inner.agents * inner.n_observation, bool(errors.any())
    size, errors = inner.n_state, np.tile(errors, inner.agents)
    first, newest = columns["seen"].start, columns["seen"].start + delay * n
    scale = np.tile(np.exp2(c.observation_bits.astype(np.float64)), inner.agents)
    low, high = (np.tile(x.astype(np.float64), inner.agents) for x in (c.observation_low, c.observation_high))

    def sense(draw: Row, state: Row) -> None:
        for k in range(first, newest):
            state[k] = state[k + n]
        observe(state[:size], state[newest : newest + n])
        for k in range(n):
            error = errors[k] * normal(draw) if noisy else 0.0
            state[newest + k] = to_integer(state[newest + k] + error, scale[k], low[k], high[k])

    def sense_exactly(draw: Row, state: Row) -> None:
        for k in range(first, newest):
            state[k] = state[k + n]
        observe(state[:size], state[newest : newest + n])
        for k in range(n):
            state[newest + k] = to_integer(state[newest + k], scale[k], low[k], high[k])

    return sense if noisy else sense_exactly


def _line(inner: Dynamics) -> Callable[..., None]:
    """``observe``, of all agents side by side in one line."""
    observe, agents, n = inner.observe, inner.agents, inner.n_observation
    if agents == 1:
        return observe

    def observe_all(state: Row, line: Row) -> None:
        observe(state, line.reshape(agents, n))

    return observe_all


def shield_function(shield: Shield) -> Callable[[Any, Any], None]:
    """A shield as a plain function of integers ``(v, out)``, for numba: ``v`` as in ``input_ranges``, ``out`` the actions and the stages."""
    names: dict[str, Any] = {}
    exec(compile(shield.to_micropython("shield"), "<shield>", "exec"), names)
    function: Callable[[Any, Any], None] = names["shield"]
    return function


def _acting(c: Contract, shield: Shield, inner: Dynamics, columns: Mapping[str, slice]) -> Callable[[Row, Row, Row], None]:
    """The function that takes the proposals of all agents, side by side, through the shield, and moves the actions on by one step."""
    guard, n, m, agents = shield_function(shield), c.n_observations, c.n_actions, inner.agents
    seen, oldest, applied = columns["seen"].start, columns["_actions"].start, columns["applied"].start
    acting, stages, width, each = columns["acting"].start, columns["stages"].start, agents * m, m + 1
    shift = c.shield_shift.astype(np.int64)
    scale, back = np.exp2(c.action_bits.astype(np.float64)), np.exp2(-c.action_bits.astype(np.float64))
    low, high = c.action_low.astype(np.float64), c.action_high.astype(np.float64)

    inputs = DRAW + n + 2 * m + 1
    outputs = inputs + agents * each

    def act(draw: Row, state: Row, proposal: Row) -> None:
        v, out = draw[DRAW:inputs].view(np.int64), draw[inputs:outputs].view(np.int64)
        for a in range(agents):
            for k in range(n):
                x = integer_of(state[seen + a * n + k]) >> shift[k]
                v[k] = -32768 if x < -32768 else 32767 if x > 32767 else x
            for k in range(m):
                v[n + k] = integer_of(to_integer(proposal[a * m + k], scale[k], low[k], high[k]))
                v[n + m + k] = integer_of(state[applied + a * m + k])
            v[n + 2 * m] = 0  # no fallback: a plant has its observations
            guard(v, out[a * each : a * each + each])
        for k in range(oldest, applied):
            state[k] = state[k + width]
        for a in range(agents):
            for k in range(m):
                state[applied + a * m + k] = out[a * each + k]
                state[acting + a * m + k] = state[oldest + a * m + k] * back[k]
            state[stages + a] = out[a * each + m]

    return act


@dataclass(frozen=True, eq=False)
class _Pieces:
    """What the scalar functions of a composition are made of."""

    inner: Dynamics
    sense: Callable[..., None]
    act: Callable[[Row, Row, Row], None]
    columns: Mapping[str, slice]
    low: Floats
    high: Floats
    still: Floats

    def beginning(self, c: Contract, delay: int) -> tuple[Callable[..., None], Callable[..., None]]:
        """``reset`` and ``observe``."""
        inner_reset, sense, agents, n = self.inner.reset, self.sense, self.inner.agents, self.inner.n_observation
        size, at, low, high, still = self.inner.n_state, self.columns, self.low, self.high, self.still
        place, varied, width = at["parameters"].start, at["parameters"].stop - at["parameters"].start, agents * n
        first, actions, stages = at["seen"].start, at["_actions"].start, at["stages"].start
        back = np.exp2(-c.observation_bits.astype(np.float64))

        def reset(draw: Row, state: Row, parameters: Row) -> None:
            for k in range(varied):
                state[place + k] = uniform(draw, low[k], high[k]) if high[k] > low[k] else low[k]
            inner_reset(draw, state[:size], state[place : place + varied] if varied else parameters)
            for k in range(len(still)):
                state[actions + k] = still[k]
            for a in range(agents):
                state[stages + a] = 0.0
            sense(draw, state)
            for k in range(first + delay * width - 1, first - 1, -1):
                state[k] = state[k + width]

        def observe(state: Row, observation: Row) -> None:
            for k in range(n):
                observation[k] = state[first + k] * back[k]

        def observe_many(state: Row, observation: Row) -> None:
            for a in range(agents):
                for k in range(n):
                    observation[a, k] = state[first + a * n + k] * back[k]

        return reset, observe if agents == 1 else observe_many

    def step(self) -> Callable[..., Any]:
        """``step`` of one agent."""
        inner_step, sense, act, size, m = self.inner.step, self.sense, self.act, self.inner.n_state, self.inner.n_action
        at = self.columns
        place, varied = at["parameters"].start, at["parameters"].stop - at["parameters"].start
        acting, stages, interventions = at["acting"].start, at["stages"].start, at["interventions"].start

        def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
            legal = True
            for k in range(m):
                legal = legal & (action[k] - action[k] == 0.0)
            act(draw, state, action)
            if state[stages] != 0.0:
                state[interventions] += 1.0
            chosen = state[place : place + varied] if varied else parameters
            reward, cost, terminated = inner_step(draw, state[:size], state[acting : acting + m], chosen)
            sense(draw, state)
            return reward if legal else math.nan, cost, terminated  # NaN stops a training whose policy proposes what is no number

        return step

    def step_many(self, c: Contract, delay: int) -> Callable[..., Any]:
        """``step`` of several agents; to one that did not act its previous action is the contract's initial one, and nothing was on its way."""
        inner_step, sense, act, size, m = self.inner.step, self.sense, self.act, self.inner.n_state, self.inner.n_action
        agents, at, initial = self.inner.agents, self.columns, c.action_initial.astype(np.float64)
        place, varied, width = at["parameters"].start, at["parameters"].stop - at["parameters"].start, agents * m
        oldest, acting, stages, interventions = at["_actions"].start, at["acting"].start, at["stages"].start, at["interventions"].start

        def step(draw: Row, state: Row, action: Row, parameters: Row, reward: Row, cost: Row, terminated: Row, alive: Row) -> None:
            act(draw, state, action.reshape(width))
            chosen = state[place : place + varied] if varied else parameters
            inner_step(draw, state[:size], state[acting : acting + width].reshape(agents, m), chosen, reward, cost, terminated, alive)
            for a in range(agents):
                if alive[a] == 0:
                    for line in range(delay + 1):
                        for k in range(m):
                            state[oldest + line * width + a * m + k] = initial[k]
                    state[stages + a] = 0.0
                elif state[stages + a] != 0.0:
                    state[interventions + a] += 1.0
                for k in range(m):
                    if alive[a] != 0 and action[a, k] - action[a, k] != 0.0:
                        reward[a] = math.nan  # NaN stops a training whose policy proposes what is no number
            sense(draw, state)

        return step
