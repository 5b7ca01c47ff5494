"""One file per shield stage: ``FIELDS`` names what its specification takes, ``trace(signals, spec)`` gives the actions and whether it acted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from puffer_edge.errors import InvalidInput


def by_channel(spec: Mapping[str, Any], field: str, known: list[str]) -> dict[str, Any]:
    """A field that maps channel names to values.

    Raises:
        InvalidInput: the field is no mapping, or names a channel that does not exist.
    """
    value = spec.get(field, {})
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{field} of shield stage {spec['stage']!r} must map channel names to values, not {value!r}")
    unknown = set(value) - set(known)
    if unknown:
        raise InvalidInput(f"{field} of shield stage {spec['stage']!r} names {', '.join(sorted(unknown))}; the contract has {', '.join(known)}")
    return dict(value)


def number(value: Any, what: str) -> float:
    """A finite number from a specification.

    Raises:
        InvalidInput: the value is something else.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InvalidInput(f"{what} must be a finite number, not {value!r}")
    return float(value)
