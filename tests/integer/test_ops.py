"""Every operation, against the formula of ``docs/image.md`` in plain Python integers."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from puffer_edge.errors import BundleError, RangeError
from puffer_edge.integer import squash
from puffer_edge.integer.ops import Header, Op, Reader
from puffer_edge.integer.ops.affine import Affine
from puffer_edge.integer.ops.argmax import Argmax
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
from puffer_edge.integer.program import KINDS

seeds = pytest.mark.parametrize("seed", range(8))


def requantise(a: int, m: int, s: int) -> int:
    """``docs/tick.md``, in Python integers."""
    a = int(a) << max(-int(s), 0)
    high = (a * int(m) + 2**30) >> 31
    return high if s <= 0 else (high + 2 ** (int(s) - 1) - (high < 0)) >> int(s)


def clamp(v: int, low: int, high: int) -> int:
    return min(max(int(v), int(low)), int(high))


def scales(rng: np.random.Generator, n: int, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(2**30, 2**31, n).astype(np.int32), rng.integers(low, high + 1, n)


def values(rng: np.random.Generator, n: int, bits: int, rows: int = 40) -> np.ndarray:
    """Inputs of 8 or 16 bits, the two ends of the range among them."""
    half = 1 << (bits - 1)
    x = rng.integers(-half, half, (rows, n)).astype(np.int8 if bits == 8 else np.int16)
    x[:2] = [[-half], [half - 1]]
    return x


def rows_of(rng: np.random.Generator, rows: int, columns: int, shift: tuple[int, int], bits: int = 8) -> tuple[np.ndarray, ...]:
    """Weights, bias, multipliers and shifts whose sums stay inside int32."""
    most = 7 if bits == 4 else 128
    weight = rng.integers(-most, most, (rows, columns)).astype(np.int8)
    multiplier, shifts = scales(rng, rows, *shift)
    return weight, rng.integers(-(2**14), 2**14, rows).astype(np.int32), multiplier, shifts


def random_dense(rng: np.random.Generator, seed: int, n: int, m: int) -> tuple[Dense, np.ndarray]:
    """Every combination of flags in turn: seed % 8 picks it."""
    kind = ("int8", "wide", "x16", "int4", "shift", "int4 wide", "x16 shift", "wide shift")[seed % 8]
    x16, wide, bits = "x16" in kind, "wide" in kind, 4 if "int4" in kind else 8
    weight, bias, multiplier, shift = rows_of(rng, m, n, (0, 14), bits)
    low, high = (-32768, 32767) if wide or x16 else (-128, 127)
    zero = int(rng.integers(low, high))
    low = zero if seed % 3 == 0 else low
    multiplier = multiplier[:0] if "shift" in kind else multiplier
    return Dense(weight, bias, multiplier, shift, zero, low, high, wide, x16=x16, bits=bits), values(rng, n, 16 if x16 else 8)


def random_conv(rng: np.random.Generator, seed: int) -> tuple[Conv, np.ndarray]:
    """A convolution with any stride and padding that its check allows; seed % 8 picks the flags."""
    kind = ("int8", "depthwise", "x16", "int4", "shift", "depthwise int4", "depthwise x16 shift", "depthwise shift")[seed % 8]
    x16, depthwise, bits = "x16" in kind, "depthwise" in kind, 4 if "int4" in kind else 8
    height, width, channels = int(rng.integers(1, 6)), int(rng.integers(1, 7)), int(rng.integers(1, 4))
    kernel, stride = (int(rng.integers(1, 4)), int(rng.integers(1, 4))), (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
    padding = int(rng.integers(0, kernel[0])), int(rng.integers(0, kernel[1]))
    out_height = int(rng.integers(1, (height - 1 + padding[0]) // stride[0] + 2))
    out_width = int(rng.integers(1, (width - 1 + padding[1]) // stride[1] + 2))
    filters = channels * int(rng.integers(1, 3)) if depthwise else int(rng.integers(1, 5))
    g = Geometry(height, width, channels, filters, out_height, out_width, kernel, stride, padding)
    seen = 1 if depthwise else channels
    weight, bias, multiplier, shift = rows_of(rng, filters, kernel[0] * kernel[1] * seen, (0, 12), bits)
    half = 32768 if x16 else 128
    zero, zero_in = int(rng.integers(-half, half)), int(rng.integers(-half, half))
    multiplier = multiplier[:0] if "shift" in kind else multiplier
    arrays = weight.reshape(filters, *kernel, seen), bias, multiplier, shift
    op = Conv(*arrays, g, zero, zero if seed % 3 == 0 else -half, half - 1, zero_in, x16, bits, depthwise)
    return op, values(rng, op.n_in, 16 if x16 else 8)


def random_cell(kind: type, rng: np.random.Generator, seed: int) -> tuple[Op, np.ndarray]:
    """A GRU or LSTM whose gates reach all of their range."""
    n, h, x16 = int(rng.integers(1, 9)), int(rng.integers(1, 9)), bool(seed % 2)
    gates = 3 if kind is Gru else 4
    given = Gates(*rows_of(rng, gates * h, n, (9, 14) if x16 else (-2, 6)))
    kept = Gates(*rows_of(rng, gates * h, h, (9, 14) if x16 or kind is Gru else (-2, 6)))
    op = Gru(given, kept, x16) if kind is Gru else Lstm(given, kept, int(rng.integers(0, 13)), x16)
    return op, values(rng, n, 16 if x16 else 8)


def random_op(kind: type, seed: int):
    """An operation with random numbers over the whole range that its check allows, and inputs for it."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 9)), int(rng.integers(1, 9))
    int8, int16 = values(rng, n, 8), values(rng, n, 16)
    if kind is Input:
        multiplier, shift = scales(rng, n, -1, 31)
        x = rng.integers(-(2**30) + 1, 2**30, (40, n)).astype(np.int32) >> 3
        half = 32768 if seed % 4 > 1 else 128
        order = tuple(int(k) for k in rng.permutation(n)) if seed % 2 else ()
        mean, zero = rng.integers(-(2**27), 2**27, n).astype(np.int32), int(rng.integers(-half, half))
        return Input(mean, multiplier, shift.astype(np.int8), zero, 1 - half, half - 1, half > 128, order), x
    if kind is Dense:
        return random_dense(rng, seed, n, m)
    if kind is Conv:
        return random_conv(rng, seed)
    if kind in (Gru, Lstm):
        return random_cell(kind, rng, seed)
    if kind is Pool:
        positions, x16 = int(rng.integers(1, 30)), seed % 4 > 1
        return Pool(positions, n, bool(seed % 2), x16), values(rng, positions * n, 16 if x16 else 8)
    if kind is Choices:
        sizes = tuple(int(k) for k in rng.integers(1, 6, m))
        levels = rng.integers(-(2**28) + 1, 2**28, sum(sizes)).astype(np.int32)
        x = values(rng, sum(sizes), 16)
        return Choices(sizes, levels), np.where(rng.random(x.shape) < 0.5, x, 7).astype(np.int16)
    if kind is Tanh16:
        return Tanh16(n), int16
    if kind is Lookup:
        return Lookup(rng.integers(-128, 128, 256).astype(np.int8), n), int8
    if kind is Lookup16:
        return Lookup16(rng.integers(-32768, 32768, 513).astype(np.int16), n), int16
    if kind is Argmax:
        return Argmax(rng.integers(-(2**28) + 1, 2**28, (n, m)).astype(np.int32)), np.where(rng.random((40, n)) < 0.5, int16, 7).astype(np.int16)
    multiplier, shift = scales(rng, n, -12, 15)
    bounds = np.sort(rng.integers(-(2**28) + 1, 2**28, (2, n)), 0).astype(np.int32)
    return Affine(multiplier, shift.astype(np.int8), rng.integers(-(2**27), 2**27, n).astype(np.int32), *bounds), int16


