"""Simulated boards over the link: the MicroPython runtime in a real MicroPython, and the RP2040 firmware on an emulated chip."""

from __future__ import annotations

from collections.abc import Iterator

from puffer_edge.device import target as targets
from puffer_edge.device.board import open_simulator
from puffer_edge.engines import Case, Row
from puffer_edge.engines._steps import by_board, difference
from puffer_edge.errors import Refused, Unsupported

SIMULATED = (("micropython", "esp32", "MicroPython", 10_000), ("uf2", "rp2040", "emulated RP2040", 10_000))
"""Format, target whose simulator runs it, name, and most steps: a tick takes a millisecond and more."""


def rows(case: Case) -> Iterator[Row]:
    """A row a kind of firmware that the bundle has files for."""
    for format_, name, words, most in SIMULATED:
        if format_ not in case.bundle.manifest["formats"]:
            continue
        try:
            with open_simulator(targets.load(name)) as board:
                board.install(case.image.data)
                steps, wanted = case.few(most)
                found = difference(by_board(board, steps), wanted)
        except (Unsupported, Refused) as error:
            yield Row(format_, words, case.profile, 0, 0, 0.0, 0.0, note=f"did not run: {error}")
            continue
        yield Row(format_, words, case.profile, steps.count, found.steps, found.largest, 0, note=f"simulator of target {name}, over the link")
