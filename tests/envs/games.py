"""Environments of Gymnasium and PettingZoo that the tests bring: nested, masked, in turn, with agents that die and return, and wrong ones."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
import pettingzoo
from gymnasium import spaces


class Nested(gymnasium.Env[Any, Any]):
    """Drive a point to 0 by choices, some of which are not allowed; it cuts its episodes after 20 steps itself."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}
    limit = 20

    def __init__(self) -> None:
        arm = spaces.Dict({"position": spaces.Box(-20.0, 20.0, (2,), np.float32), "mode": spaces.Discrete(3, start=-1)})
        self.observation_space = spaces.Dict({"arm": arm, "lamps": spaces.MultiBinary(2), "action_mask": spaces.MultiBinary(3)})
        self.action_space = spaces.Discrete(3, start=5)

    def _seen(self) -> Any:
        mask = np.array([self.x > -9, True, self.x < 9], np.int8)
        arm = {"position": np.array([self.x, self.k], np.float32), "mode": np.int64(np.sign(self.x))}
        return {"arm": arm, "lamps": np.array([self.x > 0, self.x < 0], np.int8), "action_mask": mask}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.k = float(self.np_random.integers(-5, 6)), 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action) and self._seen()["action_mask"][action - 5]
        self.x, self.k = self.x + action - 6, self.k + 1
        return self._seen(), -abs(self.x), False, self.k >= self.limit, {"cost": float(abs(self.x) > 3)}


class Faulty(gymnasium.Env[Any, Any]):
    """Observes what it is told to, at the third step."""

    observation_space: Any = spaces.Dict({"a": spaces.Tuple([spaces.Box(-1.0, 1.0, (2,), np.float32), spaces.Discrete(4)])})
    action_space: Any = spaces.Box(-1.0, 1.0, (1,), np.float32)
    fault: Any = None
    reward: float = 0.0
    cost: Any = 0.0
    at = 3

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.k = 0
        return {"a": (np.zeros(2, np.float32), 0)}, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.k += 1
        faulty = self.k >= self.at
        return (
            self.fault if faulty and self.fault is not None else {"a": (np.zeros(2, np.float32), 0)},
            self.reward if faulty else 0.0,
            False,
            False,
            {"cost": self.cost if faulty else 0.0},
        )


