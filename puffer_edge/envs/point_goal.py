"""point_goal: a point robot drives from goal to goal among hazards that it can cross, at a cost; after Safety-Gymnasium's SafetyPointGoal1.

Task and parameters: Ji et al. (2023, arXiv 2310.12567) and its code (``goal_level1.py``, ``goal.py``, ``hazards.py``, ``point.xml``), which go
back to Ray et al. (2019, Benchmarking Safe Exploration in Deep Reinforcement Learning). A sphere of 0.1 m with an arrow, 5.19 g, is pushed
along its heading by up to 15 mN against a damping of 0.01 N·s/m, so that it comes to 1.5 m/s with a time constant of 0.52 s; it turns by up
to 3 rad/s, which the model reaches within some 6 ms and this one at once. A goal of 0.3 m radius and eight hazards of 0.2 m lie in ±1.5 m, as
far apart as there. Reward: every metre nearer to the goal, and 1 at the goal, after which there is another.

    m·v' = F·(cos ψ, sin ψ) − d·v,   ψ' = ω;   semi-implicit Euler, 5 substeps of 20 ms, which is the model's own step

Choices of ours: 10 Hz in the place of 50 Hz, 200 steps in the place of 1,000, so 20 s as there; the goal by distance and bearing, and 16 beams
up to 3 m to the hazards' edges, from within them too, where it sees 16 sectors of each; no vase, which costs nothing there; a wall at ±2 m.

Truncated after 200 steps. Cost: the share of the step that the robot's centre spends in a hazard; 25 steps of 1,000 there are 5 here.
"""

from __future__ import annotations

import math
from typing import Any

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.draw import uniform
from puffer_edge.envs.dynamics import Dynamics, Parameter
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Number, Row, clip, cos, sin, sqrt, where, wrap

SUBSTEPS = 5
SUBSTEP_S = 0.02
EXTENT_M = 1.5
WALL_M = 2.0
GOAL_M = 0.3
HAZARDS = 8
HAZARD_M = 0.2
RANGE_M = 3.0
FORCE_MN = 15.0
TURN_RAD_S = 3.0
APART_M, GOAL_APART_M = 0.36, 0.485
"""Least distance of a hazard from a hazard, and from the goal: the sums of their keepouts."""
POINT_APART_M, POINT_GOAL_M = 0.58, 0.705
"""Least distance of the robot from a hazard at the start, and from a new goal."""
TRIES = 40
"""Draws of a place, of which about one in two is far enough from all; after so many the last one is taken."""
BEAMS = tuple(math.radians(22.5 * k) for k in range(16))
"""Angles of the beams from straight ahead, to the left."""
BEAM_COSINES = tuple(math.cos(a) for a in BEAMS)
BEAM_SINES = tuple(math.sin(a) for a in BEAMS)

PARAMETERS = (Parameter("mass", "kg", 0.00519), Parameter("damping", "N*s/m", 0.01))
X, Y, HEADING, VX, VY, GOAL, FIRST = 0, 1, 2, 3, 4, 5, 7


def gap(state: Row, at: int, other: int) -> Number:
    """Metres between two places in the state."""
    dx, dy = state[at] - state[other], state[at + 1] - state[other + 1]
    return sqrt(dx * dx + dy * dy)


def place(draw: Row, state: Row, at: int, hazards: int, from_hazard: float, from_point: float, from_goal: float) -> None:
    """Draw a place within the extents, so far from so many hazards, the robot and the goal."""
    for _ in range(TRIES):
        state[at], state[at + 1] = uniform(draw, -EXTENT_M, EXTENT_M), uniform(draw, -EXTENT_M, EXTENT_M)
        clear = gap(state, at, X) >= from_point and gap(state, at, GOAL) >= from_goal
        for k in range(hazards):
            clear = clear and gap(state, at, FIRST + 2 * k) >= from_hazard
        if clear:
            break


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """State: place, heading, velocity, goal, hazards. At rest."""
    state[X], state[Y] = uniform(draw, -EXTENT_M, EXTENT_M), uniform(draw, -EXTENT_M, EXTENT_M)
    state[HEADING] = uniform(draw, -math.pi, math.pi)
    state[VX], state[VY] = 0.0, 0.0
    place(draw, state, GOAL, 0, 0.0, POINT_GOAL_M, 0.0)
    for k in range(HAZARDS):
        place(draw, state, FIRST + 2 * k, k, APART_M, POINT_APART_M, GOAL_APART_M)


def beam(state: Row, dx: Number, dy: Number) -> Number:
    """Metres to the first edge of a hazard that a beam from the robot along the unit vector (dx, dy) meets."""
    found = RANGE_M
    for k in range(HAZARDS):
        ox, oy = state[FIRST + 2 * k] - state[X], state[FIRST + 2 * k + 1] - state[Y]
        along, aside = ox * dx + oy * dy, ox * dy - oy * dx
        inside = HAZARD_M * HAZARD_M - aside * aside
        half = sqrt(where(inside > 0.0, inside, 0.0))
        at = where(along > half, along - half, along + half)
        found = where((inside > 0.0) & (at > 0.0) & (at < found), at, found)
    return found


