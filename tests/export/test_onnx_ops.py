"""Every operation of a program as ONNX nodes, against its numpy definition: random numbers over all that its check allows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from puffer_edge.errors import Unsupported
from puffer_edge.export import onnx_ops
from puffer_edge.export.onnx_graph import Graph
from puffer_edge.integer.expression import evaluate, to_onnx
from puffer_edge.integer.ops import Array, Op
from puffer_edge.integer.ops.choices import Choices
from puffer_edge.integer.ops.conv import Conv, Geometry
from puffer_edge.integer.ops.dense import Dense
from puffer_edge.integer.ops.gates import Gates
from puffer_edge.integer.ops.gru import Gru
from puffer_edge.integer.ops.input import Input
from puffer_edge.integer.ops.lookup import Lookup
from puffer_edge.integer.ops.lookup16 import Lookup16
from puffer_edge.integer.ops.lstm import Lstm
from puffer_edge.integer.ops.pool import Pool
from puffer_edge.integer.ops.tanh16 import Tanh16
from puffer_edge.integer.squash import logistic16, tanh16
from tests import samples
from tests.integer import trees

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
ROWS = 1000


def run(g: Graph, **feeds: Array) -> list[Array]:
    """What ONNX Runtime makes of a graph; the contract stands for any."""
    model = g.model("part", samples.many_channels(), {})
    results: list[Array] = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feeds)
    return results


def different(op: Op, seed: int = 0, x: Array | None = None) -> int:
    """Numbers, outputs and memory, that differ from the definition."""
    op.check()
    rng = np.random.default_rng(seed)
    bound = {1: 128, 2: 32768, 4: 2**30}[op.in_bytes]
    x = rng.integers(-bound, bound, (ROWS, op.n_in)) if x is None else x
    memory = rng.integers(-32768, 32768, (len(x), op.memory)).astype(np.int16)
    if isinstance(op, Lstm) and not op.x16:
        memory[:, : op.n_out] >>= 8
    g = Graph()
    given = g.input("memory", np.int32, op.memory) if op.memory else ""
    y, after = onnx_ops.step(g, op, g.input("x", np.int32, op.n_in), given)
    g.output("y", y, np.int32, op.n_out)
    feeds = {"x": x.astype(np.int32)}
    if op.memory:
        g.output("after", after, np.int32, op.memory)
        feeds["memory"] = memory.astype(np.int32)
    wanted = op.step(x.astype({1: np.int8, 2: np.int16, 4: np.int32}[op.in_bytes]), memory)
    assert len(np.unique(wanted[0])) > 3, "constant outputs would prove nothing"
    return sum(int((got != want).sum()) for got, want in zip(run(g, **feeds), wanted))


def scales(rng: np.random.Generator, rows: int, low: int, high: int) -> tuple[Array, Array]:
    return rng.integers(2**30, 2**31, rows).astype(np.int32), rng.integers(low, high + 1, rows)


def weights(rng: np.random.Generator, *shape: int) -> Array:
    return rng.integers(-127, 128, shape).astype(np.int8)


def biases(rng: np.random.Generator, rows: int) -> Array:
    return rng.integers(-2000, 2000, rows).astype(np.int32)


def gates(rng: np.random.Generator, rows: int, columns: int, x16: bool) -> Gates:
    low, high = (7, 13) if x16 else (-2, 5)
    return Gates(weights(rng, rows, columns), biases(rng, rows), *scales(rng, rows, low, high))


@pytest.mark.parametrize("x16", [False, True], ids=["int8", "int16"])
@pytest.mark.parametrize("shift_only", [False, True], ids=["multipliers", "shifts"])
@pytest.mark.parametrize("wide", [False, True], ids=["plain", "lifted"])
def test_dense(x16: bool, shift_only: bool, wide: bool) -> None:
    if x16 and wide:
        with pytest.raises(Exception, match="int16 input or a lifted sum"):
            Dense(np.zeros((1, 1), np.int8), np.zeros(1, np.int32), np.zeros(0), np.zeros(1, int), 0, 0, 0, wide, x16=x16).check()
        return
    rng = np.random.default_rng(1)
    multiplier, shift = scales(rng, 6, 0, 12)
    low, high = (-32768, 32767) if x16 or wide else (-90, 127)
    assert different(Dense(weights(rng, 6, 5), biases(rng, 6), multiplier[: 0 if shift_only else 6], shift, -3, low, high, wide, x16=x16)) == 0


@pytest.mark.parametrize("x16", [False, True], ids=["int8", "int16"])
@pytest.mark.parametrize("depthwise", [False, True], ids=["full", "depthwise"])
@pytest.mark.parametrize(
    "size",
    [
        Geometry(5, 7, 3, 6, 3, 4, (3, 3), (2, 2), (1, 1)),
        Geometry(1, 9, 2, 4, 1, 4, (1, 3), (1, 2)),
        Geometry(4, 4, 1, 3, 4, 4, (2, 2), (1, 1), (0, 1)),
    ],
    ids=["padded", "signal", "uneven"],
)
def test_convolution(x16: bool, depthwise: bool, size: Geometry) -> None:
    rng = np.random.default_rng(2)
    for shift_only in (False, True):
        multiplier, shift = scales(rng, size.filters, 6, 9)
        low, high, zero_in = (-32768, 32767, 0) if x16 else (-128, 127, 5)
        weight = weights(rng, size.filters, *size.kernel, 1 if depthwise else size.channels)
        multiplier = multiplier[: 0 if shift_only else size.filters]
        op = Conv(weight, biases(rng, size.filters), multiplier, shift, size, -7, low, high, zero_in, x16, 8, depthwise)
        assert different(op) == 0


@pytest.mark.parametrize("x16", [False, True], ids=["int8", "int16"])
@pytest.mark.parametrize("largest", [False, True], ids=["average", "max"])
def test_pool(x16: bool, largest: bool) -> None:
    assert [different(Pool(positions, 4, largest, x16), positions) for positions in (1, 2, 9, 15)] == [0] * 4


@pytest.mark.parametrize("x16", [False, True], ids=["int8", "int16"])
@pytest.mark.parametrize("seed", range(3))
def test_gru(x16: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert different(Gru(gates(rng, 12, 5, x16), gates(rng, 12, 4, True), x16), seed) == 0


@pytest.mark.parametrize("x16", [False, True], ids=["int8", "int16"])
@pytest.mark.parametrize("cell_bits", [0, 8, 11, 12])
def test_lstm(x16: bool, cell_bits: int) -> None:
    rng = np.random.default_rng(cell_bits)
    assert different(Lstm(gates(rng, 16, 5, x16), gates(rng, 16, 4, x16), cell_bits, x16)) == 0


def test_input_steps() -> None:
    rng = np.random.default_rng(3)
    mean, (multiplier, shift) = rng.integers(-1000, 1000, 6).astype(np.int32), scales(rng, 6, 10, 24)
    assert different(Input(mean, multiplier, shift, 3, -127, 127)) == 0
    assert different(Input(mean, multiplier, shift - 6, 0, -32768, 32767, True, (3, 1, 0, 5, 4, 2))) == 0


def test_tables_at_every_entry() -> None:
    rng = np.random.default_rng(4)
    assert different(Lookup(weights(rng, 256), 1), x=np.arange(-128, 128)[:, None]) == 0
    every = np.arange(-32768, 32768)[:, None]
    assert different(Lookup16.tanh(1), x=every) == different(Tanh16(1), x=every) == 0


@pytest.mark.parametrize("up", range(13))
def test_squashes_at_every_number(up: int) -> None:
    """A cell's tanh takes it in from Q3.12 to Q15.0."""
    every = np.arange(-32768, 32768)[:, None]
    g = Graph()
    x = g.input("x", np.int32, 1)
    g.output("tanh", onnx_ops.tanh16(g, x, up), np.int32, 1)
    g.output("logistic", onnx_ops.logistic16(g, x), np.int32, 1)
    tanh, logistic = run(g, x=every.astype(np.int32))
    assert (tanh == tanh16(every, up)).all() and (logistic == logistic16(every)).all()


