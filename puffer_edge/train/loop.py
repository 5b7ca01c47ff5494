"""The loop that every algorithm shares: step the environments and learn, report, go on."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from puffer_edge import envs
from puffer_edge.contract import Contract
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.plant import Plant, StepResult
from puffer_edge.envs.world import World
from puffer_edge.errors import Diverged, InvalidInput, MissingExtra, Unsupported
from puffer_edge.integer.shield import Shield
from puffer_edge.spaces import Floats
from puffer_edge.train import vector
from puffer_edge.train.acting import Acting
from puffer_edge.train.distributions import Distribution, HeldNoise, StateDependent
from puffer_edge.train.normalize import Moments
from puffer_edge.train.phases import Phases
from puffer_edge.train.progress import Callback, Lived, Progress
from puffer_edge.train.settings import RECENT, Settings
from puffer_edge.train.settings_file import ALGORITHMS, preset


class NativePart(Protocol):
    """What trains in C.

    Attributes:
        variant: its instruction set.
    """

    variant: str

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All that changes, by name."""
        ...

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what ``state`` gave."""
        ...


NetworkMaker = Callable[[Contract, Any], nn.Module]


class Learner(Acting):
    """State of a training: plant, networks, optimiser, normaliser and generators. An algorithm adds networks and how it learns.

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
        control: numbers that the algorithm steers as it goes, by name.
        phases: where the time goes; whoever works between two updates names what it does.

    Raises:
        InvalidInput: unknown environment, or a setting, seed or specification that is wrong.
        Unsupported: the algorithm cannot train this.
    """

    losses: tuple[str, ...] = ()
    """Statistics that must be finite; SAC has none before its warm-up is over, and what is wrong with them is wrong with the weights."""
    remembers = False
    """Whether it trains policies with memory."""
    masks = True
    """Whether it can be kept from choices."""
    native: NativePart | None
    cost_limit: float | None = None
    """What an episode may cost in the mean; None where nothing is asked of it. A policy that keeps it is better than one that does not."""
    cost_seen = False
    """Whether a step had a cost, where there is a limit on them."""
    engine_note: str
    """Why it trains otherwise than "auto" would have it; empty where nothing is in the way."""

    def __init__(
        self,
        environment: Environment | str,
        settings: Settings | None = None,
        *,
        seed: int = 0,
        shield: bool | Sequence[Mapping[str, Any]] = True,
        network: NetworkMaker | None = None,
    ) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise InvalidInput(f"a seed is a whole number that is not negative, not {seed!r}")
        self.environment = self._task(envs.load(environment) if isinstance(environment, str) else environment)
        self.settings = settings or preset(self.environment.name, self.name)
        if not isinstance(self.settings, kind := ALGORITHMS[self.name]):
            raise InvalidInput(f"{self.name} is set by {kind.__name__}, not by {type(self.settings).__name__}")
        if self.settings.memory != "none" and not self.remembers:
            others = "ppo-lagrangian and pid-lagrangian do" if hasattr(self.settings, "cost_limit") else "ppo does"
            raise Unsupported(
                f"{self.name} trains no policy with memory: {others}, or let the policy see its last observations too: "
                f"{self.environment.name}-frames4"
            )
        self.seed = seed
        if self.settings.shield_mask and not self.environment.contract.levels:
            raise InvalidInput(
                f"shield_mask excludes choices, and the head {self.environment.contract.head!r} of {self.environment.name} gives numbers: "
                "take shield_penalty or shield_change_penalty"
            )
        if self.settings.shield_mask and not self.masks:
            raise Unsupported(f"{self.name} chooses among all there is: shield_mask is of ppo and its kin; take shield_penalty")
        specification = (self.environment.shield if shield else ()) if isinstance(shield, bool) else shield
        self.shield = Shield.build(self.environment.contract, specification)
        weights, episodes, noise, shuffle = (int(s) for s in np.random.SeedSequence(seed).generate_state(4))
        contract, s = self.environment.contract, self.settings
        self.network = network
        with one_thread():
            self.net, self.kernels = self._networks(weights)
        self.optimizer = self._optimizer()
        self.native = self._native(episodes)
        self.plant = None if self.native else self._make_plant(episodes)
        self.noise_rng, self.shuffle_rng = np.random.default_rng(noise), np.random.default_rng(shuffle)
        if s.exploration == "state" and contract.head == "discrete":
            raise InvalidInput(f"exploration 'state' is noise of a continuous head; that of {self.environment.name} is discrete")
        rows = s.rows * self.environment.agents
        self.held_noise = HeldNoise(rows, (s.features, contract.n_actions), s.hold) if s.exploration == "state" else None
        self.moments = Moments((contract.n_observations,))
        self.control: dict[str, float] = {}
        self.steps = 0
        self.fine_tuned: dict[str, Any] = {}
        self.phases = Phases()
        self.episode_return, self.episode_cost = np.zeros(rows), np.zeros(rows)
        self.recent_returns: deque[float] = deque(maxlen=RECENT)
        self.recent_costs: deque[float] = deque(maxlen=RECENT)
        self.recent_lengths: deque[int] = deque(maxlen=RECENT)
        self._range()
        self._prepare(episodes)
        self.refresh()

    def _make_plant(self, seed: int) -> Any:
        """What the torch engine steps: a ``Plant``, unless the algorithm can do with another."""
        return Plant(self.environment, self.settings.rows, seed, self.shield, self._world(), self.settings.interventions)

    def _world(self) -> World | None:
        """Where the environments live; None for those that are made of functions."""
        s = self.settings
        world, obstacle = vector.make(self.environment, s.rows, vector.Spec(s.vector, s.workers, s.step_timeout_s))
        if obstacle:
            self.engine_note = "; ".join(note for note in (self.engine_note, obstacle) if note)
        return world

    def close(self) -> None:
        """Stop the processes that environments live in, if there are any; the learner can still be asked and saved."""
        if self.plant is not None:
            self.plant.world.close()

    def _task(self, environment: Environment) -> Environment:
        """The environment as this algorithm trains it.

        Raises:
            Unsupported: it cannot.
        """
        return environment

    def _networks(self, seed: int) -> tuple[nn.Module, str]:
        """Networks with weights of a seed, and what will compute them on the torch engine."""
        raise NotImplementedError

    def _optimizer(self) -> torch.optim.Optimizer:
        """Of the torch engine."""
        raise NotImplementedError

    def _make_native(self, seed: int) -> NativePart:
        """The native engine.

        Raises:
            Unsupported: it does not train this.
            MissingExtra: numba is not installed.
        """
        raise Unsupported(f"{self.name} has no native form")

    def _prepare(self, seed: int) -> None:
        """What the algorithm keeps beside all that: buffers, and numbers that it steers."""

    def _advance(self) -> tuple[Lived, dict[str, float]]:
        """Go on over one horizon and learn; what was lived, and statistics by name."""
        raise NotImplementedError

    def own_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What the algorithm keeps beside, for a checkpoint."""
        return {}

    def load_own(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what ``own_arrays`` gave."""

    def take_over(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Before the first step, go on with networks and normalisers of another training's checkpoint; optimiser and episodes begin anew.

        Raises:
            Unsupported: this algorithm cannot.
            InvalidInput: its networks have other shapes.
        """
        raise Unsupported(f"{self.name} does not go on from another run's weights")

    def _native(self, seed: int) -> NativePart | None:
        """The native engine, where the settings want it and it can serve; ``engine_note`` says why not."""
        self.engine_note = ""
        if self.settings.engine == "torch":
            return None
        try:
            return self._make_native(seed)
        except (Unsupported, MissingExtra) as error:
            if self.settings.engine == "native":
                raise
            self.engine_note = f"the torch engine trains: {error}"
            return None

    @property
    def engine(self) -> str:
        """What trains: "torch", or "native" with its instruction set; and where environments live that are not made of functions."""
        if self.native:
            return f"native ({self.native.variant})"
        world = self.plant.world if self.plant else None
        if isinstance(world, vector.Processes):
            return f"torch, {len(world.blocks)} processes step"
        return "torch, one process steps" if isinstance(world, vector.Serial) else "torch"

    def learn(self, steps: int | None = None, callback: Callback | None = None) -> Learner:
        """Train on.

        Args:
            steps: environment steps to add, rounded up to whole horizons; None goes on to ``settings.steps``.
            callback: called after each update; what it raises ends the training, False ends it in peace. Numbers that it returns are for
                whoever logs: ``puffer_edge.train.train`` does.

        Raises:
            Diverged: a reward, a loss or a weight became NaN or infinite; ``last_good`` is from before.
        """
        target = self.settings.steps if steps is None else self.steps + steps
        start = time.perf_counter()
        with one_thread():
            while self.steps < target:
                began = time.perf_counter()
                lived, statistics = self._advance()
                with self.phases("update"):
                    self._finish(lived, statistics)
                rate = lived.reward.size / (time.perf_counter() - began)
                metrics = self._metrics(lived, statistics, rate)
                progress = Progress(self.steps, target, time.perf_counter() - start, rate, metrics["ep_rew_mean"], metrics)
                if callback is not None and callback(progress) is False:
                    break
        return self

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

    def _count(self, rows: slice, plant: Plant, step: StepResult) -> None:
        """Take a step of these rows into the episodes' returns, costs and lengths."""
        returns, costs = self.episode_return[rows], self.episode_cost[rows]
        returns += step.reward
        costs += step.cost
        ended = np.flatnonzero(step.alive & (step.terminated | step.truncated))
        self._count_ended(returns[ended], costs[ended], step.length[ended])
        returns[ended] = costs[ended] = 0.0

    def _count_ended(self, returns: Floats, costs: Floats, lengths: npt.NDArray[Any]) -> None:
        """Take in the episodes that ended, in order of time."""
        self.recent_returns.extend(returns.tolist())
        self.recent_costs.extend(costs.tolist())
        self.recent_lengths.extend(lengths.tolist())

    def _sample(self, policy: Distribution) -> npt.NDArray[Any]:
        """(N,) choices or (N, m) outputs for the rows of the rollout."""
        if self.held_noise is not None and isinstance(policy, StateDependent):
            sampled = policy.sample(self.held_noise.step(self.noise_rng))
        else:
            sampled = policy.sample(self.noise_rng)
        actions: npt.NDArray[Any] = sampled.numpy()
        return actions

    def _finish(self, lived: Lived, statistics: Mapping[str, float]) -> None:
        """Count the steps, take the observations into the normaliser, and see that no number has run away."""
        self.steps += lived.reward.size
        bad = [name for name in self.losses if not np.isfinite(statistics.get(name, 0.0))]
        bad += [name for name, p in self.net.named_parameters() if not bool(torch.isfinite(p).all())]
        if bad:
            raise Diverged(
                f"the training diverged at step {self.steps}: {', '.join(bad)} is NaN or infinite; "
                f"{self._kept()}; try a lower learning_rate than {self.settings.learning_rate:g}"
            )
        seen = lived.observation.reshape(-1, lived.observation.shape[-1])
        self._take_in(seen if lived.alive.all() else seen[lived.alive.ravel()])
        self.refresh()

    def _take_in(self, seen: Floats) -> None:
        """(k, n) physical observations into the normaliser."""
        self.moments.update(seen)

    def _kept(self) -> str:
        return f"the policy of step {self.last_good.origin['steps']} is kept" if self.deployable else "nothing of it is kept"

    def _metrics(self, lived: Lived, statistics: Mapping[str, float], rate: float) -> dict[str, float]:
        nan = float("nan")
        return {
            "steps": self.steps,
            "ep_rew_mean": float(np.mean(self.recent_returns)) if self.recent_returns else nan,
            "ep_len_mean": float(np.mean(self.recent_lengths)) if self.recent_lengths else nan,
            "ep_cost_mean": float(np.mean(self.recent_costs)) if self.recent_costs else nan,
            "cost_rate": float(lived.cost.sum()) / float(lived.alive.sum()),
            "intervention_rate": lived.intervention_rate,
            **statistics,
            "steps_per_second": rate,
            **self.phases.take(),
        }


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread: faster below minibatches of some 4,000, and the same bits on any number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