def rescale(a: int, op, k: int) -> int:
    """``docs/image.md``: with multipliers or by a shift alone."""
    s = int(op.shift[k])
    if len(op.multiplier):
        return requantise(a, op.multiplier[k], s)
    return a if s == 0 else (a + 2 ** (s - 1) - (a < 0)) >> s


def slow_conv(op: Conv, x: list[int]) -> list[int]:
    """Position by position, tap by tap."""
    g, y = op.geometry, []
    for i in range(g.out_height):
        for j in range(g.out_width):
            for f in range(g.filters):
                total = int(op.bias[f])
                for u in range(g.kernel[0]):
                    for v in range(g.kernel[1]):
                        for c in range(1 if op.depthwise else g.channels):
                            row, column = i * g.stride[0] - g.padding[0] + u, j * g.stride[1] - g.padding[1] + v
                            channel = f // (g.filters // g.channels) if op.depthwise else c
                            inside = 0 <= row < g.height and 0 <= column < g.width
                            seen = x[(row * g.width + column) * g.channels + channel] if inside else op.zero_in
                            total += int(op.weight[f, u, v, c]) * seen
                y.append(clamp(rescale(total, op, f) + op.zero, op.low, op.high))
    return y


def squashed(a: int, bits: int, up: int = 0) -> int:
    """``docs/image.md``: σ with 9 bits of fraction, tanh16 with 8."""
    v = a * (3 << up)
    u, part = abs(v) >> bits, abs(v) & ((1 << bits) - 1)
    end, table = (32767 << 10) if bits == 9 else (65535 << 8), squash.TABLE
    r = end if u >= 255 else (int(table[u]) << bits) + part * (int(table[u + 1]) - int(table[u]))
    if bits == 9:
        return (r + 512 if v >= 0 else 2**25 - r + 511) >> 10
    return (r - 2**23 + 128 if v >= 0 else -r + 2**23 + 127) >> 8


