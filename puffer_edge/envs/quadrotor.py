"""quadrotor: a Crazyflie hovers at a point, driven by the set speeds of its four rotors, which follow late.

Parameters: Eschmann, Albani and Loianno (2024), "Learning to fly in seconds" (arXiv 2311.13081), who flew policies trained on them: 27 g,
rotors at (±28, ±28) mm, inertia 3.85·10⁻⁶ and 5.97·10⁻⁶ kg·m², thrust of 3.16·10⁻¹⁰ N/rpm² up to 21,702 rpm, a drag torque of 5.96 mm
times the thrust (Förster, 2015, "System identification of the Crazyflie 2.0"), and rotors that follow with a time constant of 150 ms.
World z is up, body x forward; rotors 1 … 4 are front right, rear right, rear left, front left, and 1 and 3 push the body clockwise.

    m·v' = R(q)·(0, 0, ΣT) − (0, 0, m·g),   q' = ½·q⊗(0, ω),   J·ω' = M − ω × J·ω,   n' = (n_set − n)/τ,   T = c·n²
    M = (Σ y·T, −Σ x·T, κ·(−T₁ + T₂ − T₃ + T₄))

Semi-implicit Euler, 4 substeps of 2.5 ms, the rotors by an implicit step. Rate, starts, limits, the idle speed (as far below hovering as
the top speed is above it) and the reward are choices of ours. A real one has no tachometers: the rotor speeds that the policy sees are
what the same filter makes of the commands.

Reward: ½ + ½/(1 + 10·|p|²) − 0.05·|v|² − 0.002·|ω|² a step, and no more than 0.2 is taken off for either. Terminated: beyond 1 m on an
axis, or upside down. Truncated after 500 steps (5 s). Cost: 1 a step while it leans beyond 30°.
"""

from __future__ import annotations

import math
from typing import Any

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.draw import uniform
from puffer_edge.envs.dynamics import Dynamics, Parameter
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Number, Row, sqrt, where

SUBSTEPS = 4
SUBSTEP_S = 0.0025
BOX_M = 1.0
COST_COSINE = math.cos(math.radians(30.0))
TOP_KRPM = 21.702
HOVER_KRPM = math.sqrt(0.027 * 9.81 / (4 * 3.16e-4))
IDLE_KRPM = 2 * HOVER_KRPM - TOP_KRPM

PARAMETERS = (
    Parameter("gravity", "m/s^2", 9.81),
    Parameter("mass", "kg", 0.027),
    Parameter("arm", "m", 0.028),
    Parameter("inertia_xy", "kg*m^2", 3.85e-6),
    Parameter("inertia_z", "kg*m^2", 5.9675e-6),
    Parameter("thrust", "N/krpm^2", 3.16e-4),
    Parameter("torque_ratio", "m", 0.005964552),
    Parameter("rotor_delay", "s", 0.15),
)


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """State: place, quaternion (w, x, y, z), velocity, turning in body axes, rotor speeds in krpm, which are those of hovering at first."""
    for k in range(3):
        state[k] = uniform(draw, -0.3, 0.3)
        state[7 + k] = uniform(draw, -0.3, 0.3)
        state[10 + k] = uniform(draw, -0.5, 0.5)
    a, b, c = uniform(draw, -0.2, 0.2), uniform(draw, -0.2, 0.2), uniform(draw, -0.2, 0.2)
    state[3], state[4], state[5], state[6] = sqrt(1.0 - a * a - b * b - c * c), a, b, c
    hover = sqrt(parameters[1] * parameters[0] / (4.0 * parameters[5]))
    for k in range(4):
        state[13 + k] = hover


def observe(state: Row, observation: Row) -> None:
    """Place, the quaternion's vector with w ≥ 0, velocity, turning, rotor speeds."""
    sign = where(state[3] < 0.0, -1.0, 1.0)
    for k in range(3):
        observation[k], observation[3 + k] = state[k], sign * state[4 + k]
    for k in range(10):
        observation[6 + k] = state[7 + k]


