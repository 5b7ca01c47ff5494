"""Pictures of environments, without a display: an environment's ``draw`` puts its state onto a canvas in metres; frames become PNG and GIF."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from puffer_edge.envs import living
from puffer_edge.envs.closed_loop import Episodes, run
from puffer_edge.envs.environment import Environment
from puffer_edge.errors import InvalidInput, MissingExtra, Unsupported, WriteFailed
from puffer_edge.files import write_atomic
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer.reference import Proposer, Runner
from puffer_edge.integer.shield import Shield
from puffer_edge.spaces import Floats

WIDTH, HEIGHT, FINE = 480, 320, 2
"""Pixels of a frame, and how many times finer it is drawn before it is scaled down."""
FRAMES_PER_S = 25
COLOURS = 48
STRIP = 6
"""Frames of a PNG."""
INK, GROUND, BODY, ACCENT, PAPER, ALARM = "#1f2933", "#9aa5b1", "#3e6fb0", "#d9822b", "#fbfbf9", "#c5303e"

Point = tuple[float, float]


class Canvas:
    """A frame in world units: x to the right, y up, its middle at the origin until ``view`` says otherwise.

    Raises:
        MissingExtra: Pillow is not installed.
    """

    def __init__(self) -> None:
        try:
            from PIL import Image, ImageDraw
        except ImportError:
            raise MissingExtra("report", "drawing an environment") from None
        self._image: Any = Image.new("RGB", (WIDTH * FINE, HEIGHT * FINE), PAPER)
        self._pen: Any = ImageDraw.Draw(self._image)
        self.view((0.0, 0.0), 4.0)

    def view(self, centre: Point, width: float) -> None:
        """Show so many metres from left to right around a point."""
        self._centre, self._scale = centre, WIDTH * FINE / width

    def _at(self, point: Point) -> Point:
        x, y = ((float(p) - c) * self._scale for p, c in zip(point, self._centre))
        bound = 1e5
        return min(max(WIDTH * FINE / 2 + x, -bound), bound), min(max(HEIGHT * FINE / 2 - y, -bound), bound)

    def line(self, start: Point, end: Point, colour: str = INK, pixels: float = 2.0) -> None:
        """A straight line with round ends."""
        width = max(1, round(pixels * FINE))
        self._pen.line([self._at(start), self._at(end)], colour, width)
        for x, y in (self._at(start), self._at(end)):
            self._pen.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], colour)

    def circle(self, centre: Point, radius: float, colour: str = BODY, edge: str = INK) -> None:
        """A filled circle."""
        x, y = self._at(centre)
        r = min(abs(radius) * self._scale, 1e5)
        self._pen.ellipse([x - r, y - r, x + r, y + r], colour, edge, FINE)

    def polygon(self, points: Sequence[Point], colour: str = BODY, edge: str = INK) -> None:
        """A filled polygon."""
        self._pen.polygon([self._at(p) for p in points], colour, edge, FINE)

    def box(self, centre: Point, width: float, height: float, turned: float = 0.0, colour: str = BODY) -> None:
        """A filled rectangle, turned by so many rad against the clock."""
        c, s = math.cos(turned), math.sin(turned)
        corners = ((-1, -1), (1, -1), (1, 1), (-1, 1))
        offsets = [(a * width / 2, b * height / 2) for a, b in corners]
        self.polygon([(centre[0] + c * x - s * y, centre[1] + s * x + c * y) for x, y in offsets], colour)

    def paste(self, picture: Any) -> None:
        """A (height, width, 3) uint8 picture, as large as it fits, at the right: words are at the left."""
        from PIL import Image

        found = Image.fromarray(picture)
        scale = min(WIDTH * FINE / found.width, HEIGHT * FINE / found.height)
        size = max(1, round(found.width * scale)), max(1, round(found.height * scale))
        self._image.paste(found.resize(size), (WIDTH * FINE - size[0], (HEIGHT * FINE - size[1]) // 2))

    def words(self, text: str, line: int = 0, colour: str = INK) -> None:
        """Words at the top left, line by line."""
        self._pen.text((8 * FINE, (6 + 15 * line) * FINE), text, colour, font_size=12 * FINE, stroke_width=FINE, stroke_fill=PAPER)

    def mark(self, on: bool) -> None:
        """A mark at the top right: the shield acted."""
        if on:
            x, y, r = (WIDTH - 16) * FINE, 14 * FINE, 7 * FINE
            self._pen.ellipse([x - r, y - r, x + r, y + r], ALARM)

    def frame(self) -> Any:
        """The frame as a Pillow image."""
        return self._image.resize((WIDTH, HEIGHT))


def frame(environment: Environment, state: Floats, lines: Sequence[str] = (), acted: bool = False) -> Any:
    """A picture of one (S,) state.

    Args:
        environment: the task.
        state: of one row.
        lines: of words.
        acted: the shield did.

    Raises:
        Unsupported: the environment has no ``draw``.
        MissingExtra: Pillow is not installed.
    """
    if environment.draw is None:
        raise Unsupported(f"{environment.name} has no picture: give its Environment a draw(state, canvas)")
    canvas = Canvas()
    environment.draw(state, canvas)
    for k, line in enumerate(lines):
        canvas.words(line, k)
    canvas.mark(acted)
    return canvas.frame()


def every(rate_hz: float) -> int:
    """Steps from one frame to the next, so that a second of the plant has at most ``FRAMES_PER_S``."""
    return max(1, math.ceil(rate_hz / FRAMES_PER_S))


def gif(frames: Sequence[Any], rate_hz: float) -> bytes:
    """An endless GIF of frames that are ``every(rate_hz)`` steps apart, in the plant's own time."""
    from PIL import Image

    small = [f.quantize(COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE) for f in frames]
    out, milliseconds = io.BytesIO(), round(1000 * every(rate_hz) / rate_hz)
    small[0].save(out, "GIF", save_all=True, append_images=small[1:], duration=max(milliseconds, 20), loop=0, optimize=True)
    return out.getvalue()


