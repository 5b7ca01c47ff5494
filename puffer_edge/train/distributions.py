"""The distributions that a policy samples from, with noise drawn by numpy so that one kind of generator seeds everything."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from puffer_edge.contract import Contract
from puffer_edge.errors import InvalidInput
from puffer_edge.spaces import Bools

FloatArray = npt.NDArray[np.float32]

FORBIDDEN = -1e9
"""Logit of a choice that may not be taken: finite, so that its log-probability and the entropy are; its probability and gradient are 0."""


def forbid(logits: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """(B, k) logits with those of choices that ``allowed`` (B, k) bool excludes put out of reach; one of each group must be allowed."""
    return logits.masked_fill(~allowed, FORBIDDEN)


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

    def mode(self) -> torch.Tensor:
        """(B,) likeliest choices."""
        return torch.argmax(self.logits, -1)

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """(B,) log-probability of (B,) choices."""
        return torch.log_softmax(self.logits, -1).gather(-1, action[:, None])[:, 0]

    def entropy(self) -> torch.Tensor:
        """(B,) entropy in nats."""
        log_p = torch.log_softmax(self.logits, -1)
        return -(log_p.exp() * log_p).sum(-1)

    def kl(self, other: Categorical) -> torch.Tensor:
        """(B,) KL(self ‖ other) in nats; what is forbidden to both counts nothing."""
        log_p, log_q = torch.log_softmax(self.logits, -1), torch.log_softmax(other.logits, -1)
        return (log_p.exp() * (log_p - log_q)).sum(-1)


@dataclass(frozen=True, eq=False)
class Choices:
    """Several choices at once, each among its own.

    Attributes:
        logits: (B, sum of sizes), not normalised, group after group.
        sizes: choices of each group.
    """

    logits: torch.Tensor
    sizes: tuple[int, ...]

    @property
    def groups(self) -> list[Categorical]:
        """Each by itself."""
        return [Categorical(part) for part in torch.split(self.logits, list(self.sizes), -1)]

    def sample(self, rng: np.random.Generator) -> torch.Tensor:
        """(B, groups) int64 choices."""
        return torch.stack([group.sample(rng) for group in self.groups], -1)

    def mode(self) -> torch.Tensor:
        """(B, groups) likeliest choices."""
        return torch.stack([group.mode() for group in self.groups], -1)

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """(B,) log-probability of (B, groups) choices."""
        return torch.stack([group.log_prob(chosen) for group, chosen in zip(self.groups, action.unbind(-1))]).sum(0)

    def entropy(self) -> torch.Tensor:
        """(B,) entropy in nats."""
        return torch.stack([group.entropy() for group in self.groups]).sum(0)

    def kl(self, other: Choices) -> torch.Tensor:
        """(B,) KL(self ‖ other) in nats."""
        return torch.stack([mine.kl(theirs) for mine, theirs in zip(self.groups, other.groups)]).sum(0)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Independent normal distributions of m numbers.

    Attributes:
        mean: (B, m).
        log_std: (m,) log standard deviation, or (B, m).
    """

    mean: torch.Tensor
    log_std: torch.Tensor

    @property
    def std(self) -> torch.Tensor:
        """(m,) or (B, m) standard deviation."""
        return self.log_std.exp()

    def mode(self) -> torch.Tensor:
        """(B, m) means."""
        return self.mean

    def sample(self, rng: np.random.Generator) -> torch.Tensor:
        """(B, m) float32 samples."""
        noise = rng.standard_normal(tuple(self.mean.shape), np.float32)
        return self.mean + self.std * torch.from_numpy(noise)

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """(B,) log-density of (B, m) samples."""
        z = (action - self.mean) * (-self.log_std).exp()
        return (-0.5 * z**2 - self.log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> torch.Tensor:
        """(B,) differential entropy in nats."""
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1).expand(len(self.mean))

    def kl(self, other: Gaussian) -> torch.Tensor:
        """(B,) KL(self ‖ other) in nats; squashing both by one function, as tanh, changes nothing."""
        return _kl_of_normals(self, other)


