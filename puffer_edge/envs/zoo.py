"""PettingZoo environments, ``pettingzoo:MODULE``: agents that act at once, or in turn, as rows that share one policy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

from puffer_edge.envs import living
from puffer_edge.envs.agents import Agents
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.gym import MASK, earned, rate_of, short_name
from puffer_edge.envs.rendering import rendered, with_pictures
from puffer_edge.envs.world import Living, shown, word
from puffer_edge.errors import InvalidInput, MissingExtra, Unsupported
from puffer_edge.spaces import Bools, Floats

PROMISED = "it must give observations, rewards, terminations, truncations and infos, each a dict by agent"


def make(module: str, **how: Any) -> Any:
    """An environment of a module that has ``parallel_env()``, or else ``env()``.

    Args:
        module: of PettingZoo ("classic.tictactoe_v3"), or any other ("mpe2.simple_spread_v3").
        how: ``render_mode``, where it is to be filmed.

    Raises:
        MissingExtra: PettingZoo is not installed.
        InvalidInput: there is no such module, it has no such function, or that raised.
    """
    from puffer_edge.envs import own  # which needs this module in turn

    where = f"pettingzoo:{module}"
    if find_spec("pettingzoo") is None:
        raise MissingExtra("multiagent", where)
    if not all(part.isidentifier() for part in module.split(".")):
        raise InvalidInput(f"{where!r} names no module: write pettingzoo:mpe2.simple_spread_v3")
    inside = find_spec(f"pettingzoo.{module.split('.')[0]}") is not None
    held = own.imported(f"pettingzoo.{module}" if inside else module, where)
    made = getattr(held, "parallel_env", None) or getattr(held, "env", None)
    if not callable(made):
        raise InvalidInput(f"{where}: the module has neither parallel_env() nor env(), as PettingZoo's have")
    return own.called(partial(made, **how), where)


def classes() -> tuple[type, ...]:
    """PettingZoo's ``ParallelEnv`` and ``AECEnv``, if a module that derives from one can have been imported."""
    loaded = sys.modules.get("pettingzoo")
    return (loaded.ParallelEnv, loaded.AECEnv) if loaded is not None else ()


