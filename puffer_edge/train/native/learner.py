"""The native engine under a learner: its environments, buffers and updates, in numpy arrays that a checkpoint can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.contract import Contract
from puffer_edge.envs.composition import Composition, compose
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.interventions import Interventions
from puffer_edge.envs.native import available
from puffer_edge.envs.plant import no_choice
from puffer_edge.errors import Diverged, InvalidInput, Unsupported
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import Normalizer
from puffer_edge.spaces import Floats
from puffer_edge.train.native import load, structs, why_not
from puffer_edge.train.native.critic import NativeCritic
from puffer_edge.train.native.engine import Engine, Shape, fill
from puffer_edge.train.settings import PPOSettings, cores

SHARED_WORK = 4_000_000
"""Samples of a minibatch times parameters, from which on several threads share it."""
STATE = ("state", "observed", "step", "elapsed", "episode_return", "episode_cost", "first", "second", "adam_steps", "updates")
"""Arrays that change from rollout to rollout."""


def shape_of(contract: Contract, settings: PPOSettings) -> Shape:
    """The networks of a contract under these settings."""
    kind = "categorical" if "discrete" in contract.head else "gaussian"
    return Shape(contract.n_observations, settings.hidden, settings.activation, kind, contract.groups, settings.shared)


def obstacle(environment: Environment, settings: PPOSettings) -> str:
    """Why the native engine cannot train this; empty where it can."""
    if settings.amp:
        return "amp is of the torch engine"
    if settings.exploration != "independent":
        return f"exploration {settings.exploration!r} is of the torch engine"
    if settings.image:
        return "a picture's convolutions are of the torch engine"
    if settings.epochs > structs.MOST_EPOCHS:
        return f"it makes up to {structs.MOST_EPOCHS} epochs"
    return shape_of(environment.contract, settings).why_not() or lacking(environment)


def lacking(environment: Environment) -> str:
    """What any native engine lacks to step this; empty where it has it all."""
    if environment.scalars is None:
        return "it is not written as scalar functions (Environment.of_scalars)"
    return why_not() or ("" if available() else "numba is not installed (extra 'train')")


def put_back(held: Mapping[str, npt.NDArray[Any]], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write saved arrays over those that an engine holds.

    Raises:
        InvalidInput: one is missing, or of another shape or type.
    """
    for name, own in held.items():
        if name not in arrays or arrays[name].shape != own.shape or arrays[name].dtype != own.dtype:
            raise InvalidInput(f"the saved {name} of the native engine is missing, or of another shape than {own.shape}")
        own[:] = arrays[name]


def kernels_for(contract: Contract, settings: PPOSettings) -> Engine | None:
    """What computes the torch engine's networks in C; None where torch's modules do, because they are asked for or nothing else can.

    Raises:
        Unsupported: the settings ask for native kernels, which cannot serve.
    """
    shape = shape_of(contract, settings)
    asked = {"qat": settings.qat != "none", "amp": settings.amp, "exploration 'state'": settings.exploration != "independent"}
    modules = next((name for name, is_asked in (asked | {"a picture": bool(settings.image)}).items() if is_asked), "")
    why = f"{modules} needs torch's modules" if modules else shape.why_not() or why_not()
    if settings.kernels == "torch" or (why and settings.kernels == "auto"):
        return None
    if why:
        raise Unsupported(f"there are no native kernels for this training: {why}")
    return Engine(shape, settings.threads or threads_for(shape, settings))


def cells_library(settings: PPOSettings) -> Any:
    """The library that computes the torch engine's recurrent cells; None where torch does, because it is asked for or nothing else can.

    Raises:
        Unsupported: the settings ask for native kernels, and there are none here.
    """
    if settings.kernels == "torch" or (settings.kernels == "auto" and why_not()):
        return None
    return load()


def threads_for(shape: Shape, settings: PPOSettings) -> int:
    """Threads that pay: all cores, but one where a minibatch is so small that waiting for each other would cost what they gain."""
    return cores() if min(settings.minibatch, settings.rows * settings.horizon) * shape.size >= SHARED_WORK else 1


_SURROUNDED: dict[tuple[Environment, bytes, Interventions], Composition] = {}


def surrounded(environment: Environment, shield: Shield, interventions: Interventions) -> Composition:
    """The environment in fixed point behind its shield; composed once, as compiling takes a second or two."""
    key = environment, shield.digest, interventions
    if key not in _SURROUNDED:
        _SURROUNDED[key] = compose(environment, shield, interventions)
    return _SURROUNDED[key]


@dataclass(frozen=True, eq=False)
class Experience:
    """What a native rollout gave; (T, N) unless said otherwise.

    Attributes:
        observation: (T, N, n) physical; N counts agents.
        reward: of the action taken there.
        cost: likewise.
        terminated: the task ended the episode, or the agent did not act.
        truncated: the clock did.
        alive: the agent acted; there is nothing to learn where it did not.
        intervention_rate: share of the steps at which the shield acted.
        returns: of the episodes that ended, in order of time.
        costs: of them.
        lengths: of them.
        arrays: inputs, actions, log-probabilities and values, for the update.
    """

    observation: Floats
    reward: Floats
    cost: Floats
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    alive: npt.NDArray[np.bool_]
    intervention_rate: float = 0.0
    returns: Floats = field(default_factory=lambda: np.zeros(0))
    costs: Floats = field(default_factory=lambda: np.zeros(0))
    lengths: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


