"""A budget: each of its limits, and the target's own, can be met to the last unit and broken by one more."""

from __future__ import annotations

import dataclasses
import math

import pytest

from puffer_edge.device import target as targets
from puffer_edge.device.limits import Budget, Need
from puffer_edge.errors import InvalidInput

NEED = Need(100, 2048, 3072, 40.0, "emulated")
BOARD = targets.load("rp2040")


@pytest.mark.parametrize(
    ("met", "broken"),
    [
        (Budget(macs=100), Budget(macs=99)),
        (Budget(kib=2.0), Budget(kib=2047 / 1024)),
        (Budget(BOARD, us=40.0), Budget(BOARD, us=39.9)),
        (Budget(dataclasses.replace(BOARD, image_max_bytes=2048)), Budget(dataclasses.replace(BOARD, image_max_bytes=2047))),
        (Budget(dataclasses.replace(BOARD, ram_for_policy_bytes=3072)), Budget(dataclasses.replace(BOARD, ram_for_policy_bytes=3071))),
    ],
)
def test_a_limit_is_met_to_the_last_unit(met: Budget, broken: Budget) -> None:
    assert met.fits(NEED, 50.0) and not broken.fits(NEED, 50.0)
    (limit,) = [one for one in broken.limits(NEED, 50.0) if one.share > 1]
    assert limit.needs > limit.has


def test_a_tick_may_take_half_of_the_period() -> None:
    assert Budget(BOARD).fits(NEED, 12_500.0) and not Budget(BOARD).fits(NEED, 12_501.0)


def test_what_is_not_predicted_breaks_microseconds_alone() -> None:
    unknown = dataclasses.replace(NEED, us=None, label="")
    assert Budget(BOARD).fits(unknown, 1e6) and not Budget(BOARD, us=1e9).fits(unknown, 50.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "a number or a target"),
        ({"macs": 0}, "not 0"),
        ({"kib": math.inf}, "budget of kib"),
        ({"us": 1.0}, "--target"),
        ({"target": targets.load("jetson"), "us": 1.0}, "no time is predicted for jetson"),
    ],
)
def test_wrong_budgets(wrong, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Budget(**wrong)
