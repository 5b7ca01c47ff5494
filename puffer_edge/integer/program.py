"""The program: a policy in integers, operation by operation; what every device computes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from puffer_edge.contract import Contract
from puffer_edge.errors import BundleError, InvalidInput
from puffer_edge.integer.ops import Array, Op, Reader
from puffer_edge.integer.ops.affine import Affine
from puffer_edge.integer.ops.argmax import Argmax
from puffer_edge.integer.ops.dense import Dense
from puffer_edge.integer.ops.input import Input
from puffer_edge.integer.ops.lookup import Lookup
from puffer_edge.integer.ops.lookup16 import Lookup16

KINDS: dict[int, Any] = {op.KIND: op for op in (Input, Dense, Lookup, Lookup16, Argmax, Affine)}
MAX_OPS = 64
MAX_WIDTH = 4096


@dataclass(frozen=True, eq=False)
class Program:
    """Operations in order, from int32 observations to int32 actions, both in the contract's fixed point.

    Attributes:
        contract: what goes in and comes out.
        ops: an input step first; an argmax or affine last; an int16 dense (and its lookup16) right before the last.

    Raises:
        InvalidInput: the order or a width is wrong.
        RangeError: an accumulator may leave int32.
    """

    contract: Contract
    ops: tuple[Op, ...]

    def __post_init__(self) -> None:
        _check_order(self.ops)
        c = self.contract
        if (self.ops[0].n_in, self.ops[-1].n_out) != (c.n_observations, c.n_actions):
            raise InvalidInput(
                f"the program maps {self.ops[0].n_in} to {self.ops[-1].n_out} values, the contract {c.n_observations} to {c.n_actions}"
            )
        for op in self.ops:
            op.check()
        first = self.ops[0]
        assert isinstance(first, Input)
        first.check_range(c.observation_low, c.observation_high)

    def run(self, observation: Array) -> Array:
        """The definition: (rows, n) int32 observations to (rows, m) int32 proposed actions."""
        x = observation
        for op in self.ops:
            x = op.run(x)
        return x

    def head_input(self, observation: Array) -> Array:
        """(rows, outputs) int16 values that reach the head: logits, or unscaled actions."""
        x = observation
        for op in self.ops[:-1]:
            x = op.run(x)
        return x

    @cached_property
    def packed(self) -> bytes:
        """The operations section of the image."""
        return b"".join(op.pack() for op in self.ops)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the packed operations."""
        return hashlib.sha256(self.packed).digest()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        return sum(op.macs for op in self.ops)

    @property
    def activation_bytes(self) -> int:
        """Bytes of one activation buffer, a multiple of 8; an engine needs two."""
        widest = max(-(-op.n_out // 4) * 4 * op.out_bytes for op in self.ops[:-1])
        return -(-widest // 8) * 8

    @staticmethod
    def unpack(contract: Contract, data: bytes, count: int) -> Program:
        """Read packed operations; nothing in them is trusted.

        Raises:
            BundleError: damaged, or not a program for this contract.
            RangeError: an accumulator may leave int32.
        """
        reader = Reader(data)
        ops: list[Op] = []
        if not 1 <= count <= MAX_OPS:
            raise BundleError(f"a program has 1 to {MAX_OPS} operations, not {count}")
        for _ in range(count):
            header = reader.header()
            if header.kind not in KINDS:
                raise BundleError(f"unknown operation {header.kind} before byte {reader.at}: the image needs a newer puffer-edge")
            if not (1 <= header.n_in <= MAX_WIDTH and 1 <= header.n_out <= MAX_WIDTH):
                raise BundleError(f"an operation maps {header.n_in} to {header.n_out} values; widths lie in 1 … {MAX_WIDTH}")
            ops.append(KINDS[header.kind].unpack(header, reader))
        if reader.at != len(data):
            raise BundleError(f"{len(data) - reader.at} bytes follow the last operation")
        try:
            return Program(contract, tuple(ops))
        except InvalidInput as error:
            raise BundleError(str(error)) from None


def _check_order(ops: Sequence[Op]) -> None:
    if len(ops) < 3 or not isinstance(ops[0], Input) or not isinstance(ops[-1], (Argmax, Affine)):
        raise InvalidInput("a program begins with an input step, holds a dense layer and ends with an argmax or an action map")
    if len(ops) > MAX_OPS:
        raise InvalidInput(f"a program has at most {MAX_OPS} operations, not {len(ops)}")
    for a, b in zip(ops, ops[1:]):
        if a.n_out != b.n_in:
            raise InvalidInput(f"a {type(a).__name__} gives {a.n_out} values, the {type(b).__name__} after it takes {b.n_in}")
        if max(a.n_out, a.n_in) > MAX_WIDTH:
            raise InvalidInput(f"a layer is {max(a.n_out, a.n_in)} wide; at most {MAX_WIDTH}")
        takes = 0 if isinstance(b, Input) else 1 if isinstance(b, (Dense, Lookup)) else 2
        if a.out_bytes != takes or (isinstance(b, Lookup16) and not isinstance(a, Dense)):
            raise InvalidInput(f"a {type(b).__name__} cannot follow a {type(a).__name__} of {a.out_bytes} bytes a value")
