"""Does every file of a bundle compute what the program is? One file an engine; each runs a bundle's own files and counts what differs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from puffer_edge import find
from puffer_edge.device.bundle import Bundle
from puffer_edge.engines._steps import Steps, by_reference, make_steps
from puffer_edge.errors import Unsupported
from puffer_edge.integer.image import Image
from puffer_edge.integer.reference import Tick

PACKAGE = "puffer_edge.engines"


@dataclass(frozen=True)
class Row:
    """What one engine made of one file.

    Attributes:
        format: the file, or the kind of files.
        engine: what ran it, with its version.
        profile: of the program's integers.
        vectors: how many were tried; 0 where it did not run.
        mismatches: how many differed by more than the bound.
        max_difference: largest difference found, in ``unit``.
        bound: largest difference that is allowed; 0: every bit must be the same.
        unit: "steps of the action", "steps of the head", or "share of the range".
        note: what the numbers leave out, or why it did not run.
    """

    format: str
    engine: str
    profile: str
    vectors: int
    mismatches: int
    max_difference: float
    bound: float
    unit: str = "steps of the action"
    note: str = ""

    def summary(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Case:
    """A bundle and the vectors that its files are tried on.

    Attributes:
        bundle: the bundle.
        count: vectors for a fast engine; a slow one takes fewer.
        seed: of the vectors.
    """

    bundle: Bundle
    count: int
    seed: int

    @property
    def image(self) -> Image:
        """The program behind its shield: the definition."""
        return self.bundle.image

    @property
    def profile(self) -> str:
        """Of the program's integers."""
        return str(self.bundle.manifest.get("calibration", {}).get("profile", "int8"))

    @cached_property
    def steps(self) -> Steps:
        """``count`` ticks in sequences."""
        return make_steps(self.image.contract, self.count, self.seed)

    @cached_property
    def wanted(self) -> Tick:
        """What the definition makes of them."""
        return by_reference(self.image, self.steps)

    def few(self, most: int) -> tuple[Steps, Tick]:
        """Steps and results for an engine that is too slow for all."""
        if self.count <= most:
            return self.steps, self.wanted
        steps = make_steps(self.image.contract, most, self.seed + 1, 20)
        return steps, by_reference(self.image, steps)

    def holds(self, *names: str) -> bool:
        """Whether the bundle has all these files."""
        return all(name in self.bundle.manifest["files"] for name in names)

    def read(self, name: str) -> bytes:
        """A file of the bundle."""
        return (self.bundle.path / name).read_bytes()


def names() -> tuple[str, ...]:
    """Every engine there is."""
    return find.names(PACKAGE, ".py")


def verify(
    bundle: Bundle,
    count: int = 1_000_000,
    seed: int = 0,
    only: Sequence[str] = (),
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> list[Row]:
    """Run every engine that has something to run.

    Args:
        bundle: what is verified: its own files.
        count: vectors for a fast engine.
        seed: of the vectors.
        only: engines to run; empty for all.
        progress: called before each engine with engines done, engines in all, and its name.

    Raises:
        InvalidInput: there is no such engine.
    """
    chosen = [find.choose("engine", name, names()) for name in only] or list(names())
    case, rows = Case(bundle, count, seed), []
    for k, name in enumerate(chosen):
        progress(k, len(chosen), name)
        rows += list(_run(name, case))
    progress(len(chosen), len(chosen), "")
    return rows


def _run(name: str, case: Case) -> Iterator[Row]:
    """An engine's rows; what is not installed is a row that says so, and not a pass."""
    module = importlib.import_module(f"{PACKAGE}.{name}")
    try:
        yield from module.rows(case)
    except Unsupported as error:
        yield Row(name, "did not run", case.profile, 0, 0, 0.0, 0.0, note=str(error))
