"""Range: every action stays within a range, by default the contract's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from puffer_edge.errors import InvalidInput
from puffer_edge.integer.expression import Int, clamp, differs, lift, most
from puffer_edge.integer.shields import by_channel, number
from puffer_edge.spaces import ACTION_LIMIT, fixed

if TYPE_CHECKING:
    from puffer_edge.integer.shield import Signals

FIELDS = ("low", "high")


def trace(signals: Signals, spec: Mapping[str, Any]) -> tuple[tuple[Int, ...], Int]:
    """Clamp each action to ``low`` … ``high`` (physical, by channel name; the contract's range where not given).

    Raises:
        InvalidInput: a bound is no number or lies outside the contract's range, or low is above high.
    """
    contract = signals.contract
    names = [c.name for c in contract.actions]
    lows, highs = by_channel(spec, "low", names), by_channel(spec, "high", names)
    results, active = [], lift(0)
    for channel, value in zip(contract.actions, signals.action):
        low = number(lows.get(channel.name, channel.low), f"the lower limit of {channel.name}")
        high = number(highs.get(channel.name, channel.high), f"the upper limit of {channel.name}")
        if not channel.low <= low <= high <= channel.high:
            raise InvalidInput(f"limit of {channel.name}: {low} … {high} must lie within the contract's {channel.low} … {channel.high}")
        bounds = [fixed(bound, channel.fraction_bits, ACTION_LIMIT, f"limit of {channel.name}") for bound in (low, high)]
        results.append(clamp(value, *bounds))
        active = most(active, differs(results[-1], value))
    return tuple(results), active
