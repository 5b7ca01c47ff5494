"""Running moments equal the moments of everything seen, however it was cut into rollouts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from puffer_edge.train.normalize import MIN_STD, Moments, RewardScale


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 50), min_size=1, max_size=6))
def test_moments_do_not_depend_on_the_cut(seed: int, sizes: list[int]) -> None:
    samples = np.random.default_rng(seed).normal(1e3, 2.0, (sum(sizes), 3))
    moments = Moments((3,))
    for part in np.split(samples, np.cumsum(sizes)[:-1]):
        moments.update(part)
    np.testing.assert_allclose(moments.mean, samples.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.std, np.maximum(samples.std(0), MIN_STD), rtol=1e-9)


def test_nothing_seen_changes_nothing() -> None:
    normalizer = Moments((2,)).normalizer()
    np.testing.assert_array_equal(normalizer(np.array([3.0, -4.0])), [3.0, -4.0])


def test_a_channel_that_never_moves_is_not_blown_up() -> None:
    moments = Moments((1,))
    moments.update(np.full((10, 1), 7.0))
    assert moments.std[0] == MIN_STD


def test_a_normalizer_is_frozen() -> None:
    moments = Moments((1,))
    moments.update(np.array([[1.0], [3.0]]))
    normalizer = moments.normalizer()
    moments.update(np.array([[100.0]]))
    np.testing.assert_array_equal(normalizer.mean, [2.0])


def test_rewards_are_scaled_by_the_discounted_return() -> None:
    scale = RewardScale(1, 0.5)
    assert scale.scale == 1.0
    ended = np.array([[False], [True], [False], [False]])
    scale.update(np.array([[1.0], [1.0], [4.0], [2.0]]), ended, np.ones_like(ended))
    np.testing.assert_allclose(scale.scale, np.std([1.0, 1.5, 4.0, 4.0]))
    np.testing.assert_array_equal(scale.returns, [4.0])
