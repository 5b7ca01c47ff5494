"""masked proves that the mask is used, when an action is drawn and when it is learnt from: what is allowed is seen nowhere else.

Of eight choices two are allowed at a time, one of the lower half and one of the upper half, drawn anew for each of 8 steps. The upper one
pays 1/8, the lower one nothing; any other ends the episode with −1, and costs 1. Optimal return: 1 with the mask; a uniform policy over what
is allowed gets 0.5, and without a mask no policy can be better than a guess, which ends an episode at three steps of four.
"""

from __future__ import annotations

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.draw import uniform
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Number, Row, where

STEPS = 8
HALF = 4


def pick(draw: Row) -> Number:
    """One of 0 … 3."""
    x = uniform(draw, 0.0, 1.0)
    return where(x < 0.25, 0.0, where(x < 0.5, 1.0, where(x < 0.75, 2.0, 3.0)))


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """State: the steps done, the lower choice, the upper one."""
    state[0], state[1], state[2] = 0.0, pick(draw), HALF + pick(draw)


def observe(state: Row, observation: Row) -> None:
    """Always 1."""
    observation[0] = 1.0


def allow(state: Row, allowed: Row) -> None:
    """Two of them."""
    for k in range(2 * HALF):
        allowed[k] = where((k == state[1]) | (k == state[2]), 1, 0)


def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
    """Pays, and draws the next two."""
    low, high = action[0] == state[1], action[0] == state[2]
    state[0], state[1], state[2] = state[0] + 1.0, pick(draw), HALF + pick(draw)
    wrong = (low | high) == False  # noqa: E712  ``not`` would be a branch
    return where(wrong, -1.0, where(high, 1.0 / STEPS, 0.0)), where(wrong, 1.0, 0.0), wrong | (state[0] >= STEPS)


CONTRACT = Contract(
    name="masked",
    observations=(ObservationChannel("one", "1", 0.0, 1.0),),
    actions=(ActionChannel("choice", "1", 0.0, 7.0, safe=0.0, initial=0.0),),
    head="discrete",
    rate_hz=1.0,
    levels=tuple((float(k),) for k in range(2 * HALF)),
)

ENVIRONMENT = Environment.of_scalars(
    CONTRACT, Dynamics(3, 1, 1, reset, observe, step, random_steps=True, allow=allow, n_choices=2 * HALF), max_steps=STEPS, solved=0.97
)
