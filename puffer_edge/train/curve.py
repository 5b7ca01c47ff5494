"""Learning curves as SVG text: no drawing library, whose import alone would take as long as a short training."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from puffer_edge.spaces import Floats
from puffer_edge.train import iqm

BLUE, ORANGE, GREY = "#2563a8", "#d97706", "#8a8f98"
WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 40, 46, 50
"""Margins in pixels."""
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1c2430")
"""Told apart by everybody (Okabe and Ito, 2008, Color universal design)."""
LEGEND_LINE = 16
"""Pixels from one line of a legend to the next."""
MAX_POINTS = 600
"""Of one line: more than the picture has pixels only makes the file large."""
ABOVE = 5.0
"""Where a panel has a limit its axis ends at so many times as much: near the limit is where there is something to see."""
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Curve:
    """Trainings that belong together.

    Attributes:
        label: plain text.
        runs: (k, 2) x and value of each.
        middle: (k, 2) of all together.
        band: (k, 3) x and the ends of the interval; (0, 3) where there is none.
    """

    label: str
    runs: Sequence[Floats]
    middle: Floats
    band: Floats


@dataclass(frozen=True)
class Axis:
    """From numbers to pixels, linearly."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Some five round numbers within the axis: multiples of 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(k * power for k in (1, 2, 5, 10) if k * power >= 0.8 * rough)
        return [k * step for k in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def picture(runs: Sequence[Rows], title: str) -> str:
    """Returns over environment steps.

    One run: training episodes (sampled actions) in grey, evaluations (the policy that would be deployed) in orange. Several: each run's
    evaluations in grey, their interquartile mean in orange, with the band of its 95 % interval.

    Args:
        runs: the rows of each run's ``metrics.jsonl``.
        title: plain text.
    """
    evaluations = [_points(rows, "eval_rew_mean") for rows in runs]
    grey = [_points(runs[0], "ep_rew_mean")] if len(runs) == 1 else evaluations
    middle, band = (evaluations[0], np.zeros((0, 3))) if len(runs) == 1 else _iqm_of(evaluations)
    seen = np.concatenate([*grey, *evaluations, band[:, :2], band[:, ::2]])
    if not len(seen):
        return _frame(title, [label(WIDTH / 2, HEIGHT / 2, "no episode has ended yet", "middle")])
    x, y = _scales(seen, TOP)
    parts = axes(x, y, "environment steps", "return of an episode") + _band(band, x, y, ORANGE)
    parts += [_line(points, x, y, GREY, 1) for points in grey]
    parts.append(_line(middle, x, y, ORANGE, 2))
    parts += [f'<circle cx="{x(s):.1f}" cy="{y(v):.1f}" r="3" fill="{ORANGE}"/>' for s, v in middle]
    words = ("training episodes, sampled actions", "evaluations, the policy deployed")
    if len(runs) > 1:
        words = (f"evaluations of {len(runs)} seeds", "their interquartile mean, 95 % interval")
    return _frame(title, parts + legend(list(zip((GREY, ORANGE), words))))


def comparison(panels: Mapping[str, Sequence[Curve]], x_name: str, y_name: str, limits: Mapping[str, float] | None = None) -> str:
    """One panel below another, each with its curves: thin lines are trainings, the thick one is all of them together, with its band.

    Args:
        panels: by title; what is in one shares its axes.
        x_name: of every panel's axis, plain text.
        y_name: likewise.
        limits: by title, what values should stay below: a dashed line; what lies far above is drawn at the top.
    """
    parts, limits = [], limits or {}
    for number, (title, curves) in enumerate(panels.items()):
        seen = np.concatenate([part for c in curves for part in (*c.runs, c.middle, c.band[:, :2], c.band[:, ::2])])
        lines = -(-len(curves) // _columns([c.label for c in curves]))
        limit, top = limits.get(title), TOP + LEGEND_LINE * (lines - 1)
        x, y = _scales(seen, top, math.inf if not limit else ABOVE * limit)
        inside = [f'<text x="{LEFT}" y="20" font-size="14">{html.escape(title)}</text>', *axes(x, y, x_name, y_name)]
        colored = [(COLORS[k % len(COLORS)], curve) for k, curve in enumerate(curves)]
        for color, curve in colored:
            inside += _band(curve.band, x, y, color)
        for color, curve in colored:
            inside += [_line(points, x, y, color, 1, 0.35) for points in curve.runs if len(curve.runs) > 1]
            inside.append(_line(_thinned(curve.middle), x, y, color, 2))
        if limit is not None:
            across = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(limit):.1f}" y2="{y(limit):.1f}"'
            inside.append(f'<line {across} stroke="#1c2430" stroke-dasharray="6 4"/>')
        inside += legend([(color, curve.label) for color, curve in colored])
        parts.append(f'<g transform="translate(0 {number * HEIGHT})">' + "\n".join(inside) + "</g>")
    return svg(parts, len(panels) * HEIGHT)


def _scales(seen: Floats, top: float, highest: float = math.inf) -> tuple[Axis, Axis]:
    """Axes on which all of (k, 2) points can be seen that are no higher."""
    low, high = float(seen[:, 1].min()), min(float(seen[:, 1].max()), highest)
    pad = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    return Axis(0.0, float(seen[:, 0].max()) or 1.0, LEFT, WIDTH - RIGHT), Axis(low - pad, high + pad, HEIGHT - BOTTOM, top)


def _points(rows: Rows, key: str) -> Floats:
    """(k, 2) steps and values of the rows that have one."""
    return _thinned(np.array([(row["steps"], row[key]) for row in rows if row.get(key) is not None], np.float64).reshape(-1, 2))


def _thinned(points: Floats) -> Floats:
    return points[np.linspace(0, len(points) - 1, MAX_POINTS).astype(int)] if len(points) > MAX_POINTS else points


def _iqm_of(evaluations: Sequence[Floats]) -> tuple[Floats, Floats]:
    """IQM (k, 2) and band (k, 3: steps, low, high) at the steps at which every run was evaluated."""
    tables = [dict(points.tolist()) for points in evaluations]
    steps = sorted(set.intersection(*(set(table) for table in tables)))
    scores = [[table[s] for table in tables] for s in steps]
    middle = np.array([(s, iqm.iqm(row)) for s, row in zip(steps, scores)], np.float64).reshape(-1, 2)
    return middle, np.array([(s, *iqm.interval(row)) for s, row in zip(steps, scores)], np.float64).reshape(-1, 3)


def axes(x: Axis, y: Axis, x_name: str, y_name: str) -> list[str]:
    """Lines, ticks and names of a panel's axes."""
    parts = []
    for value in y.ticks():
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="{GREY}" opacity="0.25"/>')
        parts.append(label(LEFT - 8, y(value) + 4, f"{value:,.6g}", "end"))
    for value in x.ticks():
        parts.append(label(x(value), HEIGHT - BOTTOM + 18, f"{value:,.6g}" if value < 1e6 else f"{value:,.0f}", "middle"))
    parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}" stroke="{GREY}"/>')
    parts.append(label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, x_name, "middle"))
    middle = (y.end + HEIGHT - BOTTOM) / 2
    parts.append(f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{html.escape(y_name)}</text>')
    return parts


def _columns(labels: Sequence[str]) -> int:
    """Two in a row of the legend, where they are short enough."""
    return 2 if max(map(len, labels)) <= 44 else 1


def legend(entries: Sequence[tuple[str, str]]) -> list[str]:
    """Colour and text of each."""
    parts, columns = [], _columns([text for _, text in entries])
    for k, (color, text) in enumerate(entries):
        left, top = LEFT + 310 * (k % columns), 34 + LEGEND_LINE * (k // columns)
        parts.append(f'<line x1="{left}" x2="{left + 22}" y1="{top}" y2="{top}" stroke="{color}" stroke-width="2"/>')
        parts.append(label(left + 28, top + 4, text, "start"))
    return parts


def _band(band: Floats, x: Axis, y: Axis, color: str) -> list[str]:
    if not len(band):
        return []
    outline = [*((s, v) for s, v, _ in band), *((s, v) for s, _, v in band[::-1])]
    return [f'<polygon points="{_pixels(outline, x, y)}" fill="{color}" opacity="0.2"/>']


def _line(points: Any, x: Axis, y: Axis, color: str, width: int, opacity: float = 1.0) -> str:
    faint = f' opacity="{opacity}"' if opacity < 1 else ""
    return f'<polyline points="{_pixels(points, x, y)}" fill="none" stroke="{color}" stroke-width="{width}"{faint}/>'


def _pixels(points: Any, x: Axis, y: Axis) -> str:
    return " ".join(f"{x(s):.1f},{y(min(v, y.high)):.1f}" for s, v in points)


def label(x: float, y: float, words: str, anchor: str) -> str:
    """Plain text at a place, which it begins at, ends at, or has its middle."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'


def _frame(title: str, parts: Sequence[str]) -> str:
    return svg([f'<text x="{LEFT}" y="20" font-size="14">{html.escape(title)}</text>', *parts], HEIGHT)


def svg(parts: Sequence[str], height: int) -> str:
    """The picture of these parts."""
    body = "\n".join(parts)
    style = 'font-family="system-ui, sans-serif" font-size="12" fill="#1c2430"'
    ground = f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {style}>\n{ground}\n{body}\n</svg>\n'