def slow_gates(gates: Gates, x: list[int]) -> list[int]:
    totals = [int(b) + sum(int(w) * v for w, v in zip(weights, x)) for b, weights in zip(gates.bias, gates.weight)]
    return [clamp(requantise(t, m, s), -32768, 32767) for t, m, s in zip(totals, gates.multiplier, gates.shift)]


def slow_step(op, x: list[int], memory: list[int]) -> tuple[list[int], list[int]]:
    """One step of a cell, number by number."""
    n, given, kept, half = op.n_out, slow_gates(op.given, x), slow_gates(op.kept, memory[: op.n_out]), 2**30
    both = [clamp(a + b, -32768, 32767) for a, b in zip(given, kept)]
    if isinstance(op, Gru):
        after = []
        for j in range(n):
            r, z = squashed(both[j], 9), squashed(both[n + j], 9)
            new = squashed(clamp(given[2 * n + j] + ((r * kept[2 * n + j] + 2**14) >> 15), -32768, 32767), 8)
            after.append((z * memory[j] + (2**15 - z) * new + 2**14) >> 15)
        return after if op.x16 else [min((h + 128) >> 8, 127) for h in after], after
    hidden, cell = [], []
    for j in range(n):
        i, f, g, o = squashed(both[j], 9), squashed(both[n + j], 9), squashed(both[2 * n + j], 8), squashed(both[3 * n + j], 9)
        stays = clamp(requantise(f * memory[n + j], half, 14), -32768, 32767)
        comes = clamp(requantise(i * g, half, 29 - op.cell_bits), -32768, 32767)
        cell.append(clamp(stays + comes, -32768, 32767))
        out = o * squashed(cell[j], 8, 12 - op.cell_bits)
        hidden.append(clamp(requantise(out, half, 14), -32768, 32767) if op.x16 else clamp(requantise(out, half, 22), -128, 127))
    return hidden, hidden + cell