def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
    """10 ms at four set speeds."""
    gravity, mass, arm, jx, jz = parameters[0], parameters[1], parameters[2], parameters[3], parameters[4]
    factor, ratio, follow = parameters[5], parameters[6], SUBSTEP_S / (parameters[7] + SUBSTEP_S)
    w, x, y, z = state[3], state[4], state[5], state[6]
    p, q, r = state[10], state[11], state[12]
    for _ in range(SUBSTEPS):
        for k in range(4):
            state[13 + k] = state[13 + k] + follow * (action[k] - state[13 + k])
        t1, t2 = factor * state[13] * state[13], factor * state[14] * state[14]
        t3, t4 = factor * state[15] * state[15], factor * state[16] * state[16]
        lift = (t1 + t2 + t3 + t4) / mass
        state[7] = state[7] + SUBSTEP_S * lift * 2.0 * (x * z + w * y)
        state[8] = state[8] + SUBSTEP_S * lift * 2.0 * (y * z - w * x)
        state[9] = state[9] + SUBSTEP_S * (lift * (1.0 - 2.0 * (x * x + y * y)) - gravity)
        roll, pitch, yaw = arm * (t3 + t4 - t1 - t2), arm * (t2 + t3 - t1 - t4), ratio * (t2 + t4 - t1 - t3)
        dp, dq = (roll - (jz - jx) * q * r) / jx, (pitch - (jx - jz) * p * r) / jx
        p, q, r = p + SUBSTEP_S * dp, q + SUBSTEP_S * dq, r + SUBSTEP_S * yaw / jz
        half = 0.5 * SUBSTEP_S
        nw, nx = w - half * (x * p + y * q + z * r), x + half * (w * p + y * r - z * q)
        ny, nz = y + half * (w * q + z * p - x * r), z + half * (w * r + x * q - y * p)
        length = sqrt(nw * nw + nx * nx + ny * ny + nz * nz)
        w, x, y, z = nw / length, nx / length, ny / length, nz / length
        for k in range(3):
            state[k] = state[k] + SUBSTEP_S * state[7 + k]
    state[3], state[4], state[5], state[6] = w, x, y, z
    state[10], state[11], state[12] = p, q, r
    away = state[0] * state[0] + state[1] * state[1] + state[2] * state[2]
    fast = 0.05 * (state[7] * state[7] + state[8] * state[8] + state[9] * state[9])
    spin = 0.002 * (p * p + q * q + r * r)
    reward = 0.5 + 0.5 / (1.0 + 10.0 * away) - where(fast > 0.2, 0.2, fast) - where(spin > 0.2, 0.2, spin)
    upright = 1.0 - 2.0 * (x * x + y * y)
    out = (abs(state[0]) > BOX_M) | (abs(state[1]) > BOX_M) | (abs(state[2]) > BOX_M)
    return reward, where(upright < COST_COSINE, 1.0, 0.0), out | (upright < 0.0)


def draw(state: Row, canvas: Any) -> None:
    """Seen from the front and a little above, four times its size: arms, rotors, and the point where it should be."""
    canvas.view((0.0, 0.0), 2.6)
    w, x, y, z = (float(q) for q in state[3:7])

    def seen(a: float, b: float, c: float) -> tuple[float, float]:
        return -b + 0.35 * a, c + 0.25 * a

    def turned(a: float, b: float) -> tuple[float, float]:
        px = (1 - 2 * (y * y + z * z)) * a + 2 * (x * y - w * z) * b
        py = 2 * (x * y + w * z) * a + (1 - 2 * (x * x + z * z)) * b
        pz = 2 * (x * z - w * y) * a + 2 * (y * z + w * x) * b
        return seen(float(state[0]) + px, float(state[1]) + py, float(state[2]) + pz)

    for a, b in ((seen(-0.05, 0.0, 0.0), seen(0.05, 0.0, 0.0)), (seen(0.0, 0.0, -0.05), seen(0.0, 0.0, 0.05))):
        canvas.line(a, b, "#9aa5b1")
    places = [turned(a * 0.16, b * 0.16) for a, b in ((1, -1), (-1, -1), (-1, 1), (1, 1))]
    canvas.line(places[0], places[2], "#3e6fb0", 5.0)
    canvas.line(places[1], places[3], "#3e6fb0", 5.0)
    for k, place in enumerate(places):
        canvas.circle(place, 0.05 * float(state[13 + k]) / HOVER_KRPM, "#d9822b")


AXES = ("x", "y", "z")
CONTRACT = Contract(
    name="quadrotor",
    observations=(
        *(ObservationChannel(f"place_{a}", "m", -1.5, 1.5) for a in AXES),
        *(ObservationChannel(f"lean_{a}", "1", -1.0, 1.0) for a in AXES),
        *(ObservationChannel(f"velocity_{a}", "m/s", -10.0, 10.0) for a in AXES),
        *(ObservationChannel(f"turning_{a}", "rad/s", -120.0, 120.0) for a in AXES),
        *(ObservationChannel(f"rotor_{k}", "krpm", 0.0, 22.0) for k in (1, 2, 3, 4)),
    ),
    actions=tuple(ActionChannel(f"set_{k}", "krpm", IDLE_KRPM, TOP_KRPM, safe=IDLE_KRPM, initial=HOVER_KRPM) for k in (1, 2, 3, 4)),
    head="clip",
    rate_hz=100.0,
)

ENVIRONMENT = Environment.of_scalars(
    CONTRACT, Dynamics(17, 16, 4, reset, observe, step, PARAMETERS), max_steps=500, solved=420.0, draw=draw, shield=({"stage": "limit"},)
)
