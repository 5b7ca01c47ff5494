"""Files that are either whole or absent: written to a temporary name, synced, renamed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

OBSERVATIONS = "observations.npz"
"""In a run's folder: what its policy is calibrated on, where that is not left to rollouts."""


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write a whole file, or leave what was there.

    Args:
        path: the file; its folder is made if missing.
        data: bytes, or text that is written as UTF-8.

    Raises:
        OSError: disk full, no permission; the old file is untouched and no temporary file is left.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
