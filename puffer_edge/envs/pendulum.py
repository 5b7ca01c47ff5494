"""Pendulum: Gymnasium's Pendulum-v1, its states to the bit, driven by a torque in newton metres.

Dynamics of a rod of 1 kg and 1 m from ``gymnasium/envs/classic_control/pendulum.py``: 50 ms steps, speed clipped to ±8 rad/s,
and the torque in float32, because that is the type of Gymnasium's actions.

Rewards may differ in the last bit: Gymnasium squares by libm's power, numpy's arrays by a product.

Reward: −(angle² + 0.1·speed² + 0.001·torque²) of the state before the step, angle 0 upright. Never terminated, truncated after 200 steps.
Cost: 1 a step while the speed is beyond ±7 rad/s.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Numbers, limited, single, uniform, where

GRAVITY = 10.0
PERIOD_S = 0.05
SPEED_LIMIT = 8.0
TORQUE_LIMIT = 2.0
COST_SPEED = 7.0


def reset(random: Any) -> Numbers:
    """Angle uniform in ±π, speed uniform in ±1 rad/s."""
    return uniform(random, -math.pi, math.pi), uniform(random, -1.0, 1.0)


def observe(state: Numbers) -> Numbers:
    """Cosine and sine of the angle, and the speed in rad/s."""
    return np.cos(state[0]), np.sin(state[0]), state[1]


def step(state: Numbers, action: Numbers) -> tuple[Numbers, Any, Any, Any]:
    """One semi-implicit Euler step; the order of operations is Gymnasium's, which makes the bits its own."""
    angle, speed = state
    torque = limited(single(action[0]), single(-TORQUE_LIMIT), single(TORQUE_LIMIT))
    wrapped = (angle + math.pi) % (2 * math.pi) - math.pi
    reward = -(np.square(wrapped) + 0.1 * np.square(speed) + single(0.001) * np.square(torque))
    faster = limited(speed + (3 * GRAVITY / 2 * np.sin(angle) + single(3.0) * torque) * PERIOD_S, -SPEED_LIMIT, SPEED_LIMIT)
    return (angle + faster * PERIOD_S, faster), reward, where(np.abs(faster) > COST_SPEED, 1.0, 0.0), False


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

ENVIRONMENT = Environment.of(
    name="pendulum",
    contract=CONTRACT,
    state_size=2,
    max_steps=200,
    solved=-250.0,
    shield=(
        {"stage": "envelope", "bounds": {"angular_velocity": (-7.5, 7.5)}, "law": {"torque": {"angular_velocity": -0.5}}},
        {"stage": "slew", "per_second": {"torque": 40.0}},
        {"stage": "limit"},
    ),
    reset=reset,
    observe=observe,
    step=step,
)
