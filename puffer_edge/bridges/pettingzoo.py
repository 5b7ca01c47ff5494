"""Environments of several agents as PettingZoo's parallel ones; PettingZoo itself makes an AEC one of them (``parallel_to_aec``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.bridges.running import Running, action_space, observation_space
from puffer_edge.contract import Contract
from puffer_edge.envs.environment import Environment
from puffer_edge.errors import InvalidInput, MissingExtra

try:
    from gymnasium.utils import seeding
    from pettingzoo import ParallelEnv
except ImportError:
    raise MissingExtra("multiagent", "an environment for PettingZoo") from None

_ONE = np.zeros(1, np.int64)
_Seen = dict[str, npt.NDArray[np.float32]]
_Infos = dict[str, dict[str, Any]]


class Parallel(ParallelEnv[str, Any, Any]):  # type: ignore[misc]
    """An environment whose agents, ``agent_0`` …, act at the same time; one whose part is over leaves ``agents`` and does not come back.

    ``infos[agent]["cost"]`` is the step's cost. The clock truncates whoever is still there.

    Args:
        environment: the task, or its name.
        shield: as in ``puffer_edge.bridges.gymnasium.Single``.

    Attributes:
        contract: names and units of what the spaces of one agent hold.

    Raises:
        Unsupported: it goes forward only, or has no form with a shield.
    """

    def __init__(self, environment: Environment | str, shield: bool = False) -> None:
        self._running = Running(environment, 1, shield)
        self.contract: Contract = self._running.contract
        self.metadata = {"name": self.contract.name, "render_modes": [], "is_parallelizable": True}
        self.render_mode = None
        self.possible_agents = [f"agent_{k}" for k in range(self._running.agents)]
        self.agents: list[str] = []
        self.observation_spaces = {agent: observation_space(self.contract) for agent in self.possible_agents}
        self.action_spaces = {agent: action_space(self.contract) for agent in self.possible_agents}
        self._still = self.contract.physical_action(self.contract.action_initial)

    def observation_space(self, agent: str) -> Any:
        """Float32 Box of the contract's ranges."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Any:
        """Discrete, MultiDiscrete, or a float32 Box."""
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[_Seen, _Infos]:
        """Start the first episode of a seed, or the next one, with all agents."""
        if seed is not None or not self._running.seeded(_ONE):
            self._running.seed(_ONE, [seeding.np_random()[0].integers(2**32) if seed is None else seed])
        self._running.begin(_ONE)
        self.agents = list(self.possible_agents)
        return self._seen(self.agents), self._masks(self.agents)

    def step(self, actions: Mapping[str, Any]) -> tuple[_Seen, dict[str, float], dict[str, bool], dict[str, bool], _Infos]:
        """One step: an action of each agent in ``agents``, and what each of them got.

        Raises:
            InvalidInput: an agent's action is missing or none of its space.
        """
        acting, r = self.agents, self._running
        if not acting:
            return {}, {}, {}, {}, {}
        if missing := [agent for agent in acting if agent not in actions]:
            raise InvalidInput(f"{self.contract.name} lacks an action of {', '.join(missing)}")
        taken = [r.physical(np.asarray(actions[agent])[None])[0] if agent in acting else self._still for agent in self.possible_agents]
        found = r.step(np.array(taken)[None], np.zeros(1, bool))
        reward, cost, terminated, truncated = ({agent: x[0, self._number(agent)].item() for agent in acting} for x in found)
        self.agents = [agent for agent in acting if not (terminated[agent] or truncated[agent])]
        infos = {agent: {"cost": cost[agent]} | mask for agent, mask in self._masks(acting).items()}
        return self._seen(acting), reward, terminated, truncated, infos

    def _masks(self, agents: list[str]) -> _Infos:
        allowed = self._running.allowed()
        return {agent: {} if allowed is None else {"action_mask": allowed[0, self._number(agent)]} for agent in agents}

    def _number(self, agent: str) -> int:
        return self.possible_agents.index(agent)

    def _seen(self, agents: list[str]) -> _Seen:
        seen = self._running.observe()[0]
        return {agent: seen[self._number(agent)].copy() for agent in agents}
