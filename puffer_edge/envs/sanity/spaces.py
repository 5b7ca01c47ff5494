"""spaces proves that observations of very different ranges and a head of several groups of choices are handled whole.

A signal of ±1000, a flag and four pixels are seen; one group of three choices says where the signal lies (below −200, between, above 200),
one of two says the flag, one of two whether the pixels are bright on average. A third of the reward for each. Episodes of one step.
Optimal return: 1; a uniform policy gets 0.44. Cost: 1 if all three are wrong.
"""

from __future__ import annotations

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.draw import uniform
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Number, Row, where

PIXELS = 4
BAND = 200.0


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """State: signal, flag, pixels."""
    state[0] = uniform(draw, -1000.0, 1000.0)
    state[1] = where(uniform(draw, 0.0, 1.0) < 0.5, 0.0, 1.0)
    bright = where(uniform(draw, 0.0, 1.0) < 0.5, 0.2, 0.5)
    for k in range(PIXELS):
        state[2 + k] = bright + uniform(draw, 0.0, 0.3)


def observe(state: Row, observation: Row) -> None:
    """The state itself."""
    for k in range(2 + PIXELS):
        observation[k] = state[k]


def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
    """Three answers."""
    place = where(state[0] < -BAND, -1.0, where(state[0] > BAND, 1.0, 0.0))
    light = (state[2] + state[3] + state[4] + state[5]) / PIXELS
    right = where(abs(action[0] - place) < 0.5, 1.0, 0.0)
    right = right + where(abs(action[1] - state[1]) < 0.5, 1.0, 0.0)
    right = right + where(abs(action[2] - where(light > 0.5, 1.0, 0.0)) < 0.5, 1.0, 0.0)
    return right / 3.0, where(right < 0.5, 1.0, 0.0), True


CONTRACT = Contract(
    name="spaces",
    observations=(
        ObservationChannel("signal", "mV", -1000.0, 1000.0),
        ObservationChannel("flag", "1", 0.0, 1.0),
        *(ObservationChannel(f"pixel{k}", "1", 0.0, 1.0) for k in range(PIXELS)),
    ),
    actions=(
        ActionChannel("place", "1", -1.0, 1.0, safe=0.0, initial=0.0),
        ActionChannel("flag", "1", 0.0, 1.0, safe=0.0, initial=0.0),
        ActionChannel("bright", "1", 0.0, 1.0, safe=0.0, initial=0.0),
    ),
    head="multi_discrete",
    rate_hz=1.0,
    levels=((-1.0, 0.0, 1.0), (0.0, 1.0), (0.0, 1.0)),
)

ENVIRONMENT = Environment.of_scalars(CONTRACT, Dynamics(2 + PIXELS, 2 + PIXELS, 3, reset, observe, step), max_steps=1, solved=0.97)