@dataclass(frozen=True, eq=False)
class StateDependent:
    """Normal distributions whose noise is a fixed function of the state for a while: gSDE (Raffin et al., 2021, arXiv 2005.05719).

    noise = features · (exp(log_std) ∘ ε), with a matrix ε of standard normal numbers that is held; so the action's variance is
    features² · exp(2·log_std), and the exploration is smooth where independent noise shakes an actuator at every step.

    Attributes:
        mean: (B, m).
        features: (B, F) the last hidden layer, through which no gradient of the noise flows.
        log_std: (F, m).
    """

    mean: torch.Tensor
    features: torch.Tensor
    log_std: torch.Tensor

    @property
    def std(self) -> torch.Tensor:
        """(B, m) standard deviation of the action over all matrices."""
        return (self.features.square() @ (2 * self.log_std).exp() + 1e-6).sqrt()

    def mode(self) -> torch.Tensor:
        """(B, m) means."""
        return self.mean

    def sample(self, noise: np.random.Generator | FloatArray) -> torch.Tensor:
        """(B, m) float32 samples, with (B, F, m) held matrices, or with one drawn for each row."""
        if isinstance(noise, np.random.Generator):
            noise = noise.standard_normal((len(self.features), *self.log_std.shape), np.float32)
        return self.mean + torch.einsum("bf,bfm->bm", self.features, self.log_std.exp() * torch.from_numpy(noise))

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """(B,) log-density of (B, m) samples over all matrices."""
        std = self.std
        return (-0.5 * ((action - self.mean) / std) ** 2 - std.log() - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> torch.Tensor:
        """(B,) differential entropy in nats."""
        return (self.std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def kl(self, other: StateDependent) -> torch.Tensor:
        """(B,) KL(self ‖ other) in nats, over all matrices."""
        return _kl_of_normals(self, other)


def _kl_of_normals(p: Gaussian | StateDependent, q: Gaussian | StateDependent) -> torch.Tensor:
    """(B,) KL(p ‖ q): log(σ_q/σ_p) + (σ_p² + (μ_p − μ_q)²)/(2σ_q²) − ½, summed over the numbers."""
    found = (q.std / p.std).log() + (p.std.square() + (p.mean - q.mean).square()) / (2 * q.std.square()) - 0.5
    return found.sum(-1)


Distribution = Categorical | Choices | Gaussian | StateDependent
"""What a network gives for its observations."""


def distribution_of(
    contract: Contract,
    outputs: torch.Tensor,
    allowed: torch.Tensor | None = None,
    log_std: torch.Tensor | None = None,
    features: torch.Tensor | None = None,
) -> Distribution:
    """What the last layer's outputs mean under a contract.

    Args:
        contract: decides the head.
        outputs: (B, n_outputs).
        allowed: (B, n_outputs) bool excludes choices; None excludes none.
        log_std: (m,) of a continuous head; (F, m) where the noise depends on the state.
        features: (B, F) the last hidden layer, for that.

    Raises:
        InvalidInput: choices are excluded from a head that gives numbers.
    """
    if contract.head in ("discrete", "multi_discrete"):
        logits = outputs if allowed is None else forbid(outputs, allowed)
        return Categorical(logits) if contract.head == "discrete" else Choices(logits, contract.groups)
    if allowed is not None:
        raise InvalidInput(f"a mask excludes choices, and the head {contract.head!r} gives numbers")
    assert log_std is not None
    if log_std.dim() == 1:
        return Gaussian(outputs, log_std)
    assert features is not None
    return StateDependent(outputs, features.detach(), log_std)


class HeldNoise:
    """The matrices ε of N rows: each drawn anew after ``hold`` steps, and when its episode begins.

    Attributes:
        matrix: (N, F, m) float32.
        age: (N,) steps that each has served.
    """

    def __init__(self, rows: int, shape: tuple[int, int], hold: int) -> None:
        self.hold = hold
        self.matrix = np.zeros((rows, *shape), np.float32)
        self.age = np.full(rows, hold)

    def step(self, rng: np.random.Generator) -> FloatArray:
        """The matrices for the next step."""
        old = self.age >= self.hold
        self.matrix[old] = rng.standard_normal((int(old.sum()), *self.matrix.shape[1:]), np.float32)
        self.age = np.where(old, 1, self.age + 1)
        return self.matrix

    def end(self, ended: Bools) -> None:
        """Episodes that have just ended: their rows draw anew."""
        self.age[ended] = self.hold
