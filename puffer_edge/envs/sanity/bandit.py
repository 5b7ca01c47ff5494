"""bandit proves that a policy gradient finds the better action at all, through noisy rewards, in episodes of one step.

Four arms pay 0, 0.3, 1 and 0.6 on average, with a normal noise of standard deviation 0.1 that the step draws.
Optimal return: 1, by arm 2 always; a uniform policy gets 0.475. Cost: 1 on pulling arm 0.
"""

from __future__ import annotations

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.draw import normal
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Number, Row, where

NOISE = 0.1


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """There is one state."""
    state[0] = 1.0


def observe(state: Row, observation: Row) -> None:
    """Always 1."""
    observation[0] = state[0]


def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
    """The arm nearest to the action pays, and the episode ends."""
    arm = action[0]
    mean = where(arm < 0.5, 0.0, where(arm < 1.5, 0.3, where(arm < 2.5, 1.0, 0.6)))
    return mean + NOISE * normal(draw), where(arm < 0.5, 1.0, 0.0), True


CONTRACT = Contract(
    name="bandit",
    observations=(ObservationChannel("one", "1", 0.0, 1.0),),
    actions=(ActionChannel("arm", "1", 0.0, 3.0, safe=1.0, initial=1.0),),
    head="discrete",
    rate_hz=1.0,
    levels=((0.0,), (1.0,), (2.0,), (3.0,)),
)

ENVIRONMENT = Environment.of_scalars(CONTRACT, Dynamics(1, 1, 1, reset, observe, step, random_steps=True), max_steps=1, solved=0.97)
