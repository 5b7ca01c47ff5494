"""Expressions: every way to run one gives the same integers, inside the proved interval."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puffer_edge.errors import RangeError
from puffer_edge.integer.expression import (
    HIGHEST,
    LOWEST,
    clamp,
    differs,
    evaluate,
    in_order,
    least,
    lift,
    most,
    to_c,
    to_micropython,
    variable,
    where,
)
from tests.integer import trees

seeds = st.integers(0, 2**32 - 1)


def by_python(outputs, columns) -> np.ndarray:
    space: dict = {}
    exec(to_micropython("f", outputs), space)  # text that this package printed
    rows = []
    for row in zip(*columns):
        out = [0] * len(outputs)
        space["f"]([int(v) for v in row], out)
        rows.append(out)
    return np.array(rows)


def by_numpy(outputs, columns) -> np.ndarray:
    results = evaluate(outputs, columns, np)
    assert all(r.dtype == np.int32 for r in results)
    return np.stack([np.broadcast_to(r, columns[0].shape) for r in results], -1)


@given(seeds)
def test_numpy_is_printed_python(seed: int) -> None:
    outputs, columns = trees.tree(seed), trees.samples(seed)
    assert (by_numpy(outputs, columns) == by_python(outputs, columns)).all()


@given(seeds)
def test_every_node_stays_in_its_interval(seed: int) -> None:
    order = in_order(trees.tree(seed))
    columns = trees.samples(seed)
    for node, value in zip(order, evaluate(order, columns, np)):
        assert LOWEST <= node.lo <= int(np.min(value)) <= int(np.max(value)) <= node.hi <= HIGHEST


def test_torch_is_numpy() -> None:
    torch = pytest.importorskip("torch")
    for seed in range(100):
        outputs, columns = trees.tree(seed), trees.samples(seed)
        results = evaluate(outputs, [torch.from_numpy(c) for c in columns], torch)
        assert all(r.dtype == torch.int32 for r in results)
        assert (torch.stack([r.expand(64) for r in results], -1).numpy() == by_numpy(outputs, columns)).all()


@pytest.mark.toolchain("cc")
def test_printed_c_is_numpy(tmp_path: Path) -> None:
    forest = [trees.tree(seed) for seed in range(200)]
    source, library = tmp_path / "forest.c", tmp_path / "forest.so"
    prototypes = [f"void f{k}(const int32_t *v, int32_t *out);" for k in range(len(forest))]
    source.write_text("\n".join(["#include <stdint.h>", *prototypes, *(to_c(f"f{k}", outputs) for k, outputs in enumerate(forest))]))
    strict = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]
    random = ["-Wno-tautological-compare", "-Wno-unused-parameter"]  # a random tree may compare a value with itself, or be constant
    subprocess.run(["cc", *strict, *random, "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    functions = ctypes.CDLL(str(library))
    for k, outputs in enumerate(forest):
        columns = trees.samples(k)
        got = np.zeros((64, len(outputs)), np.int32)
        for row, values in enumerate(np.stack(columns, -1)):
            functions[f"f{k}"](values.ctypes.data_as(ctypes.c_void_p), got[row].ctypes.data_as(ctypes.c_void_p))
        assert (got == by_numpy(outputs, columns)).all(), f"tree {k}"


def test_operators_mean_what_they_say() -> None:
    x, y = variable(0, "x", -100, 100), variable(1, "y", -100, 100)
    outputs = [x + y, x - y, x * y, x >> 2, x < y, x > y, least(x, y), most(x, y), where(x < y, x, 7), differs(x, y), clamp(x, -3, 3), -x, 5 - x]
    columns = [np.array([-7, 50, 50], np.int32), np.array([3, -50, 50], np.int32)]
    assert by_numpy(outputs, columns).tolist() == [
        [-4, -10, -21, -2, 1, 0, -7, 3, -7, 1, -3, 7, 12],
        [0, 100, -2500, 12, 0, 1, -50, 50, 7, 1, 3, -50, -45],
        [100, 0, 2500, 12, 0, 0, 50, 50, 7, 0, 3, -50, -45],
    ]


def test_shift_right_is_floor() -> None:
    assert by_numpy([variable(0, "x", -9, 9) >> 1], [np.array([-9, -1, 9], np.int32)])[:, 0].tolist() == [-5, -1, 4]


def test_equal_nodes_are_computed_once() -> None:
    x = variable(0, "x", 0, 10)
    assert len(in_order([(x + 1) * (x + 1), x + 1])) == 4


def test_what_an_interval_decides_costs_nothing() -> None:
    x = variable(0, "x", 0, 10)
    assert clamp(x, -5, 20) is x
    assert x + 0 is x and x * 1 is x
    assert differs(x, x).op == "const"


@pytest.mark.parametrize("build", [lambda x: x + x, lambda x: x * 2, lambda x: -x - x - 1, lambda x: lift(2**30), lambda x: x * x])
def test_overflow_is_refused_when_it_is_built(build) -> None:
    with pytest.raises(RangeError, match=r"beyond ±2\^30"):
        build(variable(0, "x", -(2**29) - 1, 2**29))


@pytest.mark.parametrize("amount", [-1, 31, 1.5])
def test_shift_must_be_a_small_constant(amount) -> None:
    with pytest.raises(RangeError, match="shift"):
        variable(0, "x", 0, 1) >> amount


def test_branching_on_a_traced_value_says_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"where\(condition, a, b\)"):
        bool(variable(0, "x", 0, 1) < 1)
