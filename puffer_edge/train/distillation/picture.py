"""The table of a distillation as a picture: return kept against products, bytes and predicted microseconds, a panel each."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from puffer_edge.integer.scales import PROFILES
from puffer_edge.train.curve import BOTTOM, COLORS, GREY, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, axes, label, legend, svg

LOWEST = 0.5
"""Of the share kept that is drawn: what lies below is drawn there."""
COLOR = dict(zip(PROFILES, COLORS))


@dataclass(frozen=True)
class LogAxis(Axis):
    """From positive numbers to pixels, by their logarithms."""

    def __call__(self, value: float) -> float:
        return self.start + math.log(value / self.low) / math.log(self.high / self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """1, 2 and 5 times powers of ten within the axis; the powers alone where those would be many, all digits times them where few."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for digits in ((1,), (1, 2, 5)):
            inside = [k * 10.0**power for power in powers for k in digits if self.low <= k * 10.0**power <= self.high]
            if len(inside) > 3:
                return inside
        return [k * 10.0**power for power in powers for k in range(1, 10) if self.low <= k * 10.0**power <= self.high]


def draw(report: Mapping[str, Any], title: str) -> str:
    """The picture, as SVG text.

    A full circle is on the front, a hollow one is not; the ring is the student taken, the cross the teacher's integers, the grey vertical line
    the budget, where one was set.

    Args:
        report: ``result["distillation"]`` of a run.
        title: plain text.
    """
    budget, kib = report["budget"], report["budget"]["kib"]
    panels = [("macs", "multiply-accumulates", budget["macs"]), ("image_bytes", "bytes of the policy image", None if kib is None else kib * 1024)]
    rows = [row for row in report["table"] if not row["refused"]]
    if all(row["us"] is not None for row in rows):
        panels.append(("us", f"{' or '.join(sorted({row['label'] for row in rows}))} µs of a tick on {budget['target']}", budget["us"]))
    parts = []
    for number, (key, name, limit) in enumerate(panels):
        inside = _panel(report["teacher"], rows, key, limit, f"return kept, {name}", name)
        if number == 0:
            inside.insert(0, f'<text x="{LEFT}" y="20" font-size="14">{html.escape(title)}</text>')
            inside += legend([(COLOR[p], p) for p in PROFILES if any(row["profile"] == p for row in rows)])
        parts.append(f'<g transform="translate(0 {number * HEIGHT})">' + "\n".join(inside) + "</g>")
    return svg(parts, len(panels) * HEIGHT)


def _panel(teacher: Mapping[str, Any], rows: list[Mapping[str, Any]], key: str, limit: float | None, what: str, x_name: str) -> list[str]:
    """Axes, and a mark for each row and the teacher."""
    known = [*rows, *([teacher] if teacher.get(key) else [])]
    values = [float(row[key]) for row in known] + ([limit] if limit else [])
    x = LogAxis(min(values) * 0.8, max(values) * 1.25, LEFT, WIDTH - RIGHT)
    shares = [max(LOWEST, row["return_kept"]) for row in known]
    low = min(shares)
    pad = 0.05 * (max(1.0, *shares) - low) or 0.01
    y = Axis(100 * (low - pad), 100 * (max(1.0, *shares) + pad), HEIGHT - BOTTOM, TOP + 20)
    parts = axes(x, y, x_name, "% of the teacher's return")
    if limit:
        parts.append(f'<line x1="{x(limit):.1f}" x2="{x(limit):.1f}" y1="{TOP + 20}" y2="{HEIGHT - BOTTOM}" stroke="{GREY}" stroke-width="2"/>')
        parts.append(label(x(limit) - 4, HEIGHT - BOTTOM - 8, "budget", "end"))
    for row in rows:
        at = f'cx="{x(row[key]):.1f}" cy="{y(100 * max(LOWEST, row["return_kept"])):.1f}"'
        fill = COLOR[row["profile"]] if row["front"] else "#ffffff"
        words = f"{'×'.join(map(str, row['hidden'])) or 'linear'} {row['profile']}: {row['return_kept']:.1%}, {row[key]:,.6g}"
        parts.append(
            f'<circle {at} r="4" fill="{fill}" stroke="{COLOR[row["profile"]]}" stroke-width="1.5"><title>{html.escape(words)}</title></circle>'
        )
        if row["taken"]:
            parts.append(f'<circle {at} r="9" fill="none" stroke="#1c2430" stroke-width="2"/>')
    if teacher.get(key):
        at_teacher = x(teacher[key]), y(100 * max(LOWEST, teacher["return_kept"])) + 4
        parts += [label(*at_teacher, "✕", "middle"), label(at_teacher[0] - 10, at_teacher[1], "teacher", "end")]
    return parts
