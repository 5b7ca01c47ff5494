"""The numbers that a distillation is set by."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from puffer_edge.errors import InvalidInput
from puffer_edge.find import choose
from puffer_edge.integer.scales import PROFILES

_WHOLE = ("students", "rounds", "rows", "horizon", "updates", "minibatch")
_RANGES = (("mix", 0.0, 1.0), ("learning_rate", 0.0, 1.0), ("temperature", 1e-3, math.inf))


@dataclass(frozen=True)
class DistilSettings:
    """Settings of a distillation.

    Raises:
        InvalidInput: a value out of its range.
    """

    students: int = 8
    """Shapes trained at most: spread evenly over those that fit, from the one with most products to the one with fewest."""
    profiles: tuple[str, ...] = tuple(PROFILES)
    """Profiles of integers that each student is put into, where that fits."""
    rounds: int = 8
    """Rounds of acting, labelling and fitting."""
    rows: int = 32
    """Environments stepped side by side."""
    horizon: int = 128
    """Steps of each in a round."""
    mix: float = 0.5
    """β: in round k, counted from 0, the teacher acts at a step with the probability β^k, else the student; the teacher labels all."""
    updates: int = 600
    """Gradient steps of a round, on everything labelled so far."""
    minibatch: int = 256
    """Samples of one gradient step."""
    learning_rate: float = 5e-3
    """Adam's at the start; it goes to zero along a cosine over all rounds."""
    temperature: float = 0.1
    """τ by which a discrete teacher's logits are divided before they are a distribution; towards 0 its choice alone counts."""
    activation: str = "relu"
    """"relu" or "tanh" of the hidden layers; relu is the cheaper one on a microcontroller."""

    def __post_init__(self) -> None:
        for name in _WHOLE:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidInput(f"{name} must be a whole number of at least 1, not {value!r}")
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
                raise InvalidInput(f"{name} must lie in {low:g} … {high:g}, not {value!r}")
        object.__setattr__(self, "profiles", tuple(choose("profile", name, PROFILES) for name in self.profiles))
        if not self.profiles:
            raise InvalidInput(f"at least one profile is needed: {', '.join(PROFILES)}")
        choose("activation", self.activation, ("relu", "tanh"))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
