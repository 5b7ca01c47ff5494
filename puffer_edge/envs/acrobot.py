"""Acrobot: Gymnasium's Acrobot-v1 to the bit: two links that hang from a fixed joint, driven by a torque at the joint between them.

Dynamics: Sutton (1996), "Generalization in reinforcement learning", in the form of Sutton and Barto's book, one Runge–Kutta step of 200 ms,
as in ``gymnasium/envs/classic_control/acrobot.py``. Angles: the first link's from hanging down, the second's from the first link.
Gymnasium's actions 0, 1 and 2 are the torques −1, 0 and +1 N·m; every torque in between is legal too.

Reward: −1 a step, 0 on reaching the goal. Terminated: the tip is more than one link's length above the fixed joint. Truncated after 500
steps. Cost: 1 a step while a joint turns faster than ±2π (first) or ±4π rad/s (second): what a plain bearing would not like.
"""

from __future__ import annotations

import math
from typing import Any

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.draw import uniform
from puffer_edge.envs.dynamics import Dynamics, Parameter
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Number, Row, clip, cos, power, sin, single, where

GRAVITY = 9.8
PERIOD_S = 0.2
SPEED_LIMIT_1 = 4 * math.pi
SPEED_LIMIT_2 = 9 * math.pi
COST_SPEED_1 = 2 * math.pi
COST_SPEED_2 = 4 * math.pi

PARAMETERS = (
    Parameter("mass_1", "kg", 1.0),
    Parameter("mass_2", "kg", 1.0),
    Parameter("length_1", "m", 1.0),
    Parameter("centre_1", "m", 0.5),
    Parameter("centre_2", "m", 0.5),
    Parameter("inertia", "kg*m^2", 1.0),
)


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """Each number of the start state is uniform in ±0.1, in float32 as Gymnasium's."""
    for k in range(4):
        state[k] = single(uniform(draw, -0.1, 0.1))


def observe(state: Row, observation: Row) -> None:
    """Cosine and sine of both angles, and both angular velocities."""
    observation[0], observation[1] = cos(state[0]), sin(state[0])
    observation[2], observation[3] = cos(state[1]), sin(state[1])
    observation[4], observation[5] = state[2], state[3]


def slope(angle_1: Number, angle_2: Number, speed_1: Number, speed_2: Number, torque: Number, parameters: Row) -> tuple[Number, Number]:
    """Both angular accelerations, rad/s²."""
    m1, m2, l1, lc1, lc2, inertia = parameters[0], parameters[1], parameters[2], parameters[3], parameters[4], parameters[5]
    near, sine = l1 * lc2 * cos(angle_2), sin(angle_2)
    d1 = m1 * (lc1 * lc1) + m2 * (l1 * l1 + lc2 * lc2 + 2 * l1 * lc2 * cos(angle_2)) + inertia + inertia
    d2 = m2 * (lc2 * lc2 + near) + inertia
    phi2 = m2 * lc2 * GRAVITY * cos(angle_1 + angle_2 - math.pi / 2.0)
    phi1 = (
        -m2 * l1 * lc2 * power(speed_2, 2.0) * sine
        - 2 * m2 * l1 * lc2 * speed_2 * speed_1 * sine
        + (m1 * lc1 + m2 * l1) * GRAVITY * cos(angle_1 - math.pi / 2)
        + phi2
    )
    acc_2 = (torque + d2 / d1 * phi1 - m2 * l1 * lc2 * power(speed_1, 2.0) * sine - phi2) / (m2 * (lc2 * lc2) + inertia - power(d2, 2.0) / d1)
    return -(d2 * acc_2 + phi1) / d1, acc_2


def wrap(angle: Number) -> Number:
    """The angle in ±π; a step turns a joint by less than two turns."""
    for _ in range(2):
        angle = where(angle > math.pi, angle - 2 * math.pi, angle)
    for _ in range(2):
        angle = where(angle < -math.pi, angle + 2 * math.pi, angle)
    return angle


def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
    """One classical Runge–Kutta step; the order of operations is Gymnasium's, which makes the bits its own."""
    half, torque = PERIOD_S / 2.0, action[0]
    a, b, c, d = state[0], state[1], state[2], state[3]
    c1, d1 = slope(a, b, c, d, torque, parameters)
    v2, w2 = c + half * c1, d + half * d1
    c2, d2 = slope(a + half * c, b + half * d, v2, w2, torque, parameters)
    v3, w3 = c + half * c2, d + half * d2
    c3, d3 = slope(a + half * v2, b + half * w2, v3, w3, torque, parameters)
    v4, w4 = c + PERIOD_S * c3, d + PERIOD_S * d3
    c4, d4 = slope(a + PERIOD_S * v3, b + PERIOD_S * w3, v4, w4, torque, parameters)
    sixth = PERIOD_S / 6.0
    state[0] = wrap(a + sixth * (c + 2 * v2 + 2 * v3 + v4))
    state[1] = wrap(b + sixth * (d + 2 * w2 + 2 * w3 + w4))
    state[2] = clip(c + sixth * (c1 + 2 * c2 + 2 * c3 + c4), -SPEED_LIMIT_1, SPEED_LIMIT_1)
    state[3] = clip(d + sixth * (d1 + 2 * d2 + 2 * d3 + d4), -SPEED_LIMIT_2, SPEED_LIMIT_2)
    reached = -cos(state[0]) - cos(state[1] + state[0]) > 1.0
    cost = where((abs(state[2]) > COST_SPEED_1) | (abs(state[3]) > COST_SPEED_2), 1.0, 0.0)
    return where(reached, 0.0, -1.0), cost, reached


def draw(state: Row, canvas: Any) -> None:
    """Both links, and the height to reach."""
    canvas.view((0.0, 0.0), 6.6)
    canvas.line((-3.0, 1.0), (3.0, 1.0), "#9aa5b1")
    elbow = (math.sin(state[0]), -math.cos(state[0]))
    tip = (elbow[0] + math.sin(state[0] + state[1]), elbow[1] - math.cos(state[0] + state[1]))
    canvas.line((0.0, 0.0), elbow, "#3e6fb0", 8.0)
    canvas.line(elbow, tip, "#d9822b", 8.0)
    canvas.circle((0.0, 0.0), 0.08)
    canvas.circle(elbow, 0.08)


CONTRACT = Contract(
    name="acrobot",
    observations=(
        ObservationChannel("cosine_1", "1", -1.0, 1.0),
        ObservationChannel("sine_1", "1", -1.0, 1.0),
        ObservationChannel("cosine_2", "1", -1.0, 1.0),
        ObservationChannel("sine_2", "1", -1.0, 1.0),
        ObservationChannel("angular_velocity_1", "rad/s", -SPEED_LIMIT_1, SPEED_LIMIT_1),
        ObservationChannel("angular_velocity_2", "rad/s", -SPEED_LIMIT_2, SPEED_LIMIT_2),
    ),
    actions=(ActionChannel("torque", "N*m", -1.0, 1.0, safe=0.0, initial=0.0),),
    head="discrete",
    rate_hz=5.0,
    levels=((-1.0,), (0.0,), (1.0,)),
)

ENVIRONMENT = Environment.of_scalars(
    CONTRACT,
    Dynamics(4, 6, 1, reset, observe, step, PARAMETERS),
    max_steps=500,
    solved=-100.0,
    draw=draw,
    shield=(
        {"stage": "envelope", "bounds": {"angular_velocity_2": (-20.0, 20.0)}, "law": {"torque": {"angular_velocity_2": -0.05}}},
        {"stage": "limit"},
    ),
)
