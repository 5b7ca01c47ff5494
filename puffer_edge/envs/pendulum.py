"""Pendulum: Gymnasium's Pendulum-v1, its states to the bit, driven by a torque in newton metres.

Dynamics of a rod of 1 kg and 1 m from ``gymnasium/envs/classic_control/pendulum.py``: 50 ms steps, speed clipped to ±8 rad/s,
and the torque in float32, because that is the type of Gymnasium's actions.

Rewards may differ in the last bit: Gymnasium squares by libm's power, numpy's arrays by a product.

Reward: −(angle² + 0.1·speed² + 0.001·torque²) of the state before the step, angle 0 upright. Never terminated, truncated after 200 steps.
Cost: 1 a step while the speed is beyond ±7 rad/s.
"""

from __future__ import annotations

import numpy as np

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.environment import Environment
from puffer_edge.spaces import Bools, Floats

GRAVITY = 10.0
PERIOD_S = 0.05
SPEED_LIMIT = 8.0
TORQUE_LIMIT = 2.0
COST_SPEED = 7.0


def reset(rng: np.random.Generator, n: int) -> Floats:
    """(n, 2) start states: angle uniform in ±π, speed uniform in ±1 rad/s."""
    return rng.uniform((-np.pi, -1.0), (np.pi, 1.0), (n, 2))


def observe(state: Floats) -> Floats:
    """Cosine and sine of the angle, and the speed."""
    return np.stack([np.cos(state[:, 0]), np.sin(state[:, 0]), state[:, 1]], -1)


def step(state: Floats, action: Floats) -> tuple[Floats, Floats, Floats, Bools]:
    """One semi-implicit Euler step; the order of operations is Gymnasium's, which makes the bits its own."""
    angle, speed = state.T
    torque = np.clip(action[:, 0].astype(np.float32), -TORQUE_LIMIT, TORQUE_LIMIT)
    wrapped = (angle + np.pi) % (2 * np.pi) - np.pi
    reward = -(wrapped**2 + 0.1 * speed**2 + 0.001 * torque**2)
    faster = np.clip(speed + (3 * GRAVITY / 2 * np.sin(angle) + 3.0 * torque) * PERIOD_S, -SPEED_LIMIT, SPEED_LIMIT)
    cost = (np.abs(faster) > COST_SPEED).astype(np.float64)
    return np.stack([angle + faster * PERIOD_S, faster], -1), reward, cost, np.zeros(len(state), bool)


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

ENVIRONMENT = Environment(
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
