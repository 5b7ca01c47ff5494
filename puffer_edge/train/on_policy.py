"""What on-policy algorithms share: networks of actor and critic, and a rollout that is collected and then learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from puffer_edge.envs.plant import Plant, StepResult
from puffer_edge.errors import Diverged, InvalidInput, Unsupported
from puffer_edge.spaces import Bools, Floats
from puffer_edge.train import vector
from puffer_edge.train.advantages import advantages
from puffer_edge.train.distributions import Distribution
from puffer_edge.train.in_integers import InIntegers
from puffer_edge.train.native.learner import Experience, NativeEngine
from puffer_edge.train.nets.actor_critic import ActorCritic
from puffer_edge.train.nets.recurrent import Past, RecurrentActorCritic
from puffer_edge.train.normalize import RewardScale
from puffer_edge.train.progress import Lived
from puffer_edge.train.rollout import Rollout
from puffer_edge.train.settings import OnPolicySettings
from puffer_edge.train.vector.asynchronous import Fleet, Sent

OF_EPISODES = ("memory", "reward.returns")
"""Of ``own_arrays``, what belongs to the episodes at hand."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one update, B of them; with memory S sequences of L steps, and (S, L, …) in the place of (B, …).

    Attributes:
        inputs: (B, n) normalised observations.
        action: (B,) choices or (B, m) outputs that were sampled.
        log_prob: (B,) their log-probability when they were sampled.
        value: (B,) what the critic said then.
        advantage: (B,).
        returns: (B,) what the critic learns.
        allowed: (B, n_outputs) bool, the choices that could be taken; None where all could.
        past: what the sequences begin with; None without memory.
    """

    inputs: torch.Tensor
    action: torch.Tensor
    log_prob: torch.Tensor
    value: torch.Tensor
    advantage: torch.Tensor
    returns: torch.Tensor
    allowed: torch.Tensor | None = None
    past: Past | None = None

    def __getitem__(self, rows: torch.Tensor | slice) -> Batch:
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: x[rows] for name, x in held.items() if x is not None})

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def size(self) -> int:
        """How many samples."""
        return len(self.samples().advantage)

    def samples(self) -> Batch:
        """The same without memory, one sample after the other."""
        if self.past is None:
            return self
        held = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "past"}
        return replace(self, past=None, **{name: self.past.samples(x) for name, x in held.items() if x is not None})

    def normalized(self) -> Batch:
        """The same with advantages of mean 0 and standard deviation 1."""
        seen = self.samples().advantage
        return replace(self, advantage=(self.advantage - seen.mean()) / (seen.std() + 1e-8))


class OnPolicy(InIntegers):
    """A learner that forgets each rollout once it has learnt from it. An algorithm adds ``update``."""

    losses: tuple[str, ...] = ("policy_loss", "value_loss")
    settings: OnPolicySettings
    native: NativeEngine | None

    def update(self, rollout: Rollout | Experience) -> dict[str, float]:
        """Learn from one rollout; returns statistics by name."""
        raise NotImplementedError

    def weigh(self, advantage: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What the policy learns from the (T, N) reward advantages of the rollout at hand: these, where nothing else counts."""
        return advantage

    def _advance(self) -> tuple[Lived, dict[str, float]]:
        self.begin_integers()
        with self.phases("collect"):
            rollout = self._collect()
        with self.phases("update"):
            statistics = self.update(rollout)
        return rollout, statistics

    def _metrics(self, lived: Lived, statistics: Mapping[str, float], rate: float) -> dict[str, float]:
        if isinstance(self.plant, Fleet) and isinstance(lived, Rollout):
            statistics = {"policy_lag": float(lived.lag.mean()), "policy_lag_max": float(lived.lag.max()), **statistics}
        return super()._metrics(lived, statistics, rate)

    def _optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.net.parameters(), lr=self.settings.learning_rate, eps=1e-5, fused=True)

    def _native_critic(self) -> tuple[tuple[int, ...], npt.NDArray[np.float32], int] | None:
        """Hidden widths, flat buffer and seed of a critic of costs in C; None without one."""
        return None

    def _prepare(self, seed: int) -> None:
        super()._prepare(seed)
        s, rows = self.settings, self.settings.rows * self.environment.agents
        self.reward_scale = RewardScale(rows, s.discount) if s.scale_reward else None
        self._rollout = Rollout(
            self.environment.contract,
            *((1, 1) if self.native else (s.horizon, rows)),
            masked=self.environment.allowed is not None or s.shield_mask,
            asynchronous=isinstance(self.plant, Fleet),
            memory=self.net.memory if isinstance(self.net, RecurrentActorCritic) else 0,
            stretch=1 if self.native else s.stretch,
        )
        self.memory = self._rollout.start.copy()

    def _make_plant(self, seed: int) -> Plant | Fleet:
        s = self.settings
        world = self._world()
        if s.vector != "asynchronous":
            return Plant(self.environment, s.rows, seed, self.shield, world, s.interventions)
        if not isinstance(world, vector.Processes):
            raise Unsupported(f"{self.environment.name} cannot be stepped asynchronously: it does not live in processes")
        return Fleet(self.environment, seed, self.shield, world, s.batch, s.interventions)

    def own_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Moments of the rewards, and memory."""
        arrays: dict[str, npt.NDArray[Any]] = {"memory": self.memory} if self.memory.size else {}
        if self.reward_scale is not None:
            m = self.reward_scale.moments
            arrays |= {"reward.moments": np.array([m.count, m.mean, m.m2]), "reward.returns": self.reward_scale.returns}
        return super().own_arrays() | arrays

    def load_own(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what ``own_arrays`` gave."""
        super().load_own(arrays)
        if self.reward_scale is not None:
            m = self.reward_scale.moments
            m.count, m.mean, m.m2 = float(arrays["reward.moments"][0]), arrays["reward.moments"][1], arrays["reward.moments"][2]
            self.reward_scale.returns = arrays["reward.returns"]
        if self.memory.size and self.environment.pure:  # what lives begins new episodes
            self.memory = arrays["memory"]

    def take_over(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on with the networks and normalisers of another training's checkpoint; what episodes left behind begins anew."""
        fresh = self.own_arrays()
        self.load_own(fresh | {key: arrays[key] for key in fresh if key in arrays and key not in OF_EPISODES})
        super().take_over(arrays)

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

    def _recall(self, observation: Floats, allowed: Bools | None, memory: Floats) -> tuple[Distribution, Floats]:
        if not isinstance(self.net, RecurrentActorCritic):
            return super()._recall(observation, allowed, memory)
        masks = () if allowed is None else (torch.from_numpy(allowed),)
        policy, _, after = self.net.step(self.inputs(observation), torch.from_numpy(memory.astype(np.float32)), *masks)
        return policy, after.numpy()

    def _remember(self, t: int, after: Floats, step: StepResult) -> None:
        """Write what is remembered after step t, and go on from it, but where an episode ended or an agent did not act."""
        rollout, agents = self._rollout, self.environment.agents
        if t == 0:
            rollout.start[:] = self.memory
        rollout.after[t] = after
        over = (step.terminated | step.truncated).reshape(-1, agents).all(-1)
        rollout.kept[t] = step.alive & ~np.repeat(over, agents)
        self.memory = np.where(rollout.kept[t][:, None], after, np.float32(0))

    def _collect(self) -> Rollout | Experience:
        if self.native is None:
            rollout: Rollout | Experience = self._collect_in_torch()
        else:
            rollout = self.native.collect(self._normalizer)
            self._count_ended(rollout.returns, rollout.costs, rollout.lengths)
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
                policy, after = self._recall(observation, allowed, self.memory)
                action = self._sample(policy)
            with self.phases("environment"):
                step = plant.step(self.physical(action))
            rollout.write(t, observation, allowed, action, step)
            self._remember(t, after, step)
            self._count(slice(None), plant, step)
            if self.held_noise is not None:
                self.held_noise.end(step.terminated | step.truncated)
            observation, allowed = step.observation, step.allowed
        return self._sound(rollout)

    def _past(self, rollout: Rollout) -> Past | None:
        """What the sequences of a rollout begin with; None without memory."""
        if not self.memory.size:
            return None
        memory = rollout.before[:: rollout.stretch]
        return Past(torch.from_numpy(memory.reshape(-1, memory.shape[2])), torch.from_numpy(rollout.arranged(rollout.kept.astype(np.float32))))

    def shown(self, rollout: Rollout) -> tuple[torch.Tensor, torch.Tensor]:
        """What a critic that keeps no memory is shown: normalised observations, and beside them what the networks remembered.

        Returns:
            (T, N, n + M) when the policy acted, and of what followed, before any reset.
        """
        seen = self.whitened(rollout.observation), self.whitened(rollout.final_observation)
        if not self.memory.size:
            return seen
        remembered = torch.from_numpy(rollout.before), torch.from_numpy(rollout.after)
        return torch.cat([seen[0], remembered[0]], -1), torch.cat([seen[1], remembered[1]], -1)

    def _looked_back(
        self, inputs: torch.Tensor, following: torch.Tensor, past: Past | None, allowed: torch.Tensor | None
    ) -> tuple[Distribution, torch.Tensor, torch.Tensor]:
        """What the networks say of a rollout as it is arranged.

        Args:
            inputs: what was acted on.
            following: what followed, before any reset; its memory is that before any reset too.
            past: of the sequences, all of whose steps count.
            allowed: the choices that could be taken.

        Returns:
            the policy, (B,) values, and (B,) values of what followed.
        """
        masks = () if allowed is None else (allowed,)
        if past is None:
            policy, value = self.net(inputs, *masks)
            return policy, value, self.net(following)[1]
        assert isinstance(self.net, RecurrentActorCritic)
        features, after = self.net.run(inputs, past.memory, past.kept)
        policy, value = self.net.judge(past.samples(features), *(past.samples(x) for x in masks))
        return policy, value, self.net.step(past.samples(following), past.samples(after))[1]

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
        for name, x in (("reward", rollout.reward), ("cost", rollout.cost)):
            if not np.isfinite(x).all():
                t, row = np.argwhere(~np.isfinite(x))[0].tolist()
                where = f"in row {row}, step {t} of the horizon that began at step {self.steps}"
                raise Diverged(f"{self.environment.name} gave the {name} {x[t, row]} {where}")
        return rollout

    def _batch(self, rollout: Rollout) -> tuple[Batch, float]:
        """What the agents did in a rollout as one batch, and how much of the returns' variance the critic explained (NaN where they have none)."""
        settings, arranged = self.settings, rollout.arranged
        inputs, following = (self.inputs(arranged(x)) for x in (rollout.observation, rollout.final_observation))
        action = torch.from_numpy(arranged(rollout.action))
        allowed = None if rollout.allowed is None else torch.from_numpy(arranged(rollout.allowed))
        past = self._past(rollout)
        with torch.no_grad():
            policy, value_of, final_of = self._looked_back(inputs, following, past, allowed)
            sampled = rollout.log_prob  # of rows that were ahead, by an earlier policy
            log_prob = policy.log_prob(action if past is None else past.samples(action)) if sampled is None else torch.from_numpy(arranged(sampled))
        value, final_value = (rollout.in_time(x.double().numpy()) for x in (value_of, final_of))
        reward = rollout.reward / self.reward_scale.scale if self.reward_scale else rollout.reward
        ends = rollout.terminated, rollout.truncated
        advantage, returns = advantages(reward, value, final_value, *ends, settings.discount, settings.trace_decay, alive=rollout.alive)
        old, gained, learnt = (torch.from_numpy(arranged(x.astype(np.float32))) for x in (value, self.weigh(advantage), returns))
        batch = Batch(inputs, action, log_prob.view(old.shape), old, gained, learnt, allowed, past)
        if not rollout.alive.all():
            alive = torch.from_numpy(arranged(rollout.alive))
            batch = batch[alive] if past is None else replace(batch, past=replace(past, alive=alive))
            value, returns = value[rollout.alive], returns[rollout.alive]
        spread = float(returns.var())
        explained = 1 - float((returns - value).var()) / spread if spread > 0 else float("nan")
        return batch, explained
