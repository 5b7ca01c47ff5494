"""The functions behind the pointers of ``pe_env.h``, as text for numba: ``native`` fills in the names that are declared here.

They live in a file of their own because numba caches what it compiles beside the file in which a function is written.
"""

from __future__ import annotations

from typing import Any

carray: Any = None
reset_rows: Any = None
step_rows: Any = None
observe_rows: Any = None
allow_rows: Any = None
STATE = OBSERVATION = ACTION = AGENTS = CHOICES = 0


def reset_many(n: Any, first: Any, key: Any, step: Any, mask: Any, parameters: Any, state: Any, observation: Any) -> None:
    reset_rows(
        first,
        carray(key, (2,)),
        carray(step, (n,)),
        carray(mask, (n,)),
        carray(state, (n, STATE)),
        carray(observation, (n, AGENTS, OBSERVATION)),
    )


def step_many(
    n: Any,
    first: Any,
    key: Any,
    step: Any,
    parameters: Any,
    action: Any,
    state: Any,
    observation: Any,
    reward: Any,
    cost: Any,
    terminated: Any,
    alive: Any,
) -> None:
    step_rows(
        first,
        carray(key, (2,)),
        carray(step, (n,)),
        carray(action, (n, AGENTS, ACTION)),
        carray(state, (n, STATE)),
        carray(observation, (n, AGENTS, OBSERVATION)),
        carray(reward, (n, AGENTS)),
        carray(cost, (n, AGENTS)),
        carray(terminated, (n, AGENTS)),
        carray(alive, (n, AGENTS)),
    )


def observe_many(n: Any, state: Any, observation: Any) -> None:
    observe_rows(carray(state, (n, STATE)), carray(observation, (n, AGENTS, OBSERVATION)))


def allow_many(n: Any, state: Any, allowed: Any) -> None:
    allow_rows(carray(state, (n, STATE)), carray(allowed, (n, AGENTS, CHOICES)))