class NativeEngine:
    """Rollouts and PPO's updates in C.

    Args:
        environment: the task, written as scalar functions.
        settings: of PPO.
        shield: between proposal and actuator.
        seed: of environments, actions and shuffles, below 2^32.
        parameters: (size,) the flat buffer, changed in place.
        critic: hidden widths, flat buffer and seed of a critic of costs; None where nobody asks for one.

    Attributes:
        critic: of costs, if there is one.
        variant: instruction set of the library; bits may differ between two of them.
        threads: how many; bits do not depend on them.

    Raises:
        Unsupported: there is no native trainer here, or it does not take this.
        MissingExtra: numba is not installed.
    """

    def __init__(
        self,
        environment: Environment,
        settings: PPOSettings,
        shield: Shield,
        seed: int,
        parameters: npt.NDArray[np.float32],
        critic: tuple[tuple[int, ...], npt.NDArray[np.float32], int] | None = None,
    ) -> None:
        if why := obstacle(environment, settings):
            raise Unsupported(f"the native engine does not train {environment.name}: {why}")
        self._environment, self._settings, self._seed = environment, settings, seed
        shape = shape_of(environment.contract, settings)
        self.engine = Engine(shape, settings.threads or threads_for(shape, settings))
        self.variant, self.threads = self.engine.variant, self.engine.threads
        if parameters.shape != (self.engine.shape.size,) or not parameters.flags.c_contiguous:
            raise InvalidInput(f"the flat buffer has shape {parameters.shape}, the native engine needs ({self.engine.shape.size},)")
        self.critic: NativeCritic | None = None
        if critic is not None:
            hidden, own, order = critic
            self.critic = NativeCritic(Shape(shape.inputs, hidden, shape.activation, "value", ()), self.threads, own, order)
        self._around = surrounded(environment, shield, settings.interventions)
        self._pointer = self._around.environment.pointer()
        self.parameters = parameters
        self._arrays = self._allocate()
        self._structure = self._describe()
        self._raise_for(*self.engine.reset(self._structure))

    def _allocate(self) -> dict[str, npt.NDArray[Any]]:
        c, s = self._environment.contract, self._settings
        rows = s.rows * self._environment.agents
        n, shape, width = c.n_observations, (s.horizon, rows), self._pointer.struct.n_state
        groups = len(self.engine.shape.sizes)
        kinds: dict[str, tuple[tuple[int, ...], Any]] = {
            "state": ((s.rows, width), np.float64),
            "observed": ((rows, n), np.float64),
            "step": ((s.rows,), np.uint64),
            "elapsed": ((s.rows,), np.int32),
            "first": ((self.engine.shape.size,), np.float32),
            "second": ((self.engine.shape.size,), np.float32),
            "adam_steps": ((1,), np.int64),
            "updates": ((1,), np.int64),
            "observation": ((*shape, n), np.float64),
            "inputs": ((*shape, n), np.float32),
            "finished_length": (shape, np.int32),
            "choice" if self.engine.shape.kind == "categorical" else "number": (
                (*shape, groups),
                np.int32 if self.engine.shape.kind == "categorical" else np.float32,
            ),
        }
        kinds |= dict.fromkeys(("episode_return", "episode_cost"), ((rows,), np.float64))
        values = ("value", "final_value", *(("cost_value", "final_cost_value") if self.critic else ()))
        kinds |= dict.fromkeys(("log_prob", *values), (shape, np.float32))
        kinds |= dict.fromkeys(("reward", "cost", "finished_return", "finished_cost"), (shape, np.float64))
        kinds |= dict.fromkeys(("terminated", "truncated", "alive"), (shape, np.uint8))
        if self._pointer.struct.allow_many:
            kinds["allowed"] = ((*shape, self.engine.shape.outputs), np.uint8)
        return {name: np.zeros(*kind) for name, kind in kinds.items()}

    def _describe(self) -> Any:
        """The structure that C reads, with what never changes filled in."""
        c, r = self._environment.contract, structs.Rollout()
        r.env, r.horizon, r.environments = self._pointer.address, self._settings.horizon, self._settings.rows
        r.seed, r.squash = self._seed, c.head == "tanh"
        levels = np.concatenate([np.ravel(level) for level in c.levels]) if c.levels else np.zeros(1)
        low, high = np.array([ch.low for ch in c.actions]), np.array([ch.high for ch in c.actions])
        fill(r, levels=levels.astype(np.float64), scale=(high - low) / 2, offset=(high + low) / 2)
        fill(r, mean=np.zeros(c.n_observations), deviation=np.ones(c.n_observations))
        fill(r, **{name: x for name, x in self._arrays.items() if name not in ("first", "second", "adam_steps", "updates")})
        return r

    def collect(self, normalizer: Normalizer) -> Experience:
        """Step every environment over the horizon.

        Raises:
            Diverged: the environment gave NaN or infinite numbers, or the policy proposed them; the message says what and where.
        """
        a, r = self._arrays, self._structure
        mean, deviation = (np.ascontiguousarray(x, np.float64) for x in (normalizer.mean, normalizer.std))
        fill(r, mean=mean, deviation=deviation)
        r.clip = normalizer.clip
        before = self._interventions()
        critic = (self.critic.engine, self.critic.parameters) if self.critic else ()
        self._raise_for(*self.engine.rollout(self.parameters, r, *critic))
        ended = np.nonzero(a["finished_length"])
        terminated, truncated, alive = (a[name].view(np.bool_) for name in ("terminated", "truncated", "alive"))
        rate = (self._interventions() - before) / max(int(alive.sum()), 1)
        finished = a["finished_return"][ended], a["finished_cost"][ended], a["finished_length"][ended]
        return Experience(a["observation"], a["reward"], a["cost"], terminated, truncated, alive, rate, *finished, a)

    def _interventions(self) -> float:
        """Steps at which the shield has acted, in all."""
        return float(self._around.read(self._arrays["state"], "interventions").sum())

    def _raise_for(self, what: int, t: int, row: int) -> None:
        if not what:
            return
        name, step = self._environment.name, int(self._arrays["updates"][0]) * self._settings.horizon + t
        if what == structs.NO_CHOICE:
            raise InvalidInput(no_choice(name, row, f"at step {step} of its training"))
        raise Diverged(f"{name} gave {structs.FAULTS[what]} that is NaN or infinite, in row {row} at step {step} of its training")

    def update(
        self,
        experience: Experience,
        reward_scale: float,
        rates: Mapping[str, float],
        epochs: int,
        weigh: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] = lambda advantage: advantage,
    ) -> dict[str, float]:
        """Epochs of PPO on one rollout.

        Args:
            experience: of ``collect``; the rows in which an agent acted are its samples.
            reward_scale: what rewards are divided by.
            rates: "learning_rate", "entropy_weight", "kl_weight" and "stop_kl" (0: never) of this update.
            epochs: how many.
            weigh: makes of the (T, N) reward advantages those that the policy learns from.

        Returns:
            ``STATISTICS`` in the mean over minibatches, "gradient_norm", "explained_variance", and "epoch_kl", the last epoch's mean.
        """
        s, a = self._settings, dict(experience.arrays)
        about = (a["reward"], a["value"], a["final_value"], experience.terminated, experience.truncated, s.discount, s.trace_decay)
        alive = None if experience.alive.all() else experience.alive
        advantage, returns = self.engine.advantages(*about, reward_scale=reward_scale, alive=alive)
        action = "choice" if self.engine.shape.kind == "categorical" else "number"
        held = {name: a[name] for name in ("inputs", "log_prob", "value", action, "allowed") if name in a}
        held |= {"advantage": weigh(advantage), "returns": returns}
        if alive is not None:
            held = {name: x[alive] for name, x in held.items()}
        value, returns = held["value"], held["returns"]
        u = structs.Update()
        u.samples, u.epochs, u.seed = returns.size, epochs, self._seed
        u.minibatch = min(s.minibatch, u.samples)
        u.update = int(a["updates"][0])
        u.normalize_advantage, u.beta1, u.beta2, u.epsilon, u.max_grad_norm = s.normalize_advantage, 0.9, 0.999, 1e-5, s.max_grad_norm
        u.learning_rate, u.stop_kl = rates["learning_rate"], rates["stop_kl"]
        u.loss.clip, u.loss.dual_clip, u.loss.value_weight, u.loss.value_clip = s.clip, s.dual_clip or 0.0, s.value_weight, s.value_clip
        u.loss.value_form = structs.VALUE_FORMS.index(s.value_loss)
        u.loss.entropy_weight, u.loss.kl_weight = rates["entropy_weight"], rates["kl_weight"]
        fill(u, **held, **{name: a[name] for name in ("first", "second", "adam_steps")}, parameters=self.parameters)
        self.engine.update(u)
        a["updates"][0] += 1
        spread = float(returns.var(dtype=np.float64))
        explained = 1 - float((returns - value).var(dtype=np.float64)) / spread if spread > 0 else float("nan")
        found = dict(zip((*structs.STATISTICS, "gradient_norm"), u.statistics))
        return found | {"explained_variance": explained, "epoch_kl": u.epoch_kl[u.epochs_done - 1]}

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All that changes, by name."""
        return {name: self._arrays[name] for name in STATE} | (self.critic.state() if self.critic else {})

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what ``state`` gave.

        Raises:
            InvalidInput: an array is missing, or of another shape or type.
        """
        put_back(self.state(), arrays)
