"""The one checker of environments: run it over your own before you train on it."""

from __future__ import annotations

import numpy as np

from puffer_edge.envs.environment import Environment
from puffer_edge.errors import ContractError
from puffer_edge.integer.shield import Shield
from puffer_edge.spaces import Bools, Floats

ROWS = 32


def check(environment: Environment, seed: int = 0) -> None:
    """See that an environment keeps what ``Environment`` promises, on random legal actions.

    Shapes and types are right, numbers finite and observations inside the contract's ranges; equal generators give equal starts;
    ``step`` leaves its arguments alone, and a row's result does not depend on the rows beside it, to the bit.

    Args:
        environment: what to check.
        seed: of the start states and actions.

    Raises:
        ContractError: a promise is broken; the message says which.
        InvalidInput: the default shield names something that does not exist.
        RangeError: the default shield may leave the shared range.
    """
    e, c, rng = environment, environment.contract, np.random.default_rng(seed)
    Shield.build(c, e.shield)
    if e.max_steps < 1:
        raise ContractError(f"{e.name}: max_steps must be at least 1, not {e.max_steps}")
    state = e.reset(np.random.default_rng(seed), ROWS)
    _array(e, "reset gives states", state, (ROWS, e.state_size), np.float64)
    if not np.array_equal(state, e.reset(np.random.default_rng(seed), ROWS)):
        raise ContractError(f"{e.name}: reset draws from something else than the generator it is given")
    low, high = np.array([ch.low for ch in c.actions]), np.array([ch.high for ch in c.actions])
    for _ in range(e.max_steps):
        _observed(e, state)
        state, terminated = _stepped(e, state, rng.uniform(low, high, (ROWS, c.n_actions)))
        state = np.where(terminated[:, None], e.reset(rng, ROWS), state)


def _observed(e: Environment, state: Floats) -> None:
    observation = e.observe(state)
    _array(e, "observe gives numbers", observation, (ROWS, e.contract.n_observations), np.float64)
    for channel, values in zip(e.contract.observations, observation.T):
        if values.min() < channel.low or values.max() > channel.high:
            raise ContractError(
                f"{e.name}: {channel.name} reached {values.min():g} … {values.max():g}, its range is {channel.low:g} … {channel.high:g}"
            )


def _stepped(e: Environment, state: Floats, action: Floats) -> tuple[Floats, Bools]:
    before = state.copy(), action.copy()
    following, reward, cost, terminated = e.step(state, action)
    if not (np.array_equal(before[0], state) and np.array_equal(before[1], action)):
        raise ContractError(f"{e.name}: step changed the arrays that it was given")
    _array(e, "step gives states", following, (ROWS, e.state_size), np.float64)
    _array(e, "step gives rewards", reward, (ROWS,), np.float64)
    _array(e, "step gives costs", cost, (ROWS,), np.float64)
    _array(e, "step gives terminated", terminated, (ROWS,), np.bool_)
    alone = e.step(state[:1], action[:1])
    if any(not np.array_equal(one, many[:1]) for one, many in zip(alone, (following, reward, cost, terminated))):
        raise ContractError(f"{e.name}: a row's step depends on the rows beside it")
    return following, terminated


def _array(e: Environment, what: str, array: object, shape: tuple[int, ...], kind: type) -> None:
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != kind:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ContractError(f"{e.name}: {what}: {found}, expected {np.dtype(kind)} {shape}")
    if not np.isfinite(array).all():
        raise ContractError(f"{e.name}: {what} with NaN or infinite numbers")
