"""Rules for scalar functions: first in plain Python, whose indices are checked, then compiled, which checks none."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.envs import rows
from puffer_edge.envs.checking.places import of_error
from puffer_edge.envs.checking.subject import EPISODES, RANDOM, ROWS, Finding, Findings, Subject
from puffer_edge.envs.draw import Draws
from puffer_edge.envs.environment import Environment

FEW = 4
"""Rows of a trial in plain Python."""
TRIAL_STEPS = 30


def plain_reset(s: Subject) -> Findings:
    """``reset`` in plain Python, in arrays that hold something before."""
    d = s.scalars
    assert d is not None
    loop, key = rows.reset_rows(d.reset, lambda state, observation: None, d.values, d.agents, d.scratch), Draws.of_episodes(s.seed, [0]).key
    states = [np.full((FEW, d.n_state), before) for before in (7.0, -7.0)]
    for state in states:
        with np.errstate(all="ignore"):
            loop(0, key, np.zeros(FEW, np.uint64), np.ones(FEW, np.uint8), state, np.zeros((FEW, d.agents, d.n_observation)))
    if len(left := np.flatnonzero((states[0] != states[1]).any(0) & (states[0] == 7.0).any(0))):
        yield Finding(f"reset leaves state[{left[0]}] as it was before: write every number of the state", s.source.function("reset"))


def plain_observe(s: Subject) -> Findings:
    """``observe`` in plain Python, in arrays that hold something before."""
    d = s.scalars
    assert d is not None
    state, loop = s.environment.start(s.seed, EPISODES[:FEW]), rows.observe_rows(d.observe, d.agents)
    seen = [np.full((FEW, d.agents, d.n_observation), before) for before in (7.0, -7.0)]
    for observation in seen:
        with np.errstate(all="ignore"):
            loop(state, observation)
    left = np.argwhere((seen[0] == 7.0) & (seen[1] == -7.0))
    if len(left):
        yield Finding(f"observe does not write observation[{left[0, -1]}]", s.source.function("observe"))


def plain_step(s: Subject) -> Findings:
    """``step`` in plain Python: indices, what it returns, and where its randomness comes from."""
    d, rng = s.scalars, np.random.default_rng(s.seed)
    assert d is not None
    loop = rows.step_rows(d.step, lambda state, observation: None, d.values, d.agents, d.scratch)
    state, keys = s.environment.start(s.seed, EPISODES[:FEW]), [np.array([s.seed + k, 0], np.uint32) for k in range(2)]
    for t in range(min(s.environment.max_steps, TRIAL_STEPS)):
        action, gave = s.actions(rng, FEW), []
        for key, before in zip(keys, (7.0, -7.0)):
            out = _Out(FEW, d.agents, before)
            after = state.copy()
            try:
                with np.errstate(all="ignore"), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    loop(0, key, np.full(FEW, t, np.uint64), action, after, np.zeros((FEW, d.agents, d.n_observation)), *out.arrays)
            except (TypeError, ValueError) as error:
                yield Finding(f"step gives no reward, cost and terminated: {error}", of_error(error) or s.source.returned("step"))
                return
            gave.append((after, *out.arrays))
        if d.agents > 1 and (wrong := _alive(gave)):
            yield Finding(wrong, s.source.function("step"))
            return
        if not d.random_steps and any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(*gave)):
            yield Finding("step draws random numbers: say random_steps=True in its Dynamics", s.source.named("step", RANDOM))
            return
        state = gave[0][0]


class _Out:
    """What a step writes, with something in it before."""

    def __init__(self, n: int, agents: int, before: float) -> None:
        self.arrays = (
            np.full((n, agents), before),
            np.full((n, agents), before),
            np.full((n, agents), int(abs(before)), np.uint8),
            np.full((n, agents), int(abs(before)), np.uint8),
        )


def _alive(gave: list[Any]) -> str:
    """What is wrong with what several agents got, empty where nothing is."""
    for name, first, second in zip(("reward", "cost"), gave[0][1:3], gave[1][1:3]):
        if ((first == 7.0) & (second == -7.0)).any():
            return f"step does not write the {name} of every agent"
    _, reward, cost, terminated, alive = gave[0]
    for name, flags in (("terminated", terminated), ("alive", alive)):
        if (flags > 1).any():
            return f"step must write 0 or 1 into {name} of every agent, not {int(flags.max())}, or nothing"
    gone = alive == 0
    if (reward[gone] != 0.0).any() or (cost[gone] != 0.0).any() or (terminated[gone] != 1).any():
        return "an agent that is not alive must get reward 0, cost 0 and terminated 1"
    return ""


def compiled(s: Subject) -> Findings:
    """The pointer of pe_env.h gives plain Python's bits, however rows are split, and a reset leaves other rows alone."""
    e, d, rng = s.environment, s.scalars, np.random.default_rng(s.seed)
    assert d is not None
    pointer, key = e.pointer(), Draws(s.seed, EPISODES, np.zeros(ROWS, np.uint64)).key
    fast, slow, half = _Rows(e), _Rows(e), ROWS // 2
    for chosen in ((EPISODES % 2).astype(np.uint8), np.ones(ROWS, np.uint8)):
        pointer.reset(0, key, fast.step, chosen, fast.state, fast.observation)
        d.plain[0](0, key, slow.step, chosen, slow.state, slow.observation)
        if wrong := fast.differs(slow):
            yield Finding(f"reset compiled and in plain Python gives {wrong}", s.source.function("reset"))
            return
    for k in range(min(e.max_steps, 50)):
        action = s.actions(rng)
        fast.step[:] = slow.step[:] = k
        for part in (slice(half, ROWS), slice(0, half)):  # as two threads would
            pointer.step(part.start, key, fast.step[part], action[part], *(array[part] for array in fast.out))
        with np.errstate(all="ignore"):
            d.plain[1](0, key, slow.step, action, *slow.out)
        if wrong := fast.differs(slow):
            yield Finding(f"step compiled and in plain Python gives {wrong}", s.source.function("step"))
            return


class _Rows:
    """The arrays that a pointer writes."""

    def __init__(self, e: Environment) -> None:
        n, agents = e.contract.n_observations, (ROWS, e.agents)
        self.state, self.observation = np.full((ROWS, e.state_size), 7.0), np.full((*agents, n), 7.0)
        self.reward, self.cost = np.full(agents, 7.0), np.full(agents, 7.0)
        self.terminated, self.alive = np.full(agents, 7, np.uint8), np.ones(agents, np.uint8)
        self.step = np.zeros(ROWS, np.uint64)

    @property
    def out(self) -> tuple[npt.NDArray[Any], ...]:
        return self.state, self.observation, self.reward, self.cost, self.terminated, self.alive

    def differs(self, other: _Rows) -> str:
        """The first array that is another, in words; empty where none is."""
        for name, a, b in zip(("state", "observation", "reward", "cost", "terminated", "alive"), self.out, other.out):
            if not np.array_equal(a, b, equal_nan=a.dtype == np.float64):
                row = int(np.argwhere(a != b)[0, 0])
                return f"another {name} in row {row}: {a[row]} and {b[row]}"
        return ""
