"""A contract as a TOML file that people write: read with errors that name the line, written as a template where something is open."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from dataclasses import MISSING, fields
from typing import Any

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.errors import InvalidInput, PufferEdgeError
from puffer_edge.intake.archives import read_bounded, short
from puffer_edge.intake.draft import CONTINUOUS, Draft
from puffer_edge.spaces import ACTION_LIMIT, OBSERVATION_LIMIT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OPEN = "?"
"""What a template holds where somebody has to decide."""
MAX_CONTRACT = 2**20
_TABLES = {"observations": ObservationChannel, "actions": ActionChannel}


def load_toml(path: str | os.PathLike[str], most: int = MAX_CONTRACT) -> tuple[dict[str, Any], str]:
    """A TOML file from outside, and its text.

    Raises:
        InvalidInput: it is missing, too large, not UTF-8 or not TOML; the message has the line.
    """
    data = read_bounded(path, most)
    try:
        text = data.decode("utf-8")
        return tomllib.loads(text), text
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{os.fspath(path)} is not TOML: {short(error)}") from None


def read_contract(path: str | os.PathLike[str]) -> Contract:
    """The contract in a TOML file.

    ``initial`` of an action may be left out: its safe output then. ``fraction_bits`` may be left out: 16 then, fewer where the range
    needs it, more where it spans less than 1/16, so that a range always has some thousand steps.

    Raises:
        InvalidInput: a field is missing, unknown, still open or wrong; the message has its line.
        ContractError: fields contradict each other.
        RangeError: a bound does not fit its fixed-point form.
    """
    data, text = load_toml(path)
    reader = _Reader(os.fspath(path), text)
    reader.check(data, Contract, "")
    for table, kind in _TABLES.items():
        channels = data[table]
        if not isinstance(channels, list) or not all(isinstance(c, dict) for c in channels):
            raise InvalidInput(f"{os.fspath(path)}: {table} must be tables, each under [[{table}]]")
        for index, channel in enumerate(channels):
            if "initial" not in channel and "safe" in channel and table == "actions":
                channel["initial"] = channel["safe"]
            reader.check(channel, kind, f"{table}[{index}]")
            if "fraction_bits" not in channel:
                channel["fraction_bits"] = _bits(channel["low"], channel["high"], ACTION_LIMIT if table == "actions" else OBSERVATION_LIMIT)
    try:
        return Contract.from_json(json.dumps(data))
    except PufferEdgeError as error:
        raise type(error)(f"{os.fspath(path)}: {error}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{os.fspath(path)} holds a value that a contract has no use for: {short(error)}") from None


class _Reader:
    """Finds the line of a field, for messages."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.lines: dict[tuple[str, str], int] = {}
        table, counts = "", dict.fromkeys(_TABLES, -1)
        for number, line in enumerate(text.splitlines(), 1):
            if header := re.match(r"\s*\[\[\s*(\w+)\s*\]\]", line):
                name = header.group(1)
                counts[name] = counts.get(name, -1) + 1
                table = f"{name}[{counts[name]}]"
                self.lines[table, ""] = number
            elif key := re.match(r"\s*(\w+)\s*=", line):
                self.lines.setdefault((table, key.group(1)), number)

    def place(self, table: str, key: str) -> str:
        """ "file, line 7: observations[1].low" """
        line = self.lines.get((table, key)) or self.lines.get((table, ""))
        return f"{self.path}{f', line {line}' if line else ''}: {f'{table}.{key}' if table else key}"

    def check(self, given: dict[str, Any], kind: type[Any], table: str) -> None:
        """Refuse missing, unknown and open fields of a table."""
        known = {f.name: f.default is MISSING for f in fields(kind)}
        for key, value in given.items():
            if key not in known:
                raise InvalidInput(f"{self.place(table, key)} is not a field of a contract; known here: {', '.join(known)}")
            if value == OPEN:
                raise InvalidInput(f"{self.place(table, key)} is still {OPEN!r}: {_ASK.get(key, 'say what it is')}")
        for key, needed in known.items():
            if needed and key not in given:
                raise InvalidInput(f"{self.place(table, key)} is missing: {_ASK.get(key, 'say what it is')}")
        for key in ("low", "high", "safe", "initial", "rate_hz"):
            if key in given and (isinstance(given[key], bool) or not isinstance(given[key], (int, float)) or not math.isfinite(given[key])):
                raise InvalidInput(f"{self.place(table, key)} must be a finite number, not {short(repr(given[key]))}")


