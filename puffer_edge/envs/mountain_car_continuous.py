"""MountainCarContinuous: Gymnasium's MountainCarContinuous-v0 to the bit, driven by a throttle between −1 and 1.

Dynamics as in ``gymnasium/envs/classic_control/continuous_mountain_car.py``, which keeps its state in float32 after the first step and
computes that one step from a float64 start state; so does this. Length and time have no units there, so speed is per step here.

Reward: −0.1·throttle² a step, and 100 on reaching the goal. Terminated: position 0.45 m reached. Truncated after 999 steps.
Cost: 1 a step on which the car stands at the wall, position −1.2 m, having run into it.
"""

from __future__ import annotations

from typing import Any

from puffer_edge.contract import ActionChannel, Contract
from puffer_edge.envs.draw import uniform
from puffer_edge.envs.dynamics import Dynamics, Parameter
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.mountain_car import CONTRACT as VALLEY
from puffer_edge.envs.mountain_car import HIGHEST, LOWEST, SHIELD, SPEED_LIMIT, hill
from puffer_edge.envs.scalar import Number, Row, clip, cos, power, single, where

GOAL = 0.45

PARAMETERS = (Parameter("power", "m/step^2", 0.0015), Parameter("gravity", "m/step^2", 0.0025))


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """At rest, position uniform in −0.6 … −0.4 m."""
    state[0], state[1] = uniform(draw, -0.6, -0.4), 0.0


def observe(state: Row, observation: Row) -> None:
    """The state itself: position and velocity."""
    observation[0], observation[1] = state[0], state[1]


def rounded(x: Number, narrow: Number) -> Number:
    """x in float32 if the state is, which is where Gymnasium's arithmetic happens then."""
    return where(narrow, single(x), x)


def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
    """One step; the order and types of the operations are Gymnasium's, which makes the bits its own."""
    strength, gravity = parameters[0], parameters[1]
    narrow = (single(state[0]) == state[0]) & (single(state[1]) == state[1])
    throttle = single(action[0])
    force = clip(throttle, -1.0, 1.0)
    pull = gravity * cos(rounded(3 * state[0], narrow))
    # A clipped force is a Python float in Gymnasium, any other one a float32.
    push = where(force == throttle, single(single(force * single(strength)) - single(pull)), force * strength - pull)
    limit = rounded(SPEED_LIMIT, narrow)
    velocity = clip(rounded(state[1] + rounded(push, narrow), narrow), -limit, limit)
    lowest = rounded(LOWEST, narrow)
    position = clip(rounded(state[0] + velocity, narrow), lowest, rounded(HIGHEST, narrow))
    wall = (position == lowest) & (velocity < 0.0)
    velocity = where(wall, 0.0, velocity)
    reached = (position >= rounded(GOAL, narrow)) & (velocity >= 0.0)
    state[0], state[1] = single(position), single(velocity)
    return where(reached, 100.0, 0.0) - power(throttle, 2.0) * 0.1, where(wall, 1.0, 0.0), reached


def draw(state: Row, canvas: Any) -> None:
    """See ``mountain_car.hill``."""
    hill(state, canvas, GOAL)


CONTRACT = Contract(
    name="car_continuous",
    observations=VALLEY.observations,
    actions=(ActionChannel("throttle", "1", -1.0, 1.0, safe=0.0, initial=0.0),),
    head="clip",
    rate_hz=10.0,
)

ENVIRONMENT = Environment.of_scalars(
    CONTRACT,
    Dynamics(2, 2, 1, reset, observe, step, PARAMETERS),
    max_steps=999,
    solved=88.0,
    draw=draw,
    shield=SHIELD,
    name="mountain_car_continuous",
)
