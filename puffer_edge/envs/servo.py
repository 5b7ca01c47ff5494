"""servo: a DC motor with a disc on its shaft turns to a target angle, driven by a voltage, within what its winding stands.

Parameters: the motor and disc of Quanser's Qube-Servo 2, from its user manual and the parameter files that Quanser's courseware gives its
users: winding 8.4 Ω, torque and back-EMF constant 0.042, rotor 4·10⁻⁶ kg·m², hub 0.0106 kg of radius 11.1 mm, disc 0.053 kg of radius
24.8 mm. The inductance, 1.16 mH, is left out: its time constant of 0.14 ms is a seventh of a substep.

    J·ω' = K·i − b·ω,   i = (U − K·ω) / R, held by the driver within ±limit,   J = J_rotor + m_hub·r_hub²/2 + m_disc·r_disc²/2

Semi-implicit Euler, 5 substeps of 1 ms. The back-EMF damps with a time constant of J·R/K² = 0.1 s; bearing friction b is 0 until it is
varied. The driver's limit of 1 A, the joint's ends, rate, targets and reward are choices of ours.

Reward: ½·(1 − (error/5)²) + ½/(1 + (error/0.1)²) − 0.1·(voltage/10)² a step, error in rad: half for coming near, half for the last tenth.
Terminated: at an end of the joint, ±2.5 rad. Truncated after 200 steps (1 s).
Cost: 1 a step while the current is beyond ±0.5 A, the amplifier's continuous rating: a policy that hurries heats the winding.
"""

from __future__ import annotations

import math
from typing import Any

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.draw import uniform
from puffer_edge.envs.dynamics import Dynamics, Parameter
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Number, Row, clip, where

SUBSTEPS = 5
SUBSTEP_S = 0.001
TARGET_RAD = 1.5
"""Targets and start angles lie in ± that."""
END_RAD = 2.5
RATED_A = 0.5
VOLTAGE = 10.0

PARAMETERS = (
    Parameter("resistance", "ohm", 8.4),
    Parameter("torque_constant", "N*m/A", 0.042),
    Parameter("inertia", "kg*m^2", 4e-6 + 0.0106 * 0.0111**2 / 2 + 0.053 * 0.0248**2 / 2),
    Parameter("friction", "N*m*s/rad", 0.0),
    Parameter("current_limit", "A", 1.0),
)


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """State: angle, speed, current, target. At rest, angle and target uniform in ±1.5 rad."""
    state[0], state[1], state[2] = uniform(draw, -TARGET_RAD, TARGET_RAD), 0.0, 0.0
    state[3] = uniform(draw, -TARGET_RAD, TARGET_RAD)


def observe(state: Row, observation: Row) -> None:
    """The error, target − angle, the speed and the current."""
    observation[0], observation[1], observation[2] = state[3] - state[0], state[1], state[2]


def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
    """5 ms at one voltage; the state keeps the current of the last substep, the cost looks at the largest."""
    resistance, constant, inertia, friction, limit = parameters[0], parameters[1], parameters[2], parameters[3], parameters[4]
    angle, speed, current, largest = state[0], state[1], 0.0, 0.0
    for _ in range(SUBSTEPS):
        current = clip((action[0] - constant * speed) / resistance, -limit, limit)
        largest = where(abs(current) > largest, abs(current), largest)
        speed = speed + SUBSTEP_S * (constant * current - friction * speed) / inertia
        angle = angle + SUBSTEP_S * speed
    state[0], state[1], state[2] = angle, speed, current
    error, effort = state[3] - angle, action[0] / VOLTAGE
    near, last = error / 5.0, error / 0.1
    reward = 0.5 * (1.0 - near * near) + 0.5 / (1.0 + last * last) - 0.1 * effort * effort
    return reward, where(largest > RATED_A, 1.0, 0.0), abs(angle) > END_RAD


def draw(state: Row, canvas: Any) -> None:
    """The disc with its pointer, the target, and the joint's ends."""
    canvas.view((0.0, 0.0), 3.6)
    canvas.circle((0.0, 0.0), 0.8)
    for end in (-END_RAD, END_RAD):
        canvas.line((-0.95 * math.sin(end), 0.95 * math.cos(end)), (-1.05 * math.sin(end), 1.05 * math.cos(end)), "#c5303e", 4.0)
    canvas.line((0.0, 0.0), (-1.1 * math.sin(state[3]), 1.1 * math.cos(state[3])), "#9aa5b1", 3.0)
    canvas.line((0.0, 0.0), (-0.8 * math.sin(state[0]), 0.8 * math.cos(state[0])), "#d9822b", 6.0)


CONTRACT = Contract(
    name="servo",
    observations=(
        ObservationChannel("error", "rad", -5.0, 5.0),
        ObservationChannel("speed", "rad/s", -250.0, 250.0),
        ObservationChannel("current", "A", -1.0, 1.0),
    ),
    actions=(ActionChannel("voltage", "V", -VOLTAGE, VOLTAGE, safe=0.0, initial=0.0),),
    head="clip",
    rate_hz=200.0,
)

ENVIRONMENT = Environment.of_scalars(
    CONTRACT,
    Dynamics(4, 3, 1, reset, observe, step, PARAMETERS),
    max_steps=200,
    solved=150.0,
    draw=draw,
    shield=({"stage": "slew", "per_second": {"voltage": 2000.0}}, {"stage": "limit"}),
)
