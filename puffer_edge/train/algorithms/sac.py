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
- with ``normalize_observation`` observations are whitened by running moments: the replay holds what was observed, and a sample is whitened
  by the moments of the time when it is drawn;
- the learning rate follows its ``schedule``;
- an episode that the clock ends bootstraps from its true last observation;
- log π uses log(1 − tanh²u) = 2·(log 2 − u − softplus(−2u)), which keeps its digits where tanh u rounds to 1.

With a shield, actions and probabilities belong to what the policy proposed, rewards to what was applied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import softplus

from puffer_edge.envs.environment import Environment
from puffer_edge.errors import Diverged, InvalidInput, Unsupported
from puffer_edge.spaces import Bools, Floats
from puffer_edge.train.distributions import Distribution, Gaussian, StateDependent
from puffer_edge.train.in_integers import InIntegers
from puffer_edge.train.native.sac_learner import Horizon, NativeSAC
from puffer_edge.train.nets.soft_actor_critic import SoftActorCritic
from puffer_edge.train.progress import Lived
from puffer_edge.train.replay import Replay, size_bytes
from puffer_edge.train.sac_settings import SACSettings

MAX_REPLAY = 2**29
"""Bytes."""
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
        codes: both in the contract's fixed point, (B, n) int32 each, for an actor in integers.
    """

    inputs: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor
    weight: torch.Tensor
    following: torch.Tensor
    codes: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def acted_on(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``inputs`` and ``following`` as the actor takes them."""
        return (self.inputs, self.following) if self.codes is None else self.codes


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
    now, following = batch.acted_on
    with torch.no_grad():
        action, log_prob = squash(net.distribution(following), noise_next)
        y = batch.reward + batch.weight * (net.target(batch.following, action).min(0).values - alpha * log_prob)
    values = net.critic(batch.inputs, batch.action)
    critic_loss = 0.5 * (values - y).square().sum(0).mean()
    action, log_prob = squash(net.distribution(now), noise_now)
    actor_loss = (alpha * log_prob - net.critic(batch.inputs, action).min(0).values).mean()
    entropy = -log_prob.detach().mean()
    temperature_loss = net.log_temperature[0] * (entropy - target_entropy)
    found = [critic_loss, actor_loss, temperature_loss, entropy, alpha, values.mean()]
    return critic_loss, actor_loss, temperature_loss, torch.stack([x.detach() for x in found])


def gradients(net: SoftActorCritic, batch: Batch, noise_next: torch.Tensor, noise_now: torch.Tensor, target_entropy: float) -> torch.Tensor:
    """Put each loss's gradient by its own parameters into their ``grad``; returns the statistics of ``losses``."""
    return differentiate(net, *losses(net, batch, noise_next, noise_now, target_entropy))


def differentiate(
    net: SoftActorCritic, critic_loss: torch.Tensor, actor_loss: torch.Tensor, temperature_loss: torch.Tensor, statistics: torch.Tensor
) -> torch.Tensor:
    """Put each loss's gradient by its own parameters into their ``grad``; returns the statistics."""
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


