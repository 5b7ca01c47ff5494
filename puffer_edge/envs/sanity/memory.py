"""memory proves that a policy remembers: a sign is shown once, and asked for three steps later.

Optimal return: 1, by a policy with memory; without, 0.5 at best. Terminated after 5 steps. Cost: 1 for the wrong answer.
"""

from __future__ import annotations

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.draw import uniform
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Number, Row, where

LAST = 4.0


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """State: the sign, and the steps done."""
    state[0] = where(uniform(draw, 0.0, 1.0) < 0.5, -1.0, 1.0)
    state[1] = 0.0


def observe(state: Row, observation: Row) -> None:
    """The sign at first and 0 later; 1 when the answer is due."""
    observation[0] = where(state[1] == 0.0, state[0], 0.0)
    observation[1] = where(state[1] == LAST, 1.0, 0.0)


def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
    """Only the last action counts."""
    due = state[1] == LAST
    right = action[0] * state[0] > 0.0
    state[1] = state[1] + 1.0
    return where(due & right, 1.0, 0.0), where(due & (right == False), 1.0, 0.0), due  # noqa: E712  ``not`` would be a branch


CONTRACT = Contract(
    name="memory",
    observations=(ObservationChannel("sign", "1", -1.0, 1.0), ObservationChannel("due", "1", 0.0, 1.0)),
    actions=(ActionChannel("answer", "1", -1.0, 1.0, safe=0.0, initial=0.0),),
    head="discrete",
    rate_hz=1.0,
    levels=((-1.0,), (1.0,)),
)

ENVIRONMENT = Environment.of_scalars(CONTRACT, Dynamics(2, 2, 1, reset, observe, step), max_steps=5, solved=0.97)
