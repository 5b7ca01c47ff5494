"""LSTM cell: the integer semantics of TensorFlow Lite Micro, gates in Q3.12, cell int16 with a scale that is a power of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from puffer_edge.errors import BundleError, RangeError
from puffer_edge.integer.ops import INT8_RANGE, INT16_RANGE, X16, Array, Header, Op, Reader, packed
from puffer_edge.integer.ops.gates import Gates, sat16
from puffer_edge.integer.rounding import clamp, requantise
from puffer_edge.integer.squash import logistic16, tanh16

HALF = 1 << 30
"""The multiplier of a power of two: one half in 31 bits."""


@dataclass(frozen=True, eq=False)
class Lstm(Op):
    """``c' = sat16(sat16(rq(f·c, 14)) + sat16(rq(i·g, 29 − k)))``, ``h' = clamp(rq(o·tanh(c'), s))``, rows i, f, g, o.

    ``i, f, o = σ(a)`` and ``g = tanh(a)`` with ``a = sat16(given + kept)``; ``rq(v, s)`` is ``requantise(v, 2^30, s)``; a step of the
    cell is 2^-k. The hidden state is int8 in units of 2^-7 (s = 22), or int16 in units of 2^-15 (s = 14).

    Attributes:
        given: gates of the input, 4·hidden rows.
        kept: gates of the hidden state, 4·hidden rows.
        cell_bits: k, 0 … 12.
        x16: int16 input, output and hidden state.
        zero_in: zero point of the input, already folded into the bias; kept for formats that write it out, not packed.
        scales: (input, weights of the input's gates (4,), weights of the hidden state's gates (4,)): real values of a step, for formats
            that write them out; not packed, so empty in a program that was read back.
    """

    KIND: ClassVar[int] = 10

    given: Gates
    kept: Gates
    cell_bits: int
    x16: bool = False
    zero_in: int = 0
    scales: tuple[float, Array, Array] | tuple[()] = ()

    @property
    def n_in(self) -> int:
        return int(self.given.weight.shape[1])

    @property
    def n_out(self) -> int:
        return int(self.kept.weight.shape[1])

    @property
    def memory(self) -> int:
        return 2 * self.n_out

    @property
    def in_bytes(self) -> int:
        return 2 if self.x16 else 1

    @property
    def out_bytes(self) -> int:
        return self.in_bytes

    @property
    def macs(self) -> int:
        return int(self.given.weight.size + self.kept.weight.size)

    @property
    def requantises(self) -> int:
        return 11 * self.n_out

    @property
    def lookups(self) -> int:
        return 5 * self.n_out

    def check(self) -> None:
        rows = 4 * self.n_out
        if self.given.weight.shape[0] != rows or self.kept.weight.shape[0] != rows or not 0 <= self.cell_bits <= 12:
            raise RangeError(f"an LSTM of {self.n_out} has {rows} rows and cell bits in 0 … 12, not {len(self.given.bias)} and {self.cell_bits}")
        values = INT16_RANGE if self.x16 else INT8_RANGE
        self.given.check("an LSTM's input", values)
        self.kept.check("an LSTM's hidden state", values)

    def step(self, x: Array, memory: Array) -> tuple[Array, Array]:
        n = self.n_out
        hidden, cell = memory[:, :n], memory[:, n:].astype(np.int64)
        i, f, g, o = np.split(sat16(self.given.run(x) + self.kept.run(hidden)), 4, 1)
        kept = sat16(requantise(logistic16(f) * cell, HALF, 14))
        cell = sat16(kept + sat16(requantise(logistic16(i) * tanh16(g), HALF, 29 - self.cell_bits)))
        product = logistic16(o) * tanh16(cell, 12 - self.cell_bits)
        hidden = clamp(requantise(product, HALF, 14), *INT16_RANGE) if self.x16 else clamp(requantise(product, HALF, 22), *INT8_RANGE)
        return hidden.astype(np.int16 if self.x16 else np.int8), np.concatenate([hidden, cell], 1).astype(np.int16)

    def pack(self) -> bytes:
        header = Header(self.KIND, X16 if self.x16 else 0, self.n_in, self.n_out)
        return packed(header, ("u1", np.array([self.cell_bits])), *self.given.arrays(), *self.kept.arrays())

    @staticmethod
    def unpack(h: Header, reader: Reader) -> Lstm:
        """The rest of a packed LSTM."""
        if h.flags & ~X16:
            raise BundleError("an LSTM's header is inconsistent")
        (bits,) = reader.array("u1", 1)
        return Lstm(Gates.read(reader, 4 * h.n_out, h.n_in), Gates.read(reader, 4 * h.n_out, h.n_out), int(bits), bool(h.flags & X16))
