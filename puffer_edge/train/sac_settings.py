"""The numbers that SAC is set by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from puffer_edge.errors import InvalidInput
from puffer_edge.train.settings import Settings, check_widths

MOST_ENTROPY = 1e6


@dataclass(frozen=True)
class SACSettings(Settings):
    """Settings of SAC; the defaults suit small control tasks of 10⁴ to 10⁵ steps.

    Raises:
        InvalidInput: a value out of its range.
    """

    ALGORITHM: ClassVar[str] = "SAC"
    WHOLE: ClassVar[tuple[str, ...]] = (*Settings.WHOLE, "minibatch", "replay", "every", "updates", "n_step")
    RANGES: ClassVar[tuple[tuple[str, float, float], ...]] = (*Settings.RANGES, ("target_rate", 0.0, 1.0), ("temperature", 1e-8, MOST_ENTROPY))
    FLAGS: ClassVar[tuple[str, ...]] = (*Settings.FLAGS, "adapt_temperature")

    steps: int = 100_000
    """Environment steps of a whole training."""
    rows: int = 1
    """Environments stepped side by side."""
    horizon: int = 256
    """Steps of every environment between two rows of the log; the normaliser stays as it is meanwhile."""
    normalize_observation: bool = False
    """Whiten observations by their running moments. They move as the training goes on, and what the critics know moves with them; worth it
    where numbers of very different sizes are observed."""
    learning_rate: float = 3e-4
    """Adam's learning rate, of actor, critics and temperature."""
    schedule: str = "constant"
    """How the learning rate goes over the steps: "constant", "linear" or "cosine", the last two to zero."""
    hold: int = 8
    """Steps for which "state" holds its function."""
    log_std: float = -3.0
    """Start of the log standard deviation of exploration "state"; with "independent" noise the actor gives its own."""
    critic_hidden: tuple[int, ...] | None = None
    """Widths of each critic's hidden layers; None: those of the actor. Critics are not deployed, so they may be wider."""
    replay: int = 200_000
    """Steps that are kept, of all environments together, and sampled from. In memory and in each checkpoint a step takes 4 bytes for each
    number of observation and action, and 9 more; half a GiB is the most."""
    warmup: int = 1_000
    """Steps, of all environments together, whose actions are drawn uniformly, and before which nothing is learnt."""
    minibatch: int = 256
    """Samples of one gradient step."""
    every: int = 1
    """Steps of every environment from one turn of learning to the next."""
    updates: int = 1
    """Gradient steps of such a turn."""
    n_step: int = 1
    """Steps over which rewards are summed before the critic is asked."""
    target_rate: float = 0.005
    """τ: by which share the targets follow the critics with each gradient step."""
    temperature: float = 1.0
    """α at the start: what a nat of entropy is worth."""
    adapt_temperature: bool = True
    """Move α so that the entropy comes to ``target_entropy``; otherwise it stays."""
    target_entropy: float | None = None
    """H̄ in nats; None: −1 for each number of an action."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.critic_hidden is not None:
            check_widths("critic_hidden", self.critic_hidden)
        if isinstance(self.warmup, bool) or not isinstance(self.warmup, int) or self.warmup < 0:
            raise InvalidInput(f"warmup must be a whole number of at least 0, not {self.warmup!r}")
        if self.replay < self.minibatch:
            raise InvalidInput(f"a replay of {self.replay:,} steps is smaller than a minibatch of {self.minibatch:,}")
        entropy = self.target_entropy
        if entropy is not None and (isinstance(entropy, bool) or not isinstance(entropy, (int, float)) or not math.isfinite(entropy)):
            raise InvalidInput(f"target_entropy must be a finite number or None, not {entropy!r}")

    @property
    def critic_widths(self) -> tuple[int, ...]:
        """Widths of each critic's hidden layers."""
        return self.hidden if self.critic_hidden is None else self.critic_hidden


@dataclass(frozen=True)
class DiscreteSACSettings(SACSettings):
    """Settings of SAC for choices; the defaults are one set for every task of 10⁴ to 10⁵ steps, and its presets change the steps alone.

    Raises:
        InvalidInput: a value out of its range.
    """

    ALGORITHM: ClassVar[str] = "discrete SAC"

    steps: int = 50_000
    """Environment steps of a whole training."""
    rows: int = 4
    """Environments stepped side by side."""
    updates: int = 2
    """Gradient steps of a turn of learning."""
    minibatch: int = 128
    """Samples of one gradient step."""
    learning_rate: float = 1e-3
    """Adam's learning rate, of actor, critics and temperature."""
    normalize_observation: bool = True
    """Whiten observations by their running moments."""
    target_rate: float = 0.02
    """τ: by which share the targets follow the critics with each gradient step. U gradient steps carry what is known back over
    some τ·U steps of an episode: with 0.005, the 15,000 of a training of 30,000 steps saw 75 far, too few where γ is 0.99."""
    target_entropy: float | None = None
    """H̄ in nats; None: a fifth of that of a uniform choice."""
    evaluations: int = 30
    """Evaluations spread over a training; the policy that did best in them is the one that is kept."""
