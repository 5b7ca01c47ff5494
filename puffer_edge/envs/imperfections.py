"""The plant as it is: what lies between a board and an ideal plant, as data whose fields say their units."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from puffer_edge.contract import Contract
from puffer_edge.errors import InvalidInput

MAX_PENDING = 16
MAX_DELAY = 256
"""Control steps that an action or an observation may be on its way; each costs a row of the state."""
MAX_HOLD = 1000
MAX_MEASURED = 65_536
_OF_KIND: dict[str, tuple[str, ...]] = {
    "constant": ("mean_us",),
    "uniform": ("low_us", "high_us"),
    "normal": ("mean_us", "deviation_us", "low_us", "high_us"),
    "exponential": ("mean_us", "high_us"),
    "measured": ("measured_us",),
}
"""What each distribution is stated by."""


@dataclass(frozen=True)
class Jitter:
    """A distribution of times in µs.

    Raises:
        InvalidInput: a number is missing, is none, or is another kind's.
    """

    kind: str
    """"constant"; "uniform" in low … high; "normal" or "exponential", what lies beyond low … high (0 … high) moved to that end; "measured": one
    of a list, each as likely."""
    mean_us: float | None = None
    deviation_us: float | None = None
    low_us: float | None = None
    high_us: float | None = None
    measured_us: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in _OF_KIND:
            raise InvalidInput(f"a jitter is {', '.join(_OF_KIND)}, not {self.kind!r}")
        if isinstance(self.measured_us, list):
            object.__setattr__(self, "measured_us", tuple(self.measured_us))
        for name in ("mean_us", "deviation_us", "low_us", "high_us", "measured_us"):
            value, wanted = getattr(self, name), name in _OF_KIND[self.kind]
            if wanted != (value not in (None, ())):
                need = ", ".join(_OF_KIND[self.kind])
                raise InvalidInput(f"a {self.kind} jitter is stated by {need}: {name} is {'missing' if wanted else 'of another kind'}")
        if not isinstance(self.measured_us, tuple) or len(self.measured_us) > MAX_MEASURED:
            raise InvalidInput(f"measured_us is a list of at most {MAX_MEASURED:,} times, not {self.measured_us!r:.60}")
        for name in _OF_KIND[self.kind]:
            for value in self.measured_us if name == "measured_us" else (getattr(self, name),):
                _number(value, f"{name} of a jitter", -math.inf)
        spread = {"normal": self.deviation_us, "exponential": self.mean_us}.get(self.kind, 1.0)
        if spread is None or spread <= 0.0:
            raise InvalidInput(f"a {self.kind} jitter needs a positive spread, not {spread} µs")
        low, high = self.bounds_us
        if low > high:
            raise InvalidInput(f"a {self.kind} jitter lies in {low:g} … {high:g} µs: put them in order")

    @property
    def bounds_us(self) -> tuple[float, float]:
        """The least and the most of it."""
        if self.kind == "measured":
            return min(self.measured_us), max(self.measured_us)
        if self.kind == "constant":
            return self.mean_us or 0.0, self.mean_us or 0.0
        return self.low_us or 0.0, self.high_us or 0.0

    @property
    def middle_us(self) -> float:
        """Its mean, before what lies beyond the bounds is moved to them."""
        if self.kind == "measured":
            return sum(self.measured_us) / len(self.measured_us)
        return sum(self.bounds_us) / 2 if self.kind == "uniform" else self.mean_us or 0.0


@dataclass(frozen=True)
class Sensor:
    """What a measured channel does to the truth, in the channel's unit: truth + bias + noise, rounded to the resolution, and lost now and then.

    Raises:
        InvalidInput: a number out of its range.
    """

    noise: float = 0.0
    """Standard deviation of a normal error, drawn anew for each sample."""
    bias: float = 0.0
    """An error that stays for the episode, drawn uniformly from ± this."""
    resolution: float = 0.0
    """The sensor's own step; 0: none beside the contract's fixed point."""
    dropout: float = 0.0
    """Probability that a sample is lost, and the last value seen once more."""
    stuck: float = 0.0
    """Probability, sample by sample, that the channel begins to stay at the last value."""
    stuck_steps: int = 1
    """Samples for which it stays there."""

    def __post_init__(self) -> None:
        for name in ("noise", "bias", "resolution", "dropout", "stuck"):
            most = 1.0 if name in ("dropout", "stuck") else math.inf
            _number(getattr(self, name), f"{name} of a sensor", 0.0, most)
        _whole(self.stuck_steps, "stuck_steps of a sensor", 1, 1_000_000)


@dataclass(frozen=True)
class Actuator:
    """What an actuator makes of a command, in the channel's unit.

    Raises:
        InvalidInput: a number out of its range.
    """

    dead_zone: float = 0.0
    """What lies within this of ``neutral`` does nothing, and so much is lost of what lies beyond."""
    neutral: float = 0.0
    """Where it does nothing."""
    low: float = -math.inf
    """Where it saturates; after the dead zone."""
    high: float = math.inf

    def __post_init__(self) -> None:
        _number(self.dead_zone, "dead_zone of an actuator", 0.0)
        _number(self.neutral, "neutral of an actuator", -math.inf)
        if any(isinstance(end, bool) or not isinstance(end, (int, float)) for end in (self.low, self.high)) or not self.low < self.high:
            raise InvalidInput(f"an actuator saturates at two numbers in order, not {self.low!r} and {self.high!r}")


@dataclass(frozen=True)
class Imperfections:
    """All of it. The defaults are an ideal plant.

    Raises:
        InvalidInput: a value out of its range.
    """

    delay_us: float = 0.0
    """From the measurement to when the action computed from it takes effect; the one before acts until then."""
    jitter_us: Jitter | None = None
    """Added to it, drawn for each action. An action that takes effect before an older one leaves that one none."""
    hold_steps: int = 1
    """Steps of the plant for which an action is held: the policy runs at every k-th of them."""
    observation_delay_steps: int = 0
    """Control steps by which what is seen is old; at first it is the first observation."""
    pending: int = 0
    """So many of the last applied actions are observed too, in channels ACTION_1 (the latest), ACTION_2 …"""
    dropout: float = 0.0
    """Probability that a whole sample is lost, all channels of it, and the last one seen once more."""
    sensors: Mapping[str, Sensor] = field(default_factory=dict)
    """By observation channel."""
    actuators: Mapping[str, Actuator] = field(default_factory=dict)
    """By action channel."""
    parameters: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Range by parameter of the dynamics; drawn uniformly for each episode."""

    def __post_init__(self) -> None:
        _number(self.delay_us, "delay_us", 0.0)
        _number(self.dropout, "dropout", 0.0, 1.0)
        _whole(self.hold_steps, "hold_steps", 1, MAX_HOLD)
        _whole(self.observation_delay_steps, "observation_delay_steps", 0, MAX_DELAY)
        _whole(self.pending, "pending", 0, MAX_PENDING)
        if self.jitter_us is not None and self.delay_us + self.jitter_us.bounds_us[0] < 0.0:
            least = self.jitter_us.bounds_us[0]
            raise InvalidInput(f"delay_us {self.delay_us:g} with a jitter down to {least:g} µs would act before it has measured")
        for name, bounds in self.parameters.items():
            if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
                raise InvalidInput(f"the range of {name} must be two finite numbers in order, not {bounds!r}")
            for end in bounds:
                _number(end, f"the range of {name}", -math.inf)
            if bounds[0] > bounds[1]:
                raise InvalidInput(f"the range of {name} must be two finite numbers in order, not {bounds!r}")
        object.__setattr__(self, "parameters", {name: (float(low), float(high)) for name, (low, high) in self.parameters.items()})

    @property
    def most_us(self) -> float:
        """The longest delay of an action."""
        return self.delay_us + (self.jitter_us.bounds_us[1] if self.jitter_us else 0.0)

    @property
    def middle_us(self) -> float:
        """The mean delay of an action: the contract's ``expected_delay_us``."""
        return self.delay_us + (self.jitter_us.middle_us if self.jitter_us else 0.0)

    @property
    def jittery(self) -> bool:
        """Whether a delay is drawn."""
        return self.jitter_us is not None and self.jitter_us.kind != "constant"

    @property
    def ideal(self) -> Imperfections:
        """What a policy was made for beyond the plant itself, without what disturbs it: hold and pending actions."""
        return Imperfections(hold_steps=self.hold_steps, pending=self.pending)

    def check(self, contract: Contract, parameters: tuple[str, ...], max_steps: int) -> None:
        """See that they fit a plant.

        Args:
            contract: of the plant.
            parameters: names of its dynamics'.
            max_steps: of an episode, in steps of the plant.

        Raises:
            InvalidInput: a name that it does not have, a hold or a delay longer than an episode, or one of more than ``MAX_DELAY`` steps.
        """
        for what, given, known in (
            ("observes", self.sensors, [c.name for c in contract.observations]),
            ("drives", self.actuators, [c.name for c in contract.actions]),
            ("has a parameter", self.parameters, parameters),
        ):
            unknown = sorted(set(given) - set(known))
            if unknown:
                raise InvalidInput(f"{contract.name} {what} {', '.join(unknown)}? It {what}: {', '.join(known) or 'none'}")
        for name, actuator in self.actuators.items():
            channel = next(c for c in contract.actions if c.name == name)
            if not channel.low <= actuator.neutral <= channel.high:
                raise InvalidInput(f"{name} is neutral at {actuator.neutral:g}, outside its range {channel.low:g} … {channel.high:g}: say neutral")
        control_us, episode_us = self.hold_steps * 1e6 / contract.rate_hz, max_steps * 1e6 / contract.rate_hz
        if self.hold_steps > max_steps:
            raise InvalidInput(f"an action held for {self.hold_steps} steps is held longer than an episode of {contract.name}, {max_steps} steps")
        for name, time_us in (("action", self.most_us), ("observation", self.observation_delay_steps * control_us)):
            if time_us >= episode_us:
                raise InvalidInput(
                    f"an {name} delayed by up to {time_us:,.0f} µs arrives after an episode of {contract.name} is over ({episode_us:,.0f} µs)"
                )
        if math.ceil(self.most_us / control_us) > MAX_DELAY:
            raise InvalidInput(f"a delay of up to {self.most_us:,.0f} µs is more than {MAX_DELAY} control steps of {control_us:,.0f} µs")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in a TOML file; what is as in an ideal plant is left out."""
        return {name: _plain(value) for name, value in _changed(self).items()}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Imperfections:
        """Read what ``to_dict`` gave, or a TOML file's table.

        Raises:
            InvalidInput: an unknown key, or a value out of range.
        """
        parts = _known(Imperfections, values, "a plant")
        if "jitter_us" in parts:
            parts["jitter_us"] = _made(Jitter, parts["jitter_us"], "jitter_us")
        kinds: dict[str, Any] = {"sensors": Sensor, "actuators": Actuator}
        for name, kind in kinds.items():
            if name in parts:
                parts[name] = {channel: _made(kind, about, f"{name}.{channel}") for channel, about in _table(parts[name], name).items()}
        if "parameters" in parts:
            parts["parameters"] = _table(parts["parameters"], "parameters")
        return Imperfections(**parts)


def _changed(value: Any) -> dict[str, Any]:
    """Fields that are not as in an ideal plant."""
    found = {}
    for f in fields(value):
        own = getattr(value, f.name)
        if own not in (f.default, {}):
            found[f.name] = own
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return _plain(_changed(value)) if isinstance(value, (Jitter, Sensor, Actuator)) else value


def _table(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{name} is a table, not {value!r}")
    return value


def _known(kind: Any, values: Any, name: str) -> dict[str, Any]:
    known = [f.name for f in fields(kind)]
    unknown = sorted(set(_table(values, name)) - set(known))
    if unknown:
        raise InvalidInput(f"{name} has no {', '.join(unknown)}: it has {', '.join(known)}")
    return dict(values)


def _made(kind: Any, values: Any, name: str) -> Any:
    found = _known(kind, values, name)
    if kind is Jitter and "kind" not in found:
        raise InvalidInput(f"{name} needs a kind: {', '.join(_OF_KIND)}")
    return kind(**found)


def _number(value: Any, name: str, low: float, high: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or not low <= value <= high:
        bounds = f" in {low:g} … {high:g}" if math.isfinite(high) else f" of at least {low:g}" if math.isfinite(low) else ""
        raise InvalidInput(f"{name} must be a finite number{bounds}, not {value!r}")


def _whole(value: Any, name: str, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidInput(f"{name} must be a whole number in {low} … {high:,}, not {value!r}")
