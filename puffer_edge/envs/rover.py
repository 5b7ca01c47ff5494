"""rover: a small robot on two driven wheels finds its way among obstacles to a goal, by seven range sensors and the goal's bearing.

Parameters: the TurtleBot3 Burger's (ROBOTIS e-manual, "Specifications", and its ROS packages): wheels of 33 mm radius, 160 mm apart, up to
0.22 m/s, so 6.67 rad/s a wheel; a laser scanner that sees 3.5 m, of which seven beams over the front half circle are taken; a body
whose corners lie within 105 mm of its centre. The wheels follow their set speeds with a time constant of 100 ms, which is ours, as are
arena, rate and reward.

    v = r·(ω_left + ω_right)/2,   ψ' = r·(ω_right − ω_left)/d;   a step moves along the arc that constant wheel speeds make

The arena is 3 m by 3 m, with four round obstacles of 150 mm radius between start and goal. One step is 100 ms.

Reward: 5 for every metre nearer, −0.01 a step, 5 at the goal (within 150 mm), −5 for hitting a wall or an obstacle; the last two terminate.
Truncated after 300 steps (30 s). Cost: 1 a step while the body is within 80 mm of a wall or an obstacle.
"""

from __future__ import annotations

import math
from typing import Any

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.draw import uniform
from puffer_edge.envs.dynamics import Dynamics, Parameter
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Number, Row, cos, sin, sqrt, where, wrap

PERIOD_S = 0.1
HALF_M = 1.5
"""Half the arena's width."""
OBSTACLES = 4
OBSTACLE_M = 0.15
GOAL_M = 0.15
NEAR_M = 0.08
RANGE_M = 3.5
WHEEL_RAD_S = 0.22 / 0.033
BEAMS = tuple(math.radians(30.0 * (k - 3)) for k in range(7))
"""Angles of the beams from straight ahead, right to left."""
BEAM_COSINES = tuple(math.cos(a) for a in BEAMS)
BEAM_SINES = tuple(math.sin(a) for a in BEAMS)

PARAMETERS = (
    Parameter("wheel_radius", "m", 0.033),
    Parameter("wheel_distance", "m", 0.160),
    Parameter("body_radius", "m", 0.105),
    Parameter("wheel_delay", "s", 0.1),
)
X, Y, HEADING, LEFT, RIGHT, GOAL, FIRST = 0, 1, 2, 3, 4, 5, 7


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """State: place, heading, wheel speeds, goal, obstacles. Start on the left, goal on the right, obstacles between; at rest."""
    state[X], state[Y] = uniform(draw, -1.3, -1.1), uniform(draw, -1.2, 1.2)
    state[HEADING] = uniform(draw, -math.pi, math.pi)
    state[LEFT], state[RIGHT] = 0.0, 0.0
    state[GOAL], state[GOAL + 1] = uniform(draw, 1.1, 1.3), uniform(draw, -1.2, 1.2)
    for k in range(OBSTACLES):
        state[FIRST + 2 * k] = uniform(draw, -0.7, 0.7)
        state[FIRST + 2 * k + 1] = uniform(draw, -1.2, 1.2)


def beam(state: Row, dx: Number, dy: Number) -> Number:
    """Metres to what a beam from the robot's centre along the unit vector (dx, dy) hits first."""
    x, y = state[X], state[Y]
    wall_x = where(dx > 1e-9, (HALF_M - x) / (dx + 1e-30), where(dx < -1e-9, (-HALF_M - x) / (dx - 1e-30), RANGE_M))
    wall_y = where(dy > 1e-9, (HALF_M - y) / (dy + 1e-30), where(dy < -1e-9, (-HALF_M - y) / (dy - 1e-30), RANGE_M))
    found = where(wall_x < wall_y, wall_x, wall_y)
    for k in range(OBSTACLES):
        ox, oy = state[FIRST + 2 * k] - x, state[FIRST + 2 * k + 1] - y
        along, aside = ox * dx + oy * dy, ox * dy - oy * dx
        inside = OBSTACLE_M * OBSTACLE_M - aside * aside
        at = along - sqrt(where(inside > 0.0, inside, 0.0))
        found = where((inside > 0.0) & (at > 0.0) & (at < found), at, found)
    return where(found > RANGE_M, RANGE_M, where(found < 0.0, 0.0, found))


def clearance(state: Row, parameters: Row) -> Number:
    """Metres between the body and what is nearest to it; negative where they overlap."""
    ahead, beside = HALF_M - abs(state[X]), HALF_M - abs(state[Y])
    nearest = where(ahead < beside, ahead, beside)
    for k in range(OBSTACLES):
        ox, oy = state[FIRST + 2 * k] - state[X], state[FIRST + 2 * k + 1] - state[Y]
        gap = sqrt(ox * ox + oy * oy) - OBSTACLE_M
        nearest = where(gap < nearest, gap, nearest)
    return nearest - parameters[2]


