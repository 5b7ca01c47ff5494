"""Proximal policy optimisation (Schulman et al., 2017, arXiv 1707.06347), the clipped form.

    r(θ) = π_θ(a | s) / π_old(a | s)
    L_CLIP = E[min(r·A, clip(r, 1 − ε, 1 + ε)·A)]          eq. 7
    L = L_CLIP − c₁·E[(V_θ(s) − R)²] + c₂·E[entropy]        eq. 9, maximised
    A by generalised advantage estimation                   eq. 11, ``puffer_edge/train/advantages.py``

Differences from the paper:

- actor and critic share no weights;
- advantages are normalised to mean 0 and standard deviation 1 within each minibatch, unless ``normalize_advantage`` is off;
- observations are whitened by running moments; rewards are divided by the running deviation of the return where ``scale_reward`` is set;
- the gradient's norm is clipped; learning rate and entropy bonus follow their schedules, ε stays;
- ``value_loss`` names the critic's loss: the paper's, "clipped" around the old value (as in OpenAI's baselines), or "clamped" (as in RLlib);
- ``dual_clip`` bounds the objective where the advantage is negative (Ye et al., 2020, arXiv 1912.09729, eq. 5);
- ``target_kl`` acts in one of three ways, ``kl_control``. The KL is always E[r − 1 − log r] over the sampled actions, an estimate of
  KL(π_old ‖ π_θ) without bias and never negative (Schulman, 2020);
- an episode that the clock ends bootstraps from the observation before the reset;
- with ``memory`` a minibatch is whole sequences, each of which starts from the memory that the policy had there.

With a shield, probabilities belong to what the policy proposed, rewards to what was applied.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from puffer_edge.errors import Unsupported
from puffer_edge.train.distributions import Distribution
from puffer_edge.train.native.learner import Experience, NativeEngine, cells_library, kernels_for
from puffer_edge.train.nets.actor_critic import ActorCritic
from puffer_edge.train.nets.recurrent import RecurrentActorCritic
from puffer_edge.train.on_policy import Batch, OnPolicy
from puffer_edge.train.rollout import Rollout
from puffer_edge.train.settings import PPOSettings

STATISTICS = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")
KL = STATISTICS.index("approx_kl")
RATES = (1e-5, 1e-2)
"""Bounds of a learning rate that the KL steers."""


def kl_factor(kl: float, target: float) -> float:
    """What the penalty's weight is multiplied by after an update (Schulman et al., 2017, section 4)."""
    return 2.0 if kl > 1.5 * target else 0.5 if kl < target / 1.5 else 1.0


def rate_step(kl: float, target: float) -> float:
    """What the learning rate is multiplied by after an epoch, for "learning_rate"."""
    return 1 / 1.5 if kl > 2 * target else 1.5 if kl < target / 2 else 1.0


@dataclass(frozen=True)
class Weights:
    """What the parts of the loss weigh at this moment.

    Attributes:
        entropy: of the entropy bonus, c₂.
        kl: of the KL penalty, β; 0 without one.
    """

    entropy: float = 0.0
    kl: float = 0.0


def loss(net: nn.Module, batch: Batch, settings: PPOSettings, weights: Weights) -> tuple[torch.Tensor, torch.Tensor]:
    """What a gradient step minimises, −L of eq. 9; advantages are taken as they are.

    Returns:
        the loss; (5,) ``STATISTICS``, detached.
    """
    policy, value = outputs(net, batch)
    batch = batch.samples()
    log_ratio = policy.log_prob(batch.action) - batch.log_prob
    ratio, advantage = log_ratio.exp(), batch.advantage
    clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
    objective = torch.min(ratio * advantage, clipped * advantage)
    if settings.dual_clip is not None:
        objective = torch.where(advantage < 0, torch.max(objective, settings.dual_clip * advantage), objective)
    policy_loss = -objective.mean()
    value_loss = critic_loss(value, batch, settings)
    entropy, kl = policy.entropy().mean(), (ratio - 1 - log_ratio).mean()
    with torch.no_grad():
        clip_fraction = (ratio != clipped).float().mean()
        statistics = torch.stack([policy_loss, value_loss, entropy, kl, clip_fraction])
    total = policy_loss + settings.value_weight * value_loss - weights.entropy * entropy
    return (total + weights.kl * kl if weights.kl else total), statistics


def outputs(net: nn.Module, batch: Batch) -> tuple[Distribution, torch.Tensor]:
    """What the networks say of a batch's samples, in their order: the policy, and values."""
    found: tuple[Distribution, torch.Tensor] = net(batch.inputs, *(x for x in (batch.past, batch.allowed) if x is not None))
    return found


def critic_loss(value: torch.Tensor, batch: Batch, settings: PPOSettings) -> torch.Tensor:
    """The value loss of (B,) values, in the form that ``settings.value_loss`` names."""
    squared = (value - batch.returns).square()
    if settings.value_loss == "clipped":
        near = batch.value + (value - batch.value).clamp(-settings.value_clip, settings.value_clip)
        squared = torch.max(squared, (near - batch.returns).square())
    elif settings.value_loss == "clamped":
        squared = squared.clamp(max=settings.value_clip)
    return squared.mean()