def slow(op, row) -> list[int]:
    """One row of an operation, number by number, from cleared memory."""
    x = [int(v) for v in row]
    if isinstance(op, Input):
        x = [x[k] for k in op.order] if op.order else x
        centred = [clamp(v - int(mean), -(2**30) + 1, 2**30 - 1) for v, mean in zip(x, op.mean)]
        return [clamp(requantise(c, m, s) + op.zero, op.low, op.high) for c, m, s in zip(centred, op.multiplier, op.shift)]
    if isinstance(op, Dense):
        totals = [int(b) + sum(int(w) * v for w, v in zip(weights, x)) for b, weights in zip(op.bias, op.weight)]
        totals = [t * 128 for t in totals] if op.wide else totals
        return [clamp(rescale(t, op, k) + op.zero, op.low, op.high) for k, t in enumerate(totals)]
    if isinstance(op, Conv):
        return slow_conv(op, x)
    if isinstance(op, (Gru, Lstm)):
        return slow_step(op, x, [0] * op.memory)[0]
    if isinstance(op, Pool):
        columns = [x[c :: op.channels] for c in range(op.channels)]
        if op.largest:
            return [max(column) for column in columns]
        return [(abs(t := sum(c)) + op.positions // 2) // op.positions * (1 if t > 0 else -1) for c in columns]
    if isinstance(op, Choices):
        starts = [sum(op.sizes[:j]) for j in range(len(op.sizes))]
        groups = [x[start : start + size] for start, size in zip(starts, op.sizes)]
        return [int(op.levels[start + group.index(max(group))]) for start, group in zip(starts, groups)]
    if isinstance(op, Tanh16):
        return [squashed(v, 8) for v in x]
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
@pytest.mark.parametrize("kind", [Gru, Lstm])
def test_memory_goes_from_step_to_step(kind: type, seed: int) -> None:
    op, x = random_op(kind, seed)
    op.check()
    memory, kept = np.zeros((1, op.memory), np.int16), [0] * op.memory
    for row in x:
        y, memory = op.step(row[None], memory)
        wanted, kept = slow_step(op, [int(v) for v in row], kept)
        assert y[0].tolist() == wanted and memory[0].tolist() == kept
    assert len({tuple(r) for r in op.run(x).tolist()}) > 1 or op.n_out == 1


def test_the_table_of_the_logistic_function_is_the_agreed_one() -> None:
    digest = hashlib.sha256(squash.TABLE.astype("<u2").tobytes()).hexdigest()
    assert digest == "c79a34d2c8c6e794fbb0207601538fe0169e968cd6d9d5ca65fff859dcd55183"
    x = np.arange(-32768, 32768)
    assert np.abs(squash.logistic16(x) / 32768 - 1 / (1 + np.exp(-x / 4096))).max() < 1e-4
    assert np.abs(squash.tanh16(x) / 32768 - np.tanh(x / 4096)).max() < 1e-4


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
        with pytest.raises(BundleError, match=r"cut short|do not make"):
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
        Header(Dense.KIND, 16, 1, 1, 0, -128, 127),
        Header(Dense.KIND, 0, 1, 1, 0, 127, -128),
        Header(Dense.KIND, 0, 1, 1, 0, -129, 127),
        Header(Dense.KIND, 0, 1, 1, 128, -128, 127),
        Header(Input.KIND, 0, 1, 2, 0, -127, 127),
        Header(Input.KIND, 4, 1, 1, 0, -127, 127),
        Header(Lookup.KIND, 0, 1, 2),
        Header(Lookup16.KIND, 1, 1, 1),
        Header(Argmax.KIND, 1, 1, 1),
        Header(Affine.KIND, 0, 1, 2),
        Header(Conv.KIND, 1, 1, 1, 0, -128, 127),
        Header(Pool.KIND, 0, 5, 2),
        Header(Gru.KIND, 1, 1, 1),
        Header(Lstm.KIND, 4, 1, 1),
        Header(Choices.KIND, 2, 1, 1),
        Header(Tanh16.KIND, 0, 1, 2),
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
