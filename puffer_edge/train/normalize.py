"""Running moments in float64: frozen while a rollout is collected, updated once for each, in a fixed order."""

from __future__ import annotations

import numpy as np

from puffer_edge.policy import Normalizer
from puffer_edge.spaces import Bools, Floats

MIN_STD = 1e-4
"""Smallest standard deviation, so that a channel that never moves is not blown up."""


class Moments:
    """Mean and variance of everything seen (Chan, Golub and LeVeque, 1979).

    Args:
        shape: shape of one sample.

    Attributes:
        count: samples seen.
        mean: of each component.
        m2: sum of squared deviations of each component.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = 0.0
        self.mean = np.zeros(shape)
        self.m2 = np.zeros(shape)

    def update(self, samples: Floats) -> None:
        """Take in (n, *shape) samples."""
        mean = samples.mean(0)
        self.merge(len(samples), mean, ((samples - mean) ** 2).sum(0))

    def merge(self, n: int, mean: Floats, m2: Floats) -> None:
        """Take in n samples by their mean and their sum of squared deviations."""
        total, delta = self.count + n, mean - self.mean
        self.m2 = self.m2 + m2 + delta**2 * (self.count * n / total)
        self.mean = self.mean + delta * (n / total)
        self.count = total

    @property
    def std(self) -> Floats:
        """Standard deviation, at least ``MIN_STD``; 1 before the first sample."""
        return np.maximum(np.sqrt(self.m2 / self.count), MIN_STD) if self.count else np.ones_like(self.mean)

    def normalizer(self) -> Normalizer:
        """The deployable form."""
        return Normalizer(self.mean.copy(), self.std.copy())


class RewardScale:
    """Running standard deviation of the discounted return of N rows; rewards are divided by it, their mean is left alone."""

    def __init__(self, n: int, discount: float) -> None:
        self.moments = Moments(())
        self.discount = discount
        self.returns = np.zeros(n)

    def update(self, reward: Floats, ended: Bools, alive: Bools) -> None:
        """Take in a (T, N) rollout, where episodes ended in it, and where an agent acted: the others do not count."""
        seen = np.empty_like(reward)
        for t in range(len(reward)):
            self.returns = self.returns * self.discount + reward[t]
            seen[t] = self.returns
            self.returns = np.where(ended[t], 0.0, self.returns)
        self.moments.update(seen[alive])

    @property
    def scale(self) -> float:
        """What to divide rewards by."""
        return float(self.moments.std)