class Wandering(pettingzoo.ParallelEnv[str, Any, Any]):
    """Three agents that count; ``c`` is there at every other pair of steps only, ``a`` dies at 5, and all is over at 8."""

    metadata: ClassVar[dict[str, Any]] = {"name": "wandering"}
    render_mode = None
    unequal = False
    max_cycles = 8

    def __init__(self) -> None:
        self.possible_agents = ["a", "b", "c"]
        self.agents: list[str] = []
        self.heard: list[dict[str, Any]] = []

    def observation_space(self, agent: str) -> Any:
        wide = self.unequal and agent == "a"
        return spaces.Box(0.0, 10.0, (2 if wide else 1,), np.float32) if not wide else spaces.Tuple([spaces.Box(0.0, 10.0, (1,)), spaces.Discrete(2)])

    def action_space(self, agent: str) -> Any:
        if self.unequal:
            return spaces.MultiDiscrete([2, 3]) if agent == "a" else spaces.Discrete(4, start=1)
        return spaces.Discrete(2)

    def _seen(self) -> dict[str, Any]:
        one = np.array([self.k], np.float32)
        return {agent: (one, self.k % 2) if self.unequal and agent == "a" else one for agent in self.agents}

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self.k, self.agents = 0, ["a", "b"]
        return self._seen(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> Any:
        assert set(actions) == set(self.agents) and all(self.action_space(agent).contains(x) for agent, x in actions.items())
        self.heard.append(actions)
        self.k += 1
        acted = list(self.agents)
        here = [agent for agent in "abc" if (agent != "a" or self.k < 5) and (agent != "c" or self.k // 2 % 2)]
        cut = self.k >= self.max_cycles
        self.agents = here
        seen = self._seen()
        self.agents = [] if cut else here
        over = {agent: agent not in here for agent in acted}
        info = {agent: {"cost": 0.5} for agent in acted}
        return seen, dict.fromkeys(acted, 1.0), over, {agent: cut and not over[agent] for agent in acted}, info


class Relay(pettingzoo.ParallelEnv[str, Any, Any]):
    """Each of three agents runs a leg of two steps and is out as the next one comes; only then all is over."""

    metadata: ClassVar[dict[str, Any]] = {"name": "relay"}
    render_mode = None
    max_cycles = 50

    def __init__(self) -> None:
        self.possible_agents = ["a", "b", "c"]
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> Any:
        return spaces.Box(0.0, 10.0, (1,), np.float32)

    def action_space(self, agent: str) -> Any:
        return spaces.Discrete(2)

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self.k, self.agents = 0, ["a"]
        return {"a": np.zeros(1, np.float32)}, {"a": {}}

    def step(self, actions: dict[str, Any]) -> Any:
        (runner,) = actions
        self.k += 1
        leg = self.k // 2
        self.agents = self.possible_agents[leg : leg + 1]
        here = {*self.agents, runner}
        seen = {agent: np.full(1, self.k, np.float32) for agent in here}
        return seen, {runner: 1.0}, {runner: runner not in self.agents}, {runner: False}, {agent: {} for agent in here}


class Matches(pettingzoo.AECEnv[str, Any, Any]):
    """Two in turn take one to three of seven matches; who takes the last wins 1 and the other loses 1.

    It masks as PettingZoo's classics do, and a move that is not allowed loses, as behind their TerminateIllegalWrapper.
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "matches", "is_parallelizable": False}
    render_mode = None

    def __init__(self) -> None:
        super().__init__()
        self.possible_agents = ["first", "second"]

    def observation_space(self, agent: str) -> Any:
        return spaces.Dict({"observation": spaces.Discrete(8), "action_mask": spaces.Box(0, 1, (3,), np.int8)})

    def action_space(self, agent: str) -> Any:
        return spaces.Discrete(3)

    def observe(self, agent: str) -> Any:
        mask = (np.arange(3) < self.left) & (agent == self.agent_selection)
        return {"observation": self.left, "action_mask": mask.astype(np.int8)}

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        self.left = 7 if seed is None else 5 + seed % 3
        self.agents = list(self.possible_agents)
        self.rewards, self._cumulative_rewards = (dict.fromkeys(self.agents, 0.0) for _ in range(2))
        self.terminations, self.truncations = (dict.fromkeys(self.agents, False) for _ in range(2))
        self.infos: dict[str, Any] = {agent: {} for agent in self.agents}
        self.agent_selection = "first"

    def step(self, action: Any) -> None:
        agent = self.agent_selection
        if self.terminations[agent]:
            self._was_dead_step(action)
            return
        legal = 0 <= action < min(3, self.left)
        self.left -= int(action) + 1 if legal else 0
        other = "second" if agent == "first" else "first"
        self._clear_rewards()
        if self.left == 0 or not legal:
            self.rewards = {agent: 1.0 if legal else -1.0, other: -1.0 if legal else 0.0}
            self.terminations = dict.fromkeys(self.agents, True)
        self._accumulate_rewards()
        self.agent_selection = other


def parallel_env() -> Wandering:
    """As PettingZoo's modules have it."""
    return Wandering()


class Unequal(Wandering):
    """Agents with other spaces."""

    unequal = True


def make_nested() -> gymnasium.Env[Any, Any]:
    """A function that says what it makes."""
    return Nested()


def make_unsaid():  # type: ignore[no-untyped-def]
    """A function that does not."""
    raise SystemExit("a name in a file must not call this")


class NeedsMore(Nested):
    """Not to be made without arguments."""

    def __init__(self, size: int) -> None:
        super().__init__()
