"""Whoever is told of a training row by row beside ``metrics.jsonl``, which stays the truth: TensorBoard, W&B, a terminal, one's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Writer(Protocol):
    """Used once: ``begin``, ``write`` for every row, ``close`` whatever way the training ends."""

    def begin(self, folder: Path, about: Mapping[str, Any], steps: int) -> None:
        """A training starts, or goes on.

        Args:
            folder: of the run.
            about: environment, algorithm, seed, shield, versions, and under "settings" those of the algorithm, as ``Run.settings`` has them.
            steps: environment steps done; what was told of later ones belongs to a process that is gone, and is told again.
        """

    def write(self, row: Mapping[str, float | None]) -> None:
        """One line of ``metrics.jsonl``: an update, or an evaluation (it has ``eval_rew_mean``). None: there is no number yet."""

    def close(self, result: Mapping[str, Any] | None) -> None:
        """The training is over: what ``result.json`` says, or None where an error ended it."""
