"""Pendulum: Gymnasium's Pendulum-v1 to the bit, driven by a torque in newton metres.

Dynamics of a rod of 1 kg and 1 m from ``gymnasium/envs/classic_control/pendulum.py``: 50 ms steps, speed clipped to ±8 rad/s,
and the torque in float32, because that is the type of Gymnasium's actions.

Reward: −(angle² + 0.1·speed² + 0.001·torque²) of the state before the step, angle 0 upright. Never terminated, truncated after 200 steps.
Cost: 1 a step while the speed is beyond ±7 rad/s.
"""

from __future__ import annotations

import math
from typing import Any

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.draw import uniform
from puffer_edge.envs.dynamics import Dynamics, Parameter
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Number, Row, clip, cos, power, power_single, sin, single, where

PERIOD_S = 0.05
SPEED_LIMIT = 8.0
TORQUE_LIMIT = 2.0
COST_SPEED = 7.0

PARAMETERS = (Parameter("gravity", "m/s^2", 10.0), Parameter("mass", "kg", 1.0), Parameter("length", "m", 1.0))


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """Angle uniform in ±π, speed uniform in ±1 rad/s."""
    state[0] = uniform(draw, -math.pi, math.pi)
    state[1] = uniform(draw, -1.0, 1.0)


def observe(state: Row, observation: Row) -> None:
    """Cosine and sine of the angle, and the speed."""
    observation[0], observation[1], observation[2] = cos(state[0]), sin(state[0]), state[1]


def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
    """One semi-implicit Euler step; the order of operations is Gymnasium's, which makes the bits its own."""
    gravity, mass, length = parameters[0], parameters[1], parameters[2]
    angle, speed = state[0], state[1]
    torque = clip(single(action[0]), -TORQUE_LIMIT, TORQUE_LIMIT)
    wrapped = (angle + math.pi) % (2 * math.pi) - math.pi
    effort = single(single(0.001) * power_single(torque, 2.0))
    reward = -(power(wrapped, 2.0) + 0.1 * power(speed, 2.0) + effort)
    turn = single(single(3.0 / (mass * (length * length))) * torque)
    faster = clip(speed + (3 * gravity / (2 * length) * sin(angle) + turn) * PERIOD_S, -SPEED_LIMIT, SPEED_LIMIT)
    state[0], state[1] = angle + faster * PERIOD_S, faster
    return reward, where(abs(faster) > COST_SPEED, 1.0, 0.0), False


def draw(state: Row, canvas: Any) -> None:
    """The rod about its joint."""
    canvas.view((0.0, 0.0), 3.6)
    canvas.line((0.0, 0.0), (-math.sin(state[0]), math.cos(state[0])), "#d9822b", 12.0)
    canvas.circle((0.0, 0.0), 0.06)


CONTRACT = Contract(
    name="pendulum",
    observations=(
        ObservationChannel("cosine", "1", -1.0, 1.0),
        ObservationChannel("sine", "1", -1.0, 1.0),
        ObservationChannel("angular_velocity", "rad/s", -SPEED_LIMIT, SPEED_LIMIT),
    ),
    actions=(ActionChannel("torque", "N*m", -TORQUE_LIMIT, TORQUE_LIMIT, safe=0.0, initial=0.0),),
    head="clip",
    rate_hz=20.0,
)

ENVIRONMENT = Environment.of_scalars(
    CONTRACT,
    Dynamics(2, 3, 1, reset, observe, step, PARAMETERS),
    max_steps=200,
    solved=-250.0,
    draw=draw,
    shield=(
        {"stage": "envelope", "bounds": {"angular_velocity": (-7.5, 7.5)}, "law": {"torque": {"angular_velocity": -0.5}}},
        {"stage": "slew", "per_second": {"torque": 40.0}},
        {"stage": "limit"},
    ),
)
