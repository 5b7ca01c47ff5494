"""What on-policy algorithms share: networks of actor and critic, and a rollout that is collected and then learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from puffer_edge.envs import closed_loop
from puffer_edge.envs.plant import Plant, StepResult
from puffer_edge.errors import Diverged, InvalidInput, Unsupported
from puffer_edge.integer.reference import InFloat, Proposer
from puffer_edge.policy import Policy
from puffer_edge.spaces import Bools, Floats
from puffer_edge.train import learner_state, vector
from puffer_edge.train.distributions import Distribution
from puffer_edge.train.integers import Integers
from puffer_edge.train.loop import Learner, Lived
from puffer_edge.train.native.learner import Experience, NativeEngine, kernels_for
from puffer_edge.train.nets.actor_critic import ActorCritic
from puffer_edge.train.normalize import RewardScale
from puffer_edge.train.rollout import Rollout
from puffer_edge.train.settings import PPOSettings
from puffer_edge.train.vector.asynchronous import Fleet, Sent

CALIBRATION_EPISODES = 32
"""Of the float policy, before it goes on in integers."""


class OnPolicy(Learner):
    """A learner that forgets each rollout once it has learnt from it. An algorithm adds ``update``."""

    losses = ("policy_loss", "value_loss")
    settings: PPOSettings
    native: NativeEngine | None

    def update(self, rollout: Rollout | Experience) -> dict[str, float]:
        """Learn from one rollout; returns statistics by name."""
        raise NotImplementedError

    def _advance(self) -> tuple[Lived, dict[str, float]]:
        s = self.settings
        if s.qat != "none" and self.integers is None and self.steps >= s.qat_from * s.steps:
            self.go_on_in_integers()
        with self.phases("collect"):
            rollout = self._collect()
        with self.phases("update"):
            statistics = self.update(rollout)
        return rollout, statistics

    def _metrics(self, lived: Lived, statistics: Mapping[str, float], rate: float) -> dict[str, float]:
        if isinstance(self.plant, Fleet) and isinstance(lived, Rollout):
            statistics = {"policy_lag": float(lived.lag.mean()), "policy_lag_max": float(lived.lag.max()), **statistics}
        return super()._metrics(lived, statistics, rate)

    def _networks(self, seed: int) -> tuple[nn.Module, str]:
        contract, s = self.environment.contract, self.settings
        if self.network is not None:
            if s.qat != "none":
                raise Unsupported("quantisation-aware training knows the package's own dense actors, not a network of your own: leave out qat")
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
        if self.settings.qat != "none":
            raise Unsupported("quantisation-aware training is not in C")
        return NativeEngine(self.environment, self.settings, self.shield, seed, self.net.flat.numpy())

    def _prepare(self, seed: int) -> None:
        s, rows = self.settings, self.settings.rows * self.environment.agents
        self.integers: Integers | None = None
        self.reward_scale = RewardScale(rows, s.discount) if s.scale_reward else None
        self.control = {"kl_weight": s.kl_weight, "rate_factor": 1.0}
        self._rollout = Rollout(
            self.environment.contract,
            *((1, 1) if self.native else (s.horizon, rows)),
            masked=self.environment.allowed is not None,
            asynchronous=isinstance(self.plant, Fleet),
        )

    def _make_plant(self, seed: int) -> Plant | Fleet:
        s = self.settings
        world = self._world()
        if s.vector != "asynchronous":
            return Plant(self.environment, s.rows, seed, self.shield, world)
        if not isinstance(world, vector.Processes):
            raise Unsupported(f"{self.environment.name} cannot be stepped asynchronously: it does not live in processes")
        return Fleet(self.environment, seed, self.shield, world, s.batch)

    def own_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Moments of the rewards, and what integers are calibrated on."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        if self.reward_scale is not None:
            m = self.reward_scale.moments
            arrays |= {"reward.moments": np.array([m.count, m.mean, m.m2]), "reward.returns": self.reward_scale.returns}
        if self.integers is not None:
            arrays |= {"integers.observations": self.integers.observations, "integers.starts": self.integers.starts}
        return arrays

    def load_own(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what ``own_arrays`` gave."""
        if self.reward_scale is not None:
            m = self.reward_scale.moments
            m.count, m.mean, m.m2 = float(arrays["reward.moments"][0]), arrays["reward.moments"][1], arrays["reward.moments"][2]
            self.reward_scale.returns = arrays["reward.returns"]
        if self.settings.qat != "none" and "integers.observations" in arrays:
            self._in_integers(arrays["integers.observations"], arrays["integers.starts"])

    def take_over(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        learner_state.load_networks(self, arrays)
        if "reward.moments" in arrays:
            self.load_own({"reward.moments": arrays["reward.moments"], "reward.returns": np.zeros(self.settings.rows * self.environment.agents)})
        self.refresh()
        if self.settings.qat != "none":
            self.go_on_in_integers()

    def go_on_in_integers(self) -> None:
        """From here on act and learn in the integers of ``settings.qat``, calibrated on episodes of the policy as it is now."""
        policy = self.policy()
        seed = int(np.random.SeedSequence([self.seed, 2]).generate_state(1)[0])
        ints, starts = closed_loop.play(self.environment, InFloat(policy), self.shield, CALIBRATION_EPISODES, seed).calibration()
        self._in_integers(policy.contract.physical_observation(ints), starts)
        self.last_good = self.policy()

    def _in_integers(self, observations: Floats, starts: Bools) -> None:
        assert isinstance(self.net, ActorCritic)
        self.integers = self.net.integers = Integers(super().policy, self.settings.qat, observations, starts)

    @property
    def calibration(self) -> tuple[Floats, Bools] | None:
        return None if self.integers is None else (self.integers.observations, self.integers.starts)

    def refresh(self) -> None:
        if self.integers is not None:
            self.integers.forget()  # the normaliser is about to change
        super().refresh()

    def inputs(self, observation: npt.NDArray[Any]) -> torch.Tensor:
        if self.integers is None:
            return super().inputs(observation)
        return torch.from_numpy(self.environment.contract.observe(observation)[0])

    def policy(self) -> Policy:
        policy = super().policy()
        if self.integers is None:
            return policy
        assert isinstance(self.net, ActorCritic)
        trained = {"profile": self.settings.qat, "digest": self.integers.program(self.net.flat).digest.hex()}
        return replace(policy, origin=policy.origin | {"integers": trained})

    def proposer(self, policy: Policy) -> Proposer:
        return self.integers.of(policy) if self.integers is not None and "integers" in policy.origin else super().proposer(policy)

    def _deployed(self, observation: Floats, allowed: Bools | None) -> Floats:
        if self.integers is None:
            return super()._deployed(observation, allowed)
        assert isinstance(self.net, ActorCritic)
        contract, rows = self.environment.contract, np.atleast_2d(observation)
        if allowed is None:
            action = contract.physical_action(self.integers.program(self.net.flat).run(contract.observe(rows)[0]))
        else:
            with torch.inference_mode():
                action = self.physical(self._distribution(rows, np.atleast_2d(allowed)).mode().numpy())
        return action.reshape(*observation.shape[:-1], -1)

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
        if isinstance(plant, Fleet):
            return self._collect_asynchronously(plant)
        assert plant is not None
        observation, allowed = self.environment.contract.physical_observation(plant.last), plant.allowed
        for t in range(self.settings.horizon):
            with self.phases("policy"), torch.inference_mode():
                action = self._sample(self._distribution(observation, allowed))
            with self.phases("environment"):
                step = plant.step(self.physical(action))
            rollout.write(t, observation, allowed, action, step)
            self._count(slice(None), plant, step)
            if self.held_noise is not None:
                self.held_noise.end(step.terminated | step.truncated)
            observation, allowed = step.observation, step.allowed
        return self._sound(rollout)

    def _collect_asynchronously(self, fleet: Fleet) -> Rollout:
        rollout = self._rollout

        def act(observation: Floats, allowed: Bools | None) -> tuple[npt.NDArray[Any], npt.NDArray[Any], Floats]:
            with torch.inference_mode():
                policy = self._distribution(observation, allowed)
                sampled = policy.sample(self.noise_rng)
                return sampled.numpy(), policy.log_prob(sampled).numpy(), self.physical(sampled.numpy())

        def write(t: int, rows: slice, sent: Sent, lag: int, plant: Plant, step: StepResult) -> None:
            rollout.write(t, sent.observation, sent.allowed, sent.action, step, rows)
            assert rollout.log_prob is not None
            rollout.log_prob[t, rows], rollout.lag[t, rows] = sent.log_prob, lag
            self._count(rows, plant, step)

        fleet.collect(self.settings.horizon, act, write)
        return self._sound(rollout)

    def _sound(self, rollout: Rollout) -> Rollout:
        if not np.isfinite(rollout.reward).all():
            t, row = np.argwhere(~np.isfinite(rollout.reward))[0].tolist()
            found = rollout.reward[t, row]
            raise Diverged(f"{self.environment.name} gave the reward {found} in row {row}, step {t} of the horizon that began at step {self.steps}")
        return rollout
