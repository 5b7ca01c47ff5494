"""Pictures of ``puffer_edge/train/curve.py`` as PNG: matplotlib draws the few shapes that they are made of."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

from puffer_edge.errors import MissingExtra

DPI = 100
ANCHORS = {"start": "left", "middle": "center", "end": "right"}
SVG = "{http://www.w3.org/2000/svg}"


def png(svg: str, scale: float = 2.0) -> bytes:
    """One of our own SVG pictures as PNG, so many pixels to one of its units.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("report", "a PNG picture") from None
    root = ET.fromstring(svg)
    _, _, width, height = (float(v) for v in root.attrib["viewBox"].split())
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI * scale)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    for element in root:
        if element.tag == SVG + "g":  # a panel, moved down
            down = float(element.attrib["transform"].removeprefix("translate(0 ").removesuffix(")"))
            for inner in element:
                _draw(axes, inner, down)
        else:
            _draw(axes, element, 0.0)
    out = io.BytesIO()
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(out)
    return out.getvalue()


def _draw(axes: Any, element: ET.Element, down: float) -> None:
    from matplotlib.patches import Circle, Polygon

    def at(name: str) -> float:
        return float(element.get(name, 0))

    kind, alpha = element.tag.removeprefix(SVG), float(element.get("opacity", 1))
    stroke = {"color": element.get("stroke"), "linewidth": float(element.get("stroke-width", 1)) * 72 / DPI, "alpha": alpha}
    if kind == "line":
        axes.plot((at("x1"), at("x2")), (at("y1") + down, at("y2") + down), **stroke)
    elif kind == "polyline":
        points = _points(element, down)
        axes.plot([x for x, _ in points], [y for _, y in points], **stroke)
    elif kind == "polygon":
        axes.add_patch(Polygon(_points(element, down), closed=True, facecolor=element.get("fill"), alpha=alpha, linewidth=0))
    elif kind == "circle":
        axes.add_patch(Circle((at("cx"), at("cy") + down), at("r"), facecolor=element.get("fill"), linewidth=0))
    elif kind == "text":
        turned = 90 if "transform" in element.attrib else 0
        size = float(element.get("font-size", 12)) * 72 / DPI
        place = {"ha": ANCHORS[element.get("text-anchor", "start")], "va": "baseline", "rotation": turned, "rotation_mode": "anchor"}
        axes.text(at("x"), at("y") + down, (element.text or "").replace("$", r"\$"), fontsize=size, color="#1c2430", **place)


def _points(element: ET.Element, down: float) -> Sequence[tuple[float, float]]:
    pairs = (pair.split(",") for pair in element.get("points", "").split())
    return [(float(x), float(y) + down) for x, y in pairs]
