"""Reads ``metrics.jsonl``, also while it is written: whole lines alone, and what cannot be read is counted, not hidden."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Log:
    """The lines of one file, as they come.

    Args:
        path: a ``metrics.jsonl``.

    Attributes:
        damaged: numbers, from 1, of lines that are no row; a last one without its end is still being written, or was when a process died.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._at, self._line = path, 0, 0
        self.damaged: list[int] = []

    def more(self) -> list[dict[str, Any]] | None:
        """Rows since this was last asked; None where the file has become shorter, because a training went on from before: read it anew."""
        with open(self._path, "rb") as file:
            if file.seek(0, 2) < self._at:
                return None
            file.seek(self._at)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        rows = []
        for line in whole.split(b"\n")[:-1]:
            self._line += 1
            if (row := _row(line)) is None:
                self.damaged.append(self._line)
            else:
                rows.append(row)
        return rows


def _row(line: bytes) -> dict[str, Any] | None:
    """A table of numbers with ``steps``, or None."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    sound = isinstance(row, dict) and all(value is None or isinstance(value, (int, float)) for value in row.values())
    return row if sound and row.get("steps") is not None else None