class Game:
    """What environments of both kinds share: their agents, the checks, and what is written of each agent.

    Args:
        env: PettingZoo's.
        name: for messages.
        turn: the agents act in turn.
    """

    changing = ("_steps", "env")
    """Attributes that ``puffer_edge.envs.snapshot`` looks at."""

    def __init__(self, env: Any, name: str, turn: bool) -> None:
        self.env, self.name = env, name
        names = getattr(env, "possible_agents", None)
        if not names:
            raise Unsupported(f"{name} does not say possible_agents: the rows of a training are as many as those")
        self._spaces = [(env.observation_space(agent), env.action_space(agent)) for agent in names]
        self.rows = {agent: k for k, agent in enumerate(names)}
        self._steps = 0
        infos = self._begin(0)
        masked = any(MASK in self._info(infos, agent) for agent in infos)
        seen, acted = zip(*self._spaces)
        self.agents = Agents.of(name, names, seen, acted, masked, turn)

    def reset(self, seed: int, seen: Floats, allowed: Bools) -> None:
        """Start an episode."""
        self._steps = 0
        infos = self._begin(seed)
        for agent, before in zip(self.rows, self._spaces):
            now = self.env.observation_space(agent), self.env.action_space(agent)
            if any(a is not b and a != b for a, b in zip(now, before)):
                raise InvalidInput(f"{self.name}: {agent} changed a space between episodes, from {before} to {now}: a policy has one for all")
        seen[...] = 0.0
        allowed[...] = True
        self._look(infos, seen, allowed)

    def picture(self) -> Any:
        """(height, width, 3) uint8 picture of it, of one that ``ZooFactory.filmed`` makes."""
        return rendered(self.env, self.name)

    def close(self) -> None:
        """Give back windows and simulators."""
        self.env.close()

    def _begin(self, seed: int) -> Mapping[str, Any]:
        """Reset the environment; the agents' ``info``."""
        raise NotImplementedError

    def _look(self, infos: Mapping[str, Any], seen: Floats, allowed: Bools) -> None:
        """Write what the agents see and may do next."""
        raise NotImplementedError

    def _known(self, agents: Iterable[str]) -> list[int]:
        """Rows of agents."""
        found = list(agents)
        strange = [str(agent) for agent in found if agent not in self.rows]
        if strange:
            known = ", ".join(map(str, self.rows))
            raise InvalidInput(f"{self.name}: {', '.join(strange)} not among possible_agents ({known}): the rows of a training are as many as those")
        return [self.rows[agent] for agent in found]

    def _by_agent(self, **parts: Any) -> None:
        """See that parts of what the environment gave are dicts."""
        for what, found in parts.items():
            if not isinstance(found, Mapping):
                raise InvalidInput(f"{self.name}: {what} are {word(found)} in step {self._steps} of an episode: they must be a dict by agent")

    def _info(self, infos: Mapping[str, Any], agent: str) -> Mapping[str, Any]:
        """What an agent is told beside; {} where it is told nothing."""
        found = infos.get(agent, {})
        if not isinstance(found, Mapping):
            raise InvalidInput(f"{self.name}, {agent}: info is {word(found)} in step {self._steps} of an episode: it must be a dict")
        return found

    def _see(self, agents: Iterable[str], observations: Mapping[str, Any]) -> None:
        """See that these agents, whose episode goes on, got an observation."""
        missing = [str(agent) for agent in agents if agent not in observations]
        if missing:
            given = ", ".join(map(str, observations)) or "nobody"
            raise InvalidInput(f"{self.name}: {', '.join(missing)} got no observation in step {self._steps} of an episode; only {given} did")

    def _gave(self, acted: list[int], rewards: Mapping[str, Any], infos: Mapping[str, Any], reward: Floats, cost: Floats, alive: Bools) -> None:
        """Write what a step gave; whoever did not act gets nothing."""
        reward[...], cost[...], alive[...] = 0.0, 0.0, False
        for k in acted:
            agent = self.agents.names[k]
            if agent not in rewards:
                raise InvalidInput(f"{self.name}, {agent}: it acted and got no reward in step {self._steps} of an episode")
            paid = self._info(infos, agent).get("cost", 0.0)
            reward[k], cost[k] = earned(rewards[agent], paid, f"{self.name}, {agent}", self._steps)
            alive[k] = True

    def _ended(self, acted: list[int], over: Mapping[str, Any], cut: Mapping[str, Any], terminated: Bools) -> bool:
        """Write whose episode ended; whether the environment's clock ended that of all."""
        playing = [agent for agent in self.env.agents if not (over.get(agent, False) or cut.get(agent, False))]
        out_of_time = set() if playing else {k for k in acted if cut.get(self.agents.names[k], False) and not over.get(self.agents.names[k], False)}
        terminated[...] = True
        terminated[[*self._known(playing), *out_of_time]] = False
        return bool(out_of_time)


class AtOnce(Game):
    """A ``ParallelEnv`` that keeps ``world.Living``: agents that are not there have dead rows, and may return.

    Where an episode ends and some agent was truncated, the environment's clock ended it; an agent that is truncated while others go on has
    terminated.
    """

    def __init__(self, env: Any, name: str) -> None:
        self._seen: Mapping[str, Any] = {}
        super().__init__(env, name, turn=False)

    def step(self, action: Floats, seen: Floats, reward: Floats, cost: Floats, terminated: Bools, alive: Bools, allowed: Bools) -> bool:
        """One step of (A, m) physical actions; whether a clock of its own ended the episode."""
        self._steps += 1
        acted, names = self._known(self.env.agents), self.agents.names
        gave = self.env.step({names[k]: self.agents.value(k, action[k]) for k in acted})
        if not (isinstance(gave, tuple) and len(gave) == 5):
            raise InvalidInput(f"{self.name}: step gave {shown(gave)} in step {self._steps} of an episode: {PROMISED}")
        self._seen, rewards, over, cut, infos = gave
        self._by_agent(observations=self._seen, rewards=rewards, terminations=over, truncations=cut, infos=infos)
        self._gave(acted, rewards, infos, reward, cost, alive)
        clock = self._ended(acted, over, cut, terminated)
        self._see((agent for agent, ended in zip(names, terminated.tolist()) if not ended), self._seen)
        self._look(infos, seen, allowed)
        return clock

    def _begin(self, seed: int) -> Mapping[str, Any]:
        gave = self.env.reset(seed=seed)
        if not (isinstance(gave, tuple) and len(gave) == 2):
            raise InvalidInput(f"{self.name}: reset gave {shown(gave)}: it must give observations and infos, each a dict by agent")
        self._seen, infos = gave
        self._by_agent(observations=self._seen, infos=infos)
        self._see(self.env.agents, self._seen)
        return dict(infos)

    def _look(self, infos: Mapping[str, Any], seen: Floats, allowed: Bools) -> None:
        for k, agent in zip(self._known(self._seen), self._seen):
            self.agents.put(k, self._seen[agent], seen[k], self._steps)
            if self.agents.face.masked:
                self.agents.allow(k, self._seen[agent], self._info(infos, agent), allowed[k])


