"""swingup: a cart on a rail of ±1.8 m swings its hanging pole up and balances it, driven by a force in newtons.

Parameters: the cart-pole of the DeepMind Control Suite (Tassa et al., 2018, arXiv 1801.00690, ``cartpole.xml``): a cart of 1 kg, a uniform
rod of 0.1 kg and 1 m, ±10 N, friction of 5·10⁻⁴ N·s/m on the rail and 2·10⁻⁶ N·m·s/rad in the joint. With x the cart's place and α the
angle, 0 upright, rod of half length l:

    (m_c + m_p)·x'' + m_p·l·(cos α·α'' − sin α·α'²) = F − c·x'
    m_p·l·cos α·x'' + (4/3)·m_p·l²·α'' = m_p·g·l·sin α − d·α'

One classical Runge–Kutta step of 20 ms. Reward and starts are ours; the suite's cart bounces off its rail's ends, ours ends the episode.

Reward: (1 + cos α)/2 · (1 − (x/1.8)²/2) − 0.01·(force/10)² a step: 1 upright in the middle. Terminated: beyond ±1.8 m.
Truncated after 500 steps (10 s). Cost: 1 a step while the cart is beyond ±1.4 m.
"""

from __future__ import annotations

import math
from typing import Any

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.draw import uniform
from puffer_edge.envs.dynamics import Dynamics, Parameter
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Number, Row, cos, runge_kutta, sin, where, wrap

PERIOD_S = 0.02
RAIL_M = 1.8
COST_M = 1.4
FORCE = 10.0

PARAMETERS = (
    Parameter("gravity", "m/s^2", 9.81),
    Parameter("cart_mass", "kg", 1.0),
    Parameter("pole_mass", "kg", 0.1),
    Parameter("half_length", "m", 0.5),
    Parameter("rail_friction", "N*s/m", 5e-4),
    Parameter("joint_friction", "N*m*s/rad", 2e-6),
)


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """State: place, angle, their speeds. The pole hangs, up to 0.1 rad aside; the cart is within ±0.1 m; both nearly at rest."""
    state[0] = uniform(draw, -0.1, 0.1)
    state[1] = math.pi + uniform(draw, -0.1, 0.1)
    state[2] = uniform(draw, -0.05, 0.05)
    state[3] = uniform(draw, -0.05, 0.05)


def observe(state: Row, observation: Row) -> None:
    """Place, cosine and sine of the angle, and both speeds."""
    observation[0], observation[1], observation[2] = state[0], cos(state[1]), sin(state[1])
    observation[3], observation[4] = state[2], state[3]


def accelerations(angle: Number, speed: Number, turning: Number, force: Number, parameters: Row) -> tuple[Number, Number]:
    """x'' in m/s² and α'' in rad/s²."""
    gravity, pole, half = parameters[0], parameters[2], parameters[3]
    sine, cosine, moment = sin(angle), cos(angle), pole * half
    mass, inertia, coupling = parameters[1] + pole, (4.0 / 3.0) * moment * half, moment * cosine
    push = force - parameters[4] * speed + moment * sine * (turning * turning)
    turn = gravity * moment * sine - parameters[5] * turning
    determinant = mass * inertia - coupling * coupling
    return (inertia * push - coupling * turn) / determinant, (mass * turn - coupling * push) / determinant


advance = runge_kutta(accelerations, PERIOD_S)


def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
    """One Runge–Kutta step; the pole's angle stays in ±π."""
    force = action[0]
    x, angle, speed, turning = advance(state[0], state[1], state[2], state[3], force, parameters)
    angle = wrap(angle)
    state[0], state[1], state[2], state[3] = x, angle, speed, turning
    place, effort = x / RAIL_M, force / FORCE
    reward = 0.5 * (1.0 + cos(angle)) * (1.0 - 0.5 * place * place) - 0.01 * effort * effort
    return reward, where(abs(x) > COST_M, 1.0, 0.0), abs(x) > RAIL_M


def draw(state: Row, canvas: Any) -> None:
    """The cart on its rail, and the pole."""
    canvas.view((0.0, 0.0), 4.4)
    canvas.line((-RAIL_M, 0.0), (RAIL_M, 0.0), "#9aa5b1")
    x, angle = float(state[0]), float(state[1])
    canvas.box((x, 0.0), 0.4, 0.24)
    canvas.line((x, 0.0), (x + math.sin(angle), math.cos(angle)), "#d9822b", 6.0)


CONTRACT = Contract(
    name="swingup",
    observations=(
        ObservationChannel("position", "m", -2.0, 2.0),
        ObservationChannel("cosine", "1", -1.0, 1.0),
        ObservationChannel("sine", "1", -1.0, 1.0),
        ObservationChannel("velocity", "m/s", -10.0, 10.0),
        ObservationChannel("angular_velocity", "rad/s", -20.0, 20.0),
    ),
    actions=(ActionChannel("force", "N", -FORCE, FORCE, safe=0.0, initial=0.0),),
    head="clip",
    rate_hz=50.0,
)

ENVIRONMENT = Environment.of_scalars(
    CONTRACT,
    Dynamics(4, 5, 1, reset, observe, step, PARAMETERS),
    max_steps=500,
    solved=380.0,
    draw=draw,
    shield=(
        {"stage": "envelope", "bounds": {"position": (-1.6, 1.6)}, "law": {"force": {"position": -8.0, "velocity": -8.0}}},
        {"stage": "limit"},
    ),
)
