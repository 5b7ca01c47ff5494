"""password proves that a trainer explores: one reward, after five right actions in a row, of which nothing tells the way.

A random policy is paid in one episode of 32. Terminated after 5 steps. Optimal return: 1. Cost: 1 for every wrong digit.
"""

from __future__ import annotations

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Number, Row, where

DIGITS = 5
SECRET = 0b10110
"""Digit k is bit k."""


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """State: the digits given, and whether all of them were right."""
    state[0], state[1] = 0.0, 1.0


def observe(state: Row, observation: Row) -> None:
    """Which digit is asked for, one number each."""
    for k in range(DIGITS):
        observation[k] = where(state[0] == k, 1.0, 0.0)


def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
    """One digit."""
    wanted = 0.0 * state[0]
    for k in range(DIGITS):
        wanted = where(state[0] == k, float(SECRET >> k & 1), wanted)
    right = (action[0] > 0.5) == (wanted > 0.5)
    state[0], state[1] = state[0] + 1.0, where(right, state[1], 0.0)
    last = state[0] >= DIGITS
    return where(last & (state[1] > 0.5), 1.0, 0.0), where(right, 0.0, 1.0), last


CONTRACT = Contract(
    name="password",
    observations=tuple(ObservationChannel(f"digit{k}", "1", 0.0, 1.0) for k in range(DIGITS)),
    actions=(ActionChannel("digit", "1", 0.0, 1.0, safe=0.0, initial=0.0),),
    head="discrete",
    rate_hz=1.0,
    levels=((0.0,), (1.0,)),
)

ENVIRONMENT = Environment.of_scalars(CONTRACT, Dynamics(2, DIGITS, 1, reset, observe, step), max_steps=DIGITS, solved=0.97)