def test_choices_take_the_first_of_equals() -> None:
    op = Choices((2, 4, 3), np.arange(100, 109, dtype=np.int32))
    x = np.random.default_rng(5).integers(-2, 3, (500, 9)).astype(np.int16)
    g = Graph()
    action, choice = onnx_ops.choose(g, op, g.input("x", np.int32, 9))
    g.output("action", action, np.int32, 3)
    g.output("choice", choice, np.int64, 3)
    got, picked = run(g, x=x.astype(np.int32))
    assert (got == op.run(x)).all()
    assert (picked == np.stack([x[:, a:b].argmax(1) for a, b in ((0, 2), (2, 6), (6, 9))], 1)).all()


def test_printed_expressions_are_evaluated_alike() -> None:
    """Random expressions, constants among their outputs."""
    for seed in range(60):
        outputs, columns = trees.tree(seed), trees.samples(seed)
        g = Graph()
        names = [g.input(name, np.int32) for name, _, _ in trees.RANGES]
        for k, y in enumerate(to_onnx(outputs, names, g.emit, g.constant)):
            g.output(f"y{k}", g.emit("Expand", y, g.emit("Shape", names[0])), np.int32)
        got = run(g, **dict(zip(names, columns)))
        for k, wanted in enumerate(evaluate(outputs, columns, np)):
            assert (got[k] == wanted).all(), (seed, k)


def test_an_unknown_operation_is_named() -> None:
    class Median(Op):
        n_in = n_out = 3

    g = Graph()
    with pytest.raises(Unsupported, match="a Median has no form in ONNX"):
        onnx_ops.step(g, Median(), g.input("x", np.int32, 3), "")


def test_equal_constants_are_stored_once() -> None:
    g = Graph()
    names: list[Any] = [g.constant([1, 2]), g.constant([1, 2]), g.constant([1, 2], np.int64), g.constant([[1, 2]])]
    assert len(set(names)) == 3
