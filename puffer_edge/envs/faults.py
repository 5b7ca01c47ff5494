"""What the imperfections of a plant are made of: scalar functions that take samples, send actions, and find what acts.

``imperfect`` puts them around the scalar functions of an environment, ``imperfect_living`` around one that lives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from puffer_edge.contract import Contract
from puffer_edge.envs.draw import normal, uniform
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.imperfections import Actuator, Imperfections, Jitter, Sensor
from puffer_edge.envs.scalar import Number, Row, clip, log, rint
from puffer_edge.spaces import Floats

OWN = np.uint64(2**30)
"""Draws of a call from which on they are not the environment's."""


def _draw_of(jitter: Jitter | None) -> Callable[[Row], Number]:
    """A function of the draw that gives one of the distribution's times, µs."""
    if jitter is None or jitter.kind == "constant":
        constant = 0.0 if jitter is None else float(jitter.mean_us or 0.0)

        def same(draw: Row) -> Number:
            return constant

        return same
    low, high = (float(x) for x in jitter.bounds_us)
    mean, deviation = float(jitter.mean_us or 0.0), float(jitter.deviation_us or 0.0)
    if jitter.kind == "measured":
        times = np.array(jitter.measured_us, np.float64)
        count = len(times)

        def one_of(draw: Row) -> Number:
            return times[int(uniform(draw, 0.0, 1.0) * count)]

        return one_of

    def flat(draw: Row) -> Number:
        return uniform(draw, low, high)

    def bell(draw: Row) -> Number:
        return clip(mean + deviation * normal(draw), low, high)

    def waiting(draw: Row) -> Number:
        return clip(-mean * log(1.0 - uniform(draw, 0.0, 1.0)), low, high)

    return {"uniform": flat, "normal": bell, "exponential": waiting}[jitter.kind]


def _places(inner: Dynamics, imperfections: Imperfections, slots: int) -> dict[str, slice]:
    """Places in the state. Lines of actions begin with the newest and lie agent by agent; lines of observations begin with the oldest."""
    seen, driven = inner.agents * inner.n_observation, inner.agents * inner.n_action
    sizes = {
        "inner": inner.n_state,
        "parameters": len(inner.parameters) if imperfections.parameters else 0,
        "bias": seen,
        "stuck": seen,
        "true": seen,
        "seen": (imperfections.observation_delay_steps + 1) * seen,
        "pending": imperfections.pending * driven,
        "line": slots * driven,
        "due": slots * inner.agents,
        "acting": driven,
        "end": 0,
    }
    ends = np.cumsum(list(sizes.values())).tolist()
    return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends)}


def _sensing(inner: Dynamics, about: Imperfections, sensors: Sequence[Sensor], at: Mapping[str, slice]) -> Callable[[Row, Row, bool], None]:
    """The function that takes a sample, which may be lost unless it is an episode's first, and puts it at the end of its line."""
    observe, size, agents, n, whole = inner.observe_line, inner.n_state, inner.agents, inner.n_observation, about.dropout
    true, first, width = at["true"].start, at["seen"].start, inner.agents * inner.n_observation
    newest, bias, stuck = at["seen"].stop - width, at["bias"].start, at["stuck"].start
    noise, resolution, dropout, sticks, lasts = (
        np.array([float(getattr(s, name)) for s in sensors], np.float64) for name in ("noise", "resolution", "dropout", "stuck", "stuck_steps")
    )
    noisy, coarse, leaky, sticky = (bool(x.any()) for x in (noise, resolution, dropout, sticks))

    def sense(draw: Row, state: Row, lossy: bool) -> None:
        for k in range(first, newest):
            state[k] = state[k + width]
        observe(state[:size], state[true : true + width])
        for a in range(agents):
            lost = False
            if whole > 0.0 and lossy:
                lost = uniform(draw, 0.0, 1.0) < whole
            for c in range(n):
                k, gone = a * n + c, lost
                x = state[true + k] + state[bias + k]
                if noisy and noise[c] > 0.0:
                    x = x + noise[c] * normal(draw)
                if coarse and resolution[c] > 0.0:
                    x = rint(x / resolution[c]) * resolution[c]
                if leaky and lossy and dropout[c] > 0.0:
                    gone = (uniform(draw, 0.0, 1.0) < dropout[c]) | gone
                if sticky and lossy and sticks[c] > 0.0:
                    if state[stuck + k] == 0.0 and uniform(draw, 0.0, 1.0) < sticks[c]:
                        state[stuck + k] = lasts[c]
                    if state[stuck + k] > 0.0:
                        state[stuck + k] = state[stuck + k] - 1.0
                        gone = True
                if not gone:
                    state[newest + k] = x

    return sense


def _actuator(actuators: Sequence[Actuator]) -> Callable[[int, Number], Number]:
    """What becomes of a command of action channel k."""
    zone, neutral, low, high = (np.array([getattr(a, name) for a in actuators], np.float64) for name in ("dead_zone", "neutral", "low", "high"))

    def deliver(k: int, command: Number) -> Number:
        beyond = command - neutral[k]
        if zone[k] > 0.0:
            beyond = beyond - clip(beyond, -zone[k], zone[k])
            command = neutral[k] + beyond
        return clip(command, low[k], high[k])

    return deliver


