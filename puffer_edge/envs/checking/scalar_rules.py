"""Rules for scalar functions: first in plain Python, whose indices are checked, then compiled, which checks none."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.envs import rows
from puffer_edge.envs.checking.places import of_error, of_function
from puffer_edge.envs.checking.subject import EPISODES, RANDOM, ROWS, Finding, Findings, Subject
from puffer_edge.envs.draw import Draws
from puffer_edge.envs.environment import Environment
from puffer_edge.spaces import Floats

FEW = 4
"""Rows of a trial in plain Python."""
TRIAL_STEPS = 30
BEFORE = (7.0, -9.0)
"""What is in an array before a function is to write it: where both are still there it did not."""


def _start(s: Subject, before: float) -> Floats:
    """(FEW, S) start states, in an array that holds something before."""
    d = s.scalars
    assert d is not None
    loop = rows.reset_rows(d.reset, lambda state, observation: None, d.values, d.agents, d.scratch)
    state, key = np.full((FEW, d.n_state), before), Draws.of_episodes(s.seed, [0]).key
    with np.errstate(all="ignore"):
        loop(0, key, np.zeros(FEW, np.uint64), np.ones(FEW, np.uint8), state, np.zeros((FEW, d.agents, d.n_observation)))
    return state


def plain_reset(s: Subject) -> Findings:
    """``reset`` writes all of the state on which an episode depends, and from its draws alone."""
    first, second = (_start(s, before) for before in BEFORE)
    left = ((first == BEFORE[0]) & (second == BEFORE[1])).any(0)
    if not np.array_equal(first[:, ~left], second[:, ~left], equal_nan=True):
        yield Finding("reset draws from something else than the draws it is given", s.source.named("reset", RANDOM))
    elif left.any() and _depends(s, first, second, left):
        message = f"reset leaves state[{np.flatnonzero(left)[0]}] as the episode before left it, and the next one depends on it"
        yield Finding(message, s.source.function("reset"))


def _depends(s: Subject, first: Floats, second: Floats, left: npt.NDArray[np.bool_]) -> bool:
    """Whether episodes from two states go differently but for these columns, which may count something over all episodes."""
    d, rng = s.scalars, np.random.default_rng(s.seed)
    assert d is not None
    look = rows.observe_rows(d.observe, d.agents)
    for t in range(min(s.environment.max_steps, TRIAL_STEPS)):
        action, met = s.actions(rng, FEW), []
        for state in (first, second):
            seen = np.zeros((FEW, d.agents, d.n_observation))
            look(state, seen)
            after, *gave = _stepped(s, state, action, t, 0, BEFORE[0])
            met.append([seen, after[:, ~left], *gave, after])
        if not _equal(met[0][:-1], met[1][:-1]):
            return True
        first, second = met[0][-1], met[1][-1]
    return False


def plain_observe(s: Subject) -> Findings:
    """``observe`` writes the whole observation."""
    d = s.scalars
    assert d is not None
    state, loop = _start(s, BEFORE[0]), rows.observe_rows(d.observe, d.agents)
    seen = [np.full((FEW, d.agents, d.n_observation), before) for before in BEFORE]
    for observation in seen:
        with np.errstate(all="ignore"):
            loop(state, observation)
    left = np.argwhere((seen[0] == BEFORE[0]) & (seen[1] == BEFORE[1]))
    if len(left):
        yield Finding(f"observe does not write observation[{left[0, -1]}]", s.source.function("observe"))


def plain_step(s: Subject) -> Findings:
    """``step`` gives what it should, and draws from its draws alone if it says that it draws."""
    d, rng = s.scalars, np.random.default_rng(s.seed)
    assert d is not None
    state = _start(s, BEFORE[0])
    for t in range(min(s.environment.max_steps, TRIAL_STEPS)):
        action = s.actions(rng, FEW)
        try:
            gave, again, other = (_stepped(s, state, action, t, key, before) for key, before in ((0, BEFORE[0]), (0, BEFORE[1]), (1, BEFORE[0])))
        except (TypeError, ValueError) as error:
            yield Finding(f"step gives no reward, cost and terminated: {error}", of_error(error) or s.source.returned("step"))
            return
        if d.agents > 1 and (name := _unwritten(gave, again)):
            yield Finding(f"step does not write {name} of every agent", s.source.function("step"))
        elif not _equal(gave, again):
            message = "the same step gave two results: it remembers something, or draws from elsewhere than its draws"
            yield Finding(message, s.source.named("step", RANDOM))
        elif not d.random_steps and not _equal(gave, other):
            yield Finding("step draws random numbers: say random_steps=True in its Dynamics", s.source.named("step", RANDOM))
        else:
            state = gave[0]
            continue
        return


def _stepped(s: Subject, state: Floats, action: Floats, t: int, key: int, before: float) -> list[npt.NDArray[Any]]:
    """State, reward, cost, terminated and alive after a step; the last four in arrays that hold something before."""
    d = s.scalars
    assert d is not None
    loop = rows.step_rows(d.step, lambda state, observation: None, d.values, d.agents, d.scratch)
    one, flag = (FEW, d.agents), np.uint8(abs(before))
    out = [state.copy(), np.full(one, before), np.full(one, before), np.full(one, flag), np.full(one, flag)]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draws = np.array([s.seed + key, 0], np.uint32), np.full(FEW, t, np.uint64)
        loop(0, *draws, action, out[0], np.zeros((*one, d.n_observation)), *out[1:])
    return out


def _equal(first: list[npt.NDArray[Any]], second: list[npt.NDArray[Any]]) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second))


def _unwritten(first: list[npt.NDArray[Any]], second: list[npt.NDArray[Any]]) -> str:
    """Which of the arrays of several agents still holds what was in it, empty where none does."""
    for name, a, b in zip(("reward", "cost", "terminated", "alive"), first[1:], second[1:]):
        if ((a == abs(BEFORE[0])) & (np.abs(b) == abs(BEFORE[1])) & (a != b)).any():
            return name
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


def compiled_masks(s: Subject) -> Findings:
    """``allow_many`` of pe_env.h gives plain Python's mask."""
    e, d = s.environment, s.scalars
    assert d is not None and d.allow is not None and d.plain_allow is not None
    fast, slow = (np.zeros((ROWS, e.agents, d.n_choices), np.uint8) for _ in range(2))
    state = e.start(s.seed, EPISODES)
    e.pointer().allow(state, fast)
    d.plain_allow(state, slow)
    if not np.array_equal(fast, slow):
        yield Finding("allow compiled and in plain Python gives another mask", of_function(d.allow))


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
