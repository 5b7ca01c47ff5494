"""CartPole: Gymnasium's CartPole-v1 to the bit, driven by a force in newtons.

Dynamics: Barto, Sutton and Anderson (1983), in Florian's corrected form (2007), Euler steps of 20 ms, as in
``gymnasium/envs/classic_control/cartpole.py``. Gymnasium's actions 0 and 1 are the forces −10 N and +10 N here;
every force in between is legal too, which gives a shield something finer to act with.

Reward: 1 a step, the failing one included. Terminated: position beyond ±2.4 m or angle beyond ±12°. Truncated after 500 steps.
Cost: 1 a step while position is beyond ±2 m or angle beyond ±0.15 rad: closer to failing than any good policy comes.
"""

from __future__ import annotations

import math
from typing import Any

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.draw import uniform
from puffer_edge.envs.dynamics import Dynamics, Parameter
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Number, Row, cos, sin, where

PERIOD_S = 0.02
POSITION_LIMIT = 2.4
ANGLE_LIMIT = 12 * 2 * math.pi / 360
COST_POSITION = 2.0
COST_ANGLE = 0.15


PARAMETERS = (
    Parameter("gravity", "m/s^2", 9.8),
    Parameter("pole_mass", "kg", 0.1),
    Parameter("cart_mass", "kg", 1.0),
    Parameter("half_length", "m", 0.5),
)


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """Each number of the start state is uniform in ±0.05."""
    for k in range(4):
        state[k] = uniform(draw, -0.05, 0.05)


def observe(state: Row, observation: Row) -> None:
    """The state itself: position, velocity, angle, angular velocity."""
    for k in range(4):
        observation[k] = state[k]


def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
    """One Euler step; the order of operations is Gymnasium's, which makes the bits its own."""
    gravity, pole_mass, half_length = parameters[0], parameters[1], parameters[3]
    mass, moment = pole_mass + parameters[2], pole_mass * half_length
    x, x_dot, angle, angle_dot = state[0], state[1], state[2], state[3]
    cosine, sine = cos(angle), sin(angle)
    pull = (action[0] + moment * (angle_dot * angle_dot) * sine) / mass
    angle_acc = (gravity * sine - cosine * pull) / (half_length * (4.0 / 3.0 - pole_mass * (cosine * cosine) / mass))
    x_acc = pull - moment * angle_acc * cosine / mass
    state[0], state[1] = x + PERIOD_S * x_dot, x_dot + PERIOD_S * x_acc
    state[2], state[3] = angle + PERIOD_S * angle_dot, angle_dot + PERIOD_S * angle_acc
    far, tilt = abs(state[0]), abs(state[2])
    cost = where((far > COST_POSITION) | (tilt > COST_ANGLE), 1.0, 0.0)
    return 1.0, cost, (far > POSITION_LIMIT) | (tilt > ANGLE_LIMIT)


def draw(state: Row, canvas: Any) -> None:
    """The cart on its rail, and the pole."""
    canvas.view((0.0, 0.4), 5.4)
    canvas.line((-POSITION_LIMIT, 0.0), (POSITION_LIMIT, 0.0), "#9aa5b1")
    x, angle = float(state[0]), float(state[2])
    canvas.box((x, 0.0), 0.5, 0.3)
    canvas.line((x, 0.0), (x + math.sin(angle), math.cos(angle)), "#d9822b", 6.0)


CONTRACT = Contract(
    name="cartpole",
    observations=(
        ObservationChannel("position", "m", -4.8, 4.8),
        ObservationChannel("velocity", "m/s", -10.0, 10.0),
        ObservationChannel("angle", "rad", -0.42, 0.42),
        ObservationChannel("angular_velocity", "rad/s", -10.0, 10.0),
    ),
    actions=(ActionChannel("force", "N", -10.0, 10.0, safe=0.0, initial=0.0),),
    head="discrete",
    rate_hz=50.0,
    levels=((-10.0,), (10.0,)),
)

GAINS = {"position": 6.0, "velocity": 11.0, "angle": 110.0, "angular_velocity": 31.0}
"""Linear law, N per unit of observation: LQR of the dynamics linearised upright, state weights (1, 0.1, 100, 10), input weight 0.01, rounded."""

ENVIRONMENT = Environment.of_scalars(
    CONTRACT,
    Dynamics(4, 4, 1, reset, observe, step, PARAMETERS),
    max_steps=500,
    solved=475.0,
    draw=draw,
    shield=(
        {"stage": "envelope", "bounds": {"angle": (-0.12, 0.12), "position": (-1.8, 1.8)}, "law": {"force": GAINS}},
        {"stage": "limit"},
    ),
)
