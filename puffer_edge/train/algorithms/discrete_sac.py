"""Soft actor-critic for choices (Christodoulou, 2019, arXiv 1910.07207).

    V(s) = π(s)ᵀ[min_j Q'_j(s) − α·log π(s)]                  eq. 10
    J_Q = E[½ Σ_j (Q_j(s)[a] − r − γ·V(s'))²]                 eq. 4 and 5
    J_π = E[π(s)ᵀ(α·log π(s) − min_j Q_j(s))]                 eq. 12
    J_α = log α·(E[H(π(s))] − H̄)                              eq. 11

A network gives a value for every choice at once, so what SAC draws a sample of is here the mean over the choices itself. Replay, targets,
schedule and what is said of them are those of ``puffer_edge/train/algorithms/sac.py``.

Differences from the paper: those of SAC, and H̄ is 0.5·log k of k choices where the paper takes 0.98·log k, which leaves the policy all but
uniform; ``target_entropy`` sets another one.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from puffer_edge.envs.environment import Environment
from puffer_edge.errors import Unsupported
from puffer_edge.spaces import Bools, Floats
from puffer_edge.train.algorithms.sac import SAC, Batch, differentiate
from puffer_edge.train.distributions import Distribution
from puffer_edge.train.native.sac_learner import NativeSAC
from puffer_edge.train.nets.soft_actor_critic import SoftActorCritic

ENTROPY_SHARE = 0.5
"""H̄ of the entropy of a policy that does not care."""


def losses(net: SoftActorCritic, batch: Batch, target_entropy: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What one step minimises: each loss by its own parameters.

    Args:
        net: networks and targets.
        batch: B samples; ``action`` is (B, 1), the choice.
        target_entropy: H̄.

    Returns:
        the critics' loss, the actor's, the temperature's; (6,) SAC's ``STATISTICS``, detached.
    """
    alpha = net.log_temperature.detach().exp()[0]
    now, following = batch.acted_on
    with torch.no_grad():
        log_next = torch.log_softmax(net.choices(following).logits, -1)
        worth = net.target.outputs(batch.following).min(0).values - alpha * log_next
        y = batch.reward + batch.weight * (log_next.exp() * worth).sum(-1)
    values = net.critic.outputs(batch.inputs)
    chosen = values.gather(-1, batch.action.long().expand(2, -1, -1))[..., 0]
    critic_loss = 0.5 * (chosen - y).square().sum(0).mean()
    log_now = torch.log_softmax(net.choices(now).logits, -1)
    actor_loss = (log_now.exp() * (alpha * log_now - values.detach().min(0).values)).sum(-1).mean()
    entropy = -(log_now.exp() * log_now).sum(-1).detach().mean()
    temperature_loss = net.log_temperature[0] * (entropy - target_entropy)
    found = [critic_loss, actor_loss, temperature_loss, entropy, alpha, chosen.mean()]
    return critic_loss, actor_loss, temperature_loss, torch.stack([x.detach() for x in found])


class DiscreteSAC(SAC):
    """SAC on a plant that is driven by choices: ``DiscreteSAC(environment).learn()``, then ``policy()``."""

    name = "discrete-sac"
    masks = False

    def _task(self, environment: Environment) -> Environment:
        if (head := environment.contract.head) != "discrete":
            other = "sac, or PPO" if head in ("clip", "tanh") else "PPO"
            raise Unsupported(f"discrete-sac makes one choice a step, and the head of {environment.name} is {head!r}: train it with {other}")
        if environment.agents > 1 or environment.allowed is not None:
            what = f"has {environment.agents} agents" if environment.agents > 1 else "masks choices"
            raise Unsupported(f"discrete-sac trains one agent that may choose anything, {environment.name} {what}: train it with PPO")
        return environment

    def _make_native(self, seed: int) -> NativeSAC:
        raise Unsupported("discrete-sac has no native form")

    @property
    def _target_entropy(self) -> float:
        wanted = self.settings.target_entropy
        return ENTROPY_SHARE * math.log(self.environment.contract.n_outputs) if wanted is None else wanted

    def _propose(self, observation: Floats) -> npt.NDArray[np.float32]:
        """(N, 1) choices: uniform at first, then sampled."""
        s = self.settings
        if self._explores_anyhow:
            return self.noise_rng.integers(self.environment.contract.n_outputs, size=(s.rows, 1)).astype(np.float32)
        with torch.inference_mode():
            return self._sample(self._distribution(observation, None))[:, None].astype(np.float32)

    def _applied(self, action: npt.NDArray[np.float32]) -> Floats:
        return self.physical(action[:, 0].astype(np.int64))

    def _differentiate(self, batch: Batch) -> torch.Tensor:
        return differentiate(self.net, *losses(self.net, batch, self._target_entropy))

    def _distribution(self, observation: Floats, allowed: Bools | None) -> Distribution:
        return self.net.choices(self.inputs(observation))
