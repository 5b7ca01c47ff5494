"""What a training tells after each update, and what of it was lived."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from puffer_edge.spaces import Bools, Floats


@dataclass(frozen=True)
class Progress:
    """What a callback is told after each update.

    Attributes:
        steps: environment steps done.
        total: steps of the whole training.
        seconds: wall time of this call of ``learn``, callbacks included.
        steps_per_second: since the update before, callbacks not included.
        ep_rew_mean: mean return of the last 100 training episodes, sampled actions; NaN before the first has ended.
        metrics: everything that is logged; NaN where there is no number yet. ``time_…`` are seconds by phase since the row before
            (``puffer_edge/train/phases.py``): collect, in it policy and environment where the torch engine runs them, update, and from
            the end of the row before evaluate, checkpoint, log and callbacks. A later callback finds what earlier ones returned.
    """

    steps: int
    total: int
    seconds: float
    steps_per_second: float
    ep_rew_mean: float
    metrics: Mapping[str, float]


class Lived(Protocol):
    """What a stretch of the training was: T steps of N rows, each an agent's."""

    @property
    def observation(self) -> Floats:
        """(T, N, n) physical, acted on."""
        ...

    @property
    def reward(self) -> Floats:
        """(T, N)."""
        ...

    @property
    def cost(self) -> Floats:
        """(T, N)."""
        ...

    @property
    def alive(self) -> Bools:
        """(T, N) whether the agent acted."""
        ...

    @property
    def intervention_rate(self) -> float:
        """Share of the steps at which the shield acted."""
        ...


Callback = Callable[[Progress], "bool | Mapping[str, float] | None"]
"""Returns None, False to end the training in peace, or numbers of one's own by name, which are logged beside the others."""