def strip(frames: Sequence[Any]) -> bytes:
    """A PNG of up to ``STRIP`` of the frames, evenly chosen, side by side in two rows."""
    from PIL import Image

    count = min(STRIP, len(frames))
    chosen = [frames[round(k * (len(frames) - 1) / max(count - 1, 1))] for k in range(count)]
    columns = min(3, count)
    sheet = Image.new("RGB", (WIDTH * columns, HEIGHT * -(-count // columns)), PAPER)
    for k, picture in enumerate(chosen):
        sheet.paste(picture, (WIDTH * (k % columns), HEIGHT * (k // columns)))
    out = io.BytesIO()
    sheet.quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def film(environment: Environment, proposer: Proposer, shield: Shield, seed: int, path: Path) -> Episodes:
    """One episode as a file: a GIF in the plant's time, or a PNG of some of its frames. Atomic.

    Args:
        environment: the task, with a ``draw``, or one that lives and can show itself (``living.filmed``).
        proposer: a program, or ``InFloat`` of a policy.
        shield: before the actuator; where it acts the frame bears a mark.
        seed: of the episode.
        path: .gif or .png.

    Returns:
        The episode.

    Raises:
        InvalidInput: another suffix, or no such folder.
        Unsupported: the environment has no picture.
        MissingExtra: Pillow is not installed.
        WriteFailed: the file cannot be written.
    """
    if path.suffix not in (".gif", ".png"):
        raise InvalidInput(f"a picture is a .gif or a .png, not {path.name!r}")
    if not path.parent.is_dir():
        raise InvalidInput(f"there is no folder {path.parent}")
    frames: list[Any] = []
    rate, acted, ticks = environment.contract.rate_hz, False, 0

    def watch(state: Floats, outcome: Any, returns: Floats) -> None:
        nonlocal acted, ticks
        acted |= bool((outcome >> protocol.REASON_SHIFT).any())
        if ticks % every(rate) == 0:
            lines = (environment.name, f"{ticks / rate:.2f} s", f"return {returns[0]:.1f}")
            frames.append(frame(shown, state[0], lines, acted))
            acted = False
        ticks += 1

    with nullcontext(environment) if environment.living is None else living.filmed(environment) as shown:
        episodes = run(shown, Runner(proposer, shield, environment.agents), seed, watch)
    try:
        write_atomic(path, gif(frames, rate) if path.suffix == ".gif" else strip(frames))
    except OSError as error:
        raise WriteFailed(f"{path} cannot be written: {error}") from None
    return episodes
