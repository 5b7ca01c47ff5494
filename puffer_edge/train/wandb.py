"""A run in Weights & Biases beside ``metrics.jsonl``, for those who ask; with WANDB_MODE=offline nothing leaves the machine."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from puffer_edge.errors import BundleError, InvalidInput, MissingExtra
from puffer_edge.files import write_atomic

PROJECT = "puffer-edge"
IDENTITY = "wandb.json"
"""In the run's folder: the id and project that a training which goes on goes on with."""


class WandB:
    """Writes rows of metrics under the names that they have in ``metrics.jsonl``, at their environment steps.

    The settings are the run's config, ``result.json`` its summary, the folder's name its name; W&B's own files go into ``wandb/`` there.
    A training that goes on keeps its id; the rows that it repeats are those which W&B has already, and W&B leaves them out.

    Args:
        project: in W&B; a training that goes on keeps its own unless one is named.

    Raises:
        MissingExtra: wandb is not installed.
        InvalidInput: nobody is logged in, and there is no terminal to ask for a key.
    """

    def __init__(self, project: str | None = None) -> None:
        try:
            import wandb
        except ImportError:
            raise MissingExtra("wandb", "writing for Weights & Biases") from None
        self._project = project
        self._wandb: Any = wandb
        self._run: Any = None
        settings = wandb.setup().settings
        if settings.mode in ("offline", "disabled", "dryrun"):
            return
        try:
            wandb.login(verify=False)  # before anything is written; asks where there is a terminal
        except wandb.errors.Error as error:
            raise _refused(error) from None

    def begin(self, folder: Path, about: Mapping[str, Any], steps: int) -> None:
        """Start a run, or go on with the one of this folder.

        Raises:
            InvalidInput: W&B refused, or could not be reached.
            BundleError: ``wandb.json`` is damaged.
        """
        identity = self._identity(folder)
        settings = self._wandb.Settings(
            quiet=True,
            console="off",  # a dashboard drawn over and over is no log
        )
        config = {name: value for name, value in about.items() if name not in ("format", "settings")} | dict(about["settings"])
        try:
            self._run = self._wandb.init(
                **identity, dir=str(folder), name=folder.resolve().name, config=config, resume="allow", allow_val_change=True, settings=settings
            )
        except self._wandb.errors.Error as error:
            raise _refused(error) from None

    def write(self, row: Mapping[str, float | None]) -> None:
        """One row; sent, or stored, by a process of W&B's."""
        numbers = {name: value for name, value in row.items() if value is not None and name != "steps"}
        self._run.log(numbers, step=row["steps"])

    def close(self, result: Mapping[str, Any] | None) -> None:
        """Put the result into the summary, and wait until all is sent or stored."""
        if self._run is None:
            return
        for name, value in (result or {}).items():
            self._run.summary[name] = value
        self._run.finish(exit_code=1 if result is None else 0)

    def _identity(self, folder: Path) -> dict[str, str]:
        """Id and project of this folder's run, made where it has none; kept before W&B hears of it."""
        path = folder / IDENTITY
        try:
            kept = json.loads(path.read_text()) if path.is_file() else {"id": secrets.token_hex(4), "project": PROJECT}
            identity = {"id": str(kept["id"]), "project": self._project or str(kept["project"])}
        except (ValueError, TypeError, KeyError) as error:
            raise BundleError(f"{path} is damaged: {error!r}; without the file a new run begins in W&B") from None
        write_atomic(path, json.dumps(identity, indent=2) + "\n")
        return identity


def _refused(error: Exception) -> InvalidInput:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return InvalidInput(f"W&B: {first}; run 'wandb login' first, or set WANDB_MODE=offline and send it later with 'wandb sync'")
