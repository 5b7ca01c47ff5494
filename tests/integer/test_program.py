"""The order and widths of a program's operations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from puffer_edge.contract import ActionChannel, Contract
from puffer_edge.errors import BundleError, InvalidInput, RangeError
from puffer_edge.integer.ops.dense import Dense
from puffer_edge.integer.ops.input import Input
from puffer_edge.integer.program import MAX_OPS, Program
from tests.integer import cart


def narrow(n: int, m: int) -> Dense:
    return Dense(np.ones((m, n), np.int8), np.zeros(m, np.int32), np.full(m, 2**30, np.int32), np.zeros(m, np.int64), 0, -128, 127)


@pytest.mark.parametrize("head", ["discrete", "clip", "tanh"])
@pytest.mark.parametrize("hidden", [(), (5,), (8, 8)])
def test_pack_and_unpack(head: str, hidden: tuple[int, ...]) -> None:
    p = cart.program(head, hidden, "tanh")
    again = Program.unpack(p.contract, p.packed, len(p.ops))
    x = p.contract.observe(cart.observations(p.contract))[0]
    assert again.digest == p.digest and (again.run(x) == p.run(x)).all()
    assert (again.head_input(x) == p.head_input(x)).all()


def test_any_other_order_is_refused() -> None:
    p = cart.program("tanh", (8,), "tanh")
    first, hidden, table, wide, interpolate, last = p.ops
    wrong = [
        (),
        (first, last),
        (first, wide),
        (hidden, table, wide, interpolate, last),
        (first, hidden, table, wide, interpolate),
        (first, first, hidden, table, wide, interpolate, last),
        (first, hidden, table, interpolate, last),
        (first, wide, table, last),
        (first, hidden, interpolate, table, wide, last),
        (first, hidden, wide, interpolate, last, last),
        (first, hidden, table, last),
        (first, hidden, table, hidden, wide, interpolate, last),
        (first, *[narrow(4, 4)] * MAX_OPS, last),
    ]
    for ops in wrong:
        with pytest.raises(InvalidInput):
            Program(p.contract, ops)


def test_a_program_without_a_dense_layer_is_refused() -> None:
    p = cart.program("tanh", (1,), "tanh")
    first, last = p.ops[0], p.ops[-1]
    assert isinstance(first, Input)
    with pytest.raises(InvalidInput):
        Program(p.contract, (first, p.ops[2], last))


def test_int8_and_int16_do_not_mix() -> None:
    p = cart.program("tanh", (8,), "tanh")
    first, hidden, table, wide, interpolate, last = p.ops
    assert Program(p.contract, (first, hidden, table, wide, interpolate, interpolate, last)).memory == 0
    for wrong in ((first, hidden, interpolate, wide, last), (first, hidden, table, wide, table, last), (first, hidden, wide, hidden, wide, last)):
        with pytest.raises(InvalidInput):
            Program(p.contract, wrong)


def test_too_wide_is_refused() -> None:
    p = cart.program("clip", (8,))
    with pytest.raises(InvalidInput, match="4097 wide"):
        Program(p.contract, (p.ops[0], narrow(4, 4097), narrow(4097, 8), *p.ops[2:]))


def test_another_contract_is_refused() -> None:
    p = cart.program()
    c = cart.contract()
    two = dataclasses.replace(c, actions=(*c.actions, ActionChannel("brake", "N", 0, 1, 0, 0)))
    with pytest.raises(InvalidInput, match="the contract 4 to 2"):
        Program(two, p.ops)


def test_an_accumulator_that_could_overflow_is_refused() -> None:
    p = cart.program("clip", (8,))
    hidden = p.ops[1]
    assert isinstance(hidden, Dense)
    with pytest.raises(RangeError, match="accumulator"):
        Program(p.contract, (p.ops[0], dataclasses.replace(hidden, bias=np.full(8, 2**31 - 1, np.int32)), *p.ops[2:]))


def test_damaged_operations_are_refused() -> None:
    p = cart.program("clip", (8,))
    data, count = p.packed, len(p.ops)
    for bad, n in (
        (data + b"\0\0\0\0", count),
        (data[:-4], count),
        (data, count - 1),
        (data, count + 1),
        (data, 0),
        (data, 65),
        (b"\x09" + data[1:], count),
    ):
        with pytest.raises(BundleError):
            Program.unpack(p.contract, bad, n)


def test_cost_counts_multiplies_and_the_widest_buffer() -> None:
    p = cart.program("clip", (8, 20))
    assert (p.macs, p.memory, p.scratch_bytes) == (4 * 8 + 8 * 20 + 20, 0, 48)
    assert p.activation_bytes == 24
    assert cart.program("discrete", ()).activation_bytes == 8


def test_contract_is_kept() -> None:
    p = cart.program()
    assert isinstance(p.contract, Contract) and p.run(np.zeros((3, 4), np.int32)).shape == (3, 1)
