"""Choosing ranges and profiles by a score."""

from __future__ import annotations

import numpy as np
import pytest

from puffer_edge.errors import ReturnLost
from puffer_edge.integer.program import Program
from puffer_edge.integer.quantize import measure, quantize
from puffer_edge.integer.search import keep_return, kept, search
from tests import samples


def scored(name: str = "mlp"):
    policy = samples.network(name)
    x, starts = samples.episodes(policy.contract, 500)
    return policy, x, starts, lambda program: -measure(policy, program, x, starts).median_action_error


def test_search_is_at_least_as_good_as_every_single_way() -> None:
    policy, x, starts, score = scored()
    choice = search(policy, x, score, starts)
    assert choice.score == score(choice.program) >= max(score(quantize(policy, x, starts, ranges=r)) for r in ("minmax", "percentile", "tight"))
    assert choice.program.digest == quantize(policy, x, starts, ranges=choice.ranges).digest
    assert len(choice.ranges) == 4 and len(choice.tried) >= 3


@pytest.mark.parametrize(("whole", "part", "share"), [(500, 500, 1), (500, 510, 1), (500, 450, 0.9), (-100, -102, 0.98), (-100, -90, 1)])
def test_kept_is_a_share_of_the_returns_size(whole: float, part: float, share: float) -> None:
    assert kept(whole, part) == pytest.approx(share)


def test_the_cheapest_profile_that_keeps_enough_is_taken() -> None:
    policy, x, starts, _ = scored()

    def score(program: Program) -> float:
        return 100.0 if program.ops[0].out_bytes == 2 else 98.0

    assert keep_return(policy, x, score, 100.0, 0.97, starts).profile == "int8"
    choice = keep_return(policy, x, score, 100.0, 0.99, starts)
    assert choice.profile == "int16x8" and [line.split(":")[0] for line in choice.tried] == ["int8", "int8, ranges by search", "int16x8"]
    with pytest.raises(ReturnLost, match="--fine-tune RUN --qat int8") as caught:
        keep_return(policy, x, score, 200.0, 0.99, starts)
    assert "int16x8: return 100 of 200, keeps 50.00%" in str(caught.value)


def test_search_finds_the_range_that_outliers_hide() -> None:
    """Thirty wild readings in ten thousand widen min-max ranges until the useful part has few steps left."""
    policy = samples.network("mlp")
    x, starts = samples.episodes(policy.contract, 2000)
    wild = x.copy()
    wild[::70] *= 0
    wild[::70, 0] = 4.0
    calm = x[np.arange(len(x)) % 70 != 0]
    choice = search(policy, wild, lambda p: -measure(policy, p, calm).median_action_error, starts)
    assert choice.score > -measure(policy, quantize(policy, wild, starts, ranges="minmax"), calm).median_action_error
