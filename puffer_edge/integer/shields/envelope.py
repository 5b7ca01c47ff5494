"""State envelope: outside it a fixed-point linear law acts in the policy's place (the simplex architecture of Seto et al., 1998)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from puffer_edge.contract import ActionChannel, ObservationChannel
from puffer_edge.errors import InvalidInput, RangeError
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
        outside = most(outside, _beyond(signals.x[name], *_pair(name, pair), *seen[name]))
    if outside.op == "const":
        raise InvalidInput(f"the envelope's bounds ({', '.join(bounds)}) can never be left: they are as wide as the contract's ranges")
    results = []
    for channel, proposal, low, high in zip(contract.actions, signals.action, contract.action_low, contract.action_high):
        law = by_channel({"stage": "envelope", "law": laws.get(channel.name, {})}, "law", list(seen))
        start = biases.get(channel.name, 0.0) if channel.name in laws or channel.name in biases else channel.safe
        total = lift(fixed(number(start, f"the bias of {channel.name}"), channel.fraction_bits, ACTION_LIMIT, f"bias of {channel.name}"))
        for name, gain in law.items():
            total = total + _term(signals.x[name], gain, *seen[name], channel)
        results.append(where(outside, clamp(total, int(low), int(high)), proposal))
    return tuple(results), outside


def _beyond(x: Int, low: float, high: float, channel: ObservationChannel, shift: int) -> Int:
    """1 where a channel is outside its bounds; x is rounded down, so the upper bound itself counts as outside, and nothing beyond it as inside.

    A bound at or beyond the channel's range cannot be passed: observations are clamped to that range before.
    """
    unit = 2.0 ** (channel.fraction_bits - shift)
    below = x < math.ceil(low * unit) if low > channel.low else lift(0)
    above = x > math.ceil(high * unit) - 1 if high < channel.high else lift(0)
    return most(below, above)


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
    what = f"the gain of {observation.name} on {action.name}"
    factor = number(gain, what) * 2.0 ** (action.fraction_bits + shift - observation.fraction_bits)
    if abs(factor) > ACTION_LIMIT:
        raise RangeError(f"{what}, {gain:g}, leaves the action's fixed point: use fewer fraction bits or a smaller gain")
    if factor == 0.0:
        return lift(0)
    amount = GAIN_BITS - math.frexp(factor)[1]
    if amount < 0:
        return x * round(factor)
    amount = min(amount, 30)
    return (x * round(factor * 2.0**amount)) >> amount