def _sending(
    inner: Dynamics,
    about: Imperfections,
    deliver: Callable[[int, Number], Number],
    at: Mapping[str, slice],
    slots: int,
    step_us: float,
    whole: bool,
) -> Callable[[Row, Row, Row], None]:
    """The function that moves the lines of actions on by one control step, and puts the newest first; times are in steps of the plant.

    ``whole``: an action takes effect where a step begins, the one before or the one after its time, by a draw that keeps the mean.
    """
    agents, m, hold, known = inner.agents, inner.n_action, float(about.hold_steps), about.pending
    line, due, pending, jitter, delay = at["line"].start, at["due"].start, at["pending"].start, _draw_of(about.jitter_us), float(about.delay_us)

    def act(draw: Row, state: Row, action: Row) -> None:
        for a in range(agents):
            place, clock = line + a * slots * m, due + a * slots
            for s in range(slots - 1, 0, -1):
                state[clock + s] = state[clock + s - 1] - hold
                for k in range(m):
                    state[place + s * m + k] = state[place + (s - 1) * m + k]
            after = (delay + jitter(draw)) / step_us
            state[clock] = float(int(after + uniform(draw, 0.0, 1.0))) if whole else after
            for k in range(m):
                state[place + k] = deliver(k, action[a * m + k])
            memory = pending + a * known * m
            for k in range(known * m - 1, m - 1, -1):
                state[memory + k] = state[memory + k - m]
            if known > 0:
                for k in range(m):
                    state[memory + k] = action[a * m + k]

    return act


def _driving(inner: Dynamics, at: Mapping[str, slice], slots: int) -> Callable[[Row, int], None]:
    """The function that finds the mean over one step of the plant of the actions that act in it, newest first."""
    agents, m, line, due, acting = inner.agents, inner.n_action, at["line"].start, at["due"].start, at["acting"].start

    def drive(state: Row, i: int) -> None:
        begin = float(i)
        for a in range(agents):
            until = begin + 1.0
            for k in range(m):
                state[acting + a * m + k] = 0.0
            for s in range(slots):
                since = state[due + a * slots + s]
                if since < begin or s == slots - 1:  # the last one has taken effect by now
                    since = begin
                if since < until:
                    for k in range(m):
                        state[acting + a * m + k] += (until - since) * state[line + (a * slots + s) * m + k]
                    until = since
                if until <= begin:
                    break

    return drive


def _stilling(
    c: Contract, inner: Dynamics, about: Imperfections, deliver: Callable[[int, Number], Number], at: Mapping[str, slice], slots: int
) -> Callable[[Row, int], None]:
    """The function that leaves an agent as if the contract's initial action had acted for ever."""
    m, known, line, due, pending = inner.n_action, about.pending, at["line"].start, at["due"].start, at["pending"].start
    initial = c.physical_action(c.action_initial)
    delivered = np.array([deliver(k, initial[k]) for k in range(m)], np.float64)

    def still(state: Row, a: int) -> None:
        for s in range(slots):
            state[due + a * slots + s] = 0.0
            for k in range(m):
                state[line + (a * slots + s) * m + k] = delivered[k]
        for s in range(known):
            for k in range(m):
                state[pending + (a * known + s) * m + k] = initial[k]

    return still


