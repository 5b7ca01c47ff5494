"""The numbers that TRPO is set by, and its kin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from puffer_edge.train.constraint import AdamPriced, Constraint
from puffer_edge.train.settings import OnPolicySettings

LEAST_KL = 1e-8
"""Of δ: less is nothing in float32."""


@dataclass(frozen=True)
class TRPOSettings(OnPolicySettings):
    """Settings of TRPO; the defaults suit small control tasks of 10⁵ steps or so.

    Raises:
        InvalidInput: a value out of its range.
    """

    ALGORITHM: ClassVar[str] = "TRPO"
    WHOLE: ClassVar[tuple[str, ...]] = (*OnPolicySettings.WHOLE, "solver_steps", "search_steps")
    RANGES: ClassVar[tuple[tuple[str, float, float], ...]] = (
        *OnPolicySettings.RANGES,
        ("target_kl", LEAST_KL, 10.0),
        ("damping", 0.0, math.inf),
        ("search_decay", 0.01, 0.99),
    )

    learning_rate: float = 1e-3
    """Adam's learning rate of the critic."""
    schedule: str = "constant"
    """How it goes over the steps: "constant", "linear" or "cosine", the last two to zero."""
    epochs: int = 10
    """Passes of the critic over the rows × horizon samples of an update; the policy makes one step."""
    minibatch: int = 128
    """Samples of one gradient step of the critic."""
    normalize_advantage: bool = True
    """Bring the advantages of an update to mean 0 and standard deviation 1."""
    max_grad_norm: float = 0.5
    """The critic's gradient is scaled down to this L2 norm."""
    target_kl: float = 0.01
    """δ at the start: the mean KL divergence from the old policy to the new one is at most this."""
    kl_schedule: str = "constant"
    """How δ goes over the steps: "constant", "linear" or "cosine", the last two to zero. A limit on costs is kept from noisy estimates: small
    steps at the end are their mean."""
    damping: float = 0.1
    """What is added to the diagonal of Fisher's matrix."""
    solver_steps: int = 15
    """Of the conjugate gradients, at most."""
    search_steps: int = 20
    """Shares of the step that the line search tries."""
    search_decay: float = 0.8
    """From one share to the next."""

    def target_kl_at(self, steps: int) -> float:
        """The schedule's δ after so many steps."""
        return max(self.target_kl * self._left(self.kl_schedule, steps), LEAST_KL)


@dataclass(frozen=True)
class TRPOLagrangianSettings(AdamPriced, TRPOSettings):
    """Settings of TRPO-Lagrangian: those of TRPO, and of the constraint.

    Raises:
        InvalidInput: a value out of its range.
    """

    ALGORITHM: ClassVar[str] = "TRPO-Lagrangian"
    WHOLE: ClassVar[tuple[str, ...]] = (*TRPOSettings.WHOLE, *AdamPriced.COST_WHOLE)
    RANGES: ClassVar[tuple[tuple[str, float, float], ...]] = (*TRPOSettings.RANGES, *AdamPriced.MULTIPLIER_RANGES)
    FLAGS: ClassVar[tuple[str, ...]] = (*TRPOSettings.FLAGS, *AdamPriced.MULTIPLIER_FLAGS)

    def __post_init__(self) -> None:
        TRPOSettings.__post_init__(self)
        self.check_constraint()


@dataclass(frozen=True)
class CPOSettings(Constraint, TRPOSettings):
    """Settings of CPO: those of TRPO, and of the constraint.

    Raises:
        InvalidInput: a value out of its range.
    """

    ALGORITHM: ClassVar[str] = "CPO"
    WHOLE: ClassVar[tuple[str, ...]] = (*TRPOSettings.WHOLE, *Constraint.COST_WHOLE)
    RANGES: ClassVar[tuple[tuple[str, float, float], ...]] = (
        *TRPOSettings.RANGES,
        *Constraint.COST_RANGES,
        ("caution", 1.0, 1e6),
        ("recovery", 0.01, 1.0),
    )

    caution: float = 10.0
    """What c is multiplied by where it is above 0, so that a step gives the cost more of itself and the reward less: a cost gradient from few
    samples promises more than its step keeps. 1 believes it, as the paper does; OmniSafe's step is that of the mean length of an episode."""
    recovery: float = 0.7
    """ρ: by how much a step is asked to lower the cost where c > 0, at most, as a share of the most it could. With 0.7 cost and reward have
    equal parts of it. 1 is the paper's: the cost alone, until the limit is kept, be it by a policy that earns nothing and never learns to."""

    def __post_init__(self) -> None:
        TRPOSettings.__post_init__(self)
        self.check_constraint()