class SAC(InIntegers):
    """SAC on a plant: ``SAC(environment).learn()``, then ``policy()``. A task whose head clips is trained with one that squashes."""

    name = "sac"
    settings: SACSettings
    net: SoftActorCritic
    native: NativeSAC | None

    def _task(self, environment: Environment) -> Environment:
        contract = environment.contract
        if contract.head not in ("clip", "tanh"):
            other = "discrete-sac, or PPO" if contract.head == "discrete" else "PPO"
            raise Unsupported(f"SAC drives numbers, and the head {contract.head!r} of {environment.name} chooses: train it with {other}")
        if environment.agents > 1:
            raise Unsupported(f"SAC trains one agent, {environment.name} has {environment.agents}: train them with PPO")
        return environment.under(replace(contract, head="tanh"))

    def _networks(self, seed: int) -> tuple[SoftActorCritic, str]:
        contract, s = self.environment.contract, self.settings
        if s.vector == "asynchronous":
            raise Unsupported("SAC steps its environments together: take vector = 'processes'")
        if self.network is not None:
            raise Unsupported("SAC trains the package's own networks: leave out network=")
        self._check_size()
        generator = torch.Generator().manual_seed(seed)
        return SoftActorCritic(contract, s.hidden, s.critic_widths, s.activation, s.exploration, s.log_std, s.temperature, generator), "torch"

    def _optimizer(self) -> torch.optim.Optimizer:
        learnt = [p for p in self.net.parameters() if p.requires_grad and (p is not self.net.log_temperature or self.settings.adapt_temperature)]
        return torch.optim.Adam(learnt, lr=self.settings.learning_rate)

    def _check_size(self) -> None:
        """See that the replay stays within what is kept in memory and in each checkpoint."""
        s, contract = self.settings, self.environment.contract
        if (size := size_bytes(s.replay, s.rows, contract.n_observations, contract.n_actions)) > MAX_REPLAY:
            raise InvalidInput(
                f"a replay of {s.replay:,} steps of {contract.n_observations} observations and {contract.n_actions} actions takes "
                f"{size / 2**20:,.0f} MiB, at most {MAX_REPLAY // 2**20} are kept: lower replay to {s.replay * MAX_REPLAY // size:,}"
            )

    def _make_native(self, seed: int) -> NativeSAC:
        if self.settings.qat != "none":
            raise Unsupported("training in integers (qat) is the torch engine's")
        flats = (self.net.flat.numpy(), self.net.target.flat.view(-1).numpy())
        return NativeSAC(self.environment, self.settings, self.shield, seed, *flats, self._target_entropy)

    def _prepare(self, seed: int) -> None:
        super()._prepare(seed)
        s, contract = self.settings, self.environment.contract
        self._seed, self._ticks, self._drawn = seed, 0, 0
        if self.plant is None:
            return
        self.replay = Replay(s.rows, s.replay, contract.n_observations, contract.n_actions)
        self.replay.see(np.arange(s.rows), contract.physical_observation(self.plant.last))

    @property
    def _target_entropy(self) -> float:
        return target_entropy_of(self.settings.target_entropy, self.environment.contract.n_actions)

    def own_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The replay, and how many steps were made and batches drawn; the native engine has them among its own."""
        if self.plant is None:
            return {}
        return (
            super().own_arrays()
            | {f"replay.{name}": x for name, x in self.replay.state().items()}
            | {"sac.counts": np.array([self._ticks, self._drawn])}
        )

    def load_own(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what ``own_arrays`` gave."""
        if self.plant is None:
            return
        super().load_own(arrays)
        self.replay.load({name.removeprefix("replay."): x for name, x in arrays.items() if name.startswith("replay.")})
        self._ticks, self._drawn = (int(x) for x in arrays["sac.counts"])

    def _advance(self) -> tuple[Lived, dict[str, float]]:
        s = self.settings
        self.begin_integers()
        if self.native is None:
            return self._advance_in_torch(s)
        with self.phases("update"):  # and the steps between, which take little
            lived, statistics, ended = self.native.advance(self._normalizer, s.learning_rate_at(self.steps))
        self._count_ended(*ended)
        return lived, statistics

    def _advance_in_torch(self, s: SACSettings) -> tuple[Lived, dict[str, float]]:
        plant, shape = self.plant, (s.horizon, s.rows)
        assert plant is not None
        for group in self.optimizer.param_groups:
            group["lr"] = s.learning_rate_at(self.steps)
        lived = Horizon(np.zeros((*shape, self.environment.contract.n_observations)), np.zeros(shape), np.zeros(shape), np.ones(shape, bool), 0.0)
        seen: list[torch.Tensor] = []
        acted = 0
        for t in range(s.horizon):
            observation = self.environment.contract.physical_observation(plant.last)
            with self.phases("policy"):
                action = self._propose(observation)
            with self.phases("environment"):
                step = plant.step(self._applied(action))
            if not np.isfinite(step.reward).all():
                raise Diverged(f"{self.environment.name} gave a reward that is NaN or infinite near step {self.steps}")
            self.replay.write(action, step.reward, step.cost, step.terminated, step.truncated, step.final_observation, step.observation)
            lived.observation[t], lived.reward[t], lived.cost[t] = observation, step.reward, step.cost
            acted += int((step.stages != 0).sum())
            self._count(slice(None), plant, step)
            if self.held_noise is not None:
                self.held_noise.end(step.terminated | step.truncated)
            self._ticks += 1
            if self._ticks * s.rows > s.warmup and self._ticks % s.every == 0:
                with self.phases("update"):
                    seen += [self._learn_once() for _ in range(s.updates)]
        means = torch.stack(seen).double().mean(0).tolist() if seen else [float("nan")] * len(STATISTICS)
        return replace(lived, intervention_rate=acted / lived.reward.size), dict(zip(STATISTICS, means))

    def _propose(self, observation: Floats) -> npt.NDArray[np.float32]:
        """(N, m) actions, −1 … 1: uniform at first, then sampled."""
        s = self.settings
        if self._explores_anyhow:
            return self.noise_rng.uniform(-1, 1, (s.rows, self.environment.contract.n_actions)).astype(np.float32)
        with torch.inference_mode():
            action: npt.NDArray[np.float32] = np.tanh(self._sample(self._distribution(observation, None)))
        return action

    @property
    def _explores_anyhow(self) -> bool:
        """Whether actions are drawn uniformly yet; a policy that was taken over fills the replay itself."""
        return self._ticks * self.settings.rows < self.settings.warmup and not self.fine_tuned

    def _applied(self, action: npt.NDArray[np.float32]) -> Floats:
        """(N, m) physical proposals of what ``_propose`` gave."""
        physical: Floats = self._offset + self._scale * action
        return physical

    def _learn_once(self) -> torch.Tensor:
        """One gradient step; its statistics."""
        s = self.settings
        sample = self.replay.sample(s.minibatch, self._seed, self._drawn, s.n_step, s.discount)
        self._drawn += 1
        action, reward, weight = (torch.from_numpy(np.asarray(x, np.float32)) for x in (sample.action, sample.reward, sample.weight))
        seen = sample.observation, sample.following
        inputs, following = (self.whitened(x) for x in seen)
        codes = None if self.integers is None else (self.inputs(seen[0]), self.inputs(seen[1]))
        batch = Batch(inputs, action, reward, weight, following, codes)
        statistics = self._differentiate(batch)
        self.optimizer.step()
        with torch.no_grad():
            self.net.target.flat.lerp_(self.net.critic.flat, s.target_rate)
        return statistics

    def _differentiate(self, batch: Batch) -> torch.Tensor:
        """Put the gradients of the losses into the parameters; returns the statistics."""
        shape = (len(batch.inputs), self.environment.contract.n_actions)
        return gradients(self.net, batch, normal(self.noise_rng, shape), normal(self.noise_rng, shape), self._target_entropy)

    def _distribution(self, observation: Floats, allowed: Bools | None) -> Distribution:
        return self.net.distribution(self.inputs(observation))
