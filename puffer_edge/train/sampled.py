"""A learner's policy as it is trained, sampled from, in a program's place: for comparison with what would be deployed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from puffer_edge.contract import Contract
from puffer_edge.spaces import Floats, Ints
from puffer_edge.train.loop import Learner


class Sampled:
    """A ``Proposer`` (``puffer_edge/integer/reference.py``) that draws each action from the learner's distribution, without masks.

    Args:
        learner: between two updates; its generators are left alone.
        seed: of the draws.
    """

    def __init__(self, learner: Learner, seed: Sequence[int]) -> None:
        self._learner, self._rng = learner, np.random.default_rng(seed)

    @property
    def contract(self) -> Contract:
        """The learner's."""
        return self._learner.environment.contract

    def start(self, rows: int) -> Floats:
        """(rows, memory) zeros."""
        return np.zeros((rows, self._learner.settings.remembered))

    def step(self, observation: Ints, memory: Floats) -> tuple[Ints, Floats]:
        """(rows, n) int32 observations and the memory to (rows, m) int32 actions and the next memory."""
        action, after = self._learner.sample(self.contract.physical_observation(observation), memory, self._rng)
        return self.contract.fixed_action(action), after