def distance(state: Row) -> Number:
    """Metres to the goal."""
    gx, gy = state[GOAL] - state[X], state[GOAL + 1] - state[Y]
    return sqrt(gx * gx + gy * gy)


def observe(state: Row, observation: Row) -> None:
    """Distance to the goal, cosine and sine of its bearing, both wheel speeds, seven ranges from right to left."""
    c, s, away = cos(state[HEADING]), sin(state[HEADING]), distance(state)
    gx, gy = state[GOAL] - state[X], state[GOAL + 1] - state[Y]
    scale = where(away > 1e-9, 1.0 / (away + 1e-30), 0.0)
    observation[0], observation[1], observation[2] = away, (gx * c + gy * s) * scale, (gy * c - gx * s) * scale
    observation[3], observation[4] = state[LEFT], state[RIGHT]
    for k in range(7):
        observation[5 + k] = beam(state, c * BEAM_COSINES[k] - s * BEAM_SINES[k], s * BEAM_COSINES[k] + c * BEAM_SINES[k])


def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
    """100 ms at two set speeds: the wheels follow, the robot moves along an arc."""
    before, follow = distance(state), PERIOD_S / (parameters[3] + PERIOD_S)
    state[LEFT] = state[LEFT] + follow * (action[0] - state[LEFT])
    state[RIGHT] = state[RIGHT] + follow * (action[1] - state[RIGHT])
    way = PERIOD_S * parameters[0] * (state[LEFT] + state[RIGHT]) / 2.0
    turn = PERIOD_S * parameters[0] * (state[RIGHT] - state[LEFT]) / parameters[1]
    half = turn / 2.0
    chord = way * (1.0 - half * half / 6.0 * (1.0 - half * half / 20.0))  # sin(half)/half to 1e-9
    state[X] = state[X] + chord * cos(state[HEADING] + half)
    state[Y] = state[Y] + chord * sin(state[HEADING] + half)
    state[HEADING] = wrap(state[HEADING] + turn)
    after, gap = distance(state), clearance(state, parameters)
    there, hit = after < GOAL_M, gap < 0.0
    reward = 5.0 * (before - after) - 0.01 + where(hit, -5.0, where(there, 5.0, 0.0))
    return reward, where(gap < NEAR_M, 1.0, 0.0), there | hit


def draw(state: Row, canvas: Any) -> None:
    """The arena from above: obstacles, goal, beams, and the rover."""
    canvas.view((0.0, 0.0), 4.6)
    canvas.box((0.0, 0.0), 2 * HALF_M, 2 * HALF_M, colour="#fbfbf9")
    for k in range(OBSTACLES):
        canvas.circle((float(state[FIRST + 2 * k]), float(state[FIRST + 2 * k + 1])), OBSTACLE_M, "#9aa5b1")
    canvas.circle((float(state[GOAL]), float(state[GOAL + 1])), GOAL_M, "#8fbf8f")
    x, y, heading = float(state[X]), float(state[Y]), float(state[HEADING])
    for angle in BEAMS:
        c, s = math.cos(heading + angle), math.sin(heading + angle)
        far = float(beam(state, c, s))
        canvas.line((x, y), (x + far * c, y + far * s), "#e6c9a8", 1.0)
    canvas.circle((x, y), 0.105)
    canvas.line((x, y), (x + 0.105 * math.cos(heading), y + 0.105 * math.sin(heading)), "#fbfbf9", 3.0)


CONTRACT = Contract(
    name="rover",
    observations=(
        ObservationChannel("goal_distance", "m", 0.0, 4.5),
        ObservationChannel("goal_cosine", "1", -1.0, 1.0),
        ObservationChannel("goal_sine", "1", -1.0, 1.0),
        ObservationChannel("left_speed", "rad/s", -WHEEL_RAD_S, WHEEL_RAD_S),
        ObservationChannel("right_speed", "rad/s", -WHEEL_RAD_S, WHEEL_RAD_S),
        *(ObservationChannel(f"range_{k}", "m", 0.0, RANGE_M) for k in range(7)),
    ),
    actions=(
        ActionChannel("left", "rad/s", -WHEEL_RAD_S, WHEEL_RAD_S, safe=0.0, initial=0.0),
        ActionChannel("right", "rad/s", -WHEEL_RAD_S, WHEEL_RAD_S, safe=0.0, initial=0.0),
    ),
    head="clip",
    rate_hz=10.0,
)

ENVIRONMENT = Environment.of_scalars(
    CONTRACT,
    Dynamics(FIRST + 2 * OBSTACLES, 12, 2, reset, observe, step, PARAMETERS),
    max_steps=300,
    solved=13.0,
    draw=draw,
    shield=({"stage": "slew", "per_second": {"left": 60.0, "right": 60.0}}, {"stage": "limit"}),
)
