"""Hiding channels: an environment whose policy must remember, or infer, what it is not shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Row
from puffer_edge.errors import InvalidInput, Unsupported


def hide(environment: Environment, *channels: str, name: str, shield: tuple[Mapping[str, Any], ...] = ({"stage": "limit"},)) -> Environment:
    """The environment, its contract without these channels; a shield, which sees no more than the contract, is another one too.

    Args:
        environment: one of scalar functions and one agent.
        channels: names of observations.
        name: of what comes out; the contract keeps its own.
        shield: its default shield.

    Raises:
        InvalidInput: there is no such channel, or none would be left.
        Unsupported: the environment is written as numpy functions, or has several agents.
    """
    inner, c = environment.scalars, environment.contract
    if inner is None or environment.agents > 1:
        raise Unsupported(f"{environment.name} is not written as scalar functions of one agent: none of its channels can be hidden")
    names = [channel.name for channel in c.observations]
    unknown = sorted(set(channels) - set(names))
    if unknown or not set(names) - set(channels):
        raise InvalidInput(f"{environment.name} observes {', '.join(names)}: hide some of them, but not all, not {', '.join(channels)}")
    shown, n = np.array([k for k, found in enumerate(names) if found not in channels]), inner.n_observation
    kept, inner_observe = len(shown), inner.observe

    def observe(state: Row, observation: Row) -> None:
        whole = np.zeros(n)
        inner_observe(state, whole)
        for k in range(kept):
            observation[k] = whole[shown[k]]

    contract = replace(c, observations=tuple(c.observations[k] for k in shown))
    about: dict[str, Any] = {"max_steps": environment.max_steps, "solved": environment.solved, "draw": environment.draw}
    return Environment.of_scalars(contract, replace(inner, n_observation=kept, observe=observe), name=name, shield=shield, **about)
