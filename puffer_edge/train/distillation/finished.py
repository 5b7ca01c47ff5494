"""The students that are done, kept in the run's folder until it is whole: what ends a distillation early costs none of them."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from puffer_edge.device.limits import Need
from puffer_edge.errors import PufferEdgeError, WriteFailed
from puffer_edge.files import write_atomic
from puffer_edge.policy import Policy
from puffer_edge.train.distillation.table import Row

FOLDER = "students"
_NUMBERS = ("returned", "interval", "returned_float", "kept", "surely", "refused")
"""Of a row, beside shape, profile, policy and need."""


@dataclass(frozen=True, eq=False)
class Done:
    """A student that was trained and evaluated.

    Attributes:
        rows: one for each profile.
        log: one mapping for each round, its steps counted from this student's start.
        steps: environment steps that it acted.
        seconds: that it took.
    """

    rows: list[Row]
    log: list[dict[str, float]]
    steps: int
    seconds: float


class Finished:
    """The finished students of one distillation: a policy and a JSON file each.

    Args:
        run: folder of the run.
        question: SHA-256 of all that a student's bits and rows depend on but its shape; students of another question lie beside these.
    """

    def __init__(self, run: Path, question: str) -> None:
        self.run, self.folder = run, run / FOLDER / question[:16]

    def __len__(self) -> int:
        return len(list(self.folder.glob("*.json")))

    def load(self, name: str) -> Done | None:
        """The student of that name; None where it is not finished, or what was kept of it is damaged."""
        try:
            data = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
            policy = Policy.load(self.folder / f"{name}.safetensors")
            return Done([_row(policy, row) for row in data["rows"]], data["log"], data["steps"], data["seconds"])
        except (OSError, ValueError, KeyError, TypeError, PufferEdgeError):
            return None

    def save(self, name: str, done: Done) -> None:
        """Keep a student.

        Raises:
            WriteFailed: the disk is full, or may not be written to.
        """
        rows = [
            {"hidden": row.hidden, "profile": row.profile, "need": vars(row.need)} | {key: getattr(row, key) for key in _NUMBERS} for row in done.rows
        ]
        data = {"rows": rows, "log": done.log, "steps": done.steps, "seconds": done.seconds}
        try:
            done.rows[0].policy.save(self.folder / f"{name}.safetensors")
            write_atomic(self.folder / f"{name}.json", json.dumps(data) + "\n")  # last: what has none is not finished
        except OSError as error:
            raise WriteFailed(
                f"student {name} could not be written to {self.folder}: {error.strerror or error}; {len(self)} are finished and stay "
                "there: make room, and the same command goes on with those that are missing"
            ) from error

    def clear(self) -> None:
        """Remove them: the run is whole."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()  # unless another question's are there


def _row(policy: Policy, data: Mapping[str, Any]) -> Row:
    numbers = {key: data[key] for key in _NUMBERS} | {"interval": tuple(data["interval"])}
    return Row(tuple(data["hidden"]), data["profile"], policy, Need(**data["need"]), **numbers)
