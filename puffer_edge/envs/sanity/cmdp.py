"""cmdp proves that a trainer keeps a limit of cost at the least loss of return: its best policy is known, and it must draw at random.

Somebody on a shore wants to be home, where every step of the ten that an episode has pays 1. The road is long and free of cost; the ice is
shorter, costs something and may break, and broken ice costs 1 a step. At home a fire pays a little more, and costs. ``TABLE`` is all of it.

At most 0.4 of cost an episode are allowed, ``LIMIT``. The best policy under that is a linear program's (Altman, 1999, Constrained Markov
Decision Processes, chapter 4; ``benchmarks/linear_program.py``): return 5.6805, ``OPTIMUM``, by taking the ice with a probability of 0.649 and
the road otherwise. The best policy that does not draw gets 5.159, 9 % less; the best without a limit 7.509, at a cost of 2.317, nearly six
times the limit; the best without any cost 4.579. The choice that is most likely under the best policy, always made, costs 0.616: it breaks the limit.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.draw import uniform
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Number, Row, where
from puffer_edge.spaces import Floats

STEPS = 10
LIMIT = 0.4
"""Of the mean cost of an episode."""
OPTIMUM = 5.680520
STATES = ("shore", "road", "ice", "broken", "home")
TABLE = (
    (  # shore: take the road, take the ice, wait
        (0.0, 0.0, (0.1, 0.9, 0.0, 0.0, 0.0)),
        (0.0, 0.0, (0.1, 0.0, 0.9, 0.0, 0.0)),
        (0.0, 0.0, (1.0, 0.0, 0.0, 0.0, 0.0)),
    ),
    (  # road: walk, take the short cut, go back
        (0.0, 0.0, (0.0, 0.8, 0.0, 0.0, 0.2)),
        (0.0, 0.35, (0.0, 0.7, 0.0, 0.0, 0.3)),
        (0.0, 0.0, (1.0, 0.0, 0.0, 0.0, 0.0)),
    ),
    (  # ice: walk, run, go back
        (0.0, 0.2, (0.0, 0.0, 0.62, 0.03, 0.35)),
        (0.0, 0.2, (0.0, 0.0, 0.28, 0.12, 0.6)),
        (0.0, 0.1, (0.8, 0.0, 0.2, 0.0, 0.0)),
    ),
    (  # broken: back to the shore, on towards home, hold still
        (0.0, 1.0, (0.4, 0.0, 0.0, 0.6, 0.0)),
        (0.0, 1.0, (0.0, 0.0, 0.0, 0.8, 0.2)),
        (0.0, 1.0, (0.0, 0.0, 0.0, 1.0, 0.0)),
    ),
    (  # home: stay, stay by a fire, go out
        (1.0, 0.0, (0.0, 0.0, 0.0, 0.0, 1.0)),
        (1.1, 0.2, (0.0, 0.0, 0.0, 0.0, 1.0)),
        (0.0, 0.0, (0.1, 0.0, 0.0, 0.0, 0.9)),
    ),
)
"""By state and choice: reward, cost, and the probability of each state that may follow."""
CHOICES = 3

REWARD = tuple(tuple(choice[0] for choice in state) for state in TABLE)
COST = tuple(tuple(choice[1] for choice in state) for state in TABLE)
REACHED = tuple(tuple(tuple(accumulate(choice[2]))[:-1] for choice in state) for state in TABLE)
"""Probability of each state or one before it, but for the last."""


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """State: which it is, and the steps done. On the shore."""
    state[0], state[1] = 0.0, 0.0


def observe(state: Row, observation: Row) -> None:
    """Which state it is, one number each, and the steps done."""
    for k in range(len(STATES)):
        observation[k] = where(state[0] == k, 1.0, 0.0)
    observation[len(STATES)] = state[1]


def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
    """One step through the table."""
    at, choice, u = int(state[0]), int(action[0]), uniform(draw, 0.0, 1.0)
    following = 0.0
    for reached in REACHED[at][choice]:
        following = following + where(u >= reached, 1.0, 0.0)
    state[0], state[1] = following, state[1] + 1.0
    return REWARD[at][choice], COST[at][choice], state[1] >= STEPS


def arrays() -> tuple[Floats, Floats, Floats]:
    """``TABLE`` as (S, A) rewards, (S, A) costs and (S, A, S) probabilities."""
    return np.array(REWARD), np.array(COST), np.array([[choice[2] for choice in state] for state in TABLE])


def observations() -> Floats:
    """(STEPS, S, n) what is seen in every state after every number of steps."""
    every = np.stack(np.meshgrid(np.arange(STEPS), np.arange(len(STATES)), indexing="ij")[::-1], -1).reshape(-1, 2)
    return ENVIRONMENT.observe(every.astype(np.float64)).reshape(STEPS, len(STATES), -1)


def value(policy: Floats) -> tuple[float, float]:
    """Mean return and mean cost of an episode, exactly, by going backwards through the steps.

    Args:
        policy: (STEPS, S, A) probabilities of the choices.
    """
    reward, cost, following = arrays()
    worth = np.zeros((len(STATES), 2))
    for chosen in policy[::-1]:
        worth = np.einsum("sa,sak->sk", chosen, np.stack([reward, cost], -1) + following @ worth)
    return float(worth[0, 0]), float(worth[0, 1])


CONTRACT = Contract(
    name="cmdp",
    observations=(*(ObservationChannel(name, "1", 0.0, 1.0) for name in STATES), ObservationChannel("elapsed", "step", 0.0, STEPS)),
    actions=(ActionChannel("choice", "1", 0.0, CHOICES - 1.0, safe=0.0, initial=0.0),),
    head="discrete",
    rate_hz=1.0,
    levels=tuple((float(a),) for a in range(CHOICES)),
)

ENVIRONMENT = Environment.of_scalars(
    CONTRACT, Dynamics(2, len(STATES) + 1, 1, reset, observe, step, random_steps=True), max_steps=STEPS, solved=0.95 * OPTIMUM
)
