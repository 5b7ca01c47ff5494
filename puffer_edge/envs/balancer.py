"""balancer: a robot on two wheels keeps its body upright and its place, driven by one voltage on both motors.

Model and parameters: Y. Yamamoto (2008), "NXTway-GS (Self-Balancing Two-Wheeled Robot) Controller Design", in its plane of pitch, both
wheels alike: wheels of 0.03 kg and 40 mm, a body of 0.6 kg with its centre of mass at 72 mm, motors of 6.69 Ω, 0.317 N·m/A, 0.468 V·s/rad.
With θ the wheels' angle and ψ the body's pitch, 0 upright, its equations (3.16) and (3.17) without yaw:

    ((2m + M)·R² + 2·J_w + 2·J_m)·θ'' + (M·L·R·cos ψ − 2·J_m)·ψ'' = 2·τ + M·L·R·ψ'²·sin ψ
    (M·L·R·cos ψ − 2·J_m)·θ'' + (M·L² + J_ψ + 2·J_m)·ψ'' = −2·τ + M·g·L·sin ψ
    τ = (K_t/R_m)·U − (K_t·K_b/R_m + f_m)·(θ' − ψ'),   J_w = m·R²/2,   J_ψ = M·L²/3

Semi-implicit Euler, 5 substeps of 2 ms. Rate, starts, limits and reward are choices of ours.

Reward: 1 − (position/0.5)² − 0.1·(voltage/8)² a step, position in m. Terminated: pitch beyond ±0.5 rad or position beyond ±0.5 m.
Truncated after 500 steps (5 s). Cost: 1 a step while a motor gives more than 0.12 N·m, about what it can give for long at 9 V.
"""

from __future__ import annotations

import math
from typing import Any

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.draw import uniform
from puffer_edge.envs.dynamics import Dynamics, Parameter
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Number, Row, cos, sin, where

SUBSTEPS = 5
SUBSTEP_S = 0.002
PITCH_LIMIT = 0.5
POSITION_LIMIT = 0.5
RATED_NM = 0.12
VOLTAGE = 8.0

PARAMETERS = (
    Parameter("gravity", "m/s^2", 9.81),
    Parameter("wheel_mass", "kg", 0.03),
    Parameter("wheel_radius", "m", 0.04),
    Parameter("body_mass", "kg", 0.6),
    Parameter("centre_height", "m", 0.072),
    Parameter("rotor_inertia", "kg*m^2", 1e-5),
    Parameter("resistance", "ohm", 6.69),
    Parameter("back_emf", "V*s/rad", 0.468),
    Parameter("torque_constant", "N*m/A", 0.317),
    Parameter("friction", "N*m*s/rad", 0.0022),
)


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """State: wheel angle, pitch, their speeds. Pitch uniform in ±0.1 rad, place in ±0.2 m, speeds in ±0.1 rad/s."""
    state[0] = uniform(draw, -0.2, 0.2) / parameters[2]
    state[1] = uniform(draw, -0.1, 0.1)
    state[2] = uniform(draw, -0.1, 0.1)
    state[3] = uniform(draw, -0.1, 0.1)


def observe(state: Row, observation: Row) -> None:
    """Wheel angle, as the encoders give it, pitch, and both speeds."""
    for k in range(4):
        observation[k] = state[k]


def accelerations(pitch: Number, wheel_speed: Number, pitch_speed: Number, torque: Number, parameters: Row) -> tuple[Number, Number]:
    """θ'' and ψ'', rad/s², of a torque of each motor, N·m."""
    gravity, m, r, body, height, rotor = parameters[0], parameters[1], parameters[2], parameters[3], parameters[4], parameters[5]
    sine = sin(pitch)
    coupling = body * height * r
    a = (2.0 * m + body) * r * r + m * r * r + 2.0 * rotor
    b = coupling * cos(pitch) - 2.0 * rotor
    d = body * height * height * (4.0 / 3.0) + 2.0 * rotor
    wheels = 2.0 * torque + coupling * pitch_speed * pitch_speed * sine
    tips = body * gravity * height * sine - 2.0 * torque
    determinant = a * d - b * b
    return (d * wheels - b * tips) / determinant, (a * tips - b * wheels) / determinant


def motor(voltage: Number, slip: Number, parameters: Row) -> Number:
    """The torque of one motor, N·m, that turns by ``slip`` rad/s against the body."""
    resistance, back_emf, constant, friction = parameters[6], parameters[7], parameters[8], parameters[9]
    return constant * (voltage - back_emf * slip) / resistance - friction * slip


def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
    """10 ms at one voltage; the cost looks at the largest torque."""
    wheel, pitch, wheel_speed, pitch_speed, largest = state[0], state[1], state[2], state[3], 0.0
    for _ in range(SUBSTEPS):
        torque = motor(action[0], wheel_speed - pitch_speed, parameters)
        largest = where(abs(torque) > largest, abs(torque), largest)
        faster, tips = accelerations(pitch, wheel_speed, pitch_speed, torque, parameters)
        wheel_speed, pitch_speed = wheel_speed + SUBSTEP_S * faster, pitch_speed + SUBSTEP_S * tips
        wheel, pitch = wheel + SUBSTEP_S * wheel_speed, pitch + SUBSTEP_S * pitch_speed
    state[0], state[1], state[2], state[3] = wheel, pitch, wheel_speed, pitch_speed
    place, effort = parameters[2] * wheel, action[0] / VOLTAGE
    reward = 1.0 - (place * place) / (POSITION_LIMIT * POSITION_LIMIT) - 0.1 * effort * effort
    return reward, where(largest > RATED_NM, 1.0, 0.0), (abs(pitch) > PITCH_LIMIT) | (abs(place) > POSITION_LIMIT)


def draw(state: Row, canvas: Any) -> None:
    """Wheel and body from the side, on a floor with the limits."""
    radius = 0.04
    canvas.view((0.0, 0.09), 1.2)
    canvas.line((-POSITION_LIMIT, 0.0), (POSITION_LIMIT, 0.0), "#9aa5b1")
    wheel, pitch = float(state[0]), float(state[1])
    x = radius * wheel
    canvas.box((x + 0.072 * math.sin(pitch), radius + 0.072 * math.cos(pitch)), 0.04, 0.144, -pitch, "#d9822b")
    canvas.circle((x, radius), radius)
    canvas.line((x, radius), (x + radius * math.sin(wheel), radius + radius * math.cos(wheel)), "#fbfbf9")


CONTRACT = Contract(
    name="balancer",
    observations=(
        ObservationChannel("wheel_angle", "rad", -16.0, 16.0),
        ObservationChannel("pitch", "rad", -0.8, 0.8),
        ObservationChannel("wheel_speed", "rad/s", -30.0, 30.0),
        ObservationChannel("pitch_speed", "rad/s", -30.0, 30.0),
    ),
    actions=(ActionChannel("voltage", "V", -VOLTAGE, VOLTAGE, safe=0.0, initial=0.0),),
    head="clip",
    rate_hz=100.0,
)

ENVIRONMENT = Environment.of_scalars(
    CONTRACT,
    Dynamics(4, 4, 1, reset, observe, step, PARAMETERS),
    max_steps=500,
    solved=450.0,
    draw=draw,
    shield=({"stage": "slew", "per_second": {"voltage": 800.0}}, {"stage": "limit"}),
)
