"""Where the time of a training goes: wall seconds by phase, a phase within another counting for itself alone."""

from __future__ import annotations

import time
from types import TracebackType

PREFIX = "time_"
"""Of the metrics that hold seconds of a phase."""


class Phases:
    """A stopwatch with names, used as ``with phases("update"): …``; phases may stand within one another, so that no second counts twice."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._since = 0.0

    def __call__(self, name: str) -> Phases:
        """The phase to enter."""
        self._entered = name
        return self

    def __enter__(self) -> None:
        self._credit()
        self._open.append(self._entered)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._credit()
        self._open.pop()

    def take(self) -> dict[str, float]:
        """Seconds of each phase since this was last asked, as metrics ``time_…``; an open phase has its share so far."""
        self._credit()
        taken = {PREFIX + name: seconds for name, seconds in self._seconds.items()}
        self._seconds = dict.fromkeys(self._seconds, 0.0)
        return taken

    def _credit(self) -> None:
        """Give the time since the last change to the phase that is open."""
        now = time.perf_counter()
        if self._open:
            name = self._open[-1]
            self._seconds[name] = self._seconds.get(name, 0.0) + now - self._since
        self._since = now