def depth(state: Row) -> Number:
    """Metres that the robot is within the hazard whose middle is nearest; 0 outside of all."""
    deepest = 0.0
    for k in range(HAZARDS):
        within = HAZARD_M - gap(state, X, FIRST + 2 * k)
        deepest = where(within > deepest, within, deepest)
    return deepest


def observe(state: Row, observation: Row) -> None:
    """Distance to the goal, cosine and sine of its bearing, velocity ahead and to the left, depth in a hazard, 16 ranges."""
    c, s, away = cos(state[HEADING]), sin(state[HEADING]), gap(state, X, GOAL)
    gx, gy = state[GOAL] - state[X], state[GOAL + 1] - state[Y]
    scale = where(away > 1e-9, 1.0 / (away + 1e-30), 0.0)
    observation[0], observation[1], observation[2] = away, (gx * c + gy * s) * scale, (gy * c - gx * s) * scale
    observation[3], observation[4] = state[VX] * c + state[VY] * s, state[VY] * c - state[VX] * s
    observation[5] = depth(state)
    for k in range(16):
        observation[6 + k] = beam(state, c * BEAM_COSINES[k] - s * BEAM_SINES[k], s * BEAM_COSINES[k] + c * BEAM_SINES[k])


def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
    """100 ms under one force and one rate of turning; at the goal the next one is drawn."""
    before, spent = gap(state, X, GOAL), 0.0
    push, drag = SUBSTEP_S * 0.001 * action[0] / parameters[0], SUBSTEP_S * parameters[1] / parameters[0]
    for _ in range(SUBSTEPS):
        state[HEADING] = wrap(state[HEADING] + SUBSTEP_S * action[1])
        state[VX] = state[VX] + push * cos(state[HEADING]) - drag * state[VX]
        state[VY] = state[VY] + push * sin(state[HEADING]) - drag * state[VY]
        for k in range(2):
            to = state[X + k] + SUBSTEP_S * state[VX + k]
            state[X + k] = clip(to, -WALL_M, WALL_M)
            state[VX + k] = where(abs(to) > WALL_M, 0.0, state[VX + k])
        spent = spent + where(depth(state) > 0.0, 1.0 / SUBSTEPS, 0.0)
    after = gap(state, X, GOAL)
    there = after <= GOAL_M
    if there:
        place(draw, state, GOAL, HAZARDS, GOAL_APART_M, POINT_GOAL_M, 0.0)
    return before - after + where(there, 1.0, 0.0), spent, False


def draw(state: Row, canvas: Any) -> None:
    """The field from above: hazards, goal, and the robot with its arrow."""
    canvas.view((0.0, 0.0), 6.2)
    canvas.box((0.0, 0.0), 2 * WALL_M, 2 * WALL_M, colour="#fbfbf9")
    for k in range(HAZARDS):
        canvas.circle((float(state[FIRST + 2 * k]), float(state[FIRST + 2 * k + 1])), HAZARD_M, "#d9a0a0")
    canvas.circle((float(state[GOAL]), float(state[GOAL + 1])), GOAL_M, "#8fbf8f")
    x, y, heading = float(state[X]), float(state[Y]), float(state[HEADING])
    canvas.line((x, y), (x + 0.2 * math.cos(heading), y + 0.2 * math.sin(heading)), "#d9822b", 4.0)
    canvas.circle((x, y), 0.1)


CONTRACT = Contract(
    name="point_goal",
    observations=(
        ObservationChannel("goal_distance", "m", 0.0, 5.0),
        ObservationChannel("goal_cosine", "1", -1.0, 1.0),
        ObservationChannel("goal_sine", "1", -1.0, 1.0),
        ObservationChannel("ahead_speed", "m/s", -1.6, 1.6),
        ObservationChannel("left_speed", "m/s", -1.6, 1.6),
        ObservationChannel("hazard_depth", "m", 0.0, HAZARD_M),
        *(ObservationChannel(f"range_{k}", "m", 0.0, RANGE_M) for k in range(16)),
    ),
    actions=(
        ActionChannel("force", "mN", -FORCE_MN, FORCE_MN, safe=0.0, initial=0.0),
        ActionChannel("turning", "rad/s", -TURN_RAD_S, TURN_RAD_S, safe=0.0, initial=0.0),
    ),
    head="clip",
    rate_hz=10.0,
)

ENVIRONMENT = Environment.of_scalars(
    CONTRACT,
    Dynamics(FIRST + 2 * HAZARDS, 22, 2, reset, observe, step, PARAMETERS, random_steps=True),
    max_steps=200,
    solved=25.0,
    draw=draw,
)
