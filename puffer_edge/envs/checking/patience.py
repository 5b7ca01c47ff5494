"""A limit on how long one call of an environment may take, by looking at the stack now and then."""

from __future__ import annotations

import linecache
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from puffer_edge.errors import WorkerFailed

CALL_S = 60.0
"""As long as a step may take in a training's workers."""
LOOKS = 6
"""In that time."""
_HERE = str(Path(__file__).parents[2])


class _Hangs(BaseException):
    """Raised in the midst of a call; no ``except Exception`` on the way catches it."""


@contextmanager
def patience(name: str, most_s: float = CALL_S) -> Iterator[None]:
    """Within it one call of somebody's Python code may take so long, however many there are.

    It needs the main thread, and signals that Windows lacks; without them, and where a call is stuck in compiled code, there is no limit.

    Args:
        name: of the environment.
        most_s: seconds of one call, give or take a sixth.

    Raises:
        WorkerFailed: one took longer; the message has the line that it is in.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    held: FrameType | None = None
    looks = 0

    def look(number: int, frame: FrameType | None) -> None:
        nonlocal held, looks
        called = _call(frame)
        looks = looks + 1 if called is not None and called is held else 0
        held = called
        if looks >= LOOKS and frame is not None:
            raise _Hangs(_place(frame))

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, most_s / LOOKS, most_s / LOOKS)
    try:
        yield
    except _Hangs as hangs:
        raise WorkerFailed(f"{name} hangs: a call has not ended after {most_s:g} s; it is in\n  {hangs}") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        held = None


def _call(frame: FrameType | None) -> FrameType | None:
    """The frame that code of this package called last, of code that is not of it."""
    inside = None
    while frame is not None and not frame.f_code.co_filename.startswith(_HERE):
        inside, frame = frame, frame.f_back
    return inside if frame is not None else None


def _place(frame: FrameType) -> str:
    file, line = frame.f_code.co_filename, frame.f_lineno
    return f"{file}, line {line}: {linecache.getline(file, line).strip()}"
