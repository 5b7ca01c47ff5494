"""furuta: a rotary pendulum (Furuta et al., 1992): a motor turns an arm, at whose end a pendulum hangs that it swings up and balances.

Parameters: Quanser's Qube-Servo 2 with its pendulum module, from its user manual and courseware: winding 8.4 Ω, 0.042 N·m/A and V·s/rad,
arm 0.095 kg and 85 mm, pendulum 0.024 kg and 129 mm, rotor and hub 4.6·10⁻⁶ kg·m², friction 2.7·10⁻⁴ (arm) and 5·10⁻⁵ N·m·s/rad
(pendulum). With θ the arm's angle and α the pendulum's, 0 upright, thin rods, l half the pendulum's length, J = m_p·l²·4/3:

    (J_arm + m_p·r² + J·sin²α)·θ'' + m_p·l·r·cos α·α'' = τ − D_r·θ' − 2·J·sin α·cos α·θ'·α' + m_p·l·r·sin α·α'²
    m_p·l·r·cos α·θ'' + J·α'' = J·sin α·cos α·θ'² + m_p·g·l·sin α − D_p·α'
    τ = K·(U − K·θ')/R

One classical Runge–Kutta step of 10 ms, the torque's back-EMF included. Rate, arm's limit and reward are choices of ours.

Reward: (1 + cos α)/2 · (1 − (θ/2)²/2) − 0.01·(voltage/10)² a step: 1 upright with the arm in the middle. Terminated: the arm beyond
±2 rad, where the cable ends it. Truncated after 500 steps (5 s). Cost: 1 a step while the arm is beyond ±1.5 rad.
"""

from __future__ import annotations

import math
from typing import Any

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.draw import uniform
from puffer_edge.envs.dynamics import Dynamics, Parameter
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Number, Row, cos, runge_kutta, sin, where, wrap

PERIOD_S = 0.01
ARM_RAD = 2.0
COST_RAD = 1.5
VOLTAGE = 10.0

PARAMETERS = (
    Parameter("gravity", "m/s^2", 9.81),
    Parameter("resistance", "ohm", 8.4),
    Parameter("torque_constant", "N*m/A", 0.042),
    Parameter("arm_mass", "kg", 0.095),
    Parameter("arm_length", "m", 0.085),
    Parameter("pendulum_mass", "kg", 0.024),
    Parameter("pendulum_length", "m", 0.129),
    Parameter("rotor_inertia", "kg*m^2", 4.6e-6),
    Parameter("arm_friction", "N*m*s/rad", 2.7e-4),
    Parameter("pendulum_friction", "N*m*s/rad", 5e-5),
)


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """State: arm, pendulum, their speeds. The pendulum hangs, up to 0.1 rad aside; the arm is within ±0.2 rad; both nearly at rest."""
    state[0] = uniform(draw, -0.2, 0.2)
    state[1] = math.pi + uniform(draw, -0.1, 0.1)
    state[2] = uniform(draw, -0.1, 0.1)
    state[3] = uniform(draw, -0.1, 0.1)


def observe(state: Row, observation: Row) -> None:
    """The arm's angle, cosine and sine of the pendulum's, and both speeds."""
    observation[0], observation[1], observation[2] = state[0], cos(state[1]), sin(state[1])
    observation[3], observation[4] = state[2], state[3]


def accelerations(angle: Number, arm_speed: Number, speed: Number, voltage: Number, parameters: Row) -> tuple[Number, Number]:
    """θ'' and α'', rad/s²."""
    constant, arm, r, mass, half = parameters[2], parameters[3], parameters[4], parameters[5], parameters[6] / 2.0
    sine, cosine = sin(angle), cos(angle)
    inertia, coupling = mass * half * half * (4.0 / 3.0), mass * half * r
    swing = inertia * sine * cosine
    a = arm * r * r / 3.0 + parameters[7] + mass * r * r + inertia * sine * sine
    b = coupling * cosine
    torque = constant * (voltage - constant * arm_speed) / parameters[1]
    turn = torque - parameters[8] * arm_speed - 2.0 * swing * arm_speed * speed + coupling * sine * speed * speed
    fall = swing * arm_speed * arm_speed + mass * parameters[0] * half * sine - parameters[9] * speed
    determinant = a * inertia - b * b
    return (inertia * turn - b * fall) / determinant, (a * fall - b * turn) / determinant


advance = runge_kutta(accelerations, PERIOD_S)


def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
    """One Runge–Kutta step; the pendulum's angle stays in ±π."""
    u = action[0]
    arm, angle, speed, turning = advance(state[0], state[1], state[2], state[3], u, parameters)
    angle = wrap(angle)
    state[0], state[1], state[2], state[3] = arm, angle, speed, turning
    aside, effort = arm / ARM_RAD, u / VOLTAGE
    reward = 0.5 * (1.0 + cos(angle)) * (1.0 - 0.5 * aside * aside) - 0.01 * effort * effort
    return reward, where(abs(arm) > COST_RAD, 1.0, 0.0), abs(arm) > ARM_RAD


def draw(state: Row, canvas: Any) -> None:
    """Seen a little from above: the arm turns in the ellipse, the pendulum in the plane across it."""
    canvas.view((0.0, 0.0), 0.48)
    arm, angle = float(state[0]), float(state[1])

    def seen(x: float, y: float, z: float) -> tuple[float, float]:
        return x, 0.4 * y + 0.9 * z

    ring = [seen(0.085 * math.sin(0.105 * k), -0.085 * math.cos(0.105 * k), 0.0) for k in range(61)]
    for a, b in zip(ring[:-1], ring[1:]):
        canvas.line(a, b, "#9aa5b1", 1.0)
    end = (0.085 * math.sin(arm), -0.085 * math.cos(arm), 0.0)
    across = 0.129 * math.sin(angle)
    tip = (end[0] + across * math.cos(arm), end[1] + across * math.sin(arm), 0.129 * math.cos(angle))
    canvas.line(seen(0.0, 0.0, -0.08), seen(0.0, 0.0, 0.0), "#1f2933", 10.0)
    canvas.line(seen(0.0, 0.0, 0.0), seen(*end), "#3e6fb0", 6.0)
    canvas.line(seen(*end), seen(*tip), "#d9822b", 6.0)


CONTRACT = Contract(
    name="furuta",
    observations=(
        ObservationChannel("arm_angle", "rad", -2.5, 2.5),
        ObservationChannel("cosine", "1", -1.0, 1.0),
        ObservationChannel("sine", "1", -1.0, 1.0),
        ObservationChannel("arm_speed", "rad/s", -40.0, 40.0),
        ObservationChannel("pendulum_speed", "rad/s", -60.0, 60.0),
    ),
    actions=(ActionChannel("voltage", "V", -VOLTAGE, VOLTAGE, safe=0.0, initial=0.0),),
    head="clip",
    rate_hz=100.0,
)

ENVIRONMENT = Environment.of_scalars(
    CONTRACT,
    Dynamics(4, 5, 1, reset, observe, step, PARAMETERS),
    max_steps=500,
    solved=330.0,
    draw=draw,
    shield=(
        {"stage": "envelope", "bounds": {"arm_angle": (-1.8, 1.8)}, "law": {"voltage": {"arm_angle": -4.0, "arm_speed": -0.8}}},
        {"stage": "slew", "per_second": {"voltage": 1000.0}},
        {"stage": "limit"},
    ),
)
