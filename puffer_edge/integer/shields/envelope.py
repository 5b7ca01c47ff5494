"""State envelope: outside it a fixed-point linear law acts in the policy's place (the simplex architecture of Seto et al., 1998)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from puffer_edge.contract import ActionChannel, ObservationChannel
from puffer_edge.errors import InvalidInput
from puffer_edge.integer.expression import Int, clamp, lift, most, where
from puffer_edge.integer.shields import by_channel, number
from puffer_edge.spaces import ACTION_LIMIT, fixed

if TYPE_CHECKING:
    from puffer_edge.integer.shield import Signals

FIELDS = ("bounds", "law", "bias")
GAIN_BITS = 14


def trace(signals: Signals, spec: Mapping[str, Any]) -> tuple[tuple[Int, ...], Int]:
    """Where any bounded channel leaves its bounds, each action with a law becomes ``bias + Σ gain·observation``, clamped to the contract.

    The specification's fields, all physical: ``bounds`` {observation: (low, high)}, ``law`` {action: {observation: gain}},
    ``bias`` {action: value} (0 where not given). Actions without a law go to their safe output.

    Raises:
        InvalidInput: unknown channels, bounds that are not a pair, a gain that is not finite.
        RangeError: a gain times an observation leaves the shared range.
    """
    contract = signals.contract
    seen = {c.name: (c, int(s)) for c, s in zip(contract.observations, contract.shield_shift)}
    bounds = by_channel(spec, "bounds", list(seen))
    actions = [c.name for c in contract.actions]
    laws, biases = by_channel(spec, "law", actions), by_channel(spec, "bias", actions)
    if not bounds:
        raise InvalidInput("an envelope needs bounds for at least one observation")
    outside = lift(0)
    for name, pair in bounds.items():
        low, high = _pair(name, pair)
        unit = 2.0 ** (seen[name][0].fraction_bits - seen[name][1])
        # x is rounded down: both thresholds lie on the safe side, so that no state beyond a bound counts as inside
        lowest, highest = math.ceil(low * unit), math.ceil(high * unit) - 1
        outside = most(outside, signals.x[name] < lowest) if lowest > signals.x[name].lo else outside
        outside = most(outside, signals.x[name] > highest) if highest < signals.x[name].hi else outside
    results = []
    for channel, proposal, low, high in zip(contract.actions, signals.action, contract.action_low, contract.action_high):
        law = by_channel({"stage": "envelope", "law": laws.get(channel.name, {})}, "law", list(seen))
        start = biases.get(channel.name, 0.0) if channel.name in laws or channel.name in biases else channel.safe
        total = lift(fixed(number(start, f"the bias of {channel.name}"), channel.fraction_bits, ACTION_LIMIT, f"bias of {channel.name}"))
        for name, gain in law.items():
            total = total + _term(signals.x[name], gain, *seen[name], channel)
        results.append(where(outside, clamp(total, int(low), int(high)), proposal))
    return tuple(results), outside


def _pair(name: str, pair: Any) -> tuple[float, float]:
    try:
        low, high = (float(bound) for bound in pair)
    except (TypeError, ValueError):
        raise InvalidInput(f"bounds of {name} must be a pair (low, high), not {pair!r}") from None
    if not low < high:
        raise InvalidInput(f"bounds of {name}: low {low} must be below high {high}")
    return low, high


def _term(x: Int, gain: Any, observation: ObservationChannel, shift: int, action: ActionChannel) -> Int:
    """``gain·observation`` in the action's fixed point: a gain of 14 bits, multiplied and shifted before it is summed."""
    factor = number(gain, f"the gain of {observation.name} on {action.name}") * 2.0 ** (action.fraction_bits + shift - observation.fraction_bits)
    if factor == 0.0:
        return lift(0)
    amount = GAIN_BITS - math.frexp(factor)[1]
    if amount < 0:
        return x * round(factor)
    amount = min(amount, 30)
    return (x * round(factor * 2.0**amount)) >> amount
