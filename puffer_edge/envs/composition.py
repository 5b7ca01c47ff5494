"""What surrounds an environment on a board, as scalar functions around its own: fixed point and shield.

What comes out is an environment again: the native engine runs it through the same pointer, and never knows. It takes proposals in
physical units and remembers what it needs in further numbers of the state. It gives the bits of ``Plant``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from puffer_edge.contract import Contract
from puffer_edge.envs.draw import DRAW
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.interventions import Interventions, tries, weights
from puffer_edge.envs.scalar import Number, Row, clip, rint
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.integer.shield import Shield
from puffer_edge.spaces import Floats, Ints


@dataclass(frozen=True, eq=False)
class Composition:
    """An environment in its surroundings.

    Attributes:
        environment: the whole, for ``pointer()`` and for numpy.
        columns: where in the state lie ``inner`` (the bare environment's), ``seen`` (fixed-point observation that the policy and the shield
            see), ``applied`` (fixed-point action that the shield let through), ``acting`` (the same in physical units), ``stages`` (bits of
            the shield's stages that acted), ``interventions`` (steps at which any did; a reset leaves it as it is), ``price`` (what was taken
            from the reward, where interventions have one) and ``passed`` (choices that the shield would pass, where they are masked). Of
            several agents each holds what belongs to one after the other.
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


