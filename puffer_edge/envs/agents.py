"""Agents with spaces of their own as rows for one policy: padded to the widest, told apart by a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from puffer_edge.contract import ActionChannel
from puffer_edge.envs.actions import Actions, bits
from puffer_edge.envs.emulation import Layout
from puffer_edge.envs.gym import MASK, Observed, has_mask
from puffer_edge.envs.living import Face
from puffer_edge.errors import Unsupported
from puffer_edge.spaces import ACTION_LIMIT, Bools, Floats


@dataclass(frozen=True, eq=False)
class Agents:
    """The agents of an environment, each a row.

    Agents whose spaces are alike share one network as they are. Where they differ, an observation is filled up with zeros to the widest and
    followed by the agent's group, one-hot; choices are numbered from 0, and those that an agent lacks are never allowed; of numbers that
    an agent's Box lacks nothing is read.

    Attributes:
        names: of the agents; their order is that of the rows.
        observed: checks and writes each agent's numbers.
        actions: of each agent.
        groups: number of each agent's group; agents with equal spaces are of one.
        face: what the policy meets.
        turn: whether a last number says whose turn it is.
        own: (n_outputs,) of each agent: the choices that it has.
        numbered: choices are numbered from 0, since the agents' differ.
    """

    names: tuple[str, ...]
    observed: tuple[Observed, ...]
    actions: tuple[Actions, ...]
    groups: tuple[int, ...]
    face: Face
    turn: bool
    own: tuple[Bools, ...]
    numbered: bool

    @staticmethod
    def of(name: str, agents: Sequence[str], seen: Sequence[Any], acted: Sequence[Any], masked: bool, turn: bool) -> Agents:
        """Agents with these spaces.

        Args:
            name: of the environment, for messages.
            agents: their names.
            seen: observation space of each.
            acted: action space of each.
            masked: ``info`` says which choices are allowed; a mask in the observation is found without it.
            turn: they act in turn.

        Raises:
            Unsupported: a space cannot be that of a policy, or some agents choose and others drive numbers; the message names them.
        """
        observed, actions = [], []
        for agent, space, driven in zip(agents, seen, acted):
            try:
                leave_out = frozenset({MASK}) if has_mask(space) else frozenset()
                observed.append(Observed(f"{name}, {agent}", Layout.of(space, leave_out)))
                actions.append(Actions.of(driven))
            except Unsupported as error:
                raise Unsupported(f"{name}, agent {agent}: {error}") from None
        spaces = list(zip(seen, acted))
        kinds = [spaces.index(pair) for pair in spaces]
        groups = tuple(sorted(set(kinds)).index(kind) for kind in kinds)
        choosing = [agent for agent, a in zip(agents, actions) if a.sizes]
        if choosing and len(choosing) < len(agents):
            others = [agent for agent in agents if agent not in choosing]
            raise Unsupported(f"{name}: {', '.join(choosing)} choose and {', '.join(others)} drive numbers: agents that share a policy have one head")
        names, low, high = _observations([o.layout for o in observed], groups, turn)
        alike = all(space == acted[0] for space in acted)
        head = actions[0] if alike else _widest(actions)
        own = tuple(_own(a.sizes, head) for a in actions)
        masked = bool(choosing) and (masked or turn or any(map(has_mask, seen)) or not np.all(own))
        face = Face(names, low, high, head.channels, head.levels, head.head, len(agents), masked, turn)
        return Agents(tuple(agents), tuple(observed), tuple(actions), groups, face, turn, own, not alike)

    def put(self, k: int, observation: Any, seen: Floats, step: int, acts: bool = True) -> None:
        """Write what agent k sees (n,); ``acts``: it is its turn.

        Raises:
            InvalidInput: the observation is not of its space.
        """
        n = self.observed[k].layout.n
        self.observed[k].put(observation, seen[:n], step)
        seen[n:] = 0.0
        last = len(seen) - self.turn
        if max(self.groups):
            seen[last - max(self.groups) - 1 + self.groups[k]] = 1.0
        if self.turn:
            seen[-1] = acts

    def allow(self, k: int, observation: Any, info: Any, allowed: Bools, acts: bool = True) -> None:
        """Write which of its choices agent k may take; one that waits has one choice of every action only, so that it learns nothing of it."""
        own = self.own[k]
        allowed[...] = own
        if not self.actions[k].sizes:
            return
        if not acts:
            edges = np.cumsum((0, *self.face.sizes))[:-1]
            allowed[...] = False
            allowed[edges] = True
            return
        mask = observation.get(MASK) if isinstance(observation, dict) else None
        mask = info.get(MASK) if mask is None else mask
        if mask is not None:
            sizes = self.actions[k].sizes
            mine = np.zeros(sum(sizes), bool)
            self.actions[k].mask(mask, mine, self.observed[k].name)
            allowed[np.flatnonzero(own)[: len(mine)]] = mine

    def value(self, k: int, action: Floats) -> Any:
        """What the environment takes of agent k's (m,) physical numbers."""
        a = self.actions[k]
        action = action[: len(a.channels)]
        return a.value(action + [channel.low for channel in a.channels] if self.numbered and a.sizes else action)


