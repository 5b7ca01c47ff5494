"""The contract between a policy and its board: names, units, order, ranges, rate and safe outputs, with one digest."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import ContractError, InvalidInput
from puffer_edge.spaces import ACTION_LIMIT, OBSERVATION_LIMIT, Bools, Floats, Ints, fixed, from_fixed, to_fixed

HEADS = ("discrete", "multi_discrete", "clip", "tanh")
MAX_OBSERVATIONS = 512
MAX_ACTIONS = 64
MAX_CHOICES = 256
"""Of one action. A board takes less: ``integer.image`` says how much."""


@dataclass(frozen=True)
class ObservationChannel:
    """One number that the board measures.

    Attributes:
        name: identifier, unique among the observations.
        unit: unit as text, "1" where there is none.
        low: lowest legal physical value; lower ones saturate and are flagged.
        high: highest legal physical value.
        fraction_bits: fraction bits of the fixed-point form.
    """

    name: str
    unit: str
    low: float
    high: float
    fraction_bits: int = 16


@dataclass(frozen=True)
class ActionChannel:
    """One number that the board sends to an actuator.

    Attributes:
        name: identifier, unique among the actions.
        unit: unit as text.
        low: lowest value that may ever be applied.
        high: highest value that may ever be applied.
        safe: value applied while disarmed and on fallback.
        initial: value that counts as "previously applied" after a reset.
        fraction_bits: fraction bits of the fixed-point form.
    """

    name: str
    unit: str
    low: float
    high: float
    safe: float
    initial: float
    fraction_bits: int = 16


@dataclass(frozen=True)
class Contract:
    """What host and device agree on; the device refuses to arm when the digests differ.

    Attributes:
        name: name of the task, at most 15 letters, digits, "_", "." or "-".
        observations: channels in the order of the vector, 1 to 512.
        actions: actuator channels in order, 1 to 64.
        head: "discrete", "multi_discrete", "clip" or "tanh".
        rate_hz: base rate; the shield runs at every base tick.
        levels: for "discrete": row k holds the physical outputs that choice k proposes, 2 to 256 rows. For "multi_discrete": row j
            holds the physical values among which action j is chosen, 2 to 256 a row.
        policy_divider: the policy runs at every k-th base tick.
        staleness_limit: consecutive ticks without an observation before the fallback acts.
        expected_delay_us: delay from measurement to actuation that the policy was trained for.

    Raises:
        InvalidInput: a name, count or enumeration is wrong.
        ContractError: fields contradict each other.
        RangeError: a bound does not fit its fixed-point form.
    """

    name: str
    observations: tuple[ObservationChannel, ...]
    actions: tuple[ActionChannel, ...]
    head: str
    rate_hz: float
    levels: tuple[tuple[float, ...], ...] = ()
    policy_divider: int = 1
    staleness_limit: int = 3
    expected_delay_us: int = 0

    def __post_init__(self) -> None:
        _check(self)

    @property
    def n_observations(self) -> int:
        """Number of observation channels."""
        return len(self.observations)

    @property
    def n_actions(self) -> int:
        """Number of actuator channels."""
        return len(self.actions)

    @property
    def groups(self) -> tuple[int, ...]:
        """Choices of each group of the head, in the order of the network's outputs; a 1 for each number of a continuous one."""
        if self.head == "multi_discrete":
            return tuple(len(row) for row in self.levels)
        return (len(self.levels),) if self.head == "discrete" else (1,) * len(self.actions)

    @property
    def n_outputs(self) -> int:
        """Width of the network's last layer."""
        return sum(self.groups)

    @property
    def period_us(self) -> int:
        """Base period in microseconds."""
        return round(1e6 / self.rate_hz)

    @cached_property
    def observation_low(self) -> Ints:
        """(n_observations,) lowest legal integer."""
        return np.array([fixed(c.low, c.fraction_bits, OBSERVATION_LIMIT, f"low of {c.name}") for c in self.observations], np.int32)

    @cached_property
    def observation_high(self) -> Ints:
        """(n_observations,) highest legal integer."""
        return np.array([fixed(c.high, c.fraction_bits, OBSERVATION_LIMIT, f"high of {c.name}") for c in self.observations], np.int32)

    @cached_property
    def observation_bits(self) -> Ints:
        """(n_observations,) fraction bits."""
        return np.array([c.fraction_bits for c in self.observations], np.int32)

    @cached_property
    def shield_shift(self) -> Ints:
        """(n_observations,) right shift that brings the declared range into 16 bits for the shield."""
        bound = np.maximum(np.abs(self.observation_low.astype(np.int64)), np.abs(self.observation_high.astype(np.int64)))
        return np.array([max(0, int(b).bit_length() - 15) for b in bound], np.int32)

    @cached_property
    def action_bits(self) -> Ints:
        """(n_actions,) fraction bits."""
        return np.array([c.fraction_bits for c in self.actions], np.int32)

    @cached_property
    def action_low(self) -> Ints:
        """(n_actions,) lowest integer that may be applied."""
        return self._action_ints("low")

    @cached_property
    def action_high(self) -> Ints:
        """(n_actions,) highest integer that may be applied."""
        return self._action_ints("high")

    @cached_property
    def action_safe(self) -> Ints:
        """(n_actions,) safe output as integers."""
        return self._action_ints("safe")

    @cached_property
    def action_initial(self) -> Ints:
        """(n_actions,) "previously applied" after a reset."""
        return self._action_ints("initial")

    @cached_property
    def level_ints(self) -> Ints:
        """Fixed-point outputs of each discrete choice: (choices, n_actions); of a multi-discrete head (n_outputs,), group by group."""
        if self.head == "multi_discrete":
            pairs = [(value, c) for row, c in zip(self.levels, self.actions) for value in row]
            return np.array([fixed(v, c.fraction_bits, ACTION_LIMIT, f"level of {c.name}") for v, c in pairs], np.int32)
        rows = [[fixed(v, c.fraction_bits, ACTION_LIMIT, f"level of {c.name}") for v, c in zip(row, self.actions)] for row in self.levels]
        return np.array(rows, np.int32).reshape(len(self.levels), self.n_actions)

    def _action_ints(self, field: str) -> Ints:
        return np.array([fixed(getattr(c, field), c.fraction_bits, ACTION_LIMIT, f"{field} of {c.name}") for c in self.actions], np.int32)

    def observe(self, observation: npt.ArrayLike) -> tuple[Ints, Bools, Bools]:
        """Physical observations to the integers a device receives.

        Args:
            observation: (..., n_observations) physical values.

        Returns:
            (..., n_observations) int32, and per row whether it saturated and whether it was NaN or infinite.

        Raises:
            InvalidInput: the last axis has another length.
        """
        x = np.asarray(observation, np.float64)
        if x.shape[-1:] != (self.n_observations,):
            names = ", ".join(c.name for c in self.observations)
            raise InvalidInput(f"an observation of {self.name} has {self.n_observations} channels ({names}), this one has shape {x.shape}")
        return to_fixed(x, self.observation_bits, self.observation_low, self.observation_high)

    def physical_observation(self, observation: Ints) -> Floats:
        """(..., n_observations) integers back to physical values."""
        return from_fixed(observation, self.observation_bits)

    def physical_action(self, action: Ints) -> Floats:
        """(..., n_actions) integers back to physical values."""
        return from_fixed(action, self.action_bits)

    def fixed_action(self, action: npt.ArrayLike) -> Ints:
        """(..., n_actions) physical actions as integers, inside the range of the contract."""
        return to_fixed(action, self.action_bits, self.action_low, self.action_high)[0]

    def to_json(self) -> str:
        """The canonical text: sorted keys, no spaces, ASCII; its SHA-256 is the digest."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the canonical text, 32 bytes."""
        return hashlib.sha256(self.to_json().encode("ascii")).digest()

    @staticmethod
    def from_json(text: str) -> Contract:
        """Read a contract written by ``to_json``.

        Raises:
            InvalidInput: the text is not JSON, a field is missing, unknown or of another type.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"the contract is not JSON: {error}") from None
        return _build(data)

    def differences(self, other: Contract) -> list[str]:
        """Every field that differs, as "field: here, there", in words a person can act on."""
        mine, theirs = _flat(asdict(self)), _flat(asdict(other))
        return [
            f"{key}: {mine.get(key, 'absent')} here, {theirs.get(key, 'absent')} there"
            for key in sorted(mine | theirs)
            if mine.get(key) != theirs.get(key)
        ]


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{path}.{key}" if path else key).items()}
    if isinstance(value, (list, tuple)):
        return {k: v for i, item in enumerate(value) for k, v in _flat(item, f"{path}[{i}]").items()}
    return {path: value}


def _build(data: Any) -> Contract:
    try:
        known = {f.name for f in fields(Contract)}
        if not isinstance(data, dict) or set(data) - known:
            raise InvalidInput(f"the contract has unknown fields: {sorted(set(data) - known) if isinstance(data, dict) else type(data).__name__}")
        parts = dict(data)
        parts["observations"] = tuple(ObservationChannel(**c) for c in data["observations"])
        parts["actions"] = tuple(ActionChannel(**c) for c in data["actions"])
        parts["levels"] = tuple(tuple(row) for row in data.get("levels", ()))
        return Contract(**parts)
    except (KeyError, TypeError) as error:
        raise InvalidInput(f"the contract is incomplete or has a field of the wrong type: {error}") from None


def _number(value: Any, what: str, whole: bool = False) -> None:
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise InvalidInput(f"{what} must be a {'whole number' if whole else 'number'}, not {value!r}")


def _check(c: Contract) -> None:
    if not isinstance(c.name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", c.name):
        raise InvalidInput(f"the contract's name must be 1 to 15 of A-Z a-z 0-9 _ . -, a letter or digit first, not {c.name!r}")
    if c.head not in HEADS:
        raise InvalidInput(f"unknown head {c.head!r}: one of {', '.join(HEADS)}")
    for kind, channels, most in (("observation", c.observations, MAX_OBSERVATIONS), ("action", c.actions, MAX_ACTIONS)):
        if not 1 <= len(channels) <= most:
            raise InvalidInput(f"a contract has 1 to {most} {kind} channels, not {len(channels)}")
        names = [ch.name for ch in channels]
        if len(set(names)) != len(names):
            raise InvalidInput(f"{kind} names must differ: {names}")
        for ch in channels:
            _check_channel(ch, kind)
    _number(c.rate_hz, "rate_hz")
    if not 0.1 <= c.rate_hz <= 20_000:
        raise InvalidInput(f"rate_hz must lie in 0.1 … 20000, not {c.rate_hz}")
    for field, most in (("policy_divider", 1000), ("staleness_limit", 10_000), ("expected_delay_us", 10_000_000)):
        value = getattr(c, field)
        _number(value, field, whole=True)
        if not (1 if field == "policy_divider" else 0) <= value <= most:
            raise InvalidInput(f"{field} must be at most {most}, not {value}")
    _check_levels(c)


def _check_channel(ch: ObservationChannel | ActionChannel, kind: str) -> None:
    if not isinstance(ch.name, str) or not ch.name.isidentifier() or not ch.name.isascii():
        raise InvalidInput(f"{kind} name {ch.name!r} must be a plain identifier")
    if not isinstance(ch.unit, str) or not re.fullmatch(r"[A-Za-z0-9 %^/*().+-]{1,16}", ch.unit) or "*/" in ch.unit or "/*" in ch.unit:
        raise InvalidInput(
            f"the unit of {ch.name} must be 1 to 16 of A-Z a-z 0-9 % ^ / * ( ) . + - and spaces ('1' where there is none), not {ch.unit!r}"
        )
    for field in ("low", "high") + (("safe", "initial") if isinstance(ch, ActionChannel) else ()):
        _number(getattr(ch, field), f"{field} of {ch.name}")
    _number(ch.fraction_bits, f"fraction_bits of {ch.name}", whole=True)
    if not -16 <= ch.fraction_bits <= 62:
        raise InvalidInput(f"fraction_bits of {ch.name} must lie in -16 … 62, not {ch.fraction_bits}")
    limit = ACTION_LIMIT if isinstance(ch, ActionChannel) else OBSERVATION_LIMIT
    low, high = (fixed(v, ch.fraction_bits, limit, f"{w} of {ch.name}") for v, w in ((ch.low, "low"), (ch.high, "high")))
    if low >= high:
        raise ContractError(f"{ch.name}: low {ch.low} and high {ch.high} are {low} and {high} in fixed point; low must be the smaller")
    if isinstance(ch, ActionChannel):
        for field in ("safe", "initial"):
            if not low <= fixed(getattr(ch, field), ch.fraction_bits, limit, f"{field} of {ch.name}") <= high:
                raise ContractError(f"{field} of {ch.name} is {getattr(ch, field)}, outside {ch.low} … {ch.high}")


def _check_levels(c: Contract) -> None:
    if c.head not in ("discrete", "multi_discrete"):
        if c.levels:
            raise ContractError(f"levels belong to a discrete head, this one is {c.head!r}")
        return
    for k, row in enumerate(c.levels):
        if not isinstance(row, (tuple, list)):
            raise InvalidInput(f"level {k} must list one output an action, not {row!r}")
    if c.head == "multi_discrete":
        if len(c.levels) != len(c.actions):
            raise ContractError(f"a multi-discrete head needs a row of levels for each of the {len(c.actions)} actions, not {len(c.levels)}")
        for row, ch in zip(c.levels, c.actions):
            if not 2 <= len(row) <= MAX_CHOICES:
                raise ContractError(f"{ch.name} needs 2 to {MAX_CHOICES} levels, not {len(row)}")
        pairs = [(value, ch) for row, ch in zip(c.levels, c.actions) for value in row]
    else:
        if not 2 <= len(c.levels) <= MAX_CHOICES:
            raise ContractError(f"a discrete head needs 2 to {MAX_CHOICES} levels, not {len(c.levels)}")
        for k, row in enumerate(c.levels):
            if len(row) != len(c.actions):
                raise ContractError(f"level {k} has {len(row)} outputs, the contract has {len(c.actions)} actions")
        pairs = [(value, ch) for row in c.levels for value, ch in zip(row, c.actions)]
    for value, ch in pairs:
        _number(value, f"a level of {ch.name}")
        if not ch.low <= value <= ch.high:
            raise ContractError(f"a level of {ch.name} is {value}, outside {ch.low} … {ch.high}")
