"""Soft actor-critic (Haarnoja et al., 2018, arXiv 1801.01290 and 1812.05905).

    y = r + γ·(min_j Q'_j(s', a') − α·log π(a'|s')),  a' ~ π(·|s')       1812.05905, eq. 2 and 3
    J_Q = E[½ Σ_j (Q_j(s, a) − y)²]                                      eq. 5
    J_π = E[α·log π(ã|s) − min_j Q_j(s, ã)],  ã = tanh(μ(s) + σ(s)·ε)    eq. 7 and 9
    J_α = −log α·E[log π(ã|s) + H̄]                                       eq. 18
    Q' ← Q' + τ·(Q − Q')

Differences from the papers:

- critics, actor and temperature step together, all from the parameters before the step;
- the temperature's loss is linear in log α, not in α, as in the authors' own code;
- ``n_step`` > 1 follows the steps as they were made, without correcting for the policy that made them; entropy counts at their end alone;
- ``exploration`` "state" is gSDE (Raffin et al., 2021, arXiv 2005.05719): noise that is a function of the state, held while acting; an
  update draws it anew for each sample, from the same marginal distribution;
- observations are whitened by running moments, unless ``normalize_observation`` is off: the replay holds what was observed, and a sample is
  whitened by the moments of the time when it is drawn;
- an episode that the clock ends bootstraps from its true last observation;
- log π uses log(1 − tanh²u) = 2·(log 2 − u − softplus(−2u)), which keeps its digits where tanh u rounds to 1.

With a shield, actions and probabilities belong to what the policy proposed, rewards to what was applied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import softplus

from puffer_edge.train.distributions import Gaussian, StateDependent
from puffer_edge.train.nets.soft_actor_critic import SoftActorCritic

STATISTICS = ("critic_loss", "actor_loss", "temperature_loss", "entropy", "temperature", "value")


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one gradient step, B of them.

    Attributes:
        inputs: (B, n) normalised observations.
        action: (B, m) what was proposed, −1 … 1.
        reward: (B,) over the steps until ``following``.
        weight: (B,) of the value there; 0 after a termination.
        following: (B, n) normalised observations to bootstrap at.
    """

    inputs: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor
    weight: torch.Tensor
    following: torch.Tensor


def squash(policy: Gaussian | StateDependent, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The action that standard normal (B, m) noise gives, and its log-density.

    Returns:
        (B, m) in −1 … 1; (B,).
    """
    std = policy.std
    u = policy.mean + std * noise
    log_prob = -0.5 * noise**2 - std.log() - 0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - u - softplus(-2 * u))
    return torch.tanh(u), log_prob.sum(-1)


def losses(
    net: SoftActorCritic, batch: Batch, noise_next: torch.Tensor, noise_now: torch.Tensor, target_entropy: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What one step minimises: each loss by its own parameters.

    Args:
        net: networks and targets.
        batch: B samples.
        noise_next: (B, m) standard normal, of a'.
        noise_now: (B, m) of ã.
        target_entropy: H̄.

    Returns:
        the critics' loss, the actor's, the temperature's; (6,) ``STATISTICS``, detached.
    """
    alpha = net.log_temperature.detach().exp()[0]
    with torch.no_grad():
        action, log_prob = squash(net.distribution(batch.following), noise_next)
        y = batch.reward + batch.weight * (net.target(batch.following, action).min(0).values - alpha * log_prob)
    values = net.critic(batch.inputs, batch.action)
    critic_loss = 0.5 * (values - y).square().sum(0).mean()
    action, log_prob = squash(net.distribution(batch.inputs), noise_now)
    actor_loss = (alpha * log_prob - net.critic(batch.inputs, action).min(0).values).mean()
    entropy = -log_prob.detach().mean()
    temperature_loss = net.log_temperature[0] * (entropy - target_entropy)
    found = [critic_loss, actor_loss, temperature_loss, entropy, alpha, values.mean()]
    return critic_loss, actor_loss, temperature_loss, torch.stack([x.detach() for x in found])


def gradients(net: SoftActorCritic, batch: Batch, noise_next: torch.Tensor, noise_now: torch.Tensor, target_entropy: float) -> torch.Tensor:
    """Put each loss's gradient by its own parameters into their ``grad``; returns the statistics of ``losses``."""
    critic_loss, actor_loss, temperature_loss, statistics = losses(net, batch, noise_next, noise_now, target_entropy)
    actor = [*net.actor.parameters(), *([net.log_std] if net.log_std is not None else [])]
    for loss, parameters in ((critic_loss, list(net.critic.parameters())), (actor_loss, actor), (temperature_loss, [net.log_temperature])):
        for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters)):
            p.grad = gradient
    return statistics


def target_entropy_of(setting: float | None, actions: int) -> float:
    """H̄: −1 for each number of an action, unless the setting says otherwise (1812.05905, table 1)."""
    return -float(actions) if setting is None else setting


def normal(rng: np.random.Generator, shape: tuple[int, int]) -> torch.Tensor:
    """Standard normal float32 numbers."""
    return torch.from_numpy(rng.standard_normal(shape, np.float32))
