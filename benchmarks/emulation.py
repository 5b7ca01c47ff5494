"""How long it takes to flatten a batch of nested values into rows and to have it back, beside one copy of the same bytes.

    python benchmarks/emulation.py [--batch 1024] [--seconds 0.5]

The space is a Dict of four Dicts with five Boxes of float32 each, 20 leaves. "copy" is ``numpy.copyto`` of rows onto rows; "gymnasium" is
``gymnasium.spaces.flatten`` and ``unflatten`` of the same values one by one, as they have no batch. Medians of alternating calls.
"flatten_restore" is of arrays that their owner keeps and writes anew, "fresh" of arrays that are new each time, "in_place" of an environment
that writes into the views that it was given.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median

import gymnasium
import numpy as np
from gymnasium import spaces
from record import Row, save, show

from puffer_edge.envs.emulation import Layout, Rows

WIDTHS = (4, 16, 64, 256, 1024)
"""Numbers of a leaf."""


def timed(calls: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """Median µs of each call, taken in turn."""
    taken: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken[0]) < 5:
        for call, times in zip(calls, taken):
            began = time.perf_counter()
            call()
            times.append((time.perf_counter() - began) * 1e6)
    return [median(times) for times in taken]


def row(width: int, batch: int, seconds: float) -> Row:
    """One width of the leaves."""
    leaf = spaces.Box(-1.0, 1.0, (width,), np.float32)
    space = spaces.Dict({f"part{k}": spaces.Dict({f"leaf{j}": leaf for j in range(5)}) for k in range(4)})
    layout, rng = Layout.of(space), np.random.default_rng(0)
    value = {p: {name: rng.random((batch, width), np.float32) for name in inner.spaces} for p, inner in space.spaces.items()}
    singles = [{p: {name: array[k] for name, array in inner.items()} for p, inner in value.items()} for k in range(batch)]
    rows, source = Rows(layout, np.zeros((batch, layout.bytes), np.uint8)), np.ones((batch, layout.bytes), np.uint8)
    target = np.zeros_like(source)

    def ours() -> object:
        rows.write(value)
        return rows.nested

    def theirs() -> None:
        for one in singles:
            spaces.unflatten(space, spaces.flatten(space, one))

    copies = [{p: {name: array.copy() for name, array in inner.items()} for p, inner in value.items()} for _ in range(2)]

    def fresh() -> object:
        copies.reverse()
        rows.write(copies[0])
        return rows.nested

    def in_place() -> object:
        rows.write(rows.nested)
        return rows.nested

    ours_us, copy_us = timed((ours, lambda: np.copyto(target, source)), seconds)
    fresh_us, in_place_us = timed((fresh, in_place), seconds)
    (theirs_us,) = timed((theirs,), 0.0)
    return {
        "row_bytes": layout.bytes,
        "flatten_restore_us": ours_us,
        "copy_us": copy_us,
        "times_copy": ours_us / copy_us,
        "fresh_us": fresh_us,
        "fresh_times_copy": fresh_us / copy_us,
        "in_place_us": in_place_us,
        "gymnasium_us": theirs_us,
        "times_faster_than_gymnasium": theirs_us / ours_us,
    }


def main() -> None:
    """Print the table and save it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=0.5)
    options = parser.parse_args()
    rows = [row(width, options.batch, options.seconds) for width in WIDTHS]
    show(f"20 leaves, batch {options.batch}", rows)
    about: Row = {"batch": options.batch, "seconds": options.seconds, "leaves": 20}
    save("emulation", about | {"gymnasium": gymnasium.__version__, "numpy": np.__version__}, rows)


if __name__ == "__main__":
    main()