class PPO(OnPolicy):
    """PPO on a plant: ``PPO(environment).learn()``, then ``policy()``."""

    name = "ppo"
    remembers = True
    settings: PPOSettings

    def _networks(self, seed: int) -> tuple[nn.Module, str]:
        contract, s = self.environment.contract, self.settings
        if self.network is not None:
            if s.memory != "none":
                raise Unsupported(f"memory {s.memory!r} is of the package's own networks: leave out network=, or memory")
            if s.qat != "none":
                raise Unsupported("quantisation-aware training knows the package's own dense actors, not a network of your own: leave out qat")
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                return self.network(contract, s), "torch"
        generator = torch.Generator().manual_seed(seed)
        if s.memory != "none":
            library = cells_library(s)
            return RecurrentActorCritic(contract, s, generator, library), library.variant if library else "torch"
        net = ActorCritic(contract, s.hidden, s.activation, s.log_std, generator, s.exploration, s.shared, s.image, s.filters)
        net.kernels = kernels_for(contract, s) if s.engine != "native" else None
        return net, net.kernels.variant if net.kernels else "torch"

    def _make_native(self, seed: int) -> NativeEngine:
        if isinstance(self.net, RecurrentActorCritic):
            raise Unsupported(f"memory {self.settings.memory!r} is of the torch engine")
        if not isinstance(self.net, ActorCritic):
            raise Unsupported("a network of your own is torch's")
        if self.settings.qat != "none":
            raise Unsupported("quantisation-aware training is not in C")
        return NativeEngine(self.environment, self.settings, self.shield, seed, self.net.flat.numpy(), self._native_critic())

    def _prepare(self, seed: int) -> None:
        super()._prepare(seed)
        self.control = {"kl_weight": self.settings.kl_weight, "rate_factor": 1.0}

    def update(self, rollout: Rollout | Experience) -> dict[str, float]:
        """Several epochs of gradient steps on one rollout."""
        if isinstance(rollout, Experience):
            found = self._update_natively(rollout)
        else:
            found = self._update_in_torch(rollout)
        if self.settings.target_kl is not None and self.settings.kl_control == "penalty":
            self.control["kl_weight"] *= kl_factor(found["approx_kl"], self.settings.target_kl)
        return found | {"learning_rate": self.rate, "kl_weight": self._weights().kl}

    def _update_natively(self, experience: Experience) -> dict[str, float]:
        """In C: all epochs at once, or one by one where the KL steers the learning rate between them."""
        settings, weights = self.settings, self._weights()
        assert self.native is not None
        stop = 1.5 * settings.target_kl if settings.target_kl is not None and settings.kl_control == "stop" else 0.0
        scale = self.reward_scale.scale if self.reward_scale else 1.0
        steered = settings.target_kl is not None and settings.kl_control == "learning_rate"
        rates = {"entropy_weight": weights.entropy, "kl_weight": weights.kl, "stop_kl": stop}
        found: dict[str, float] = {}
        for epochs in [1] * settings.epochs if steered else [settings.epochs]:
            found = self.native.update(experience, scale, rates | {"learning_rate": self.rate}, epochs, self.weigh)
            if steered:
                self._steer(found["epoch_kl"], 0.0)
        return {name: value for name, value in found.items() if name != "epoch_kl"}

    def _update_in_torch(self, rollout: Rollout) -> dict[str, float]:
        settings, batch, explained = self.settings, *self._batch(rollout)
        seen: list[torch.Tensor] = []
        for _ in range(settings.epochs):
            first = len(seen)
            order = torch.from_numpy(self.shuffle_rng.permutation(len(batch)))
            for rows in torch.split(order, settings.minibatch // settings.stretch):
                minibatch = batch[rows]
                if minibatch.size >= (2 if settings.normalize_advantage else 1):  # a lone sample has no standard deviation
                    seen.append(self._step(minibatch))
            if self._steer(torch.stack(seen[first:])[:, KL].double().mean().item(), seen[-1][KL].item()):
                break
        means = dict(zip(STATISTICS, torch.stack(seen).double().mean(0).tolist()))
        return means | {"explained_variance": explained}

    @property
    def rate(self) -> float:
        """The learning rate now."""
        rate = self.settings.learning_rate_at(self.steps)
        factor = self.control["rate_factor"]
        return rate if factor == 1.0 else min(max(rate * factor, RATES[0]), RATES[1])

    def _weights(self) -> Weights:
        s = self.settings
        penalty = s.target_kl is not None and s.kl_control == "penalty"
        return Weights(s.entropy_weight_at(self.steps), self.control["kl_weight"] if penalty else 0.0)

    def _step(self, batch: Batch) -> torch.Tensor:
        """One gradient step on a minibatch; its statistics."""
        settings, weights = self.settings, self._weights()
        batch = batch.normalized() if settings.normalize_advantage else batch
        statistics = torch.zeros(len(STATISTICS))
        self.optimizer.zero_grad()
        for rows in torch.arange(len(batch)).tensor_split(settings.accumulate):
            samples = batch[slice(int(rows[0]), int(rows[-1]) + 1)]
            share = samples.size / batch.size
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.amp):
                value, part = loss(self.net, samples, settings, weights)
            (share * value if settings.accumulate > 1 else value).backward()  # type: ignore[no-untyped-call]
            statistics += share * part
        nn.utils.clip_grad_norm_(self.net.parameters(), settings.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.optimizer.step()
        return statistics

    def _steer(self, mean_kl: float, last_kl: float) -> bool:
        """What ``target_kl`` does after an epoch; whether the update ends here."""
        settings = self.settings
        if settings.target_kl is None:
            return False
        if settings.kl_control == "stop":
            return last_kl > 1.5 * settings.target_kl
        if settings.kl_control == "learning_rate":
            self.control["rate_factor"] *= rate_step(mean_kl, settings.target_kl)
        return False
