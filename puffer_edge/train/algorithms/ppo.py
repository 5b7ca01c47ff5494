"""Proximal policy optimisation (Schulman et al., 2017, arXiv 1707.06347), the clipped form.

    r(θ) = π_θ(a | s) / π_old(a | s)
    L_CLIP = E[min(r·A, clip(r, 1 − ε, 1 + ε)·A)]          eq. 7
    L = L_CLIP − c₁·E[(V_θ(s) − R)²] + c₂·E[entropy]        eq. 9, maximised
    A by generalised advantage estimation                   eq. 11, ``puffer_edge/train/advantages.py``

Differences from the paper:

- actor and critic share no weights;
- advantages are normalised to mean 0 and standard deviation 1 within each minibatch;
- observations are whitened by running moments; rewards are divided by the running deviation of the return where ``scale_reward`` is set;
- the gradient's norm is clipped, the learning rate falls linearly to zero, ε stays;
- ``target_kl`` may end an update's epochs early, by the estimator E[r − 1 − log r] (Schulman, 2020);
- an episode that the clock ends bootstraps from the observation before the reset.

The value loss is not clipped. With a shield, probabilities belong to what the policy proposed, rewards to what was applied.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from puffer_edge.train.advantages import advantages
from puffer_edge.train.loop import Learner
from puffer_edge.train.nets.actor_critic import ActorCritic
from puffer_edge.train.rollout import Rollout
from puffer_edge.train.settings import PPOSettings

STATISTICS = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one update, B of them.

    Attributes:
        inputs: (B, n) normalised observations.
        action: (B,) choices or (B, m) outputs that were sampled.
        log_prob: (B,) their log-probability when they were sampled.
        advantage: (B,).
        returns: (B,) what the critic learns.
    """

    inputs: torch.Tensor
    action: torch.Tensor
    log_prob: torch.Tensor
    advantage: torch.Tensor
    returns: torch.Tensor

    def __getitem__(self, rows: torch.Tensor) -> Batch:
        return Batch(self.inputs[rows], self.action[rows], self.log_prob[rows], self.advantage[rows], self.returns[rows])


def loss(net: ActorCritic, batch: Batch, settings: PPOSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """What a gradient step minimises, −L of eq. 9.

    Returns:
        the loss; (5,) ``STATISTICS``, detached.
    """
    policy = net.distribution(batch.inputs)
    log_ratio = policy.log_prob(batch.action) - batch.log_prob
    ratio = log_ratio.exp()
    advantage = (batch.advantage - batch.advantage.mean()) / (batch.advantage.std() + 1e-8)
    clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
    policy_loss = -torch.min(ratio * advantage, clipped * advantage).mean()
    value_loss = (net.value(batch.inputs) - batch.returns).square().mean()
    entropy = policy.entropy().mean()
    with torch.no_grad():
        approx_kl = (ratio - 1 - log_ratio).mean()
        clip_fraction = (ratio != clipped).float().mean()
        statistics = torch.stack([policy_loss, value_loss, entropy, approx_kl, clip_fraction])
    return policy_loss + settings.value_weight * value_loss - settings.entropy_weight * entropy, statistics


class PPO(Learner):
    """PPO on a plant: ``PPO(environment).learn()``, then ``policy()``."""

    name = "ppo"

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Several epochs of gradient steps on one rollout."""
        settings, batch, explained = self.settings, *self._batch(rollout)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * (max(0.0, 1 - self.steps / settings.steps) if settings.anneal else 1.0)
        size, seen = len(batch.inputs), []
        for _ in range(settings.epochs):
            order = torch.from_numpy(self.shuffle_rng.permutation(size))
            for rows in torch.split(order, settings.minibatch):
                if len(rows) < 2:  # a lone sample has no standard deviation
                    continue
                value, statistics = loss(self.net, batch[rows], settings)
                self.optimizer.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(self.net.parameters(), settings.max_grad_norm)
                self.optimizer.step()
                seen.append(statistics)
            if settings.target_kl is not None and seen[-1][3] > 1.5 * settings.target_kl:
                break
        means = torch.stack(seen).double().mean(0).tolist()
        return dict(zip(STATISTICS, means)) | {"explained_variance": explained, "learning_rate": self.optimizer.param_groups[0]["lr"]}

    def _batch(self, rollout: Rollout) -> tuple[Batch, float]:
        """The rollout as one batch, and how much of the returns' variance the critic explained (NaN where they have none)."""
        settings, shape = self.settings, rollout.reward.shape
        inputs = self.inputs(rollout.observation.reshape(-1, rollout.observation.shape[-1]))
        action = torch.from_numpy(rollout.action.reshape(shape[0] * shape[1], *rollout.action.shape[2:]).copy())
        with torch.no_grad():
            log_prob = self.net.distribution(inputs).log_prob(action)
            value = self.net.value(inputs).double().numpy().reshape(shape)
            final_inputs = self.inputs(rollout.final_observation.reshape(-1, rollout.observation.shape[-1]))
            final_value = self.net.value(final_inputs).double().numpy().reshape(shape)
        reward = rollout.reward / self.reward_scale.scale if self.reward_scale else rollout.reward
        advantage, returns = advantages(reward, value, final_value, rollout.terminated, rollout.truncated, settings.discount, settings.trace_decay)
        spread = float(returns.var())
        explained = 1 - float((returns - value).var()) / spread if spread > 0 else float("nan")
        flat = [torch.from_numpy(x.ravel().astype(np.float32)) for x in (advantage, returns)]
        return Batch(inputs, action, log_prob, *flat), explained
