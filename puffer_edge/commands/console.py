"""What every command prints with: two consoles, one way to give a result, one progress bar."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

# Paths and messages are printed as they are: no square bracket is a style.
OUT = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
SIDE = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)
WIDE = Console(markup=False, emoji=False, highlight=False, soft_wrap=True, width=max(OUT.width, 150))
"""For tables of many columns, whatever the terminal has: a cut number would be of no use."""
Name = Annotated[str, tyro.conf.Positional]
Folder = Annotated[Path, tyro.conf.Positional]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


def fail(args: list[str], kind: str, message: str, code: int) -> None:
    """Say what went wrong, as JSON too where that was asked for, and end with an exit code."""
    if "--json" in args:
        print(jsonlib.dumps({"error": kind, "message": message}))
    SIDE.print(f"error: {message}", style="red")
    raise SystemExit(code)


def show_result(as_json: bool, result: Any, show: Callable[[], None]) -> None:
    """A command's result: JSON, or what ``show`` prints."""
    if as_json:
        print(jsonlib.dumps(result, indent=1))
    else:
        show()


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yields ``advance(done, total, note)``; the bar goes away at the end."""
    done, note = TextColumn("{task.completed:,.0f}/{task.total:,.0f}"), TextColumn("{task.fields[note]}")
    with Progress(TextColumn(what), BarColumn(), done, note, TimeElapsedColumn(), console=SIDE, transient=True) as progress:
        task = progress.add_task(what, total=1, note="")
        yield lambda done, total, text: progress.update(task, completed=done, total=total, note=text)
