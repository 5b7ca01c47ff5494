"""Whole programs around one random operation: whatever it can compute reaches an action and the state digest."""

from __future__ import annotations

import numpy as np

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.integer import vectors
from puffer_edge.integer.image import Image
from puffer_edge.integer.ops import Op
from puffer_edge.integer.ops.affine import Affine
from puffer_edge.integer.ops.choices import Choices
from puffer_edge.integer.ops.dense import Dense
from puffer_edge.integer.ops.input import Input
from puffer_edge.integer.ops.tanh16 import Tanh16
from puffer_edge.integer.program import HEADS, Program
from puffer_edge.integer.shield import Shield
from tests.integer.test_ops import random_op

LIMIT = 2**28 - 1


def program(kind: type, seed: int) -> Program | None:
    """``kind`` between an input step that reaches every value and a head that shows most bits; None where it is wider than a contract."""
    rng = np.random.default_rng(seed + 1000)
    op, _ = random_op(kind, seed)
    ops: list[Op] = [op] if not isinstance(op, Input) else []
    first = op if isinstance(op, Input) else _input(op.n_in, op.in_bytes == 2, rng)
    if first.n_in > 64:
        return None
    if first.x16 and (not ops or isinstance(op, HEADS)):
        ops.insert(0, Tanh16(first.n_in))  # a program holds a layer
    last = ops[-1] if ops else first
    if not isinstance(last, HEADS):
        if last.out_bytes == 1:
            weight = rng.integers(-128, 128, (3, last.n_out)).astype(np.int8)
            scales = np.full(3, 2**30 + 12345, np.int32), np.full(3, 4)
            ops.append(Dense(weight, rng.integers(-999, 999, 3).astype(np.int32), *scales, 0, -32768, 32767, True))
        width = ops[-1].n_out if ops else first.n_out
        if width > 16:
            ops.append(Choices((width - width // 2, width // 2), rng.integers(-LIMIT, LIMIT, width).astype(np.int32)))
        else:
            arrays = np.full(width, 2**30, np.int32), np.full(width, -3, np.int8), np.zeros(width, np.int32)
            ops.append(Affine(*arrays, np.full(width, -LIMIT, np.int32), np.full(width, LIMIT, np.int32)))
    m = ops[-1].n_out
    if m > 16:
        return None
    high = float(2**30 - 1) / 65536
    observations = tuple(ObservationChannel(f"o{k}", "1", -high / 8, high / 8) for k in range(first.n_in))
    actions = tuple(ActionChannel(f"a{k}", "1", -LIMIT / 65536, LIMIT / 65536, 0.5, 0.25) for k in range(m))
    return Program(Contract(f"op{op.KIND}-{seed}", observations, actions, "clip", 100.0), (first, *ops))


def _input(n: int, x16: bool, rng: np.random.Generator) -> Input:
    """Brings the whole of ±2^27 to the whole of int8 or int16, and a little beyond."""
    shift = 11 if x16 else 19
    top = 32767 if x16 else 127
    mean = rng.integers(-(2**20), 2**20, n).astype(np.int32)
    return Input(mean, rng.integers(2**30, 2**31, n).astype(np.int32), np.full(n, shift, np.int8), 0, -top - 1, top, x16)


def image(kind: type, seed: int, steps: int = 64) -> Image | None:
    """Such a program without a shield, with its vectors."""
    made = program(kind, seed)
    if made is None:
        return None
    shield = Shield.none(made.contract)
    return Image(made.contract, made, shield, vectors.make(made, shield, np.zeros((0, made.contract.n_observations), np.int32), seed, steps))
