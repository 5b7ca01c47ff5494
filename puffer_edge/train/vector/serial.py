"""Living environments side by side in this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.envs import snapshot
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.living import seed_of
from puffer_edge.envs.world import Living
from puffer_edge.errors import Unsupported
from puffer_edge.spaces import Floats
from puffer_edge.train.vector.rows import Rows, Sizes, guarded
from puffer_edge.train.vector.saving import Saving, pack, unpack


class Serial:
    """N living environments, which keep ``world.World``.

    Args:
        environment: the task, which says how one is made.
        n: N.

    Raises:
        Unsupported: the environment is made of functions.
        WorkerFailed: making one, or stepping one later, raised something.
    """

    def __init__(self, environment: Environment, n: int) -> None:
        if environment.living is None:
            raise Unsupported(f"{environment.name} is made of functions: a plant steps them without a world")
        self.sizes = Sizes.of(environment, n)
        self.rows = Rows.place(self.sizes)
        self.rows.clear()
        r = self.rows
        self.seen, self.reward, self.cost, self.terminated, self.cut, self.alive = r.seen, r.reward, r.cost, r.terminated, r.cut, r.alive
        self.allowed = r.allowed if environment.allowed is not None else None
        self._living: list[Living] = [environment.living() for _ in range(n)]
        self._saving = Saving(environment)

    def start(self, rows: npt.NDArray[np.int64], seed: int, episodes: npt.NDArray[np.int64]) -> None:
        """Start these rows in these episodes of a seed."""
        for k, episode in zip(rows.tolist(), episodes.tolist()):
            self.rows.seed[k] = seed_of(seed, episode)
            guarded(self.rows.start, self._living[k], self.rows, k, self.sizes.name)

    def step(self, action: Floats) -> None:
        """One step of every row: (N, A, m) physical actions."""
        self.rows.action[...] = action
        for k, living in enumerate(self._living):
            guarded(self.rows.step, living, self.rows, k, self.sizes.name)

    def save_state(self) -> dict[str, npt.NDArray[Any]]:
        """The rows and the environments behind them.

        Raises:
            Unsupported: an environment holds what cannot be saved, or would go on otherwise.
        """
        self._saving.check()
        return pack(self.rows, [snapshot.take(living) for living in self._living])

    def load_state(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what ``save_state`` gave.

        Raises:
            Unsupported: it cannot; all rows must be started then.
        """
        for living, state in zip(self._living, unpack(self.rows, arrays)):
            snapshot.put(living, state)

    def close(self) -> None:
        """Close all of them."""
        for living in self._living:
            living.close()
        self._living = []
