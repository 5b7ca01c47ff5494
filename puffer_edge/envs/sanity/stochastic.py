"""stochastic proves that a policy may stay random where that is best: three of four actions should be 1, and nothing is observed.

Return of an episode of 32 steps: 1 − |f − 0.75| / 0.75, where f is the fraction of steps with action 1, paid at the end.
Optimal return of a policy without memory: 0.92 on average, by action 1 with probability 0.75; the best deterministic one gets 0.67,
so what an evaluation of the deterministic head shows is below what training shows. Cost: 0.
"""

from __future__ import annotations

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Number, Row, where

STEPS = 32
WANTED = 0.75


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """State: the steps done, and the ones among them."""
    state[0], state[1] = 0.0, 0.0


def observe(state: Row, observation: Row) -> None:
    """Always 1."""
    observation[0] = 1.0


def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
    """Counts."""
    state[0], state[1] = state[0] + 1.0, state[1] + where(action[0] > 0.5, 1.0, 0.0)
    last = state[0] >= STEPS
    return where(last, 1.0 - abs(state[1] / STEPS - WANTED) / WANTED, 0.0), 0.0, last


CONTRACT = Contract(
    name="stochastic",
    observations=(ObservationChannel("one", "1", 0.0, 1.0),),
    actions=(ActionChannel("choice", "1", 0.0, 1.0, safe=0.0, initial=0.0),),
    head="discrete",
    rate_hz=1.0,
    levels=((0.0,), (1.0,)),
)

ENVIRONMENT = Environment.of_scalars(CONTRACT, Dynamics(2, 1, 1, reset, observe, step), max_steps=STEPS, solved=0.65)
