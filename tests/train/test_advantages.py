"""Generalised advantage estimation against numbers worked by hand and against its definition as a sum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puffer_edge.spaces import Bools, Floats
from puffer_edge.train.advantages import advantages


def column(*values: float) -> Floats:
    return np.array(values, np.float64)[:, None]


def flags(*values: int) -> Bools:
    return np.array(values, bool)[:, None]


NEVER = flags(0, 0, 0)
REWARD, VALUE = column(1, 2, 3), column(10, 20, 30)


@pytest.mark.parametrize(
    ("final_value", "terminated", "truncated", "expected"),
    [
        # γ = ½, λ = ½; δ[t] = r + ½·V' − V, A[t] = δ[t] + ¼·A[t+1]
        (column(20, 30, 40), NEVER, NEVER, (1 + 0.25 * (-3 + 0.25 * -7), -3 + 0.25 * -7, -7)),
        (column(20, 30, 40), flags(0, 0, 1), NEVER, (1 + 0.25 * (-3 + 0.25 * -27), -3 + 0.25 * -27, -27)),
        (column(20, 30, 40), flags(1, 0, 0), NEVER, (-9, -3 + 0.25 * -7, -7)),
        (column(20, 99, 40), flags(0, 1, 0), NEVER, (1 + 0.25 * -18, -18, -7)),
        (column(20, 50, 40), NEVER, flags(0, 1, 0), (1 + 0.25 * 7, 7, -7)),
        (column(60, 30, 40), NEVER, flags(1, 0, 0), (21, -3 + 0.25 * -7, -7)),
        (column(20, 30, 80), NEVER, flags(0, 0, 1), (1 + 0.25 * (-3 + 0.25 * 13), -3 + 0.25 * 13, 13)),
    ],
    ids=["no end", "terminated last", "terminated first", "terminated inside", "truncated inside", "truncated first", "truncated last"],
)
def test_golden(final_value: Floats, terminated: Bools, truncated: Bools, expected: tuple[float, ...]) -> None:
    found, returns = advantages(REWARD, VALUE, final_value, terminated, truncated, 0.5, 0.5)
    np.testing.assert_array_equal(found, column(*expected))
    np.testing.assert_array_equal(returns, column(*expected) + VALUE)


def by_definition(r: Floats, v: Floats, following: Floats, terminated: Bools, truncated: Bools, discount: float, decay: float) -> Floats:
    """A[t] = Σ_l (γλ)^l δ[t+l], the sum ending with the episode or the rollout."""
    result = np.zeros_like(r)
    for row in range(r.shape[1]):
        for t in range(len(r)):
            for s in range(t, len(r)):
                next_value = 0.0 if terminated[s, row] else following[s, row]
                result[t, row] += (discount * decay) ** (s - t) * (r[s, row] + discount * next_value - v[s, row])
                if terminated[s, row] or truncated[s, row]:
                    break
    return result


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 4), st.floats(0, 1), st.floats(0, 1))
def test_equals_its_definition(seed: int, steps: int, rows: int, discount: float, decay: float) -> None:
    rng = np.random.default_rng(seed)
    reward, value, final_value = rng.normal(size=(3, steps, rows))
    terminated, truncated = rng.random((2, steps, rows)) < 0.2
    found, _ = advantages(reward, value, final_value, terminated, truncated, discount, decay)
    np.testing.assert_allclose(found, by_definition(reward, value, final_value, terminated, truncated, discount, decay), atol=1e-12)


def test_a_perfect_critic_leaves_no_advantage() -> None:
    discount, steps = 0.9, 8
    value = column(*(sum(discount**k for k in range(steps - t)) for t in range(steps)))
    final_value = np.vstack([value[1:], [[123.0]]])
    terminated = flags(*([0] * (steps - 1)), 1)
    found, returns = advantages(np.ones((steps, 1)), value, final_value, terminated, np.zeros((steps, 1), bool), discount, 0.95)
    np.testing.assert_allclose(found, 0, atol=1e-12)
    np.testing.assert_allclose(returns, value)


def test_with_decay_one_the_returns_are_discounted_sums() -> None:
    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=(2, 5, 1))
    final_value = np.vstack([value[1:], [[2.0]]])
    none = np.zeros((5, 1), bool)
    _, returns = advantages(reward, value, final_value, none, none, 0.9, 1.0)
    assert returns[0, 0] == pytest.approx(sum(0.9**k * reward[k, 0] for k in range(5)) + 0.9**5 * 2.0)
