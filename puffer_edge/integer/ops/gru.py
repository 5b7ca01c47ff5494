"""GRU cell: gates in Q3.12, hidden state int16 in Q0.15; the semantics are this project's own, TFLite has none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from puffer_edge.errors import BundleError, RangeError
from puffer_edge.integer.ops import INT8_RANGE, INT16_RANGE, X16, Array, Header, Op, Reader, packed
from puffer_edge.integer.ops.gates import Gates, sat16
from puffer_edge.integer.squash import logistic16, tanh16


@dataclass(frozen=True, eq=False)
class Gru(Op):
    """``r, z = σ(sat16(given + kept))``, ``n = tanh(sat16(given + ((r·kept + 2^14) >> 15)))``, ``h' = (z·h + (2^15 − z)·n + 2^14) >> 15``.

    ``given`` comes from the input, ``kept`` from the hidden state, each in rows r, z, n. The output is ``h'``, for int8
    ``min((h' + 128) >> 8, 127)`` in units of 2^-7.

    Attributes:
        given: gates of the input, 3·hidden rows.
        kept: gates of the hidden state, which stays int16 in every profile: 3·hidden rows.
        x16: int16 input and output.
        zero_in: zero point of the input, already folded into the bias; kept for formats that write it out, not packed.
    """

    KIND: ClassVar[int] = 9

    given: Gates
    kept: Gates
    x16: bool = False
    zero_in: int = 0

    @property
    def n_in(self) -> int:
        return int(self.given.weight.shape[1])

    @property
    def n_out(self) -> int:
        return int(self.kept.weight.shape[1])

    @property
    def memory(self) -> int:
        return self.n_out

    @property
    def in_bytes(self) -> int:
        return 2 if self.x16 else 1

    @property
    def out_bytes(self) -> int:
        return self.in_bytes

    @property
    def work_bytes(self) -> int:
        return 2  # an engine collects the new hidden state there: every row of weights sees the old one

    @property
    def macs(self) -> int:
        return int(self.given.weight.size + self.kept.weight.size)

    @property
    def requantises(self) -> int:
        return 6 * self.n_out

    @property
    def lookups(self) -> int:
        return 3 * self.n_out

    def check(self) -> None:
        if self.given.weight.shape[0] != 3 * self.n_out or self.kept.weight.shape[0] != 3 * self.n_out:
            raise RangeError(f"a GRU of {self.n_out} has {3 * self.n_out} rows, not {len(self.given.bias)} and {len(self.kept.bias)}")
        self.given.check("a GRU's input", INT16_RANGE if self.x16 else INT8_RANGE)
        self.kept.check("a GRU's hidden state", INT16_RANGE)

    def step(self, x: Array, memory: Array) -> tuple[Array, Array]:
        given, kept = self.given.run(x), self.kept.run(memory)
        (r, z, n), (hr, hz, hn) = np.split(given, 3, 1), np.split(kept, 3, 1)
        reset, update = logistic16(sat16(r + hr)), logistic16(sat16(z + hz))
        new = tanh16(sat16(n + ((reset * hn + (1 << 14)) >> 15)))
        h = (update * memory.astype(np.int64) + (32768 - update) * new + (1 << 14)) >> 15
        after = h.astype(np.int16)
        return after if self.x16 else np.minimum((h + 128) >> 8, 127).astype(np.int8), after

    def pack(self) -> bytes:
        return packed(Header(self.KIND, X16 if self.x16 else 0, self.n_in, self.n_out), *self.given.arrays(), *self.kept.arrays())

    @staticmethod
    def unpack(h: Header, reader: Reader) -> Gru:
        """The rest of a packed GRU."""
        if h.flags & ~X16:
            raise BundleError("a GRU's header is inconsistent")
        return Gru(Gates.read(reader, 3 * h.n_out, h.n_in), Gates.read(reader, 3 * h.n_out, h.n_out), bool(h.flags & X16))
