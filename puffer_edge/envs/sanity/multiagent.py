"""multiagent proves that rows of agents are not mixed, and that an agent whose part is over no longer counts.

Two agents share an episode of 8 steps and see which of the two they are. Agent 0 is paid 1/8 for each action −1, agent 1 1/4 for each
action +1 in the first 4 steps, after which it is no longer alive. Optimal return: 1 for each. Cost: 1 for each wrong action.
"""

from __future__ import annotations

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Row

STEPS = (8, 4)
"""Steps of each agent."""


def reset(draw: Row, state: Row, parameters: Row) -> None:
    """State: the steps done."""
    state[0] = 0.0


def observe(state: Row, observation: Row) -> None:
    """−1 for agent 0 and +1 for agent 1."""
    observation[0, 0], observation[1, 0] = -1.0, 1.0


def step(draw: Row, state: Row, action: Row, parameters: Row, reward: Row, cost: Row, terminated: Row, alive: Row) -> None:
    """Each agent for itself."""
    for k in range(2):
        wanted = 2.0 * k - 1.0
        acting = state[0] < STEPS[k]
        right = action[k, 0] * wanted > 0.0
        reward[k] = 1.0 / STEPS[k] if acting and right else 0.0
        cost[k] = 1.0 if acting and not right else 0.0
        terminated[k] = 1 if state[0] + 1.0 >= STEPS[k] else 0
        alive[k] = 1 if acting else 0
    state[0] += 1.0


CONTRACT = Contract(
    name="multiagent",
    observations=(ObservationChannel("which", "1", -1.0, 1.0),),
    actions=(ActionChannel("choice", "1", -1.0, 1.0, safe=0.0, initial=0.0),),
    head="discrete",
    rate_hz=1.0,
    levels=((-1.0,), (1.0,)),
)

ENVIRONMENT = Environment.of_scalars(CONTRACT, Dynamics(1, 1, 1, reset, observe, step, agents=2), max_steps=8, solved=0.97)
