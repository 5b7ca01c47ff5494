"""The loop that every on-policy algorithm shares: collect a rollout, update, report."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from puffer_edge import __version__, envs
from puffer_edge.contract import Contract
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.plant import Plant
from puffer_edge.errors import Diverged, InvalidInput, MissingExtra, Unsupported
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import AnyLayer, Head, Policy
from puffer_edge.spaces import Bools, Floats
from puffer_edge.train.distributions import Distribution, HeldNoise, StateDependent
from puffer_edge.train.native.learner import Experience, NativeEngine, kernels_for
from puffer_edge.train.nets.actor_critic import ActorCritic
from puffer_edge.train.normalize import Moments, RewardScale
from puffer_edge.train.rollout import Rollout
from puffer_edge.train.settings import PPOSettings
from puffer_edge.train.settings_file import preset

RECENT = 100
"""Episodes over which ``ep_rew_mean`` is the mean."""


@dataclass(frozen=True)
class Progress:
    """What a callback is told after each update.

    Attributes:
        steps: environment steps done.
        total: steps of the whole training.
        seconds: wall time of this call of ``learn``, callbacks included.
        steps_per_second: since the update before, callbacks not included.
        ep_rew_mean: mean return of the last 100 training episodes, sampled actions; NaN before the first has ended.
        metrics: everything that is logged; NaN where there is no number yet.
    """

    steps: int
    total: int
    seconds: float
    steps_per_second: float
    ep_rew_mean: float
    metrics: Mapping[str, float]


NetworkMaker = Callable[[Contract, PPOSettings], nn.Module]
Callback = Callable[[Progress], "bool | None"]


class Learner:
    """State of a training: plant, networks, optimiser, normaliser and generators. A subclass adds ``update``.

    Args:
        environment: the task, or its name.
        settings: None takes the environment's preset.
        seed: of weights, action noise, minibatches and episodes, each with a stream of its own.
        shield: True trains behind the environment's default shield, False behind none, a specification behind that.
        network: makes a module of your own in the place of ``ActorCritic``, from contract and settings; it trains on the torch engine. Its
            ``forward`` takes (B, n_observations) normalised observations and gives a ``Distribution`` and (B,) values; ``layers()``, if it
            has it, gives the actor as layers of a ``Policy``: what has none can be trained and asked, not deployed.

    Attributes:
        steps: steps done, those of each agent counted.
        kernels: what computes the torch engine's networks: the instruction set of the native kernels, or "torch".
        control: what the KL steers: the weight of its penalty, and a factor on the learning rate.
        last_good: the policy after the last update whose numbers were all finite.

    Raises:
        InvalidInput: unknown environment, or a setting, seed or specification that is wrong.
    """

    name = "none"
    can_native = False

    def __init__(
        self,
        environment: Environment | str,
        settings: PPOSettings | None = None,
        *,
        seed: int = 0,
        shield: bool | Sequence[Mapping[str, Any]] = True,
        network: NetworkMaker | None = None,
    ) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise InvalidInput(f"a seed is a whole number that is not negative, not {seed!r}")
        self.environment = envs.load(environment) if isinstance(environment, str) else environment
        self.settings = settings or preset(self.environment.name)
        self.seed = seed
        specification = (self.environment.shield if shield else ()) if isinstance(shield, bool) else shield
        self.shield = Shield.build(self.environment.contract, specification)
        weights, episodes, noise, shuffle = (int(s) for s in np.random.SeedSequence(seed).generate_state(4))
        contract, s = self.environment.contract, self.settings
        self.network = network
        self.net, self.kernels = self._networks(weights)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=s.learning_rate, eps=1e-5, fused=True)
        self.native = self._native(episodes)
        self.plant = None if self.native else Plant(self.environment, s.rows, episodes, self.shield)
        self.noise_rng, self.shuffle_rng = np.random.default_rng(noise), np.random.default_rng(shuffle)
        if s.exploration == "state" and contract.head == "discrete":
            raise InvalidInput(f"exploration 'state' is noise of a continuous head; that of {self.environment.name} is discrete")
        rows = s.rows * self.environment.agents
        self.held_noise = HeldNoise(rows, (s.hidden[-1], contract.n_actions), s.hold) if s.exploration == "state" else None
        self.moments = Moments((contract.n_observations,))
        self.reward_scale = RewardScale(rows, s.discount) if s.scale_reward else None
        self.control = {"kl_weight": s.kl_weight, "rate_factor": 1.0}
        self.steps = 0
        self.episode_return = np.zeros(rows)
        self.recent_returns: deque[float] = deque(maxlen=RECENT)
        self.recent_lengths: deque[int] = deque(maxlen=RECENT)
        self._rollout = Rollout(contract, *((1, 1) if self.native else (s.horizon, rows)), masked=self.environment.allowed is not None)
        channels = contract.actions
        self._scale = np.array([(c.high - c.low) / 2 for c in channels])
        self._offset = np.array([(c.high + c.low) / 2 for c in channels])
        self.refresh()

    def _networks(self, seed: int) -> tuple[nn.Module, str]:
        """Actor and critic with weights of a seed, and what will compute them on the torch engine."""
        contract, s = self.environment.contract, self.settings
        with _one_thread():
            if self.network is not None:
                with torch.random.fork_rng():
                    torch.manual_seed(seed)
                    return self.network(contract, s), "torch"
            net = ActorCritic(contract, s.hidden, s.activation, s.log_std, torch.Generator().manual_seed(seed), s.exploration, s.shared)
        net.kernels = kernels_for(contract, s) if s.engine != "native" else None
        return net, net.kernels.variant if net.kernels else "torch"

    def _native(self, seed: int) -> NativeEngine | None:
        """The native engine, where the settings want it and it can serve; ``engine_note`` says why not."""
        self.engine_note = ""
        if self.settings.engine == "torch":
            return None
        try:
            if not self.can_native:
                raise Unsupported(f"{self.name} has no native form")
            if not isinstance(self.net, ActorCritic):
                raise Unsupported("a network of your own is torch's")
            return NativeEngine(self.environment, self.settings, self.shield, seed, self.net.flat.numpy())
        except (Unsupported, MissingExtra) as error:
            if self.settings.engine == "native":
                raise
            self.engine_note = f"the torch engine trains: {error}"
            return None

    @property
    def engine(self) -> str:
        """What trains: "torch", or "native" with its instruction set."""
        return f"native ({self.native.variant})" if self.native else "torch"

    def refresh(self) -> None:
        """Take the moments as they are now into the normaliser, and the policy as it is now for good."""
        self._normalizer = (self.moments if self.settings.normalize_observation else Moments(self.moments.mean.shape)).normalizer()
        if self.deployable:
            self.last_good = self.policy()

    def update(self, rollout: Rollout | Experience) -> dict[str, float]:
        """Learn from one rollout; returns statistics by name."""
        raise NotImplementedError

    def learn(self, steps: int | None = None, callback: Callback | None = None) -> Learner:
        """Train on.

        Args:
            steps: environment steps to add, rounded up to whole rollouts; None goes on to ``settings.steps``.
            callback: called after each update; what it raises ends the training, False ends it in peace.

        Raises:
            Diverged: a reward, a loss or a weight became NaN or infinite; ``last_good`` is from before.
        """
        target = self.settings.steps if steps is None else self.steps + steps
        start = time.perf_counter()
        with _one_thread():
            while self.steps < target:
                began = time.perf_counter()
                rollout = self._collect()
                statistics = self.update(rollout)
                self._finish(rollout, statistics)
                rate = rollout.reward.size / (time.perf_counter() - began)
                metrics = self._metrics(rollout, statistics, rate)
                progress = Progress(self.steps, target, time.perf_counter() - start, rate, metrics["ep_rew_mean"], metrics)
                if callback is not None and callback(progress) is False:
                    break
        return self

    def inputs(self, observation: Floats) -> torch.Tensor:
        """(B, n) physical observations as what the networks take."""
        return torch.from_numpy(self._normalizer(observation).astype(np.float32))

    def physical(self, action: npt.NDArray[Any]) -> Floats:
        """Sampled (N,) choices or (N, m) outputs as (N, m) physical proposals."""
        contract = self.environment.contract
        if contract.head == "discrete":
            physical: Floats = np.asarray(contract.levels, np.float64)[action]
        elif contract.head == "multi_discrete":
            physical = np.stack([np.asarray(level, np.float64)[action[..., j]] for j, level in enumerate(contract.levels)], -1)
        else:
            physical = self._offset + self._scale * (np.tanh(action) if contract.head == "tanh" else action)
        return physical

    def predict(
        self,
        observation: npt.ArrayLike,
        state: None = None,
        episode_start: npt.ArrayLike | None = None,
        deterministic: bool = True,
        allowed: npt.ArrayLike | None = None,
    ) -> tuple[Floats, None]:
        """What would be deployed does, or a sample of what is trained.

        Args:
            observation: (N, n) or (n,) physical.
            state: for policies with memory; these have none.
            episode_start: likewise.
            deterministic: the head's own choice; False samples.
            allowed: (N, n_outputs) or (n_outputs,) bool, the choices to choose among; None for all, as what is deployed does.

        Returns:
            (N, m) or (m,) physical actions, and the state: the pair of Stable-Baselines3.

        Raises:
            InvalidInput: a mask of another shape, one that leaves no choice in a group, or one for a head that gives numbers.
        """
        x = np.asarray(observation, np.float64)
        mask = None if allowed is None else self._mask(np.asarray(allowed, bool), x.shape[:-1])
        if deterministic and self.deployable:
            policy = self.policy()
            outputs = policy.outputs(x)
            return policy.decide(outputs if mask is None else np.where(mask, outputs, -np.inf)), None
        with torch.inference_mode():
            found = self._distribution(np.atleast_2d(x), None if mask is None else np.atleast_2d(mask))
            action = (found.mode() if deterministic else found.sample(self.noise_rng)).numpy()
        return self.physical(action).reshape(*x.shape[:-1], -1), None

    def _distribution(self, observation: Floats, allowed: Bools | None) -> Distribution:
        """The policy at (B, n) physical observations, where (B, n_outputs) choices are allowed, or all."""
        inputs = self.inputs(observation)
        masks = () if allowed is None else (torch.from_numpy(allowed),)
        if isinstance(self.net, ActorCritic):
            return self.net.distribution(inputs, *masks)
        policy: Distribution = self.net(inputs, *masks)[0]
        return policy

    @property
    def deployable(self) -> bool:
        """Whether the network says what its layers are."""
        return hasattr(self.net, "layers")

    def _mask(self, allowed: Bools, rows: tuple[int, ...]) -> Bools:
        """A mask for so many rows, if it is one."""
        c = self.environment.contract
        if c.head not in ("discrete", "multi_discrete"):
            raise InvalidInput(f"a mask excludes choices, and the head {c.head!r} of {self.environment.name} gives numbers")
        if allowed.shape != (*rows, c.n_outputs):
            raise InvalidInput(f"a mask for these observations has shape {(*rows, c.n_outputs)}, not {allowed.shape}")
        if not np.logical_or.reduceat(allowed, np.cumsum([0, *c.groups[:-1]]), axis=-1).all():
            raise InvalidInput("a mask must leave at least one choice of each group")
        return allowed

    def policy(self) -> Policy:
        """The deployable actor as it is now.

        Raises:
            InvalidInput: a weight is NaN or infinite.
            Unsupported: the network is one of your own, and has no ``layers``.
        """
        layers: Callable[[], tuple[AnyLayer, ...]] | None = getattr(self.net, "layers", None)
        if layers is None:
            kind = type(self.net).__name__
            raise Unsupported(f"{kind} cannot be deployed: give it layers(), the actor as a tuple of what puffer_edge.policy calls layers")
        contract = self.environment.contract
        origin = {
            "environment": self.environment.name,
            "algorithm": self.name,
            "seed": self.seed,
            "steps": self.steps,
            "shield": [dict(stage) for stage in self.shield.specification],
            "versions": {"puffer_edge": __version__, "torch": torch.__version__, "numpy": np.__version__},
        }
        return Policy(contract, layers(), self._normalizer, Head(contract.head, self._scale, self._offset), origin)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything that ``load`` needs to go on to the same bits, as one safetensors file."""
        from puffer_edge.train import checkpoint

        checkpoint.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], environment: Environment | None = None, network: NetworkMaker | None = None) -> Learner:
        """Read what ``save`` wrote; the environment is looked up by name unless given, a network of your own must be given.

        Raises:
            InvalidInput: there is no such file, or no such environment.
            BundleError: the file is damaged, from a newer version or another algorithm.
        """
        from puffer_edge.train import checkpoint

        return checkpoint.load(cls, path, environment, network)

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

    def _sample(self, policy: Distribution) -> npt.NDArray[Any]:
        """(N,) choices or (N, m) outputs for the rows of the rollout."""
        if self.held_noise is not None and isinstance(policy, StateDependent):
            sampled = policy.sample(self.held_noise.step(self.noise_rng))
        else:
            sampled = policy.sample(self.noise_rng)
        actions: npt.NDArray[Any] = sampled.numpy()
        return actions

    def _finish(self, rollout: Rollout | Experience, statistics: Mapping[str, float]) -> None:
        """Count the steps, take the observations into the normaliser, and see that no number has run away."""
        self.steps += rollout.reward.size
        bad = [name for name in ("policy_loss", "value_loss") if not np.isfinite(statistics.get(name, 0.0))]
        bad += [name for name, p in self.net.named_parameters() if not bool(torch.isfinite(p).all())]
        if bad:
            raise Diverged(
                f"the training diverged at step {self.steps}: {', '.join(bad)} is NaN or infinite; "
                f"{self._kept()}; try a lower learning_rate than {self.settings.learning_rate:g}"
            )
        seen = rollout.observation.reshape(-1, rollout.observation.shape[-1])
        if not rollout.alive.all():
            seen = seen[rollout.alive.ravel()]
        if self.native is not None:
            self.moments.merge(len(seen), *self.native.engine.moments(seen))
        else:
            self.moments.update(seen)
        self.refresh()

    def _kept(self) -> str:
        return f"the policy of step {self.last_good.origin['steps']} is kept" if self.deployable else "nothing of it is kept"

    def _metrics(self, rollout: Rollout | Experience, statistics: Mapping[str, float], rate: float) -> dict[str, float]:
        nan = float("nan")
        return {
            "steps": self.steps,
            "ep_rew_mean": float(np.mean(self.recent_returns)) if self.recent_returns else nan,
            "ep_len_mean": float(np.mean(self.recent_lengths)) if self.recent_lengths else nan,
            "cost_rate": float(rollout.cost.sum()) / float(rollout.alive.sum()),
            "intervention_rate": rollout.intervention_rate,
            **statistics,
            "steps_per_second": rate,
        }


@contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread: faster below minibatches of some 4,000, and the same bits on any number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
