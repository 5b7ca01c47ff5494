"""What a constrained training is set by: a limit on the episode's cost, the critic of costs, and the multiplier that prices them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from puffer_edge.errors import InvalidInput
from puffer_edge.spaces import Floats
from puffer_edge.train.settings import RECENT, PPOSettings, check_widths

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Of the multiplier's Adam: torch's defaults."""


@dataclass(frozen=True)
class Constraint:
    """Settings of a limit on costs, for algorithms that keep one; mixed into theirs, with ``WHOLE`` and ``RANGES`` of both."""

    COST_WHOLE: ClassVar[tuple[str, ...]] = ("cost_episodes",)
    COST_RANGES: ClassVar[tuple[tuple[str, float, float], ...]] = (
        ("cost_discount", 0.0, 1.0),
        ("cost_trace_decay", 0.0, 1.0),
        ("cost_learning_rate", 0.0, 1.0),
        ("cost_max_grad_norm", 0.0, math.inf),
        ("cost_episodes", 1, RECENT),
    )

    evaluation_episodes: int = 200
    """Episodes of each evaluation. More than without a limit, as few episodes often have most of the costs: the best of several policies on a
    few episodes is the luckiest one."""
    cost_limit: float | None = None
    """d: what an episode may cost in the mean, its costs summed without a discount. It belongs to the task, so there is no default."""
    cost_discount: float = 0.99
    """γ_c, of the cost critic and of the advantages of costs."""
    cost_trace_decay: float = 0.95
    """λ_c of generalised advantage estimation of costs."""
    cost_learning_rate: float = 1e-3
    """Adam's learning rate of the cost critic; it stays, as the critic has to follow the policy to the end."""
    cost_epochs: int | None = 5
    """Passes of the cost critic over the samples of an update; None: half as many as ``epochs``, rounded up. Ten explained no more of what
    episodes cost than five, on cartpole and rover; three explained less on rover."""
    cost_minibatch: int | None = 256
    """Samples of one of its gradient steps; None: as many as ``minibatch``."""
    cost_max_grad_norm: float = 0.5
    """Its gradient is scaled down to this L2 norm."""
    cost_hidden: tuple[int, ...] | None = None
    """Widths of its hidden layers; None: those of the actor. It is not deployed."""
    cost_episodes: int = 20
    """The cost of an episode is estimated by the mean over those that ended in the rollout; where they are fewer than this, by that over so
    many of the latest."""

    def check_constraint(self) -> None:
        """See that limit and widths are such; the rest is checked by ``Settings``.

        Raises:
            InvalidInput: they are not.
        """
        limit = self.cost_limit
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 <= limit < math.inf):
            raise InvalidInput(f"cost_limit must be a finite number of at least 0 that an episode may cost, or None, not {limit!r}")
        for name in ("cost_epochs", "cost_minibatch"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InvalidInput(f"{name} must be a whole number of at least 1, or None to follow {name.removeprefix('cost_')}, not {value!r}")
        if self.cost_hidden is not None:
            check_widths("cost_hidden", self.cost_hidden)

    def cost_passes(self, epochs: int, minibatch: int) -> tuple[int, int]:
        """Passes and samples of a step of the cost critic, beside those of the algorithm, which they follow where they are None."""
        passes = (epochs + 1) // 2 if self.cost_epochs is None else self.cost_epochs
        return passes, minibatch if self.cost_minibatch is None else self.cost_minibatch


@dataclass(frozen=True)
class Priced(Constraint):
    """Settings of an algorithm that prices costs by a multiplier λ."""

    MULTIPLIER_RANGES: ClassVar[tuple[tuple[str, float, float], ...]] = (*Constraint.COST_RANGES, ("multiplier", 0.0, math.inf))
    MULTIPLIER_FLAGS: ClassVar[tuple[str, ...]] = ("scale_multiplier",)

    multiplier: float = 0.001
    """λ at the start."""
    scale_multiplier: bool = True
    """Count λ in deviations of the rollout's reward advantages: a price that fits rewards of any size, as where those are brought to
    deviation 1 before they are weighed against costs."""

    def make_multiplier(self) -> Multiplier:
        """λ as these settings start it."""
        raise NotImplementedError


@dataclass(frozen=True)
class AdamPriced(Priced):
    """Settings of a multiplier that Adam moves."""

    MULTIPLIER_RANGES: ClassVar[tuple[tuple[str, float, float], ...]] = (
        *Priced.MULTIPLIER_RANGES,
        ("multiplier_rate", 0.0, math.inf),
        ("penalty", 0.0, math.inf),
    )

    multiplier_rate: float = 0.035
    """Adam's learning rate of λ; 0 leaves it where it is."""
    penalty: float = 0.0
    """ρ of an augmented Lagrangian, per unit of an episode's cost above the limit: the price is (λ + ρ·(J_C − d))₊. λ alone swings about its
    optimum, and the policy with it; this damps the swings and moves the optimum nowhere."""

    def make_multiplier(self) -> Multiplier:
        """λ of ``AdamMultiplier``."""
        return AdamMultiplier(self.multiplier, self.multiplier_rate, self.penalty)


@dataclass(frozen=True)
class PIDPriced(Priced):
    """Settings of a multiplier that a PID controller sets."""

    MULTIPLIER_RANGES: ClassVar[tuple[tuple[str, float, float], ...]] = (
        *Priced.MULTIPLIER_RANGES,
        *((name, 0.0, math.inf) for name in ("proportional", "integral", "derivative")),
    )

    multiplier: float = 0.0
    """λ at the start, as the controller's integral part."""
    proportional: float = 0.1
    """K_P, per unit of an episode's cost above the limit."""
    integral: float = 0.01
    """K_I, likewise, and update."""
    derivative: float = 0.01
    """K_D, per unit by which an episode's cost rose since the last estimate."""

    def make_multiplier(self) -> Multiplier:
        """λ of ``PIDMultiplier``."""
        return PIDMultiplier(self.multiplier, self.proportional, self.integral, self.derivative)


@dataclass(frozen=True)
class PPOLagrangianSettings(AdamPriced, PPOSettings):
    """Settings of PPO-Lagrangian: those of PPO, and of the constraint.

    Raises:
        InvalidInput: a value out of its range.
    """

    ALGORITHM: ClassVar[str] = "PPO-Lagrangian"
    WHOLE: ClassVar[tuple[str, ...]] = (*PPOSettings.WHOLE, *AdamPriced.COST_WHOLE)
    RANGES: ClassVar[tuple[tuple[str, float, float], ...]] = (*PPOSettings.RANGES, *AdamPriced.MULTIPLIER_RANGES)
    FLAGS: ClassVar[tuple[str, ...]] = (*PPOSettings.FLAGS, *AdamPriced.MULTIPLIER_FLAGS)

    cost_epochs: int | None = None
    """Passes of the cost critic over the samples of an update; None: half as many as ``epochs``, rounded up. With steps of 256
    samples ten explained no more of what episodes cost than five, on cartpole and rover; three explained less on rover."""
    cost_minibatch: int | None = None
    """Samples of one of its gradient steps; None: as many as ``minibatch``. Smaller ones explain a little more, and take longer."""

    def __post_init__(self) -> None:
        PPOSettings.__post_init__(self)
        self.check_constraint()


@dataclass(frozen=True)
class PIDLagrangianSettings(PIDPriced, PPOSettings):
    """Settings of PID-Lagrangian: those of PPO, and of the constraint.

    Raises:
        InvalidInput: a value out of its range.
    """

    ALGORITHM: ClassVar[str] = "PID-Lagrangian"
    WHOLE: ClassVar[tuple[str, ...]] = (*PPOSettings.WHOLE, *PIDPriced.COST_WHOLE)
    RANGES: ClassVar[tuple[tuple[str, float, float], ...]] = (*PPOSettings.RANGES, *PIDPriced.MULTIPLIER_RANGES)
    FLAGS: ClassVar[tuple[str, ...]] = (*PPOSettings.FLAGS, *PIDPriced.MULTIPLIER_FLAGS)

    cost_epochs: int | None = None
    """Passes of the cost critic over the samples of an update; None: half as many as ``epochs``, rounded up. With steps of 256
    samples ten explained no more of what episodes cost than five, on cartpole and rover; three explained less on rover."""
    cost_minibatch: int | None = None
    """Samples of one of its gradient steps; None: as many as ``minibatch``. Smaller ones explain a little more, and take longer."""

    def __post_init__(self) -> None:
        PPOSettings.__post_init__(self)
        self.check_constraint()


class Multiplier(Protocol):
    """λ, and what moves it.

    Attributes:
        value: λ, or the price that is made of it; never negative.
    """

    value: float

    def update(self, excess: float) -> None:
        """Move λ by J_C − d, what an episode cost above the limit."""
        ...

    def state(self) -> Floats:
        """All that changes."""
        ...

    def load(self, state: Floats) -> None:
        """Go on from what ``state`` gave."""
        ...


class AdamMultiplier:
    """Dual ascent: λ minimises −λ·(J_C − d) by Adam (Kingma and Ba, 2015) in float64, and is kept from being negative.

    With ρ > 0 the price is that of the augmented Lagrangian J_R − λ·(J_C − d) − ρ/2·(J_C − d)² (Hestenes, 1969; Bertsekas, 1982, chapter 2).

    Args:
        value: λ at the start.
        rate: Adam's learning rate.
        penalty: ρ.
    """

    def __init__(self, value: float, rate: float, penalty: float = 0.0) -> None:
        self.value, self.rate, self.penalty = value, rate, penalty
        self._ascent, self._first, self._second, self._steps = value, 0.0, 0.0, 0.0

    def update(self, excess: float) -> None:
        """One step of Adam."""
        self._steps += 1
        self._first = BETA1 * self._first - (1 - BETA1) * excess
        self._second = BETA2 * self._second + (1 - BETA2) * excess**2
        first, second = self._first / (1 - BETA1**self._steps), self._second / (1 - BETA2**self._steps)
        self._ascent = max(0.0, self._ascent - self.rate * first / (math.sqrt(second) + EPSILON))
        self.value = max(0.0, self._ascent + self.penalty * excess)

    def state(self) -> Floats:
        """The price, λ, Adam's moments and its steps."""
        return np.array([self.value, self._ascent, self._first, self._second, self._steps])

    def load(self, state: Floats) -> None:
        """Go on from what ``state`` gave."""
        self.value, self._ascent, self._first, self._second, self._steps = (float(x) for x in state)


class PIDMultiplier:
    """A controller of the cost (Stooke, Achiam and Abbeel, 2020, arXiv 2007.03964, algorithm 2), with x₊ = max(x, 0):

        Δ = J_C − d,  I ← (I + K_I·Δ)₊,  λ = (K_P·Δ + I + K_D·(J_C − J_C before)₊)₊

    The integral is kept with its gain in it, so that it is λ itself where the cost rests at the limit.

    Args:
        value: λ at the start, and the integral's.
        proportional: K_P.
        integral: K_I.
        derivative: K_D.
    """

    def __init__(self, value: float, proportional: float, integral: float, derivative: float) -> None:
        self.value, self.gains = value, (proportional, integral, derivative)
        self._sum, self._before = value, math.nan

    def update(self, excess: float) -> None:
        """Look at the cost, and set λ anew."""
        proportional, integral, derivative = self.gains
        self._sum = max(0.0, self._sum + integral * excess)
        rise = 0.0 if math.isnan(self._before) else max(0.0, excess - self._before)
        self._before = excess
        self.value = max(0.0, proportional * excess + self._sum + derivative * rise)

    def state(self) -> Floats:
        """λ, the integral, and the excess before (NaN: none yet)."""
        return np.array([self.value, self._sum, self._before])

    def load(self, state: Floats) -> None:
        """Go on from what ``state`` gave."""
        self.value, self._sum, self._before = (float(x) for x in state)
