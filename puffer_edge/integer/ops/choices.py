"""Multi-discrete head: for each action, the first largest logit of its group selects a level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from puffer_edge.errors import BundleError, RangeError
from puffer_edge.integer.ops import Array, Header, Op, Reader, packed
from puffer_edge.spaces import ACTION_LIMIT


@dataclass(frozen=True, eq=False)
class Choices(Op):
    """``levels[start_j + argmax(x[start_j : start_j + sizes_j])]`` for each action j, first index on ties.

    Attributes:
        sizes: (m,) logits of each group.
        levels: (sum of sizes,) int32 fixed-point output of each logit.
    """

    KIND: ClassVar[int] = 11
    in_bytes = 2
    out_bytes = 4

    sizes: tuple[int, ...]
    levels: Array

    @property
    def n_in(self) -> int:
        return len(self.levels)

    @property
    def n_out(self) -> int:
        return len(self.sizes)

    def check(self) -> None:
        if sum(self.sizes) != len(self.levels) or min(self.sizes) < 1:
            raise RangeError(f"groups of {self.sizes} logits do not make {len(self.levels)}")
        if (np.abs(self.levels.astype(np.int64)) > ACTION_LIMIT).any():
            raise RangeError(f"a level is beyond ±{ACTION_LIMIT}")

    def run(self, x: Array) -> Array:
        starts = np.cumsum((0, *self.sizes[:-1]))
        picked = [start + np.argmax(x[:, start : start + size], axis=1) for start, size in zip(starts, self.sizes)]
        result: Array = self.levels[np.stack(picked, 1)].astype(np.int32)
        return result

    def pack(self) -> bytes:
        return packed(Header(self.KIND, 0, self.n_in, self.n_out), ("<u2", np.array(self.sizes, np.uint16)), ("<i4", self.levels))

    @staticmethod
    def unpack(h: Header, reader: Reader) -> Choices:
        """The rest of a packed multi-discrete head."""
        if h.flags:
            raise BundleError("a multi-discrete head's header is inconsistent")
        return Choices(tuple(int(k) for k in reader.array("<u2", h.n_out)), reader.array("<i4", h.n_in))
