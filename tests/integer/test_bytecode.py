"""Bytecode: an independent interpreter computes what the expressions say, and damage is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puffer_edge.errors import BundleError, DoesNotFit, RangeError
from puffer_edge.integer import bytecode
from puffer_edge.integer.expression import evaluate, lift, most, variable
from tests.integer import trees

seeds = st.integers(0, 2**32 - 1)


def assert_same(code: bytes, outputs, seed: int) -> None:
    columns = trees.samples(seed, rows=16)
    wanted = np.stack([np.broadcast_to(r, (16,)) for r in evaluate(outputs, columns, np)], -1)
    assert [trees.interpret(code, row) for row in np.stack(columns, -1)] == wanted.tolist()


@given(seeds)
def test_bytecode_computes_the_expressions(seed: int) -> None:
    outputs = trees.tree(seed, 40)
    assert_same(bytecode.pack(outputs, 2), outputs, seed)


@given(seeds)
def test_round_trip(seed: int) -> None:
    code = bytecode.pack(trees.tree(seed, 40), 3)
    outputs, stages = bytecode.unpack(code, trees.RANGES)
    assert stages == 3
    assert bytecode.unpack(bytecode.pack(outputs, 3), trees.RANGES)[1] == 3
    assert_same(code, outputs, seed)


@given(seeds, st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_bytecode_is_refused_or_means_the_same_everywhere(seed: int, changes) -> None:
    code = bytearray(bytecode.pack(trees.tree(seed % 50, 15), 2))
    for at, value in changes:
        code[at % len(code)] = value
    try:
        outputs, _ = bytecode.unpack(bytes(code), trees.RANGES)
    except (BundleError, RangeError):
        return
    assert_same(bytes(code), outputs, seed)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    try:
        outputs, n_stages = bytecode.unpack(data, trees.RANGES)
    except (BundleError, RangeError):
        return
    assert n_stages <= 8 and len(data) % 4 == 0
    assert all(-(2**30) <= o.lo <= o.hi < 2**30 for o in outputs)


def test_every_truncation_is_refused() -> None:
    code = bytecode.pack(trees.tree(3), 1)
    for size in range(len(code)):
        with pytest.raises((BundleError, RangeError)):
            bytecode.unpack(code[:size], trees.RANGES)


def test_a_register_must_be_written_before_it_is_read() -> None:
    code = bytearray(bytecode.pack([variable(0, "a", 0, 9) + variable(1, "b", 0, 9)], 1))
    first = 8 + 1  # header, one output, then instruction 0
    assert code[first] == 1
    code[first + 1] = 1 - code[first + 1]
    with pytest.raises(BundleError, match="instruction"):
        bytecode.unpack(bytes(code), trees.RANGES)


def test_overflow_in_bytecode_is_refused() -> None:
    with pytest.raises(RangeError):
        bytecode.unpack(bytecode.pack([variable(3, "d", 0, 3) * variable(3, "d", 0, 3)], 1), trees.RANGES)


def test_too_long_does_not_fit() -> None:
    x = variable(0, "a", -32768, 32767)
    total = lift(0)
    for k in range(1100):
        total = most(total, (x < k) + 1)
    with pytest.raises(DoesNotFit, match="instructions"):
        bytecode.pack([total], 1)


def test_too_many_registers_do_not_fit() -> None:
    columns = [variable(k, f"v{k}", 0, 9) for k in range(120)]
    total = lift(0)
    for v in columns:
        total = total + v
    reverse = lift(0)
    for v in columns:
        reverse = reverse + v * total
    with pytest.raises(DoesNotFit, match="registers"):
        bytecode.pack([reverse], 1)
