"""Random numbers are Philox's, the same for one row and for many, and depend on their counter alone."""

from __future__ import annotations

import numpy as np
import pytest

from puffer_edge.envs.draw import ON_RESET, Draws, begin, normal, philox, uniform
from puffer_edge.errors import InvalidInput

ALL = 0xFFFFFFFF
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((0,) * 6, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ALL,) * 6, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (PI, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ],
)
def test_philox_gives_random123s_known_answers(words: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """The three answers for philox4x32 with 10 rounds in Random123's file of known answers, ``kat_vectors``."""
    assert tuple(int(word) for word in philox(*map(np.uint64, words))) == expected


def test_many_rows_draw_what_each_draws_alone() -> None:
    draws = Draws(7, np.array([0, 5, 2**32 - 1]), np.array([0, 2**33 + 1, 17], np.uint64))
    many = draws.uniform((-1.0, 2.0, 0.0), (1.0, 3.0, 1.0), 3)
    for row, (environment, step) in enumerate(zip(draws.environment, draws.step)):
        one = np.zeros(6, np.uint64)
        begin(one, draws.key, environment, step, 0)
        assert [uniform(one, low, high) for low, high in ((-1.0, 1.0), (2.0, 3.0), (0.0, 1.0))] == many[row].tolist()
    assert len(np.unique(many)) == 9


def test_a_reset_and_the_step_after_it_draw_different_numbers() -> None:
    on_reset, on_step = Draws.of_episodes(1, [0]), Draws(1, np.array([0]), np.zeros(1, np.uint64))
    assert on_reset.count == ON_RESET
    assert (on_reset.uniform(columns=8) != on_step.uniform(columns=8)).all()


def test_numbers_are_spread_as_they_should_be() -> None:
    many = Draws.of_episodes(3, range(20_000)).uniform(-2.0, 4.0, 2)
    assert -2.0 <= many.min() < -1.99 and 3.99 < many.max() < 4.0
    np.testing.assert_allclose((many.mean(), many.std()), (1.0, 6 / np.sqrt(12)), atol=0.03)
    assert abs(np.corrcoef(many.T)[0, 1]) < 0.02
    draw, numbers = np.zeros(6, np.uint64), np.zeros(20_000)
    for k in range(len(numbers)):
        numbers[k] = normal(draw)
    np.testing.assert_allclose((numbers.mean(), numbers.std(), (numbers**3).mean(), (numbers**4).mean()), (0, 1, 0, 3), atol=0.12)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_beyond_32_bits_is_refused(seed: int) -> None:
    with pytest.raises(InvalidInput, match="a seed of random numbers lies in"):
        Draws.of_episodes(seed, [0])
    with pytest.raises(InvalidInput, match="numbered from 0"):
        Draws.of_episodes(0, [-1])
