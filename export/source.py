"""What every format writes from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.abc import Traversable

from puffer_edge.contract import ActionChannel, ObservationChannel
from puffer_edge.device.target import Target
from puffer_edge.integer.image import Image
from puffer_edge.integer.vectors import Vectors
from puffer_edge.policy import Policy
from puffer_edge.spaces import Bools, Floats


@dataclass(frozen=True, eq=False)
class Source:
    """A policy ready for a target.

    Attributes:
        policy: the float policy.
        image: its program and shield, packed with the self-test vectors.
        vectors: all test vectors, of which the image holds the first.
        target: the board.
        observations: (N, n) physical observations that the program was calibrated on, in order of time.
        starts: (N,) whether a row begins an episode; None: only the first does.
    """

    policy: Policy
    image: Image
    vectors: Vectors
    target: Target
    observations: Floats
    starts: Bools | None = None

    @property
    def name(self) -> str:
        """The policy's name as an identifier of C and Python, and the beginning of many: never of the compiler's own or the engine's."""
        text = "".join(ch if ch.isalnum() and ch.isascii() else "_" for ch in self.policy.name)
        return f"policy_{text}" if text[:1].isdigit() or re.match(r"pe(_|$)", text, re.IGNORECASE) else text

    @property
    def title(self) -> str:
        """The policy's name where it cannot end a comment of C."""
        return self.policy.name.replace("*/", "* /")

    @property
    def channels(self) -> str:
        """Every channel with its fixed point, as lines of a comment of C."""
        c = self.image.contract
        rows = [f" *   observation[{i}]  {_words(ch)}" for i, ch in enumerate(c.observations)]
        rows += [f" *   action[{j}]  {_words(ch)}, safe {ch.safe:g}" for j, ch in enumerate(c.actions)]
        return "\n".join(row.replace("*/", "* /") for row in rows)


def _words(ch: ObservationChannel | ActionChannel) -> str:
    return f"{ch.name}, {ch.unit}, {ch.low:g} … {ch.high:g}, × 2^{ch.fraction_bits}"


def fill(text: str, values: Mapping[str, str]) -> str:
    """A template with each ``@word@`` replaced; a word that has no value is a KeyError."""
    return re.sub(r"@(\w+)@", lambda found: values[found[1]], text)


def templates(name: str) -> Iterator[tuple[str, str]]:
    """Path and text of every file below ``export/templates/NAME``, in order."""
    yield from _below(resources.files("puffer_edge.export") / "templates" / name)


def _below(folder: Traversable, before: str = "") -> Iterator[tuple[str, str]]:
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir():
            yield from _below(entry, f"{before}{entry.name}/")
        else:
            yield f"{before}{entry.name}", entry.read_text("utf-8")
