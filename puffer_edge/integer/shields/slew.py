"""Rate of change: an action moves at most so far from the last applied one within a tick."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from puffer_edge.errors import InvalidInput, RangeError
from puffer_edge.integer.expression import Int, clamp, differs, lift, most
from puffer_edge.integer.shields import by_channel, number
from puffer_edge.spaces import ACTION_LIMIT

if TYPE_CHECKING:
    from puffer_edge.integer.shield import Signals

FIELDS = ("per_second",)


def trace(signals: Signals, spec: Mapping[str, Any]) -> tuple[tuple[Int, ...], Int]:
    """Limit each named action's change to ``per_second`` (physical units per second), floored to whole steps per tick.

    Raises:
        InvalidInput: a rate is not a positive number.
        RangeError: a rate is less than one fixed-point step per tick.
    """
    contract = signals.contract
    rates = by_channel(spec, "per_second", [c.name for c in contract.actions])
    results, active = [], lift(0)
    for channel, value, previous in zip(contract.actions, signals.action, signals.previous):
        if channel.name not in rates:
            results.append(value)
            continue
        rate = number(rates[channel.name], f"the slew of {channel.name}")
        if rate <= 0:
            raise InvalidInput(f"the slew of {channel.name} must be a positive number of {channel.unit} per second, not {rate:g}")
        step = math.floor(min(rate * 2.0**channel.fraction_bits * contract.period_us / 1e6, ACTION_LIMIT))
        if step < 1:
            raise RangeError(
                f"slew of {channel.name}: {rate} per second is less than one step of 2^-{channel.fraction_bits} per tick: use more fraction bits"
            )
        results.append(clamp(value, previous - step, previous + step))
        active = most(active, differs(results[-1], value))
    return tuple(results), active
