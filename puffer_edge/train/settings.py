"""The numbers that a training is set by: documented, checked, and the same object from Python, file and command line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from puffer_edge.errors import InvalidInput


@dataclass(frozen=True)
class PPOSettings:
    """Settings of PPO; the defaults suit small control tasks of 10⁵ steps or so.

    Raises:
        InvalidInput: a value out of its range.
    """

    steps: int = 200_000
    """Environment steps of a whole training; the learning rate falls to zero over them."""
    rows: int = 16
    """Environments stepped side by side."""
    horizon: int = 64
    """Steps of every environment between two updates."""
    epochs: int = 10
    """Passes over the rows × horizon samples of an update."""
    minibatch: int = 256
    """Samples of one gradient step."""
    learning_rate: float = 1e-3
    """Adam's learning rate at the start."""
    anneal: bool = True
    """Let the learning rate fall linearly to zero."""
    discount: float = 0.99
    """γ."""
    trace_decay: float = 0.95
    """λ of generalised advantage estimation."""
    clip: float = 0.2
    """ε: the probability ratio is clipped to 1 ± ε."""
    value_weight: float = 0.5
    """Weight of the value loss."""
    entropy_weight: float = 0.0
    """Weight of the entropy bonus."""
    max_grad_norm: float = 0.5
    """The gradient is scaled down to this L2 norm."""
    target_kl: float | None = None
    """Stop an update's epochs once a minibatch's approximate KL exceeds 1.5 times this; None never stops."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of the actor, and of the critic."""
    activation: str = "relu"
    """"relu" or "tanh"; relu is the cheaper one on a microcontroller."""
    log_std: float = 0.0
    """Start of the Gaussian's log standard deviation, in units of half the action range; unused for discrete heads."""
    scale_reward: bool = False
    """Divide rewards by the running standard deviation of the discounted return."""
    evaluations: int = 10
    """Evaluations spread over a training; the policy that did best in them is the one that is kept."""
    evaluation_episodes: int = 50
    """Episodes of each of them."""

    def __post_init__(self) -> None:
        _check(self)
        object.__setattr__(self, "hidden", tuple(self.hidden))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "hidden": list(self.hidden)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> PPOSettings:
        """Settings from a mapping; what is absent keeps its default.

        Raises:
            InvalidInput: an unknown key, or a value out of range.
        """
        known = [f.name for f in fields(PPOSettings)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise InvalidInput(f"PPO has no setting {', '.join(unknown)}: it has {', '.join(known)}")
        return PPOSettings(**values)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check(s: PPOSettings) -> None:
    for name in ("steps", "rows", "horizon", "epochs", "minibatch", "evaluations", "evaluation_episodes"):
        value = getattr(s, name)
        if not _is_whole(value) or value < 1:
            raise InvalidInput(f"{name} must be a whole number of at least 1, not {value!r}")
    for name, low, high in (
        ("learning_rate", 0.0, 1.0),
        ("discount", 0.0, 1.0),
        ("trace_decay", 0.0, 1.0),
        ("clip", 0.0, 1.0),
        ("value_weight", 0.0, math.inf),
        ("entropy_weight", 0.0, math.inf),
        ("max_grad_norm", 0.0, math.inf),
        ("log_std", -5.0, 2.0),
    ):
        value = getattr(s, name)
        if not _is_number(value) or not low <= value <= high:
            raise InvalidInput(f"{name} must lie in {low:g} … {high:g}, not {value!r}")
    if s.rows * s.horizon < 2:
        raise InvalidInput("an update needs at least 2 samples: raise rows or horizon")
    if s.target_kl is not None and not (_is_number(s.target_kl) and s.target_kl > 0):
        raise InvalidInput(f"target_kl must be a positive number or None, not {s.target_kl!r}")
    if not isinstance(s.hidden, (tuple, list)) or not s.hidden or not all(_is_whole(width) and 1 <= width <= 4096 for width in s.hidden):
        raise InvalidInput(f"hidden must name at least one width, each 1 … 4096, not {s.hidden!r}")
    for name in ("anneal", "scale_reward"):
        if not isinstance(getattr(s, name), bool):
            raise InvalidInput(f"{name} must be true or false, not {getattr(s, name)!r}")
    if s.activation not in ("relu", "tanh"):
        raise InvalidInput(f"activation must be 'relu' or 'tanh', not {s.activation!r}")


PRESETS: dict[str, PPOSettings] = {
    "cartpole": PPOSettings(steps=100_000),
    "acrobot": PPOSettings(steps=500_000, horizon=256, epochs=4, activation="tanh"),
    "mountain_car": PPOSettings(steps=1_000_000, horizon=16, epochs=4, minibatch=64, trace_decay=0.98, activation="tanh"),
    "mountain_car_continuous": PPOSettings(
        steps=100_000, horizon=256, discount=0.9999, trace_decay=0.9, activation="tanh", log_std=1.5, scale_reward=True
    ),
    "pendulum": PPOSettings(steps=100_000, horizon=128, discount=0.9, scale_reward=True),
}
"""Settings tuned for an environment, by its name; others start from the defaults."""


def preset(environment: str) -> PPOSettings:
    """Settings for an environment: its preset, or the defaults."""
    return PRESETS.get(environment, PPOSettings())
