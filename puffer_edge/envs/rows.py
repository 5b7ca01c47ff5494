"""The loops over rows around an environment's scalar functions: the one text that plain Python runs and numba compiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from puffer_edge.envs.draw import DRAW, ON_RESET, begin

Loop = Callable[..., None]


def reset_rows(reset: Any, observe: Any, parameters: Any, agents: int, scratch: int = 0) -> Loop:
    """The loop behind ``pe_reset_many``: every environment whose mask is not 0 starts afresh."""
    words = DRAW + scratch

    def loop(first: int, key: Any, step: Any, mask: Any, state: Any, observation: Any) -> None:
        draw = np.zeros(words, np.uint64)
        for i in range(len(state)):
            if mask[i] != 0:
                begin(draw, key, first + i, step[i], ON_RESET)
                reset(draw, state[i], parameters)
                observe(state[i], observation[i, 0])

    def loop_many(first: int, key: Any, step: Any, mask: Any, state: Any, observation: Any) -> None:
        draw = np.zeros(words, np.uint64)
        for i in range(len(state)):
            if mask[i] != 0:
                begin(draw, key, first + i, step[i], ON_RESET)
                reset(draw, state[i], parameters)
                observe(state[i], observation[i])

    return loop if agents == 1 else loop_many


def step_rows(step_one: Any, observe: Any, parameters: Any, agents: int, scratch: int = 0) -> Loop:
    """The loop behind ``pe_step_many``."""
    words = DRAW + scratch

    def loop(first: int, key: Any, step: Any, action: Any, state: Any, observation: Any, reward: Any, cost: Any, terminated: Any, alive: Any) -> None:
        draw = np.zeros(words, np.uint64)
        for i in range(len(state)):
            begin(draw, key, first + i, step[i], 0)
            gained, paid, ended = step_one(draw, state[i], action[i, 0], parameters)
            reward[i, 0], cost[i, 0], terminated[i, 0], alive[i, 0] = gained, paid, 1 if ended else 0, 1
            observe(state[i], observation[i, 0])

    def loop_many(
        first: int, key: Any, step: Any, action: Any, state: Any, observation: Any, reward: Any, cost: Any, terminated: Any, alive: Any
    ) -> None:
        draw = np.zeros(words, np.uint64)
        for i in range(len(state)):
            begin(draw, key, first + i, step[i], 0)
            step_one(draw, state[i], action[i], parameters, reward[i], cost[i], terminated[i], alive[i])
            observe(state[i], observation[i])

    return loop if agents == 1 else loop_many


def observe_rows(observe: Any, agents: int) -> Loop:
    """What is seen in every state, without a step."""

    def loop(state: Any, observation: Any) -> None:
        for i in range(len(state)):
            observe(state[i], observation[i, 0])

    def loop_many(state: Any, observation: Any) -> None:
        for i in range(len(state)):
            observe(state[i], observation[i])

    return loop if agents == 1 else loop_many


def allow_rows(allow: Any, agents: int) -> Loop:
    """The loop behind ``pe_allow_many``: which choices may be taken in every state."""

    def loop(state: Any, allowed: Any) -> None:
        for i in range(len(state)):
            allow(state[i], allowed[i, 0])

    def loop_many(state: Any, allowed: Any) -> None:
        for i in range(len(state)):
            allow(state[i], allowed[i])

    return loop if agents == 1 else loop_many