def _observations(layouts: Sequence[Layout], groups: Sequence[int], turn: bool) -> tuple[tuple[str, ...], Floats, Floats]:
    """Names and bounds of the widest, then of the groups, then of the turn."""
    width = max(layout.n for layout in layouts)
    lows, highs = (np.zeros((len(layouts), width)) for _ in range(2))
    for k, layout in enumerate(layouts):
        lows[k, : layout.n], highs[k, : layout.n] = layout.bounds()
    names = layouts[0].names()
    extra: tuple[str, ...] = ()
    if max(groups):
        names = tuple(f"o{k}" for k in range(width))
        extra = tuple(f"group_{k}" for k in range(max(groups) + 1))
    if turn:
        extra = (*extra, "turn" if "turn" not in names else "turn_")
    return (*names, *extra), np.concatenate([lows.min(0), np.zeros(len(extra))]), np.concatenate([highs.max(0), np.ones(len(extra))])


def _widest(actions: Sequence[Actions]) -> Actions:
    """The head that has room for all: of choices the most of every action, of numbers the widest bounds."""
    most = max(actions, key=lambda a: len(a.channels))
    columns = [[a for a in actions if len(a.channels) > j] for j in range(len(most.channels))]
    if not most.sizes:
        lows, highs = zip(*((min(a.channels[j].low for a in column), max(a.channels[j].high for a in column)) for j, column in enumerate(columns)))
        bounds = zip(most.channels, lows, highs)
        channels = tuple(replace(ch, low=a, high=b, fraction_bits=bits(a, b, ACTION_LIMIT)) for ch, a, b in bounds)
        return replace(most, channels=channels)
    sizes = tuple(max(a.sizes[j] for a in column) for j, column in enumerate(columns))
    channels = tuple(ActionChannel(f"a{j}", "1", 0.0, n - 1.0, 0.0, 0.0) for j, n in enumerate(sizes))
    levels = tuple(tuple(float(k) for k in range(n)) for n in sizes)
    if all(a.head == "discrete" for a in actions):
        return replace(most, channels=channels, levels=tuple((level,) for level in levels[0]), head="discrete", sizes=sizes)
    return replace(most, channels=channels, levels=levels, head="multi_discrete", sizes=sizes)


def _own(sizes: Sequence[int], head: Actions) -> Bools:
    """(n_outputs,) which choices an agent of these sizes has; of an action that it lacks the first, which nobody reads."""
    if not head.sizes:
        return np.ones(head.n_outputs, bool)
    return np.concatenate([np.arange(most) < (sizes[j] if j < len(sizes) else 1) for j, most in enumerate(head.sizes)])
