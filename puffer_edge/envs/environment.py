"""What an environment is: a contract, and four vectorised numpy functions that know neither shield nor fixed point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from puffer_edge.contract import Contract
from puffer_edge.spaces import Bools, Floats


@dataclass(frozen=True, eq=False)
class Environment:
    """A task with continuous state, many rows at a time, float64 throughout.

    It never resets itself and keeps no state: ``puffer_edge.envs.plant`` does both.

    Attributes:
        name: the file's name, and the name on the command line.
        contract: names, units, ranges and rate of what is observed and driven.
        state_size: S, numbers in the state of one row.
        max_steps: an episode is truncated after so many steps.
        solved: mean return that counts as solved.
        shield: default shield, one mapping a stage, for ``Shield.build``.
        reset: ``(rng, n) → state (n, S)``: draw n start states.
        observe: ``state (n, S) → observation (n, n_observations)`` in the contract's units.
        step: ``state (n, S), action (n, n_actions) in physical units → state, reward (n,), cost (n,), terminated (n,)``.
    """

    name: str
    contract: Contract
    state_size: int
    max_steps: int
    solved: float
    shield: tuple[Mapping[str, Any], ...]
    reset: Callable[[np.random.Generator, int], Floats]
    observe: Callable[[Floats], Floats]
    step: Callable[[Floats, Floats], tuple[Floats, Floats, Floats, Bools]]
