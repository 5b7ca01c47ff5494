"""Trust region policy optimisation (Schulman et al., 2015, arXiv 1502.05477).

    L(θ) = E[π_θ(a | s) / π_old(a | s) · A]                              eq. 14
    max L(θ)  subject to  E[KL(π_old(·|s) ‖ π_θ(·|s))] ≤ δ
    x = √(2δ / gᵀH⁻¹g)·H⁻¹g,  g = ∇L,  H = ∇²E[KL]                       appendix C
    θ ← θ + αᵏ·x, with the least k whose L is no less and whose KL is at most δ
    A by generalised advantage estimation (Schulman et al., 2016)        ``puffer_edge/train/advantages.py``

Differences from the paper:

- ``damping`` is added to the diagonal of H, as in the authors' own code;
- KL and H are those of all samples of the update, not of a tenth of them;
- advantages are normalised to mean 0 and standard deviation 1 over the update, unless ``normalize_advantage`` is off: the step's direction
  is the same for any scale;
- the critic is fitted to the returns by Adam on minibatches, after the policy's step;
- observations are whitened by running moments; rewards are divided by the running deviation of the return where ``scale_reward`` is set;
- an episode that the clock ends bootstraps from the observation before the reset;
- samples of an earlier policy, which "asynchronous" stepping brings, are weighed by their own probability.

The KL is in closed form, that of a squashed Gaussian before the squashing, where it is the same. With a shield, probabilities belong to what
the policy proposed, rewards to what was applied.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from puffer_edge.errors import Unsupported
from puffer_edge.train import trust_region
from puffer_edge.train.distributions import Distribution
from puffer_edge.train.native.learner import Experience
from puffer_edge.train.nets.actor_critic import ActorCritic
from puffer_edge.train.on_policy import Batch, OnPolicy
from puffer_edge.train.rollout import Rollout
from puffer_edge.train.trust_region_settings import TRPOSettings


@dataclass(eq=False)
class Surroundings:
    """What is known of a policy's neighbours, from samples of it.

    Attributes:
        net: it moves.
        batch: B samples.
        old: the policy that it began as, at the samples.
    """

    net: ActorCritic
    batch: Batch
    old: Distribution = field(init=False)

    def __post_init__(self) -> None:
        with torch.no_grad():
            self.old = copy.deepcopy(self.now())  # a Gaussian's deviation is the net's own parameter, which moves

    def now(self) -> Distribution:
        """The policy as the network is now."""
        return self.net.distribution(self.batch.inputs, self.batch.allowed)

    def kl(self, policy: Distribution) -> torch.Tensor:
        """Mean KL divergence from the old policy to another."""
        return self.old.kl(policy).mean()  # type: ignore[arg-type]  # both are of the one net

    def gain(self, policy: Distribution, advantage: torch.Tensor) -> torch.Tensor:
        """L of another policy and (B,) advantages, eq. 14."""
        return ((policy.log_prob(self.batch.action) - self.batch.log_prob).exp() * advantage).mean()


class TRPO(OnPolicy):
    """TRPO on a plant: ``TRPO(environment).learn()``, then ``policy()``. It trains on the torch engine."""

    name = "trpo"
    settings: TRPOSettings
    net: ActorCritic

    def _networks(self, seed: int) -> tuple[nn.Module, str]:
        contract, s = self.environment.contract, self.settings
        if self.network is not None:
            raise Unsupported(f"{s.ALGORITHM} trains the package's own networks: leave out network=")
        return ActorCritic(contract, s.hidden, s.activation, s.log_std, torch.Generator().manual_seed(seed), s.exploration), "torch"

    def _optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.net.critic.parameters(), lr=self.settings.learning_rate, eps=1e-5, fused=True)

    @property
    def policy_parameters(self) -> list[torch.Tensor]:
        """What the trust region is about."""
        return [*self.net.actor.parameters(), *([self.net.log_std] if hasattr(self.net, "log_std") else [])]

    def update(self, rollout: Rollout | Experience) -> dict[str, float]:
        """One step of the policy within the region, then several epochs of the critic."""
        assert isinstance(rollout, Rollout)
        batch, explained = self._batch(rollout)
        found = self._improve(batch.normalized() if self.settings.normalize_advantage else batch)
        return found | {"value_loss": self._fit(batch), "explained_variance": explained, "learning_rate": self.rate}

    def _improve(self, batch: Batch) -> dict[str, float]:
        """Move the policy; statistics."""
        s, around = self.settings, Surroundings(self.net, batch)
        policy = around.now()
        before = around.gain(policy, batch.advantage)
        g = trust_region.gradient(before, self.policy_parameters)
        product = trust_region.hessian_product(around.kl(policy), self.policy_parameters, s.damping)
        step = trust_region.trpo_step(g, product, self.delta, s.solver_steps)
        return self._move(around, step.direction, [(batch.advantage, before.item(), 0.0)])

    def _move(self, around: Surroundings, direction: torch.Tensor, wanted: Sequence[tuple[torch.Tensor, float, float]]) -> dict[str, float]:
        """Search along a direction; statistics.

        Args:
            around: where the policy is.
            direction: (n,) of the policy's parameters.
            wanted: (B,) advantages, their L before, and by how much it may not fall short of that.
        """
        s = self.settings
        found = {"kl": 0.0}

        def accept() -> bool:
            with torch.no_grad():
                policy = around.now()
                kl, gains = around.kl(policy).item(), [around.gain(policy, advantage).item() - before for advantage, before, _ in wanted]
            within = kl <= self.delta and all(gain >= -slack for gain, (_, _, slack) in zip(gains, wanted))  # never where one is NaN
            if within:
                found["kl"] = kl
            return within

        share = trust_region.line_search(self.policy_parameters, direction, accept, s.search_steps, s.search_decay)
        with torch.no_grad():
            loss = -around.gain(around.now(), wanted[0][0]).item() if np.isfinite(direction.sum().item()) else float("nan")
            return {"policy_loss": loss, "entropy": around.old.entropy().mean().item(), **found, "step_share": share}

    @property
    def delta(self) -> float:
        """δ now."""
        return self.settings.target_kl_at(self.steps)

    @property
    def rate(self) -> float:
        """The critic's learning rate now."""
        return self.settings.learning_rate_at(self.steps)

    def _fit(self, batch: Batch) -> float:
        """Fit the critic to the returns; its mean loss."""
        s, seen = self.settings, []
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        for _ in range(s.epochs):
            for rows in torch.split(torch.from_numpy(self.shuffle_rng.permutation(len(batch))), s.minibatch):
                loss = (self.net.value(batch.inputs[rows]) - batch.returns[rows]).square().mean()
                self.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(self.net.critic.parameters(), s.max_grad_norm)
                self.optimizer.step()
                seen.append(loss.detach())
        return torch.stack(seen).double().mean().item()
