"""One training a folder: an advisory lock on the file that a run is logged to, which the system lets go of when the process ends."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from puffer_edge.errors import InvalidInput


def hold(file: IO[bytes], what: str) -> None:
    """Lock an open file until it is closed, or this process is gone.

    Raises:
        InvalidInput: somebody else holds it.
    """
    if not _take(file):
        raise InvalidInput(f"a training is writing to {what} right now: wait for it, stop it, or choose another folder")


def is_held(path: Path) -> bool:
    """Whether somebody has that file locked."""
    try:
        with open(path, "rb") as file:
            return not _take(file)
    except FileNotFoundError:
        return False


def _take(file: IO[bytes]) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows opens the log for one writer alone, but has no such lock: there a run is never seen to be written to
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
