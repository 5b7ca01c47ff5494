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

import numpy as np

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Numbers, uniform, where

GRAVITY = 9.8
MASS_POLE = 0.1
MASS = 1.0 + MASS_POLE
HALF_LENGTH = 0.5
POLE_MOMENT = MASS_POLE * HALF_LENGTH
PERIOD_S = 0.02
POSITION_LIMIT = 2.4
ANGLE_LIMIT = 12 * 2 * math.pi / 360
COST_POSITION = 2.0
COST_ANGLE = 0.15


def reset(random: Any) -> Numbers:
    """Each of the four numbers uniform in ±0.05."""
    return uniform(random, -0.05, 0.05), uniform(random, -0.05, 0.05), uniform(random, -0.05, 0.05), uniform(random, -0.05, 0.05)


def observe(state: Numbers) -> Numbers:
    """The state itself: position in m, velocity in m/s, angle in rad, angular velocity in rad/s."""
    return state


def step(state: Numbers, action: Numbers) -> tuple[Numbers, Any, Any, Any]:
    """One Euler step; the order of operations is Gymnasium's, which makes the bits its own."""
    x, x_dot, angle, angle_dot = state
    cosine, sine = np.cos(angle), np.sin(angle)
    pull = (action[0] + POLE_MOMENT * np.square(angle_dot) * sine) / MASS
    angle_acc = (GRAVITY * sine - cosine * pull) / (HALF_LENGTH * (4.0 / 3.0 - MASS_POLE * np.square(cosine) / MASS))
    x_acc = pull - POLE_MOMENT * angle_acc * cosine / MASS
    x, x_dot, angle, angle_dot = x + PERIOD_S * x_dot, x_dot + PERIOD_S * x_acc, angle + PERIOD_S * angle_dot, angle_dot + PERIOD_S * angle_acc
    far, tilt = np.abs(x), np.abs(angle)
    cost = where((far > COST_POSITION) | (tilt > COST_ANGLE), 1.0, 0.0)
    return (x, x_dot, angle, angle_dot), 1.0, cost, (far > POSITION_LIMIT) | (tilt > ANGLE_LIMIT)


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

ENVIRONMENT = Environment.of(
    name="cartpole",
    contract=CONTRACT,
    state_size=4,
    max_steps=500,
    solved=475.0,
    shield=(
        {"stage": "envelope", "bounds": {"angle": (-0.12, 0.12), "position": (-1.8, 1.8)}, "law": {"force": GAINS}},
        {"stage": "limit"},
    ),
    reset=reset,
    observe=observe,
    step=step,
)