def compose(environment: Environment, shield: Shield | None = None, interventions: Interventions | None = None) -> Composition:
    """Put fixed point and a shield around an environment.

    Args:
        environment: one of scalar functions.
        shield: between proposal and actuator; None applies the proposal, clamped to the contract.
        interventions: what a training makes of what the shield changes; None: nothing.

    Raises:
        InvalidInput: the shield is for another contract.
        Unsupported: the environment is written as numpy functions, or runs its policy at fewer than every base tick.
    """
    inner, c, terms = _inner(environment, shield), environment.contract, interventions or Interventions()
    guard = shield or Shield.none(c)
    columns = _columns(c, inner, terms)
    still = np.concatenate([np.tile(c.action_initial, inner.agents), np.tile(c.physical_action(c.action_initial), inner.agents)])
    guarded = shield_function(guard)
    permit = _permitting(c, guarded, inner, columns) if terms.mask else None
    pieces = _Pieces(inner, _sensing(c, inner, columns, permit), _acting(c, guarded, inner, columns, terms), columns, still, terms.priced)
    reset, observe = pieces.beginning(c)
    step = pieces.step() if inner.agents == 1 else pieces.step_many(c)
    whole = Dynamics(
        columns["end"].start,
        inner.n_observation,
        inner.n_action,
        reset,
        observe,
        step,
        inner.parameters,
        inner.agents,
        random_steps=inner.random_steps,
        scratch=max(inner.scratch, c.n_observations + 3 * c.n_actions + 2),
        allow=_allowing(c, inner, columns) if terms.mask else inner.allow_within(),
        n_choices=c.n_outputs if terms.mask else inner.n_choices,
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
    return Composition(surrounded, {name: place for name, place in columns.items() if name != "end"})


def _inner(environment: Environment, shield: Shield | None) -> Dynamics:
    if environment.scalars is None:
        raise Unsupported(f"{environment.name} is written as numpy functions: surroundings are composed around scalar functions")
    if environment.contract.policy_divider != 1:
        raise Unsupported(f"{environment.name} runs its policy at one of {environment.contract.policy_divider} ticks, not at every one")
    if shield is not None and shield.contract.digest != environment.contract.digest:
        raise InvalidInput(f"the shield was built for another contract: {'; '.join(environment.contract.differences(shield.contract))}")
    return environment.scalars


def _columns(c: Contract, inner: Dynamics, terms: Interventions) -> dict[str, slice]:
    """Places in the state."""
    agents = inner.agents
    sizes = {
        "inner": inner.n_state,
        "seen": agents * inner.n_observation,
        "applied": agents * inner.n_action,
        "acting": agents * inner.n_action,
        "stages": agents,
        "interventions": agents,
        "price": agents if terms.priced else 0,
        "passed": agents * c.n_outputs if terms.mask else 0,
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


def _sensing(c: Contract, inner: Dynamics, columns: Mapping[str, slice], permit: Callable[[Row, Row], None] | None) -> Callable[[Row, Row], None]:
    """The function that observes, and sees which choices the shield would pass."""
    observe, size, width, first = inner.observe_line, inner.n_state, inner.agents * inner.n_observation, columns["seen"].start
    scale = np.tile(np.exp2(c.observation_bits.astype(np.float64)), inner.agents)
    low, high = (np.tile(x.astype(np.float64), inner.agents) for x in (c.observation_low, c.observation_high))

    def sense(draw: Row, state: Row) -> None:
        observe(state[:size], state[first : first + width])
        for k in range(width):
            state[first + k] = to_integer(state[first + k], scale[k], low[k], high[k])

    if permit is None:
        return sense
    see_what_passes = permit

    def sense_and_permit(draw: Row, state: Row) -> None:
        sense(draw, state)
        see_what_passes(draw, state)

    return sense_and_permit


def shield_function(shield: Shield) -> Callable[[Any, Any], None]:
    """A shield as a plain function of integers ``(v, out)``, for numba: ``v`` as in ``input_ranges``, ``out`` the actions and the stages."""
    names: dict[str, Any] = {}
    exec(compile(shield.to_micropython("shield"), "<shield>", "exec"), names)
    function: Callable[[Any, Any], None] = names["shield"]
    return function


def _acting(c: Contract, guard: Any, inner: Dynamics, columns: Mapping[str, slice], terms: Interventions) -> Callable[[Row, Row, Row], None]:
    """The function that takes the proposals of all agents, side by side, through the shield."""
    n, m, agents = c.n_observations, c.n_actions, inner.agents
    seen, applied, acting, stages = (columns[name].start for name in ("seen", "applied", "acting", "stages"))
    price, priced, weight = columns["price"].start, terms.priced, weights(c)
    penalty, change_penalty = float(terms.penalty), float(terms.change_penalty)
    shift = c.shield_shift.astype(np.int64)
    scale, back = np.exp2(c.action_bits.astype(np.float64)), np.exp2(-c.action_bits.astype(np.float64))
    low, high = c.action_low.astype(np.float64), c.action_high.astype(np.float64)

    inputs = DRAW + n + 2 * m + 1
    outputs = inputs + m + 1

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
            guard(v, out)
            for k in range(m):
                state[applied + a * m + k] = out[k]
                state[acting + a * m + k] = out[k] * back[k]
            state[stages + a] = out[m]
            if priced:
                change = 0.0
                for k in range(m):
                    change = change + abs(float(v[n + k]) - float(out[k])) * weight[k]
                state[price + a] = (penalty if out[m] != 0 else 0.0) + change_penalty * change

    return act


def _permitting(c: Contract, guard: Any, inner: Dynamics, columns: Mapping[str, slice]) -> Callable[[Row, Row], None]:
    """The function that tries every choice on the shield."""
    n, m, agents, outputs = c.n_observations, c.n_actions, inner.agents, c.n_outputs
    seen, applied, passed = (columns[name].start for name in ("seen", "applied", "passed"))
    shift, (levels, chosen) = c.shield_shift.astype(np.int64), tries(c)
    levels = levels.astype(np.int64)
    inputs = DRAW + n + 2 * m + 1

    def permit(draw: Row, state: Row) -> None:
        v, out = draw[DRAW:inputs].view(np.int64), draw[inputs : inputs + m + 1].view(np.int64)
        for a in range(agents):
            for k in range(n):
                x = integer_of(state[seen + a * n + k]) >> shift[k]
                v[k] = -32768 if x < -32768 else 32767 if x > 32767 else x
            for k in range(m):
                v[n + m + k] = integer_of(state[applied + a * m + k])
            v[n + 2 * m] = 0
            for o in range(outputs):
                for k in range(m):
                    v[n + k] = levels[o, k] if chosen[o, k] else v[n + m + k]
                guard(v, out)
                passes = 1.0
                for k in range(m):
                    if chosen[o, k] and out[k] != v[n + k]:
                        passes = 0.0
                state[passed + a * outputs + o] = passes

    return permit


def _allowing(c: Contract, inner: Dynamics, columns: Mapping[str, slice]) -> Callable[[Row, Row], None]:
    """``allow``: of the choices that the environment allows those that the shield would pass; of a group in which it would pass none, all."""
    agents, outputs, size, passed = inner.agents, c.n_outputs, inner.n_state, columns["passed"].start
    ends = np.cumsum(c.groups)
    starts = ends - np.array(c.groups)
    theirs, groups = inner.allow, len(ends)

    def narrow(state: Row, allowed: Row, a: int) -> None:
        for g in range(groups):
            left = False
            for o in range(starts[g], ends[g]):
                left = left | ((allowed[o] != 0) & (state[passed + a * outputs + o] != 0.0))
            if left:
                for o in range(starts[g], ends[g]):
                    if state[passed + a * outputs + o] == 0.0:
                        allowed[o] = 0

    def everything(state: Row, allowed: Row) -> None:
        flat = allowed.reshape(allowed.size)
        for o in range(allowed.size):
            flat[o] = 1

    first = theirs or everything

    def allow(state: Row, allowed: Row) -> None:
        first(state[:size], allowed)
        narrow(state, allowed, 0)

    def allow_many(state: Row, allowed: Row) -> None:
        first(state[:size], allowed)
        for a in range(agents):
            narrow(state, allowed[a], a)

    return allow if agents == 1 else allow_many


@dataclass(frozen=True, eq=False)
class _Pieces:
    """What the scalar functions of a composition are made of."""

    inner: Dynamics
    sense: Callable[[Row, Row], None]
    act: Callable[[Row, Row, Row], None]
    columns: Mapping[str, slice]
    still: Floats
    priced: bool

    def beginning(self, c: Contract) -> tuple[Callable[..., None], Callable[..., None]]:
        """``reset`` and ``observe``."""
        inner_reset, sense, agents, n, size = self.inner.reset, self.sense, self.inner.agents, self.inner.n_observation, self.inner.n_state
        still, first, applied, stages = self.still, self.columns["seen"].start, self.columns["applied"].start, self.columns["stages"].start
        back = np.exp2(-c.observation_bits.astype(np.float64))

        def reset(draw: Row, state: Row, parameters: Row) -> None:
            inner_reset(draw, state[:size], parameters)
            for k in range(len(still)):
                state[applied + k] = still[k]
            for a in range(agents):
                state[stages + a] = 0.0
            sense(draw, state)

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
        inner_step, sense, act, size, m, at = self.inner.step, self.sense, self.act, self.inner.n_state, self.inner.n_action, self.columns
        acting, stages, interventions, price = (at[name].start for name in ("acting", "stages", "interventions", "price"))
        priced = self.priced

        def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
            legal = True
            for k in range(m):
                legal = legal & (action[k] - action[k] == 0.0)
            act(draw, state, action)
            if state[stages] != 0.0:
                state[interventions] += 1.0
            reward, cost, terminated = inner_step(draw, state[:size], state[acting : acting + m], parameters)
            if priced:
                reward = reward - state[price]
            sense(draw, state)
            return reward if legal else math.nan, cost, terminated  # NaN stops a training whose policy proposes what is no number

        return step

    def step_many(self, c: Contract) -> Callable[..., Any]:
        """``step`` of several agents; to one that did not act its previous action is the contract's initial one."""
        inner_step, sense, act, size, m = self.inner.step, self.sense, self.act, self.inner.n_state, self.inner.n_action
        agents, at, initial, width = self.inner.agents, self.columns, c.action_initial.astype(np.float64), self.inner.agents * self.inner.n_action
        applied, acting, stages, interventions = (at[name].start for name in ("applied", "acting", "stages", "interventions"))
        price, priced = at["price"].start, self.priced

        def step(draw: Row, state: Row, action: Row, parameters: Row, reward: Row, cost: Row, terminated: Row, alive: Row) -> None:
            act(draw, state, action.reshape(width))
            inner_step(draw, state[:size], state[acting : acting + width].reshape(agents, m), parameters, reward, cost, terminated, alive)
            for a in range(agents):
                if alive[a] == 0:
                    for k in range(m):
                        state[applied + a * m + k] = initial[k]
                    state[stages + a] = 0.0
                elif state[stages + a] != 0.0:
                    state[interventions + a] += 1.0
                if priced and alive[a] != 0:
                    reward[a] = reward[a] - state[price + a]
                for k in range(m):
                    if alive[a] != 0 and action[a, k] - action[a, k] != 0.0:
                        reward[a] = math.nan  # NaN stops a training whose policy proposes what is no number
            sense(draw, state)

        return step
