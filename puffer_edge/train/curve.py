"""The learning curve of one run or several, as SVG text: no drawing library, whose import alone would take as long as a short training."""

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
MAX_POINTS = 600
"""Of one line: more than the picture has pixels only makes the file large."""
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class _Axis:
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
        return _frame(title, [_text(WIDTH / 2, HEIGHT / 2, "no episode has ended yet", "middle")])
    low, high = float(seen[:, 1].min()), float(seen[:, 1].max())
    pad = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    x = _Axis(0.0, float(seen[:, 0].max()), LEFT, WIDTH - RIGHT)
    y = _Axis(low - pad, high + pad, HEIGHT - BOTTOM, TOP)
    parts = _axes(x, y)
    if len(band):
        outline = [*((s, v) for s, v, _ in band), *((s, v) for s, _, v in band[::-1])]
        parts.append(f'<polygon points="{_pixels(outline, x, y)}" fill="{ORANGE}" opacity="0.2"/>')
    parts += [_line(points, x, y, GREY, 1) for points in grey]
    parts.append(_line(middle, x, y, ORANGE, 2))
    parts += [f'<circle cx="{x(s):.1f}" cy="{y(v):.1f}" r="3" fill="{ORANGE}"/>' for s, v in middle]
    words = ("training episodes, sampled actions", "evaluations, the policy deployed")
    if len(runs) > 1:
        words = (f"evaluations of {len(runs)} seeds", "their interquartile mean, 95 % interval")
    return _frame(title, parts + _legend(words))


def _points(rows: Rows, key: str) -> Floats:
    """(k, 2) steps and values of the rows that have one."""
    found = np.array([(row["steps"], row[key]) for row in rows if row.get(key) is not None], np.float64).reshape(-1, 2)
    if len(found) > MAX_POINTS:
        found = found[np.linspace(0, len(found) - 1, MAX_POINTS).astype(int)]
    return found


def _iqm_of(evaluations: Sequence[Floats]) -> tuple[Floats, Floats]:
    """IQM (k, 2) and band (k, 3: steps, low, high) at the steps at which every run was evaluated."""
    tables = [dict(points.tolist()) for points in evaluations]
    steps = sorted(set.intersection(*(set(table) for table in tables)))
    scores = [[table[s] for table in tables] for s in steps]
    middle = np.array([(s, iqm.iqm(row)) for s, row in zip(steps, scores)], np.float64).reshape(-1, 2)
    return middle, np.array([(s, *iqm.interval(row)) for s, row in zip(steps, scores)], np.float64).reshape(-1, 3)


def _axes(x: _Axis, y: _Axis) -> list[str]:
    parts = []
    for value in y.ticks():
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="{GREY}" opacity="0.25"/>')
        parts.append(_text(LEFT - 8, y(value) + 4, f"{value:,.6g}", "end"))
    for value in x.ticks():
        parts.append(_text(x(value), HEIGHT - BOTTOM + 18, f"{value:,.0f}", "middle"))
    parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}" stroke="{GREY}"/>')
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "environment steps", "middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">return of an episode</text>')
    return parts


def _legend(words: tuple[str, str]) -> list[str]:
    parts = []
    for k, (color, text) in enumerate(zip((GREY, ORANGE), words)):
        left = LEFT + 310 * k
        parts.append(f'<line x1="{left}" x2="{left + 22}" y1="34" y2="34" stroke="{color}" stroke-width="2"/>')
        parts.append(_text(left + 28, 38, text, "start"))
    return parts


def _line(points: Any, x: _Axis, y: _Axis, color: str, width: int) -> str:
    return f'<polyline points="{_pixels(points, x, y)}" fill="none" stroke="{color}" stroke-width="{width}"/>'


def _pixels(points: Any, x: _Axis, y: _Axis) -> str:
    return " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in points)


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'


def _frame(title: str, parts: Sequence[str]) -> str:
    body = "\n".join([f'<text x="{LEFT}" y="20" font-size="14">{html.escape(title)}</text>', *parts])
    style = 'font-family="system-ui, sans-serif" font-size="12" fill="#1c2430"'
    ground = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {style}>\n{ground}\n{body}\n</svg>\n'
