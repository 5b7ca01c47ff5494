"""TensorBoard's event files beside ``metrics.jsonl``, for those who ask: its import costs more than a short training takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from puffer_edge.errors import MissingExtra

FOLDER = "tensorboard"


class TensorBoard:
    """Writes rows of metrics as scalars, under the names that they have in ``metrics.jsonl``.

    Args:
        folder: of the run; the event files go into ``tensorboard`` there.
        steps: where the training stands; what earlier files say of later steps is not shown.

    Raises:
        MissingExtra: tensorboard is not installed.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtra("tensorboard", "writing for TensorBoard") from None
        self._open: Any = lambda: SummaryWriter(str(folder / FOLDER), purge_step=steps + 1)
        self._writer: Any = None

    def write(self, row: Mapping[str, float | None]) -> None:
        """One row; ``steps`` is where it belongs, None is left out."""
        self._writer = self._writer or self._open()
        for name, value in row.items():
            if name != "steps" and value is not None:
                self._writer.add_scalar(name, value, row["steps"])

    def close(self) -> None:
        """Write what is still held back."""
        if self._writer is not None:
            self._writer.close()
