"""Discrete head: the first largest logit's row of outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from puffer_edge.errors import BundleError, RangeError
from puffer_edge.integer.ops import Array, Header, Op, Reader, packed
from puffer_edge.spaces import ACTION_LIMIT


@dataclass(frozen=True, eq=False)
class Argmax(Op):
    """``levels[argmax(x)]``, first index on ties.

    Attributes:
        levels: (choices, m) int32 fixed-point outputs of each choice.
    """

    KIND: ClassVar[int] = 5
    in_bytes = 2
    out_bytes = 4

    levels: Array

    @property
    def n_in(self) -> int:
        return int(self.levels.shape[0])

    @property
    def n_out(self) -> int:
        return int(self.levels.shape[1])

    def check(self) -> None:
        if (np.abs(self.levels.astype(np.int64)) > ACTION_LIMIT).any():
            raise RangeError(f"a level is beyond ±{ACTION_LIMIT}")

    def run(self, x: Array) -> Array:
        result: Array = self.levels[np.argmax(x, axis=-1)].astype(np.int32)
        return result

    def pack(self) -> bytes:
        return packed(Header(self.KIND, 0, self.n_in, self.n_out), ("<i4", self.levels))

    @staticmethod
    def unpack(h: Header, reader: Reader) -> Argmax:
        """The rest of a packed argmax."""
        if h.flags:
            raise BundleError("an argmax's header is inconsistent")
        return Argmax(reader.array("<i4", h.n_in, h.n_out))