class InTurn(Game):
    """An ``AECEnv`` that keeps ``world.Living``: one step is one turn.

    Agents that wait are alive, so that a reward that comes in another's turn is theirs; they have one choice, which nobody reads and of which
    a policy learns nothing, and the channel ``turn`` is 0. Numbers that waiting agents drive are not read.
    """

    def __init__(self, env: Any, name: str) -> None:
        super().__init__(env, name, turn=True)

    def step(self, action: Floats, seen: Floats, reward: Floats, cost: Floats, terminated: Bools, alive: Bools, allowed: Bools) -> bool:
        """One turn, of (A, m) physical actions; whether a clock of its own ended the episode."""
        self._steps += 1
        env = self.env
        acted = self._known(agent for agent in env.agents if not (env.terminations[agent] or env.truncations[agent]))
        k = self.rows[env.agent_selection]
        env.step(self.agents.value(k, action[k]))
        self._states()
        self._gave(acted, env.rewards, env.infos, reward, cost, alive)
        clock = self._ended(acted, env.terminations, env.truncations, terminated)
        while env.agents and (env.terminations[env.agent_selection] or env.truncations[env.agent_selection]):
            self._look_at([self.rows[env.agent_selection]], seen, allowed)
            env.step(None)  # PettingZoo takes out whoever has ended, one call each
        self._look_at(self._known(env.agents), seen, allowed)
        return clock

    def _begin(self, seed: int) -> Mapping[str, Any]:
        self.env.reset(seed=seed)
        self._states()
        return dict(self.env.infos)

    def _states(self) -> None:
        """See that what the environment keeps by agent is kept so."""
        env = self.env
        self._known([env.agent_selection] if env.agents else [])
        self._by_agent(rewards=env.rewards, terminations=env.terminations, truncations=env.truncations, infos=env.infos)

    def _look(self, infos: Mapping[str, Any], seen: Floats, allowed: Bools) -> None:
        self._look_at(self._known(self.env.agents), seen, allowed)

    def _look_at(self, rows: list[int], seen: Floats, allowed: Bools) -> None:
        for k in rows:
            agent = self.agents.names[k]
            acts = agent == self.env.agent_selection
            observation = self.env.observe(agent)
            self.agents.put(k, observation, seen[k], self._steps, acts)
            self.agents.allow(k, observation, self._info(self.env.infos, agent), allowed[k], acts)


@dataclass(frozen=True)
class ZooFactory:
    """Makes living PettingZoo environments, in any process.

    Attributes:
        name: for messages.
        made: gives PettingZoo's, and with ``render_mode`` one that can be filmed.
    """

    name: str
    made: Callable[..., Any]

    def __call__(self) -> Living:
        """One more."""
        return play(self.made(), self.name)

    def filmed(self) -> ZooFactory:
        """One whose environments have pictures."""
        return replace(self, made=with_pictures(self.name, self.made))


def play(env: Any, name: str) -> AtOnce | InTurn:
    """An environment of PettingZoo, living."""
    parallel, _ = classes()
    return AtOnce(env, name) if isinstance(env, parallel) else InTurn(env, name)


def wrap(module: str) -> Environment:
    """A PettingZoo environment as one of ours, named ``pettingzoo:MODULE``.

    Raises:
        MissingExtra: PettingZoo is not installed.
        InvalidInput: there is no such module, or it makes no environment.
        Unsupported: a space has no fixed size, or agents that share a policy would have several heads.
    """
    from puffer_edge.envs.own import episode_steps

    factory = ZooFactory(f"pettingzoo:{module}", partial(make, module))
    env = factory.made()
    return of_env(factory, env, episode_steps(env))


def of_env(factory: ZooFactory, env: Any, max_steps: int | None) -> Environment:
    """An environment of ours.

    Args:
        factory: makes more.
        env: a first one; it is closed.
        max_steps: of an episode, of an agent; None where nobody names a number.
    """
    one = play(env, factory.name)
    one.close()
    face = one.agents.face
    turns = face.agents if isinstance(one, InTurn) else 1
    contract = face.contract(short_name(factory.name), rate_of(env), factory)
    return living.environment(factory.name, factory, face, contract, max_steps=(max_steps or living.MAX_STEPS) * turns)
