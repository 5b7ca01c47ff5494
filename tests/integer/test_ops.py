"""Every operation, against the formula of ``docs/image.md`` in plain Python integers."""

from __future__ import annotations

import numpy as np
import pytest

from puffer_edge.errors import BundleError, RangeError
from puffer_edge.integer.ops import Header, Reader
from puffer_edge.integer.ops.affine import Affine
from puffer_edge.integer.ops.argmax import Argmax
from puffer_edge.integer.ops.dense import Dense
from puffer_edge.integer.ops.input import Input
from puffer_edge.integer.ops.lookup import Lookup
from puffer_edge.integer.ops.lookup16 import Lookup16
from puffer_edge.integer.program import KINDS

seeds = pytest.mark.parametrize("seed", range(5))


def requantise(a: int, m: int, s: int) -> int:
    """``docs/tick.md``, in Python integers."""
    a = int(a) << max(-int(s), 0)
    high = (a * int(m) + 2**30) >> 31
    return high if s <= 0 else (high + 2 ** (int(s) - 1) - (high < 0)) >> int(s)


def clamp(v: int, low: int, high: int) -> int:
    return min(max(int(v), int(low)), int(high))


def scales(rng: np.random.Generator, n: int, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(2**30, 2**31, n).astype(np.int32), rng.integers(low, high + 1, n)


def random_op(kind: type, seed: int):
    """An operation with random numbers over the whole range that its check allows, and inputs for it."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 9)), int(rng.integers(1, 9))
    int8, int16 = rng.integers(-128, 128, (40, n)).astype(np.int8), rng.integers(-32768, 32768, (40, n)).astype(np.int16)
    int8[:2], int16[:2] = [[-128], [127]], [[-32768], [32767]]
    if kind is Input:
        multiplier, shift = scales(rng, n, -1, 31)
        x = rng.integers(-(2**30) + 1, 2**30, (40, n)).astype(np.int32) >> 3
        return Input(rng.integers(-(2**27), 2**27, n).astype(np.int32), multiplier, shift.astype(np.int8), int(rng.integers(-128, 128)), -127, 127), x
    if kind is Dense:
        wide = bool(seed % 2)
        multiplier, shift = scales(rng, m, 0, 12)
        low, high = (-32768, 32767) if wide else (-128, 127)
        weight = rng.integers(-128, 128, (m, n)).astype(np.int8)
        return Dense(
            weight, rng.integers(-(2**22), 2**22, m).astype(np.int32), multiplier, shift, int(rng.integers(low, high)), low, high, wide
        ), int8
    if kind is Lookup:
        return Lookup(rng.integers(-128, 128, 256).astype(np.int8), n), int8
    if kind is Lookup16:
        return Lookup16(rng.integers(-32768, 32768, 513).astype(np.int16), n), int16
    if kind is Argmax:
        return Argmax(rng.integers(-(2**28) + 1, 2**28, (n, m)).astype(np.int32)), np.where(rng.random((40, n)) < 0.5, int16, 7).astype(np.int16)
    multiplier, shift = scales(rng, n, -12, 15)
    bounds = np.sort(rng.integers(-(2**28) + 1, 2**28, (2, n)), 0).astype(np.int32)
    return Affine(multiplier, shift.astype(np.int8), rng.integers(-(2**27), 2**27, n).astype(np.int32), *bounds), int16


def slow(op, row) -> list[int]:
    """One row of an operation, number by number."""
    x = [int(v) for v in row]
    if isinstance(op, Input):
        centred = [clamp(v - int(mean), -(2**30) + 1, 2**30 - 1) for v, mean in zip(x, op.mean)]
        return [clamp(requantise(c, m, s) + op.zero, op.low, op.high) for c, m, s in zip(centred, op.multiplier, op.shift)]
    if isinstance(op, Dense):
        totals = [int(b) + sum(int(w) * v for w, v in zip(weights, x)) for b, weights in zip(op.bias, op.weight)]
        totals = [t * 128 for t in totals] if op.wide else totals
        return [clamp(requantise(t, m, s) + op.zero, op.low, op.high) for t, m, s in zip(totals, op.multiplier, op.shift)]
    if isinstance(op, Lookup):
        return [int(op.table[v + 128]) for v in x]
    if isinstance(op, Lookup16):
        table = [int(t) for t in op.table]
        pairs = [(table[(v >> 7) + 256], table[(v >> 7) + 257], v & 127) for v in x]
        return [b + (((after - b) * part + 64) >> 7) for b, after, part in pairs]
    if isinstance(op, Argmax):
        return [int(v) for v in op.levels[x.index(max(x))]]
    rows = zip(x, op.multiplier, op.shift, op.offset, op.low, op.high)
    return [clamp(requantise(v, m, s) + int(offset), low, high) for v, m, s, offset, low, high in rows]


@seeds
@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda k: k.__name__)
def test_run_is_the_formula(kind: type, seed: int) -> None:
    op, x = random_op(kind, seed)
    op.check()
    assert op.run(x).tolist() == [slow(op, row) for row in x]


@seeds
@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda k: k.__name__)
def test_packed_form_round_trips(kind: type, seed: int) -> None:
    op, x = random_op(kind, seed)
    data = op.pack()
    assert len(data) % 4 == 0
    reader = Reader(data)
    header = reader.header()
    assert (header.kind, header.n_in, header.n_out) == (op.KIND, op.n_in, op.n_out)
    again = KINDS[header.kind].unpack(header, reader)
    assert reader.at == len(data) and again.pack() == data
    assert (again.run(x) == op.run(x)).all()


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda k: k.__name__)
def test_cut_or_padded_wrongly_is_refused(kind: type) -> None:
    data = random_op(kind, 1)[0].pack()
    for size in range(len(data)):
        with pytest.raises(BundleError, match="cut short"):
            reader = Reader(data[:size])
            KINDS[kind.KIND].unpack(reader.header(), reader)


def test_padding_must_be_zero() -> None:
    op = Dense(np.ones((2, 3), np.int8), np.zeros(2, np.int32), np.full(2, 2**30, np.int32), np.zeros(2, np.int64), 0, -128, 127)
    data = bytearray(op.pack())
    data[-1] = 1
    reader = Reader(bytes(data))
    with pytest.raises(BundleError, match="padding"):
        Dense.unpack(reader.header(), reader)


@pytest.mark.parametrize(
    "header",
    [
        Header(Dense.KIND, 2, 1, 1, 0, -128, 127),
        Header(Dense.KIND, 0, 1, 1, 0, 127, -128),
        Header(Dense.KIND, 0, 1, 1, 0, -129, 127),
        Header(Dense.KIND, 0, 1, 1, 128, -128, 127),
        Header(Input.KIND, 0, 1, 2, 0, -127, 127),
        Header(Input.KIND, 1, 1, 1, 0, -127, 127),
        Header(Lookup.KIND, 0, 1, 2),
        Header(Lookup16.KIND, 1, 1, 1),
        Header(Argmax.KIND, 1, 1, 1),
        Header(Affine.KIND, 0, 1, 2),
    ],
)
def test_an_inconsistent_header_is_refused(header: Header) -> None:
    with pytest.raises(BundleError, match="inconsistent"):
        KINDS[header.kind].unpack(header, Reader(bytes(4096)))


def dense(weight: int = 1, bias: int = 0, multiplier: int = 2**30, shift: int = 0, width: int = 1, wide: bool = False) -> Dense:
    bound = 32768 if wide else 128
    arrays = np.full((1, width), weight, np.int8), np.array([bias], np.int32), np.array([multiplier], np.int32), np.array([shift])
    return Dense(*arrays, 0, -bound, bound - 1, wide)


@pytest.mark.parametrize(
    ("op", "match"),
    [
        (dense(multiplier=2**30 - 1), "multipliers"),
        (dense(multiplier=-1), "multipliers"),
        (dense(shift=-1), "shifts"),
        (dense(shift=32), "shifts"),
        (dense(bias=2**31 - 127), "beyond int32"),
        (dense(bias=2**24, wide=True), "beyond int32"),
        (dense(weight=127, width=1100, wide=True), "beyond int32"),
        (Lookup(np.zeros(255, np.int8), 1), "256 entries"),
        (Lookup16(np.zeros(512, np.int16), 1), "513 entries"),
        (Argmax(np.array([[2**28]], np.int32)), "level"),
        (Input(*(np.array([v], np.int32) for v in (0, 2**30, -31))), "shifts"),
        (Affine(*(np.array([v], np.int32) for v in (2**30, -16, 0, 0, 1))), "shifts"),
        (Affine(*(np.array([v], np.int32) for v in (2**30, 0, 2**28, 0, 1))), "offset or bound"),
        (Affine(*(np.array([v], np.int32) for v in (2**30, 0, 0, 2, 1))), "low is above its high"),
    ],
)
def test_what_could_overflow_is_refused(op, match: str) -> None:
    with pytest.raises(RangeError, match=match):
        op.check()


def test_largest_accumulator_is_accepted() -> None:
    dense(bias=2**31 - 1 - 127 - 1).check()
    dense(weight=127, width=1000, wide=True).check()


def test_left_shift_of_an_observation_is_proved() -> None:
    op = Input(np.array([0], np.int32), np.array([2**30], np.int32), np.array([-3], np.int8))
    op.check_range(np.array([1 - 2**28]), np.array([2**28 - 1]))
    with pytest.raises(RangeError, match="more fraction bits"):
        op.check_range(np.array([-(2**28)]), np.array([0]))


def test_argmax_takes_the_first_of_equals() -> None:
    op = Argmax(np.array([[10], [20], [30]], np.int32))
    assert op.run(np.array([[5, 5, 5], [4, 5, 5], [-9, -9, -10]], np.int16)).tolist() == [[10], [20], [10]]


def test_tables_are_tanh_rounded_half_away() -> None:
    table = Lookup.tanh(4 / 127, 1).table
    exact = np.tanh(4 / 127 * np.arange(-128, 128)) * 128
    assert (np.abs(table - np.clip(exact, -128, 127)) <= 0.5).all()
    assert (table[129:] == np.minimum(-table[127:0:-1].astype(int), 127)).all()  # odd, where +128 fits
    x = np.arange(-32768, 32768).astype(np.int16)[:, None]
    y = Lookup16.tanh(1).run(x)[:, 0] / 32768
    assert np.abs(y - np.tanh(x[:, 0] / 4096)).max() < 1.2e-4
    assert (np.diff(y) >= 0).all()


def test_tanh_scale_keeps_entries_off_rounding_boundaries() -> None:
    for scale in np.geomspace(1e-5, 0.5, 400):
        settled = Lookup.tanh_scale(float(np.float32(scale)))
        assert scale * (1 - 1e-6) <= settled < scale * 1.05
        y = np.abs(np.tanh(settled * np.arange(1, 129)) * 128)
        assert np.abs(y % 1 - 0.5).min() > 2.0**-13
