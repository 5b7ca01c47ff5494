"""What on-policy algorithms share: networks of actor and critic, and a rollout that is collected and then learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from puffer_edge.errors import Diverged, InvalidInput, Unsupported
from puffer_edge.spaces import Bools, Floats
from puffer_edge.train.distributions import Distribution
from puffer_edge.train.loop import Learner, Lived
from puffer_edge.train.native.learner import Experience, NativeEngine, kernels_for
from puffer_edge.train.nets.actor_critic import ActorCritic
from puffer_edge.train.normalize import RewardScale
from puffer_edge.train.rollout import Rollout
from puffer_edge.train.settings import PPOSettings


class OnPolicy(Learner):
    """A learner that forgets each rollout once it has learnt from it. An algorithm adds ``update``."""

    losses = ("policy_loss", "value_loss")
    settings: PPOSettings
    native: NativeEngine | None

    def update(self, rollout: Rollout | Experience) -> dict[str, float]:
        """Learn from one rollout; returns statistics by name."""
        raise NotImplementedError

    def _advance(self) -> tuple[Lived, dict[str, float]]:
        rollout = self._collect()
        return rollout, self.update(rollout)

    def _networks(self, seed: int) -> tuple[nn.Module, str]:
        contract, s = self.environment.contract, self.settings
        if self.network is not None:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                return self.network(contract, s), "torch"
        net = ActorCritic(contract, s.hidden, s.activation, s.log_std, torch.Generator().manual_seed(seed), s.exploration, s.shared)
        net.kernels = kernels_for(contract, s) if s.engine != "native" else None
        return net, net.kernels.variant if net.kernels else "torch"

    def _optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.net.parameters(), lr=self.settings.learning_rate, eps=1e-5, fused=True)

    def _make_native(self, seed: int) -> NativeEngine:
        if not isinstance(self.net, ActorCritic):
            raise Unsupported("a network of your own is torch's")
        return NativeEngine(self.environment, self.settings, self.shield, seed, self.net.flat.numpy())

    def _prepare(self, seed: int) -> None:
        s, rows = self.settings, self.settings.rows * self.environment.agents
        self.reward_scale = RewardScale(rows, s.discount) if s.scale_reward else None
        self.control = {"kl_weight": s.kl_weight, "rate_factor": 1.0}
        self._rollout = Rollout(
            self.environment.contract, *((1, 1) if self.native else (s.horizon, rows)), masked=self.environment.allowed is not None
        )

    def own_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Moments of the rewards."""
        if self.reward_scale is None:
            return {}
        m = self.reward_scale.moments
        return {"reward.moments": np.array([m.count, m.mean, m.m2]), "reward.returns": self.reward_scale.returns}

    def load_own(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what ``own_arrays`` gave."""
        if self.reward_scale is not None:
            m = self.reward_scale.moments
            m.count, m.mean, m.m2 = float(arrays["reward.moments"][0]), arrays["reward.moments"][1], arrays["reward.moments"][2]
            self.reward_scale.returns = arrays["reward.returns"]

    def _take_in(self, seen: Floats) -> None:
        if self.native is not None:
            self.moments.merge(len(seen), *self.native.engine.moments(seen))
        else:
            self.moments.update(seen)

    def _distribution(self, observation: Floats, allowed: Bools | None) -> Distribution:
        inputs = self.inputs(observation)
        masks = () if allowed is None else (torch.from_numpy(allowed),)
        if isinstance(self.net, ActorCritic):
            return self.net.distribution(inputs, *masks)
        policy: Distribution = self.net(inputs, *masks)[0]
        return policy

    def _collect(self) -> Rollout | Experience:
        if self.native is None:
            rollout: Rollout | Experience = self._collect_in_torch()
        else:
            rollout = self.native.collect(self._normalizer)
            self.recent_returns.extend(rollout.returns.tolist())
            self.recent_lengths.extend(rollout.lengths.tolist())
        if rollout.alive.sum() < (2 if self.settings.normalize_advantage else 1):
            raise InvalidInput(
                f"{self.environment.name}: its agents acted {rollout.alive.sum()} times in {self.settings.horizon} steps of {self.settings.rows} "
                "environments: there is nothing to learn from; take a longer horizon or more rows"
            )
        if self.reward_scale is not None:
            self.reward_scale.update(rollout.reward, rollout.terminated | rollout.truncated, rollout.alive)
        return rollout

    def _collect_in_torch(self) -> Rollout:
        rollout, plant = self._rollout, self.plant
        assert plant is not None
        observation, allowed = self.environment.contract.physical_observation(plant.last), plant.allowed
        for t in range(self.settings.horizon):
            with torch.inference_mode():
                action = self._sample(self._distribution(observation, allowed))
            lengths = np.repeat(plant.elapsed + 1, self.environment.agents)
            step = plant.step(self.physical(action))
            rollout.write(t, observation, allowed, action, step)
            self.episode_return += step.reward
            for row in np.flatnonzero(step.alive & (step.terminated | step.truncated)):
                self.recent_returns.append(float(self.episode_return[row]))
                self.recent_lengths.append(int(lengths[row]))
                self.episode_return[row] = 0.0
            if self.held_noise is not None:
                self.held_noise.end(step.terminated | step.truncated)
            observation, allowed = step.observation, step.allowed
        if not np.isfinite(rollout.reward).all():
            raise Diverged(f"{self.environment.name} gave a reward that is NaN or infinite near step {self.steps}")
        return rollout
