"""What the dashboard costs a training: seconds spent in it over those of the whole, and the same training without it, in turns, in one run.

It draws on a pseudo-terminal that somebody reads, as a user's does. The share is measured by a clock around every call of it; the ratio of
the two trainings is beside it, and on a machine with other work it says less than it is exact to.

``--picture`` writes docs/dashboard.svg, a training of the pendulum two thirds through, and measures nothing.

python benchmarks/watching.py [--repeats 5] [--picture]
"""

from __future__ import annotations

import argparse
import io
import os
import pty
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from record import save, show
from rich.console import Console

from puffer_edge.commands.dashboard import Dashboard
from puffer_edge.train import PPOSettings, settings_for, train

WIDE = PPOSettings(engine="native", rows=1024, horizon=64, minibatch=1024 * 16, hidden=(64, 64), activation="tanh", shared=True, steps=6_000_000)
SETTINGS = {"preset, 10 times as long": replace(settings_for("cartpole"), steps=1_000_000), "1024 environments": WIDE}


class Clocked:
    """A dashboard and the seconds spent in it."""

    def __init__(self, console: Console) -> None:
        self.dashboard, self.seconds, self.drawings = Dashboard(console), 0.0, 0
        draw = self.dashboard.draw

        def counted() -> None:
            self.drawings += 1
            draw()

        self.dashboard.draw = counted  # type: ignore[method-assign]

    @contextmanager
    def _clock(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began

    def begin(self, folder: Path, about: Mapping[str, Any], steps: int) -> None:
        with self._clock():
            self.dashboard.begin(folder, about, steps)

    def write(self, row: Mapping[str, float | None]) -> None:
        with self._clock():
            self.dashboard.write(row)

    def close(self, result: Mapping[str, Any] | None) -> None:
        with self._clock():
            self.dashboard.close(result)


@contextmanager
def terminal() -> Iterator[Console]:
    """A console on a pseudo-terminal of 100 columns, read to the end by a thread."""
    ours, theirs = pty.openpty()

    def read() -> None:
        try:
            while os.read(ours, 65536):
                pass
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(theirs, "w") as file:
        yield Console(file=file, width=100, height=40)
    reader.join()
    os.close(ours)


def measure(name: str, settings: PPOSettings, repeats: int) -> dict[str, Any]:
    """One row."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    shares, drawings, rates = [], [], []
    with tempfile.TemporaryDirectory() as folder, terminal() as console:
        for turn in range(2 * repeats + 1):  # the first one warms up
            watched = turn % 2 == 1
            clocked = Clocked(console)
            run = train("cartpole", settings=settings, out=Path(folder) / str(turn), writers=[clocked] if watched else [])
            if turn:
                seconds[watched].append(run.result["seconds"])
            if watched:
                shares.append(clocked.seconds / run.result["seconds"])
                drawings.append(clocked.drawings)
                rates.append(median(row["steps_per_second"] for row in run.metrics() if "steps_per_second" in row))
    return {
        "training": name,
        "steps": settings.steps,
        "updates": -(-settings.steps // (settings.rows * settings.horizon)),
        "steps_per_s": round(median(rates)),
        "seconds_without": round(median(seconds[False]), 3),
        "seconds_with": round(median(seconds[True]), 3),
        "drawings": median(drawings),
        "share_in_dashboard": round(median(shares), 5),
        "largest_share": round(max(shares), 5),
    }


class Snapshot:
    """Draws a dashboard once, at a step, into a file."""

    def __init__(self, path: Path, step: int, title: str) -> None:
        self.path, self.step, self.title = path, step, title
        self.console = Console(file=io.StringIO(), record=True, width=100, force_terminal=True, color_system="truecolor")
        self.dashboard = Dashboard(Console(file=io.StringIO(), width=100))

    def begin(self, folder: Path, about: Mapping[str, Any], steps: int) -> None:
        self.dashboard.begin(Path("runs") / folder.name, about, steps)

    def write(self, row: Mapping[str, float | None]) -> None:
        self.dashboard.take(row)
        if (row["steps"] or 0) >= self.step and "policy_loss" in row:
            self.console.print(self.dashboard.view())
            drawn = self.console.export_svg(title=self.title)
            self.path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL))  # fetches nothing from elsewhere
            self.step = sys.maxsize

    def close(self, result: Mapping[str, Any] | None) -> None:
        self.dashboard.close(result)


def picture() -> None:
    """The picture of docs/runs.md."""
    page = Path(__file__).parents[1] / "docs" / "dashboard.svg"
    with tempfile.TemporaryDirectory() as folder:
        settings = replace(settings_for("pendulum"), steps=300_000)
        train("pendulum", settings=settings, out=Path(folder) / "pendulum-0", writers=[Snapshot(page, 190_000, "puffer-edge train pendulum")])


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--picture", action="store_true")
    settings = vars(parser.parse_args())
    if settings.pop("picture"):
        return picture()
    rows = [measure(name, values, settings["repeats"]) for name, values in SETTINGS.items()]
    show("what the dashboard costs", rows)
    save("watching", settings=settings, rows=rows)


if __name__ == "__main__":
    main()
