"""A training on the terminal: returns, cost, speed, where the time goes, losses and metrics of one's own, drawn anew a few times a second."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from puffer_edge.train.phases import PREFIX
from puffer_edge.train.verdict import rank

Row = Mapping[str, "float | None"]
INTERVAL_S = 0.25
SHARE = 200
"""A drawing waits for this many times as long as the last one took: drawing costs at most 1/200 of the time."""
NARROW = 72
"""Columns below which what stands on the right is left out."""
POINTS = 32
"""Of the small curve, in characters."""
BARS = "▁▂▃▄▅▆▇█"
FADE_S = 2.0
"""Over which shares of time are averaged: those of a single update jump."""
PHASES = {"collect": "cyan", "policy": "blue", "environment": "green", "update": "magenta", "evaluate": "yellow", "checkpoint": "red", "log": "white"}
NAMES = {
    "policy_loss": "policy loss",
    "value_loss": "value loss",
    "cost_value_loss": "cost critic's loss",
    "entropy": "entropy",
    "approx_kl": "KL",
    "kl": "KL",
    "step_share": "share of the step",
    "clip_fraction": "clipped",
    "explained_variance": "explained variance",
    "learning_rate": "learning rate",
    "policy_lag": "policy lag",
    "cost_estimate": "episode's cost for λ",
}
"""Metrics in the order of the table; others follow under their own names."""
ABOVE = (
    "steps",
    "seconds",
    "steps_per_second",
    "ep_rew_mean",
    "ep_len_mean",
    "cost_rate",
    "ep_cost_mean",
    "cost_limit",
    "lambda",
    "intervention_rate",
    "kl_weight",
)
"""Metrics that have a place of their own, or are shown when they are not 0."""


class Dashboard:
    """A ``Writer`` (``puffer_edge/train/writer.py``) that draws what it is told; what it shows is as of the last update.

    Args:
        console: a terminal.
        total: steps of the whole training, where they are not those of the settings.
    """

    def __init__(self, console: Console, total: int | None = None) -> None:
        self._console, self._total = console, total
        self._live: Live | None = None
        self._about: Mapping[str, Any] = {}
        self._folder = Path()
        self._row: Row = {}
        self._evaluation: Row = {}
        self._best: tuple[float, float, tuple[bool, float]] | None = None
        self._returns: list[float] = []
        self._every = 1
        self._heard = 0
        self._first: tuple[float, float] | None = None
        self._shares: dict[str, float] = {}
        self._next_s = 0.0

    def begin(self, folder: Path, about: Mapping[str, Any], steps: int) -> None:
        """Draw the frame, which the numbers of ``about``'s training will fill."""
        self._folder, self._about = folder, about
        self._total = self._total or about["settings"].get("steps")
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._live.start()
        self.draw()

    def write(self, row: Row) -> None:
        """Take one row, and draw if it is time to."""
        self.take(row)
        began = time.perf_counter()
        if began >= self._next_s:
            self.draw()
            self._next_s = began + max(INTERVAL_S, SHARE * (time.perf_counter() - began))

    def close(self, result: Mapping[str, Any] | None) -> None:
        """Draw how it ended; the last drawing stays."""
        if self._live is not None:
            self.draw()
            self._live.stop()

    def take(self, row: Row) -> None:
        """Take one row in, without drawing."""
        if (found := row.get("eval_rew_mean")) is not None:
            self._evaluation = row
            order = rank(found, (row.get("eval_cost_mean") or 0.0) + (row.get("eval_cost_error") or 0.0), self._row.get("cost_limit"))
            if self._best is None or order >= self._best[2]:
                self._best = found, row["steps"] or 0.0, order
            return
        self._row = row
        if self._first is None:
            self._first = row["steps"] or 0.0, row.get("seconds") or 0.0
        if (value := row.get("ep_rew_mean")) is not None:
            if self._heard % self._every == 0:
                self._returns.append(value)
            self._heard += 1
            if len(self._returns) >= 4 * POINTS:  # every second one is enough from here on: the curve is of the whole training
                self._returns, self._every = self._returns[::2], 2 * self._every
        spent = {name.removeprefix(PREFIX): value or 0.0 for name, value in row.items() if name.startswith(PREFIX)}
        keep = math.exp(-sum(spent.values()) / FADE_S)
        self._shares = {name: keep * self._shares.get(name, 0.0) + spent.get(name, 0.0) for name in {**self._shares, **spent}}

    def draw(self) -> None:
        """Draw now; only between ``begin`` and ``close``."""
        assert self._live is not None
        self._live.update(self.view(), refresh=True)

    def view(self) -> RenderableType:
        """The picture, as wide as the terminal."""
        width = max(40, min(self._console.width, 110)) - 4
        about = self._about
        narrow = width < NARROW
        title = Text(f"{about.get('environment', '')} · {about.get('algorithm', '')} · seed {about.get('seed', '')}")
        parts: list[RenderableType] = [self._progress(width), Text(), self._scores(narrow), Text(), self._times(width), Text(), self._numbers(width)]
        return Panel(Group(*parts), title=title, title_align="left", subtitle=Text(str(self._folder)), subtitle_align="right", width=width + 4)

    def _progress(self, width: int) -> Text:
        steps, total = self._row.get("steps") or 0.0, self._total or 0
        share = min(1.0, steps / total) if total else 0.0
        done = round(share * width)
        line = Text(no_wrap=False, overflow="fold").append("━" * done, "green").append("─" * (width - done) + "\n", "dim")
        line.append(f"{steps:,.0f} / {total:,} steps", "bold").append(f"  {share:.0%}   ")
        line.append(f"{_number(self._row.get('steps_per_second'))} steps/s", "bold")
        seconds = self._row.get("seconds") or 0.0
        line.append(f"   {_clock(seconds)} gone")
        if self._first is not None and (gone := steps - self._first[0]) > 0:
            line.append(f", {_clock(max(0.0, total - steps) / gone * (seconds - self._first[1]))} to go")
        return line

    def _scores(self, narrow: bool) -> Table:
        table = Table.grid(padding=(0, 2))
        row, last = self._row, self._evaluation

        def line(name: str, words: Text, beside: Text) -> None:
            table.add_row(name, words, *([] if narrow else [beside]))

        curve = Text(sparkline(self._returns, POINTS), "cyan")
        line("return", Text().append(_number(row.get("ep_rew_mean")), "bold cyan").append(" of the last 100 training episodes", "dim"), curve)
        if last:
            interval = f" {_number(last.get('eval_rew_low'))} … {_number(last.get('eval_rew_high'))}" if last.get("eval_rew_low") is not None else ""
            text = Text().append(_number(last["eval_rew_mean"]), "bold yellow").append(f"{interval} evaluated at step {last['steps']:,.0f}", "dim")
            assert self._best is not None
            line("", text, Text(f"best {_number(self._best[0])} at {self._best[1]:,.0f}", "dim"))
        cost = Text().append(_number(row.get("cost_rate")), "bold").append(" a step", "dim")
        for name, words in (("ep_cost_mean", " an episode"), ("cost_limit", " allowed"), ("lambda", " λ")):
            if row.get(name) is not None:
                cost.append(f", {_number(row[name])}{words}", "dim")
        if last.get("eval_cost_mean") is not None:
            cost.append(f", {_number(last['eval_cost_mean'])} an episode evaluated", "dim")
        line("cost", cost, Text(f"episodes of {_number(row.get('ep_len_mean'))} steps", "dim"))
        acted = row.get("intervention_rate")
        shield = Text().append("–" if acted is None else f"{acted:.2%}", "bold").append(" of steps changed", "dim")
        if last.get("eval_unshielded_rew_mean") is not None:
            alone, paid = _number(last["eval_unshielded_rew_mean"]), _number(last.get("eval_unshielded_cost_mean"))
            shield.append(f"; without it {alone}, cost {paid} an episode evaluated", "dim")
        line("shield", shield, Text())
        return table

    def _times(self, width: int) -> Text:
        whole = sum(self._shares.values()) or 1.0
        shown = [(name, self._shares[name] / whole) for name in (*PHASES, *sorted(self._shares.keys() - PHASES.keys())) if name in self._shares]
        bar, words = Text(), Text("time    ", no_wrap=False, overflow="fold")  # a console that leaves wrapping to the terminal would cut them
        for name, share in shown:
            style = PHASES.get(name, "dim")
            bar.append("█" * round(share * width), style)
            words.append("■ ", style).append(f"{name} {share:.0%}  ")
        bar.truncate(width)
        return words.append("\n").append(bar)

    def _numbers(self, width: int) -> Table:
        others = [name for name in self._row if name not in NAMES and name not in ABOVE and not name.startswith(PREFIX)]
        names = [name for name in (*NAMES, *others) if name in self._row]
        names += ["kl_weight"] if self._row.get("kl_weight") else []
        columns = max(1, width // 32)
        table = Table.grid(padding=(0, 2))
        for _ in range(columns):
            table.add_column(min_width=18, max_width=18, no_wrap=True, overflow="ellipsis")
            table.add_column(min_width=10, justify="right", no_wrap=True)
        cells = [part for name in names for part in (Text(NAMES.get(name, name), "dim"), Text(_number(self._row[name])))]
        for at in range(0, len(cells), 2 * columns):
            table.add_row(*cells[at : at + 2 * columns])
        return table


def sparkline(values: list[float], width: int) -> str:
    """A curve of at most ``width`` characters, one for each stretch of equal length; the lowest value is the lowest bar."""
    if not values:
        return ""
    edges = [round(k * len(values) / min(width, len(values))) for k in range(min(width, len(values)) + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in zip(edges, edges[1:])]
    low, high = min(means), max(means)
    return "".join(BARS[round((value - low) / (high - low) * (len(BARS) - 1))] if high > low else BARS[3] for value in means)


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:.3g}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.2e}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
