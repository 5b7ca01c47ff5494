"""What came of the students: return kept against products, bytes and microseconds; the front of the best, and the one to take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from puffer_edge.device.limits import Need
from puffer_edge.policy import Policy


@dataclass(frozen=True, eq=False)
class Row:
    """A trained student in a profile, or a profile that it does not go into.

    Attributes:
        hidden: widths of its hidden layers.
        profile: of the integers.
        policy: in float.
        need: what it takes.
        returned: mean return of the integers behind the shield; NaN where there are none.
        interval: 95 % interval of that mean over episodes.
        returned_float: mean return of the float student behind the shield, on the same episodes.
        kept: share of the teacher's return, in float and on the same episodes, that the integers keep.
        surely: the same from the lower end of the 95 % interval of the difference, paired by episode: what chance has not added.
        refused: why there are no integers; empty where there are.
    """

    hidden: tuple[int, ...]
    profile: str
    policy: Policy
    need: Need
    returned: float
    interval: tuple[float, float]
    returned_float: float
    kept: float
    surely: float
    refused: str = ""

    @property
    def price(self) -> tuple[float, int, int]:
        """µs, bytes and products: the less the better, in that order."""
        return self.need.us or 0.0, self.need.image_bytes, self.need.macs

    def summary(self) -> dict[str, Any]:
        """Plain JSON values."""
        found: dict[str, Any] = {"hidden": list(self.hidden), "profile": self.profile, **self.need.summary(), "return_float": self.returned_float}
        if self.refused:
            return found | {"return": None, "interval": None, "return_kept": None, "surely_kept": None, "refused": self.refused}
        return found | {
            "return": self.returned,
            "interval": list(self.interval),
            "return_kept": self.kept,
            "surely_kept": self.surely,
            "refused": None,
        }


def front(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows that no other one beats: none surely keeps as much with no more of µs, bytes and products, and is better in one of the four."""
    sound = [row for row in rows if not row.refused]
    return tuple(row for row in sound if not any(_beats(other, row) for other in sound))


def _beats(a: Row, b: Row) -> bool:
    ours, theirs = (-a.surely, *a.price), (-b.surely, *b.price)
    return ours != theirs and all(x <= y for x, y in zip(ours, theirs))


def best(rows: Sequence[Row]) -> Row:
    """The row that surely keeps most; of several that keep the same, such as everything, the cheapest.

    The best of many means is partly luck, and the cheapest of those that reached 1 by luck would be the wrong one.
    """
    return max((row for row in rows if not row.refused), key=lambda row: (row.surely, *(-p for p in row.price)))


def refused(hidden: tuple[int, ...], profile: str, policy: Policy, need: Need, returned_float: float, why: str) -> Row:
    """A row of a student that does not go into a profile."""
    return Row(hidden, profile, policy, need, math.nan, (math.nan, math.nan), returned_float, math.nan, math.nan, why)
