"""MountainCar: Gymnasium's MountainCar-v0 to the bit: a car in a valley whose engine is too weak to drive straight out.

Dynamics: Moore (1990), as in ``gymnasium/envs/classic_control/mountain_car.py``; its length and time have no units, so speed is per step
here. Gymnasium's actions 0, 1 and 2 are the throttles −1, 0 and +1; every throttle in between is legal too.

Reward: −1 a step. Terminated: position 0.5 m reached. Truncated after 200 steps.
Cost: 1 a step on which the car stands at the wall, position −1.2 m, having run into it.
"""

from __future__ import annotations

import math
from typing import Any

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.draw import uniform
from puffer_edge.envs.dynamics import Dynamics, Parameter
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Number, Row, clip, cos, where

LOWEST = -1.2
HIGHEST = 0.6
SPEED_LIMIT = 0.07
GOAL = 0.5

PARAMETERS = (Parameter("force", "m/step^2", 0.001), Parameter("gravity", "m/step^2", 0.0025))


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """At rest, position uniform in −0.6 … −0.4 m."""
    state[0], state[1] = uniform(draw, -0.6, -0.4), 0.0


def observe(state: Row, observation: Row) -> None:
    """The state itself: position and velocity."""
    observation[0], observation[1] = state[0], state[1]


def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
    """One step; the order of operations is Gymnasium's, which makes the bits its own."""
    force, gravity = parameters[0], parameters[1]
    velocity = clip(state[1] + (action[0] * force + cos(3 * state[0]) * (-gravity)), -SPEED_LIMIT, SPEED_LIMIT)
    position = clip(state[0] + velocity, LOWEST, HIGHEST)
    wall = (position == LOWEST) & (velocity < 0.0)
    state[0], state[1] = position, where(wall, 0.0, velocity)
    return -1.0, where(wall, 1.0, 0.0), (position >= GOAL) & (state[1] >= 0.0)


def hill(state: Row, canvas: Any, goal: float) -> None:
    """The hill, the goal and the car."""
    canvas.view((-0.3, 0.1), 2.0)

    def on_it(x: float) -> tuple[float, float]:
        return x, 0.27 * math.sin(3.0 * x)

    places = [on_it(-1.2 + 0.03 * k) for k in range(61)]
    for a, b in zip(places[:-1], places[1:]):
        canvas.line(a, b)
    x, y = on_it(goal)
    canvas.line((x, y), (x, y + 0.15), "#d9822b", 3.0)
    x, y = on_it(float(state[0]))
    canvas.circle((x, y + 0.04), 0.04)


def draw(state: Row, canvas: Any) -> None:
    """See ``hill``."""
    hill(state, canvas, GOAL)


CONTRACT = Contract(
    name="mountain_car",
    observations=(
        ObservationChannel("position", "m", -1.25, 0.65, 24),
        ObservationChannel("velocity", "m/step", -SPEED_LIMIT, SPEED_LIMIT, 28),
    ),
    actions=(ActionChannel("throttle", "1", -1.0, 1.0, safe=0.0, initial=0.0),),
    head="discrete",
    rate_hz=10.0,
    levels=((-1.0,), (0.0,), (1.0,)),
)

SHIELD = ({"stage": "envelope", "bounds": {"position": (-1.15, 0.6)}, "law": {"throttle": {"position": -1.0}}}, {"stage": "limit"})
"""Near the wall it drives away from it."""

ENVIRONMENT = Environment.of_scalars(
    CONTRACT, Dynamics(2, 2, 1, reset, observe, step, PARAMETERS), max_steps=200, solved=-110.0, draw=draw, shield=SHIELD
)
