"""grid proves that a picture is seen: 8×8 cells, 1 where the walker is and −1 where its target is, which it comes to a cell at a time.

Reward: 1 on arrival, which ends the episode, and −0.1 for a step that does not come nearer. Optimal return: 1. Cost: 1 for such a step.
Truncated after 32 steps. A picture is its cells in rows: ``image = [1, 8, 8]``.
"""

from __future__ import annotations

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.draw import uniform
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Number, Row, clip, rint, where

SIDE = 8
LAST = SIDE - 1.0


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """State: column and row of the walker, then of the target, which is elsewhere."""
    for k in range(4):
        state[k] = clip(rint(uniform(draw, -0.5, LAST + 0.5)), 0.0, LAST) + 0.0  # no negative zero
    same = (state[0] == state[2]) & (state[1] == state[3])
    state[2] = where(same, where(state[2] == LAST, 0.0, state[2] + 1.0), state[2])


def observe(state: Row, observation: Row) -> None:
    """The cells, row after row."""
    observation[:] = 0.0
    observation[int(state[3] * SIDE + state[2])] = -1.0
    observation[int(state[1] * SIDE + state[0])] = 1.0


def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
    """One cell along the action, where there is one."""
    before = abs(state[0] - state[2]) + abs(state[1] - state[3])
    state[0], state[1] = clip(state[0] + rint(action[0]), 0.0, LAST), clip(state[1] + rint(action[1]), 0.0, LAST)
    after = abs(state[0] - state[2]) + abs(state[1] - state[3])
    nearer, there = after < before, after == 0.0
    return where(there, 1.0, where(nearer, 0.0, -0.1)), where(nearer, 0.0, 1.0), there


CONTRACT = Contract(
    name="grid",
    observations=tuple(ObservationChannel(f"cell_{row}_{column}", "1", -1.0, 1.0) for row in range(SIDE) for column in range(SIDE)),
    actions=tuple(ActionChannel(name, "1", -1.0, 1.0, safe=0.0, initial=0.0) for name in ("across", "down")),
    head="discrete",
    rate_hz=1.0,
    levels=((-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0)),
)

ENVIRONMENT = Environment.of_scalars(CONTRACT, Dynamics(4, SIDE * SIDE, 2, reset, observe, step), max_steps=32, solved=0.97)
