"""The one rounding, against TFLite-Micro's own form and against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puffer_edge.errors import RangeError
from puffer_edge.integer.ops.dense import Scales
from puffer_edge.integer.rounding import multiplier_and_shift, requantise

EDGES = [0, 1, -1, 2, -2, 3, 127, -128, 2**15, -(2**15), 2**30 - 1, 2**30, -(2**30), 2**31 - 1, -(2**31), -(2**31) + 1]
MULTIPLIERS = [0, 2**30, 2**30 + 1, 2**31 - 1, 1518500250, 1363304451]


def tflm(a: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """TFLite-Micro: SaturatingRoundingDoublingHighMul (a truncating division), then RoundingDivideByPOT."""
    product = a.astype(np.int64) * multiplier
    nudged = product + np.where(product >= 0, 2**30, 1 - 2**30)
    high = np.where(nudged >= 0, nudged >> 31, -((-nudged) >> 31))
    mask = (np.int64(1) << shift) - 1
    remainder, threshold = high & mask, (mask >> 1) + (high < 0)
    return (high >> shift) + (remainder > threshold)


def grid() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(v.ravel().astype(np.int64) for v in np.meshgrid(EDGES, MULTIPLIERS, np.arange(32)))


def test_requantise_is_tflms_form_on_edges() -> None:
    a, m, s = grid()
    assert (requantise(a, m, s) == tflm(a, m, s)).all()


@pytest.mark.parametrize("seed", range(4))
def test_requantise_is_tflms_form_on_a_million(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.integers(-(2**31), 2**31, 1_000_000) >> rng.integers(0, 31, 1_000_000)
    m, s = rng.integers(2**30, 2**31, 1_000_000), rng.integers(0, 32, 1_000_000)
    assert (requantise(a, m, s) == tflm(a, m, s)).all()


def test_requantise_is_tflms_form_on_ties() -> None:
    """Products that end exactly in a half, at both rounding steps, of both signs."""
    for shift in range(1, 24):
        odd = np.arange(-999, 1000, 2)
        a = np.concatenate([odd << shift, (odd << shift) + 1, (odd << shift) - 1, odd])
        m, s = np.full(len(a), 2**30), np.full(len(a), shift)
        assert (requantise(a, m, s) == tflm(a, m, s)).all()


@given(st.integers(-(2**31), 2**31 - 1), st.integers(2**30, 2**31 - 1), st.integers(0, 31))
def test_requantise_is_within_three_quarters_of_the_exact_value(a: int, m: int, s: int) -> None:
    got = int(requantise(np.array([a], np.int64), m, s)[0])
    assert abs(got - Fraction(a * m, 2 ** (31 + s))) <= Fraction(3, 4)


def test_left_shift_comes_first() -> None:
    a = np.array([-5, 0, 3], np.int64)
    assert (requantise(a, 2**30, -4) == requantise(a << 4, 2**30, 0)).all()


@given(st.floats(2.0**-60, 2.0**30))
def test_multiplier_is_tflites(factor: float) -> None:
    """QuantizeMultiplier of TFLite with its roundings done in exact fractions."""
    fraction, exponent = math.frexp(factor)
    exact = Fraction(fraction) * 2**31
    multiplier = math.floor(exact + Fraction(1, 2))
    if multiplier == 2**31:
        multiplier, exponent = multiplier // 2, exponent + 1
    assert multiplier_and_shift(factor) == ((0, 0) if exponent < -31 else (multiplier, -exponent))


@pytest.mark.parametrize(
    ("factor", "wanted"),
    [
        (0.0, (0, 0)),
        (1.0, (2**30, -1)),
        (0.5, (2**30, 0)),
        (0.25, (2**30, 1)),
        (1 - 2.0**-40, (2**30, -1)),
        (2.0**-32, (2**30, 31)),
        (2.0**-33, (0, 0)),
    ],
)
def test_multiplier_at_its_edges(factor: float, wanted: tuple[int, int]) -> None:
    assert multiplier_and_shift(factor) == wanted


@pytest.mark.parametrize("factor", [-1.0, float("nan"), float("inf")])
def test_multiplier_of_no_number_is_refused(factor: float) -> None:
    with pytest.raises(RangeError, match="finite and not negative"):
        multiplier_and_shift(factor)


@pytest.mark.parametrize("wide", [False, True])
def test_settled_scales_give_one_multiplier_by_both_rules(wide: bool) -> None:
    """Interpreters take the product of a single scale in float32 or in double."""
    rng = np.random.default_rng(8)
    moved = []
    for _ in range(200):
        scales = Scales(
            float(np.float32(rng.uniform(0.001, 0.1))), np.float32(10 ** rng.uniform(-6, 0, 1)).astype(float), float(np.float32(rng.uniform(0.1, 9)))
        )
        settled = scales.settled(wide)
        step = np.float32(scales.input) / np.float32(128 if wide else 1)
        by_float32 = multiplier_and_shift(float(step * np.float32(settled.weight[0])) / scales.output)
        assert tuple(int(v[0]) for v in settled.multipliers(wide)) == by_float32
        assert settled.weight[0] == float(np.float32(settled.weight[0]))
        moved.append(1 - settled.weight[0] / scales.weight[0])
    assert min(moved) >= 0 and max(moved) < 0.01
