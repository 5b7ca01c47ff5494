"""TensorBoard's event files beside ``metrics.jsonl``, for those who ask: its import costs more than a short training takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from puffer_edge.errors import MissingExtra

FOLDER = "tensorboard"


class TensorBoard:
    """Writes rows of metrics as scalars into ``tensorboard/`` of the run, under the names that they have in ``metrics.jsonl``.

    Raises:
        MissingExtra: tensorboard is not installed.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtra("tensorboard", "writing for TensorBoard") from None
        self._make: Any = SummaryWriter
        self._writer: Any = None

    def begin(self, folder: Path, about: Mapping[str, Any], steps: int) -> None:
        """Open an event file; what earlier ones say of later steps is not shown."""
        self._writer = self._make(str(folder / FOLDER), purge_step=steps + 1)

    def write(self, row: Mapping[str, float | None]) -> None:
        """One row; ``steps`` is where it belongs, None is left out."""
        for name, value in row.items():
            if name != "steps" and value is not None:
                self._writer.add_scalar(name, value, row["steps"])

    def close(self, result: Mapping[str, Any] | None) -> None:
        """Write what is still held back."""
        if self._writer is not None:
            self._writer.close()
