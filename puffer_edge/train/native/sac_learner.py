"""The native engine of SAC under its learner: environments, replay and updates, in numpy arrays that a checkpoint can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.contract import Contract
from puffer_edge.envs.environment import Environment
from puffer_edge.errors import Diverged, Unsupported
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import Normalizer
from puffer_edge.spaces import Bools, Floats
from puffer_edge.train.native import structs
from puffer_edge.train.native.learner import SHARED_WORK, lacking, put_back, surrounded
from puffer_edge.train.native.sac import SACEngine, SACShape, fill, fill_ring
from puffer_edge.train.replay import Replay
from puffer_edge.train.sac_settings import SACSettings
from puffer_edge.train.settings import cores

STATE = ("state", "observed", "step", "elapsed", "episode_return", "episode_cost", "ticks", "drawn", "first", "second", "adam_steps")
"""Arrays that change from call to call; with gSDE "noise" and "age" too."""


def shape_of(contract: Contract, settings: SACSettings) -> SACShape:
    """The networks of a contract under these settings."""
    state_noise = settings.exploration == "state"
    return SACShape(contract.n_observations, contract.n_actions, settings.hidden, settings.critic_widths, settings.activation, state_noise)


@dataclass(frozen=True, eq=False)
class Horizon:
    """What was lived over a horizon; (T, N) unless said otherwise.

    Attributes:
        observation: (T, N, n) physical, acted on.
        reward: of the action taken there.
        cost: likewise.
        alive: whether the row acted.
        intervention_rate: share of the steps at which the shield acted.
    """

    observation: Floats
    reward: Floats
    cost: Floats
    alive: Bools
    intervention_rate: float


class NativeSAC:
    """Steps and updates in C.

    Args:
        environment: the task, written as scalar functions.
        settings: of SAC.
        shield: between proposal and actuator.
        seed: of environments, actions and batches, below 2^32.
        parameters: (size,) the flat buffer, changed in place.
        target: (2 · critic_size,) that of the targets, changed in place.
        target_entropy: H̄.

    Attributes:
        variant: instruction set of the library; bits may differ between two of them.
        threads: how many; bits do not depend on them.

    Raises:
        Unsupported: there is no native trainer here, or it does not take this.
        MissingExtra: numba is not installed.
    """

    def __init__(
        self,
        environment: Environment,
        settings: SACSettings,
        shield: Shield,
        seed: int,
        parameters: npt.NDArray[np.float32],
        target: npt.NDArray[np.float32],
        target_entropy: float,
    ) -> None:
        shape = shape_of(environment.contract, settings)
        if why := shape.why_not() or lacking(environment):
            raise Unsupported(f"the native engine does not train {environment.name}: {why}")
        self._environment, self._settings = environment, settings
        self.engine = SACEngine(shape, settings.threads or (cores() if settings.minibatch * shape.size >= SHARED_WORK else 1))
        self.variant, self.threads = self.engine.variant, self.engine.threads
        self._around = surrounded(environment, shield, settings.interventions)
        self._pointer = self._around.environment.pointer()
        self.replay = Replay(settings.rows, settings.replay, shape.inputs, shape.numbers)
        self._structure = self._describe(seed, target_entropy)
        self._arrays = {name: np.zeros(*kind) for name, kind in self.engine.kinds(self._structure).items()} | {"flat": parameters, "target": target}
        if shape.state_noise:
            self._arrays["age"][:] = settings.hold
        low, high = (np.array([getattr(c, end) for c in environment.contract.actions]) for end in ("low", "high"))
        self._arrays |= {"scale": (high - low) / 2, "offset": (high + low) / 2, "deviation": np.ones(shape.inputs)}
        fill(self._structure, **self._arrays)
        self._raise_for(*self.engine.start(self._structure))

    def _describe(self, seed: int, target_entropy: float) -> Any:
        """The structure that C reads, without its arrays."""
        s, r = self._settings, structs.Sac()
        r.env, r.seed, r.horizon, r.batch, r.warmup = self._pointer.address, seed, s.horizon, s.minibatch, s.warmup
        r.every, r.updates, r.n_step, r.hold = s.every, s.updates, s.n_step, s.hold
        r.discount, r.follow, r.target_entropy = s.discount, s.target_rate, target_entropy
        r.beta1, r.beta2, r.epsilon = 0.9, 0.999, 1e-8
        fill_ring(r, self.replay)
        return r

    def advance(self, normalizer: Normalizer, rate: float) -> tuple[Horizon, dict[str, float], tuple[Floats, Floats, npt.NDArray[np.int32]]]:
        """Step over a horizon, with the updates that are due.

        Args:
            normalizer: of the observations.
            rate: learning rate.

        Returns:
            what was lived; statistics, NaN before the first update; returns, costs and lengths of the episodes that ended, in order of time.

        Raises:
            Diverged: the environment gave NaN or infinite numbers; the message says what and where.
        """
        a, r = self._arrays, self._structure
        a["mean"][:], a["deviation"][:], r.clip = normalizer.mean, normalizer.std, normalizer.clip
        r.actor_rate = r.critic_rate = rate
        r.temperature_rate = rate if self._settings.adapt_temperature else 0.0
        before = self._interventions()
        self._raise_for(*self.engine.run(r))
        ended = np.nonzero(a["finished_length"])
        rate = (self._interventions() - before) / a["reward"].size
        lived = Horizon(a["seen"], a["reward"], a["cost"], np.ones(a["reward"].shape, bool), rate)
        finished = a["finished_return"][ended], a["finished_cost"][ended], a["finished_length"][ended]
        return lived, dict(zip(structs.SAC_STATISTICS, r.statistics)), finished

    def _interventions(self) -> float:
        """Steps at which the shield has acted, in all."""
        return float(self._around.read(self._arrays["state"], "interventions").sum())

    def _raise_for(self, what: int, t: int, row: int) -> None:
        if what:
            step = int(self._arrays["step"][row])
            raise Diverged(
                f"{self._environment.name} gave {structs.FAULTS[what]} that is NaN or infinite, in row {row} at step {step} of its training"
            )

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All that changes, by name."""
        return self._changing() | {f"replay.{name}": x for name, x in self.replay.state().items()}

    def _changing(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays of it that are not the replay's."""
        names = (*STATE, *(("noise", "age") if self.engine.shape.state_noise else ()))
        return {name: self._arrays[name] for name in names}

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what ``state`` gave.

        Raises:
            InvalidInput: an array is missing, or of another shape or type.
        """
        put_back(self._changing(), arrays)
        self.replay.load({name.removeprefix("replay."): x for name, x in arrays.items() if name.startswith("replay.")})
