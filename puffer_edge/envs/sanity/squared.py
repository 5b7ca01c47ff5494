"""squared proves that credit travels back over several steps, and that a choice may stand for several outputs at once.

An agent starts in the middle of a square of 7 × 7 fields and sees in which direction, of eight, a target lies on the edge, 3 moves away.
Reward: a third of each move's gain in distance (Chebyshev), so that a move the wrong way is paid back later. Terminated at the target,
truncated after 12 steps. Optimal return: 1. Cost: 1 for a move that would leave the square.
"""

from __future__ import annotations

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.draw import uniform
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Number, Row, clip, rint, where

REACH = 3.0


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """State: x, y of the agent, x, y of the target."""
    side, along = uniform(draw, 0.0, 4.0), clip(rint(uniform(draw, -1.5, 1.5)), -1.0, 1.0)
    far = where((side < 1.0) | (side >= 3.0), REACH, -REACH)
    near = along * REACH
    state[0], state[1] = 0.0, 0.0
    state[2], state[3] = where(side < 2.0, far, near), where(side < 2.0, near, far)


def observe(state: Row, observation: Row) -> None:
    """Way to the target."""
    observation[0], observation[1] = state[2] - state[0], state[3] - state[1]


def distance(state: Row) -> Number:
    """Moves to the target."""
    across, up = abs(state[2] - state[0]), abs(state[3] - state[1])
    return where(across > up, across, up)


def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
    """A move by at most one field in each direction."""
    before = distance(state)
    x, y = state[0] + rint(action[0]), state[1] + rint(action[1])
    state[0], state[1] = clip(x, -REACH, REACH), clip(y, -REACH, REACH)
    after = distance(state)
    outside = (abs(x) > REACH) | (abs(y) > REACH)
    return (before - after) / REACH, where(outside, 1.0, 0.0), after == 0.0


MOVES = tuple((float(x), float(y)) for x in (-1, 0, 1) for y in (-1, 0, 1))

CONTRACT = Contract(
    name="squared",
    observations=(ObservationChannel("x", "field", -2 * REACH, 2 * REACH), ObservationChannel("y", "field", -2 * REACH, 2 * REACH)),
    actions=(
        ActionChannel("x", "field", -1.0, 1.0, safe=0.0, initial=0.0),
        ActionChannel("y", "field", -1.0, 1.0, safe=0.0, initial=0.0),
    ),
    head="discrete",
    rate_hz=1.0,
    levels=MOVES,
)

ENVIRONMENT = Environment.of_scalars(CONTRACT, Dynamics(4, 2, 2, reset, observe, step), max_steps=12, solved=0.97)
