"""The two distributions that a policy samples from, with noise drawn by numpy so that one kind of generator seeds everything."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, eq=False)
class Categorical:
    """Choice among k.

    Attributes:
        logits: (B, k), not normalised.
    """

    logits: torch.Tensor

    def sample(self, rng: np.random.Generator) -> torch.Tensor:
        """(B,) int64 choices, by the Gumbel-max trick."""
        noise = rng.gumbel(size=tuple(self.logits.shape)).astype(np.float32)
        return torch.argmax(self.logits + torch.from_numpy(noise), -1)

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """(B,) log-probability of (B,) choices."""
        return torch.log_softmax(self.logits, -1).gather(-1, action[:, None])[:, 0]

    def entropy(self) -> torch.Tensor:
        """(B,) entropy in nats."""
        log_p = torch.log_softmax(self.logits, -1)
        return -(log_p.exp() * log_p).sum(-1)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Independent normal distributions of m numbers.

    Attributes:
        mean: (B, m).
        log_std: (m,) log standard deviation.
    """

    mean: torch.Tensor
    log_std: torch.Tensor

    def sample(self, rng: np.random.Generator) -> torch.Tensor:
        """(B, m) float32 samples."""
        noise = rng.standard_normal(tuple(self.mean.shape), np.float32)
        return self.mean + self.log_std.exp() * torch.from_numpy(noise)

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """(B,) log-density of (B, m) samples."""
        z = (action - self.mean) * (-self.log_std).exp()
        return (-0.5 * z**2 - self.log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> torch.Tensor:
        """(B,) differential entropy in nats."""
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum().expand(len(self.mean))
