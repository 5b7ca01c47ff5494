"""Names that people type: found in a folder, which is the registry, and answered with a suggestion when there is no such name."""

from __future__ import annotations

import difflib
import importlib.resources
from collections.abc import Iterable
from pathlib import Path

from puffer_edge.errors import InvalidInput


def hint(name: str, known: Iterable[str]) -> str:
    """The closest of the names that there are, as a question in brackets; empty where none is close."""
    close = difflib.get_close_matches(name, sorted(known), 1, 0.5)
    return f" (did you mean {close[0]}?)" if close else ""


def choose(kind: str, name: str, known: Iterable[str]) -> str:
    """Return ``name`` if it is known.

    Args:
        kind: what is named, for the message ("target").
        name: what was typed.
        known: every name there is.

    Raises:
        InvalidInput: it is not known; the message lists the names and the closest one.
    """
    names = sorted(known)
    if name in names:
        return name
    raise InvalidInput(f"there is no {kind} {name!r}{hint(name, names)}: {', '.join(names) or 'none is installed'}")


def folder(package: str) -> Path:
    """The folder of a package of this distribution, wherever it is installed."""
    return Path(str(importlib.resources.files(package)))


def names(package: str, suffix: str) -> tuple[str, ...]:
    """Names of the files in a package's folder that end so, sorted, without the ending; private ones left out."""
    return tuple(sorted(p.name[: -len(suffix)] for p in folder(package).iterdir() if p.name.endswith(suffix) and not p.name.startswith("_")))