@dataclass(frozen=True, eq=False)
class Pieces:
    """What the scalar functions are made of.

    Attributes:
        inner: the plant's own.
        about: the imperfections.
        at: places in the state.
        slots: actions that may be on their way, and the one that acts.
        random: a step draws.
        sense: ``(draw, state, lossy)`` takes a sample.
        act: ``(draw, state, action)`` sends the actions of all agents, side by side.
        drive: ``(state, i)`` puts what acts during step i of the plant into its place.
        still: ``(state, agent)`` leaves an agent as if the initial action had acted for ever.
        low: of each parameter.
        high: likewise.
        errors: (n_observation,) half the range of each channel's bias.
    """

    inner: Dynamics
    about: Imperfections
    at: Mapping[str, slice]
    slots: int
    random: bool
    sense: Callable[[Row, Row, bool], None]
    act: Callable[[Row, Row, Row], None]
    drive: Callable[[Row, int], None]
    still: Callable[[Row, int], None]
    low: Floats
    high: Floats
    errors: Floats

    @staticmethod
    def of(c: Contract, inner: Dynamics, about: Imperfections, whole: bool = False) -> Pieces:
        """Of a plant with its contract; ``whole``: one step of it takes one action, and no mean of several."""
        step_us = 1e6 / c.rate_hz
        slots = math.ceil(about.most_us / step_us / about.hold_steps) + 1
        at = _places(inner, about, slots)
        sensors = [about.sensors.get(o.name, Sensor()) for o in c.observations]
        actuator = _actuator([about.actuators.get(a.name, Actuator()) for a in c.actions])
        random = about.jittery or about.dropout > 0.0 or any(s.noise or s.dropout or s.stuck for s in sensors)
        bounds = [about.parameters.get(p.name, (p.value, p.value)) for p in inner.parameters]
        return Pieces(
            inner,
            about,
            at,
            slots,
            random,
            _sensing(inner, about, sensors, at),
            _sending(inner, about, actuator, at, slots, step_us, whole),
            _driving(inner, at, slots),
            _stilling(c, inner, about, actuator, at, slots),
            np.array([b[0] for b in bounds], np.float64),
            np.array([b[1] for b in bounds], np.float64),
            np.array([s.bias for s in sensors], np.float64),
        )

    def beginning(self) -> tuple[Callable[..., None], Callable[..., None]]:
        """``reset`` and ``observe``."""
        inner_reset, sense, still, at, low, high = self.inner.reset, self.sense, self.still, self.at, self.low, self.high
        size, agents, n = self.inner.n_state, self.inner.agents, self.inner.n_observation
        place, varied, line, end = at["parameters"].start, at["parameters"].stop - at["parameters"].start, at["line"].start, at["end"].start
        bias, stuck, first, width = at["bias"].start, at["stuck"].start, at["seen"].start, agents * n
        newest, pending, many = at["seen"].stop - width, at["pending"].start, self.about.pending * self.inner.n_action
        errors, biased = self.errors, bool(self.errors.any())

        def reset(draw: Row, state: Row, parameters: Row) -> None:
            own, theirs = draw[2] + OWN, draw[2]
            draw[2] = own
            for k in range(varied):
                state[place + k] = uniform(draw, low[k], high[k]) if high[k] > low[k] else low[k]
            for k in range(width):
                error = errors[k % n]
                state[bias + k] = uniform(draw, -error, error) if biased else 0.0
                state[stuck + k] = 0.0
            own = draw[2]
            draw[2] = theirs
            inner_reset(draw, state[:size], state[place : place + varied] if varied > 0 else parameters)
            theirs = draw[2]
            draw[2] = own
            for k in range(line, end):
                state[k] = 0.0
            for a in range(agents):
                still(state, a)
            sense(draw, state, False)
            for k in range(newest - 1, first - 1, -1):
                state[k] = state[k + width]
            draw[2] = theirs

        def observe(state: Row, observation: Row) -> None:
            for k in range(n):
                observation[k] = state[first + k]
            for k in range(many):
                observation[n + k] = state[pending + k]

        def observe_many(state: Row, observation: Row) -> None:
            for a in range(agents):
                for k in range(n):
                    observation[a, k] = state[first + a * n + k]
                for k in range(many):
                    observation[a, n + k] = state[pending + a * many + k]

        return reset, observe if agents == 1 else observe_many

    def step(self) -> Callable[..., Any]:
        """``step`` of one agent."""
        inner_step, sense, act, drive, at = self.inner.step, self.sense, self.act, self.drive, self.at
        size, m, hold = self.inner.n_state, self.inner.n_action, self.about.hold_steps
        place, varied, acting = at["parameters"].start, at["parameters"].stop - at["parameters"].start, at["acting"].start

        def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
            own, theirs = draw[2] + OWN, draw[2]
            draw[2] = own
            act(draw, state, action)
            own = draw[2]
            draw[2] = theirs
            drive(state, 0)
            chosen = state[place : place + varied] if varied > 0 else parameters
            reward, cost, terminated = inner_step(draw, state[:size], state[acting : acting + m], chosen)
            for i in range(1, hold):
                if not terminated:
                    drive(state, i)
                    gained, paid, ended = inner_step(draw, state[:size], state[acting : acting + m], chosen)
                    reward, cost, terminated = reward + gained, cost + paid, ended
            theirs = draw[2]
            draw[2] = own
            sense(draw, state, True)
            draw[2] = theirs
            return reward, cost, terminated

        return step

    def step_many(self) -> Callable[..., Any]:
        """``step`` of several agents; of one that did not act nothing is on its way."""
        inner_step, sense, act, drive, still, at = self.inner.step, self.sense, self.act, self.drive, self.still, self.at
        size, m, agents = self.inner.n_state, self.inner.n_action, self.inner.agents
        place, varied, acting, width = at["parameters"].start, at["parameters"].stop - at["parameters"].start, at["acting"].start, agents * m

        def step(draw: Row, state: Row, action: Row, parameters: Row, reward: Row, cost: Row, terminated: Row, alive: Row) -> None:
            own, theirs = draw[2] + OWN, draw[2]
            draw[2] = own
            act(draw, state, action.reshape(width))
            own = draw[2]
            draw[2] = theirs
            drive(state, 0)
            chosen = state[place : place + varied] if varied > 0 else parameters
            inner_step(draw, state[:size], state[acting : acting + width].reshape(agents, m), chosen, reward, cost, terminated, alive)
            for a in range(agents):
                if alive[a] == 0:
                    still(state, a)
            theirs = draw[2]
            draw[2] = own
            sense(draw, state, True)
            draw[2] = theirs

        return step
