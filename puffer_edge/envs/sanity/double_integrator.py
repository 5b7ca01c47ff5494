"""double_integrator proves that a trainer comes to a known optimum with continuous actions: that of Riccati's equation.

A mass is pushed along a line, 30 pushes of 0.2 s each, held in between. Reward: −(position² + velocity² + push²)·0.2 of the state
before the push. Neither the push nor what is observed comes to its bounds under the best policy, so that policy is linear, and its return
from a start x is −x′·P·x, with P from 30 steps of Riccati's difference equation, ``optimum``: −1.2279 in the mean over
starts uniform in ±1 m and ±1 m/s. Solved: within 3 % of that. Cost: 1 a step while the position is beyond ±1 m.
"""

from __future__ import annotations

import numpy as np

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.draw import uniform
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Number, Row, where
from puffer_edge.spaces import Floats

PERIOD_S = 0.2
STEPS = 30
OPTIMUM = -1.22792


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """Position uniform in ±1 m, velocity uniform in ±1 m/s."""
    state[0], state[1] = uniform(draw, -1.0, 1.0), uniform(draw, -1.0, 1.0)


def observe(state: Row, observation: Row) -> None:
    """The state itself."""
    observation[0], observation[1] = state[0], state[1]


def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
    """Exact motion under a push that is held."""
    position, velocity, push = state[0], state[1], action[0]
    loss = position * position + velocity * velocity + push * push
    state[0] = position + PERIOD_S * velocity + 0.5 * PERIOD_S * PERIOD_S * push
    state[1] = velocity + PERIOD_S * push
    return -PERIOD_S * loss, where(abs(state[0]) > 1.0, 1.0, 0.0), False


def optimum(starts: Floats) -> float:
    """Mean return of the best policy from (n, 2) starts."""
    h = PERIOD_S
    a, b, p = np.array([[1, h], [0, 1]]), np.array([[h * h / 2], [h]]), np.zeros((2, 2))
    for _ in range(STEPS):
        gain = np.linalg.solve(h + b.T @ p @ b, b.T @ p @ a)
        p = h * np.eye(2) + a.T @ p @ (a - b @ gain)
    return -float(np.einsum("ij,jk,ik->i", starts, p, starts).mean())


CONTRACT = Contract(
    name="integrator",
    observations=(ObservationChannel("position", "m", -20.0, 20.0), ObservationChannel("velocity", "m/s", -20.0, 20.0)),
    actions=(ActionChannel("push", "m/s^2", -3.0, 3.0, safe=0.0, initial=0.0),),
    head="clip",
    rate_hz=5.0,
)

ENVIRONMENT = Environment.of_scalars(
    CONTRACT, Dynamics(2, 2, 1, reset, observe, step), max_steps=STEPS, solved=1.03 * OPTIMUM, name="double_integrator"
)
