"""The program: a policy in integers, operation by operation; what every device computes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from puffer_edge.contract import Contract
from puffer_edge.errors import BundleError, InvalidInput
from puffer_edge.integer.ops import Array, Op, Reader
from puffer_edge.integer.ops.affine import Affine
from puffer_edge.integer.ops.argmax import Argmax
from puffer_edge.integer.ops.choices import Choices
from puffer_edge.integer.ops.conv import Conv
from puffer_edge.integer.ops.dense import Dense
from puffer_edge.integer.ops.gru import Gru
from puffer_edge.integer.ops.input import Input
from puffer_edge.integer.ops.lookup import Lookup
from puffer_edge.integer.ops.lookup16 import Lookup16
from puffer_edge.integer.ops.lstm import Lstm
from puffer_edge.integer.ops.pool import Pool
from puffer_edge.integer.ops.tanh16 import Tanh16

HEADS = (Argmax, Affine, Choices)
KINDS: dict[int, Any] = {op.KIND: op for op in (Input, Dense, Lookup, Lookup16, Conv, Pool, Gru, Lstm, Tanh16, *HEADS)}
MAX_OPS = 64
MAX_WIDTH = 4096
MAX_MEMORY = 4096


@dataclass(frozen=True, eq=False)
class Program:
    """Operations in order, from int32 observations to int32 actions, both in the contract's fixed point.

    Attributes:
        contract: what goes in and comes out.
        ops: an input step first; a head (argmax, choices, affine) last, which takes int16; each takes what the one before gives.

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

    @property
    def memory(self) -> int:
        """Numbers, int16, kept from one run to the next; 0 for a memoryless program."""
        return sum(op.memory for op in self.ops)

    def start(self, rows: int) -> Array:
        """(rows, memory) int16 cleared memory."""
        return np.zeros((rows, self.memory), np.int16)

    def step(self, observation: Array, memory: Array) -> tuple[Array, Array]:
        """The definition: (rows, n) int32 observations and (rows, memory) int16 to (rows, m) int32 proposed actions and the next memory."""
        return self._through(self.ops, observation, memory)

    def run(self, observation: Array) -> Array:
        """(rows, n) int32 observations to (rows, m) int32 proposed actions, from cleared memory."""
        return self.step(observation, self.start(len(observation)))[0]

    def head_input(self, observation: Array) -> Array:
        """(rows, outputs) int16 values that reach the head, logits or unscaled actions, from cleared memory."""
        return self._through(self.ops[:-1], observation, self.start(len(observation)))[0]

    @staticmethod
    def _through(ops: Sequence[Op], x: Array, memory: Array) -> tuple[Array, Array]:
        after, at = [memory[:, :0]], 0
        for op in ops:
            x, kept = op.step(x, memory[:, at : at + op.memory])
            after.append(kept)
            at += op.memory
        return x, np.concatenate(after, 1)

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
        widest = max(-(-op.n_out // 4) * 4 * op.work_bytes for op in self.ops[:-1])
        return -(-widest // 8) * 8

    @property
    def memory_bytes(self) -> int:
        """Bytes of the memory, a multiple of 8."""
        return -(-2 * self.memory // 8) * 8

    @property
    def scratch_bytes(self) -> int:
        """Bytes that an engine needs beside the image: two activation buffers and the memory."""
        return 2 * self.activation_bytes + self.memory_bytes

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
    if len(ops) < 3 or not isinstance(ops[0], Input) or not isinstance(ops[-1], HEADS):
        raise InvalidInput("a program begins with an input step, holds a layer and ends with an argmax, a choice or an action map")
    if len(ops) > MAX_OPS:
        raise InvalidInput(f"a program has at most {MAX_OPS} operations, not {len(ops)}")
    for a, b in zip(ops, ops[1:]):
        if a.n_out != b.n_in:
            raise InvalidInput(f"a {type(a).__name__} gives {a.n_out} values, the {type(b).__name__} after it takes {b.n_in}")
        if max(a.n_out, a.n_in) > MAX_WIDTH:
            raise InvalidInput(f"a layer is {max(a.n_out, a.n_in)} wide; at most {MAX_WIDTH}")
        if a.out_bytes != b.in_bytes or isinstance(b, Input) or isinstance(a, HEADS):
            raise InvalidInput(f"a {type(b).__name__} cannot follow a {type(a).__name__} of {a.out_bytes} bytes a value")
    if sum(op.memory for op in ops) > MAX_MEMORY:
        raise InvalidInput(f"a program keeps at most {MAX_MEMORY} numbers, not {sum(op.memory for op in ops)}")