_ASK = {
    "name": "a short name of the task",
    "unit": "the unit as text, '1' where there is none",
    "low": "the lowest value that the sensor or actuator really has, in its unit",
    "high": "the highest value that the sensor or actuator really has, in its unit",
    "safe": "the output while disarmed and when something fails; zero is not always safe",
    "initial": "the output that counts as applied before the first step",
    "rate_hz": "how often a second the policy was trained to act",
    "levels": "what each choice of the policy puts out",
    "observations": "one [[observations]] table a channel, in the order of the vector",
    "actions": "one [[actions]] table an actuator, in order",
    "head": "'discrete', 'multi_discrete', 'clip' or 'tanh'",
}


def _bits(low: float, high: float, limit: int) -> int:
    """Fraction bits: 16, as few as fit, or as many as a small range needs for 4096 steps."""
    reach = max(abs(low), abs(high), 1e-300)
    fits = math.floor(math.log2(limit / reach))
    needs = math.ceil(math.log2(4096 / max(abs(high - low), 1e-300)))
    return max(-16, min(fits, max(16, needs), 62))


def template(draft: Draft) -> str:
    """A contract for a draft, with "?" wherever the file does not say and somebody has to."""
    actions = len(draft.choices) if draft.head == "multi_discrete" else 1 if draft.head == "discrete" else draft.n_outputs
    lines = [
        f'# What the numbers of this policy mean ({draft.source}). Fill in every "{OPEN}"; a board refuses a policy under another contract.',
        f'name = "{OPEN}"            # of the task: up to 15 letters, digits, _ . -',
        _head_line(draft),
        f'rate_hz = "{OPEN}"         # how often a second the policy was trained to act: a number',
        "policy_divider = 1      # the shield runs at rate_hz, the policy at every k-th of its ticks",
        "staleness_limit = 3     # ticks without an observation before the safe output acts",
        "expected_delay_us = 0   # from measurement to actuation, in the training",
    ]
    lines += _levels(draft, actions)
    for k in range(draft.n_observations):
        lines += _observation(draft, k)
    for j in range(actions):
        lines += _action(draft, j)
    return "\n".join(lines) + "\n"


def _head_line(draft: Draft) -> str:
    if draft.head is None:
        return f'head = "{OPEN}"            # "clip" or "tanh" (a number an output), "discrete" or "multi_discrete" (the largest output chooses)'
    words = "; the other continuous kind would change the policy" if draft.head in CONTINUOUS else ""
    return f'head = "{draft.head}"   # as the model has it{words}'


def _levels(draft: Draft, actions: int) -> list[str]:
    if draft.head == "discrete":
        row = ", ".join([f'"{OPEN}"'] * actions)
        said = "# levels: row k holds what choice k puts out, one number an actuator (add [[actions]] tables for more actuators)"
        return [said, "levels = [", *(f"    [{row}],  # choice {k}" for k in range(draft.choices[0] if draft.choices else draft.n_outputs)), "]"]
    if draft.head == "multi_discrete":
        rows = [f"    [{', '.join([chr(34) + OPEN + chr(34)] * n)}],  # a{j}" for j, n in enumerate(draft.choices)]
        return ["# levels: row j holds the values among which action j is chosen", "levels = [", *rows, "]"]
    return []


def _number(value: float) -> str:
    return repr(float(f"{value:.9g}"))


def _observation(draft: Draft, k: int) -> list[str]:
    name = draft.names[k] if k < len(draft.names) else f"o{k}"
    lines = ["", "[[observations]]", f'name = "{name}"', f'unit = "{OPEN}"   # rad, m/s, 1 where there is none']
    seen = ""
    if draft.normalizer is not None:
        mean, std = draft.normalizer.mean[k], draft.normalizer.std[k]
        seen = f"; the normaliser saw {mean:.3g} ± {std:.3g}"
    for key, bounds in (("low", draft.observation_low), ("high", draft.observation_high)):
        known = bounds is not None and abs(bounds[k]) < 1e6
        value = _number(float(bounds[k])) if known and bounds is not None else f'"{OPEN}"'
        said = "as the training declared it" if known else f"the {'lowest' if key == 'low' else 'highest'} value the sensor gives{seen}"
        lines.append(f"{key} = {value}   # {said}")
    return lines


def _action(draft: Draft, j: int) -> list[str]:
    lines = ["", "[[actions]]", f'name = "a{j}"', f'unit = "{OPEN}"']
    for key, bounds in (("low", draft.action_low), ("high", draft.action_high)):
        known = bounds is not None
        value = _number(float(bounds[j])) if bounds is not None else f'"{OPEN}"'
        lines.append(f"{key} = {value}   # {'as the training declared it' if known else 'what may ever be put out'}")
    return [*lines, f'safe = "{OPEN}"   # while disarmed and when something fails; zero is not always safe']
