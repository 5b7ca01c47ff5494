"""The one checker of environments: run it over your own before you train on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.envs import native
from puffer_edge.envs.draw import Draws
from puffer_edge.envs.environment import Environment
from puffer_edge.errors import ContractError
from puffer_edge.integer.shield import Shield
from puffer_edge.spaces import Bools, Floats

ROWS = 32
EPISODES = np.arange(ROWS)


def check(environment: Environment, seed: int = 0) -> None:
    """See that an environment keeps what ``Environment`` promises, on random legal actions.

    Shapes and types are right, numbers finite and observations inside the contract's ranges; a mask leaves a choice of each group to whoever
    has not terminated; equal draws give equal starts and steps;
    ``step`` leaves its arguments alone, and a row's result does not depend on the rows beside it, to the bit. Where it is written as
    scalar functions and numba is installed, its ``pe_env`` pointer gives the same bits, and a reset leaves other rows alone.

    Args:
        environment: what to check.
        seed: of the start states and actions.

    Raises:
        ContractError: a promise is broken; the message says which.
        InvalidInput: the default shield names something that does not exist, or numba cannot compile a function.
        RangeError: the default shield may leave the shared range.
    """
    e, c, rng = environment, environment.contract, np.random.default_rng(seed)
    Shield.build(c, e.shield)
    if e.max_steps < 1:
        raise ContractError(f"{e.name}: max_steps must be at least 1, not {e.max_steps}")
    state = e.start(seed, EPISODES)
    _array(e, "reset gives states", state, (ROWS, e.state_size), np.float64)
    if not np.array_equal(state, e.start(seed, EPISODES)):
        raise ContractError(f"{e.name}: reset draws from something else than the draws it is given")
    if not np.array_equal(state[1:2], e.start(seed, EPISODES[1:2])):
        raise ContractError(f"{e.name}: the start of an episode depends on the episodes beside it")
    if e.scalars is not None and native.available():
        _check_pointer(e, seed)
    low, high = np.array([ch.low for ch in c.actions]), np.array([ch.high for ch in c.actions])
    shape = (ROWS, c.n_actions) if e.agents == 1 else (ROWS, e.agents, c.n_actions)
    gone = np.zeros((ROWS, e.agents), bool)
    for elapsed in range(e.max_steps):
        _observed(e, state)
        _masked(e, state, gone)
        state, terminated = _stepped(e, state, rng.uniform(low, high, shape), seed, elapsed)
        over = terminated.reshape(ROWS, -1).all(-1, keepdims=True)
        state = np.where(over, e.start(seed + 1, EPISODES + ROWS * elapsed), state)
        gone = terminated.reshape(ROWS, -1) & ~over


def _observed(e: Environment, state: Floats) -> None:
    observation, n = e.observe(state), e.contract.n_observations
    _array(e, "observe gives numbers", observation, (ROWS, n) if e.agents == 1 else (ROWS, e.agents, n), np.float64)
    for channel, values in zip(e.contract.observations, observation.reshape(-1, n).T):
        if values.min() < channel.low or values.max() > channel.high:
            raise ContractError(
                f"{e.name}: {channel.name} reached {values.min():g} … {values.max():g}, its range is {channel.low:g} … {channel.high:g}"
            )


def _masked(e: Environment, state: Floats, gone: Bools) -> None:
    if e.allowed is None:
        return
    allowed, k = e.allowed(state), e.contract.n_outputs
    _array(e, "allowed gives choices", allowed, (ROWS, k) if e.agents == 1 else (ROWS, e.agents, k), np.bool_)
    some = np.logical_or.reduceat(allowed.reshape(ROWS, e.agents, k), np.cumsum([0, *e.contract.groups[:-1]]), axis=-1).all(-1)
    if not (some | gone).all():
        row, agent = np.argwhere(~(some | gone))[0]
        raise ContractError(f"{e.name}: allowed leaves no choice to agent {agent} in the state {state[row]}")
    if (d := e.scalars) is not None and native.available():
        fast, slow = np.zeros((ROWS, e.agents, k), np.uint8), np.zeros((ROWS, e.agents, k), np.uint8)
        e.pointer().allow(state, fast)
        assert d.plain_allow is not None
        d.plain_allow(state, slow)
        if not np.array_equal(fast, slow):
            raise ContractError(f"{e.name}: allow_many compiled and in plain Python give another mask")


def _stepped(e: Environment, state: Floats, action: Floats, seed: int, elapsed: int) -> tuple[Floats, Bools]:
    before = state.copy(), action.copy()
    following, reward, cost, terminated = results = e.advance(state, action, seed, EPISODES, elapsed)
    if not (np.array_equal(before[0], state) and np.array_equal(before[1], action)):
        raise ContractError(f"{e.name}: step changed the arrays that it was given")
    one = (ROWS,) if e.agents == 1 else (ROWS, e.agents)
    _array(e, "step gives states", following, (ROWS, e.state_size), np.float64)
    _array(e, "step gives rewards", reward, one, np.float64)
    _array(e, "step gives costs", cost, one, np.float64)
    _array(e, "step gives terminated", terminated, one, np.bool_)
    if any(not np.array_equal(a, b) for a, b in zip(results, e.advance(state, action, seed, EPISODES, elapsed))):
        raise ContractError(f"{e.name}: the same step gave two results: it remembers something, or draws from elsewhere than its draws")
    alone = e.advance(state[1:2], action[1:2], seed, EPISODES[1:2], elapsed)
    if any(not np.array_equal(row, many[1:2]) for row, many in zip(alone, results)):
        raise ContractError(f"{e.name}: a row's step depends on the rows beside it")
    return following, terminated


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


def _check_pointer(e: Environment, seed: int) -> None:
    """The pointer's resets and steps beside plain Python's."""
    assert e.scalars is not None
    d, pointer, rng = e.scalars, e.pointer(), np.random.default_rng(seed)
    low, high = np.array([ch.low for ch in e.contract.actions]), np.array([ch.high for ch in e.contract.actions])
    key = Draws(seed, EPISODES, np.zeros(ROWS, np.uint64)).key
    fast, slow, mask = _Rows(e), _Rows(e), np.arange(ROWS) % 2
    for chosen in (mask.astype(np.uint8), np.ones(ROWS, np.uint8)):
        pointer.reset(0, key, fast.step, chosen, fast.state, fast.observation)
        if not chosen.all() and not ((fast.state[0] == 7.0).all() and (fast.observation[0] == 7.0).all()):
            raise ContractError(f"{e.name}: reset_many touched a row whose mask is 0")
        d.plain[0](0, key, slow.step, chosen, slow.state, slow.observation)
        _same(e, "reset_many", fast, slow)
    for k in range(min(e.max_steps, 50)):
        action = rng.uniform(low, high, (ROWS, e.agents, e.contract.n_actions))
        fast.step[:] = slow.step[:] = k
        half = ROWS // 2  # split as two threads would
        for part in (slice(half, ROWS), slice(0, half)):
            pointer.step(part.start, key, fast.step[part], action[part], *(array[part] for array in fast.out))
        with np.errstate(all="ignore"):
            d.plain[1](0, key, slow.step, action, *slow.out)
        _same(e, "step_many", fast, slow)


def _same(e: Environment, what: str, fast: _Rows, slow: _Rows) -> None:
    for name, a, b in zip(("state", "observation", "reward", "cost", "terminated", "alive"), fast.out, slow.out):
        if not np.array_equal(a, b, equal_nan=a.dtype == np.float64):
            row = int(np.argwhere(a != b)[0, 0])
            raise ContractError(f"{e.name}: {what} compiled and in plain Python give another {name} in row {row}: {a[row]} and {b[row]}")


def _array(e: Environment, what: str, array: object, shape: tuple[int, ...], kind: type) -> None:
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != kind:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ContractError(f"{e.name}: {what}: {found}, expected {np.dtype(kind)} {shape}")
    if not np.isfinite(array).all():
        raise ContractError(f"{e.name}: {what} with NaN or infinite numbers")
