"""What a training acts with: its policy asked, sampled, and as it would be deployed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from puffer_edge import __version__
from puffer_edge.envs.environment import Environment
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.integer.reference import InFloat, Proposer
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import AnyLayer, Head, Policy
from puffer_edge.spaces import Bools, Floats
from puffer_edge.train.distributions import Distribution
from puffer_edge.train.normalize import Moments
from puffer_edge.train.settings import Settings

State = tuple[Floats, ...]
"""Of a policy with memory, as Stable-Baselines3 has it."""


class Acting:
    """The acting half of a ``Learner``, which sets its attributes; an algorithm says what its distribution is.

    Attributes:
        net: the networks, the actor among them.
        moments: of the observations seen.
        last_good: the policy after the last update whose numbers were all finite.
        fine_tuned: run and step whose weights it began with; empty where it began anew.
    """

    name = "none"
    environment: Environment
    settings: Settings
    seed: int
    steps: int
    shield: Shield
    net: nn.Module
    moments: Moments
    noise_rng: np.random.Generator
    last_good: Policy
    fine_tuned: dict[str, Any]

    def _range(self) -> None:
        """Take scale and offset of the actuators."""
        channels = self.environment.contract.actions
        self._scale = np.array([(c.high - c.low) / 2 for c in channels])
        self._offset = np.array([(c.high + c.low) / 2 for c in channels])

    def _distribution(self, observation: Floats, allowed: Bools | None) -> Distribution:
        """The policy at (B, n) physical observations, where (B, n_outputs) choices are allowed, or all."""
        raise NotImplementedError

    def _recall(self, observation: Floats, allowed: Bools | None, memory: Floats) -> tuple[Distribution, Floats]:
        """``_distribution`` of a policy that has (B, memory) memory, and that after the step."""
        return self._distribution(observation, allowed), memory

    def refresh(self) -> None:
        """Take the moments as they are now into the normaliser, and the policy as it is now for good."""
        self._normalizer = (self.moments if self.settings.normalize_observation else Moments(self.moments.mean.shape)).normalizer()
        if self.deployable:
            self.last_good = self.policy()

    def inputs(self, observation: npt.NDArray[Any]) -> torch.Tensor:
        """(B, n) physical observations as what the actor takes."""
        return self.whitened(observation)

    def whitened(self, observation: npt.NDArray[Any]) -> torch.Tensor:
        """(B, n) physical observations normalised, in float."""
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
        state: State | None = None,
        episode_start: npt.ArrayLike | None = None,
        deterministic: bool = True,
        allowed: npt.ArrayLike | None = None,
    ) -> tuple[Floats, State | None]:
        """What would be deployed does, or a sample of what is trained.

        Args:
            observation: (N, n) or (n,) physical.
            state: of a policy with memory, what the step before returned; None at first. (h,) of a GRU, (h, c) of an LSTM, each (1, N, H).
            episode_start: (N,) bool, or one: where an episode begins, and memory with it.
            deterministic: the head's own choice; False samples.
            allowed: (N, n_outputs) or (n_outputs,) bool, the choices to choose among; None for all, as what is deployed does.

        Returns:
            (N, m) or (m,) physical actions within their ranges, and the state, None without memory: the pair of Stable-Baselines3.

        Raises:
            InvalidInput: an observation, a state or a mask of another shape, an observation that is NaN or infinite, a mask that leaves no
                choice in a group, or one for a head that gives numbers.
        """
        x = np.asarray(observation, np.float64)
        n = self.environment.contract.n_observations
        if x.ndim < 1 or x.shape[-1] != n:
            raise InvalidInput(f"an observation of {self.environment.name} has shape ({n},), those of N rows (N, {n}), not {x.shape}")
        if not np.isfinite(x).all():
            raise InvalidInput(f"an observation of {self.environment.name} is NaN or infinite: {x[~np.isfinite(x)][0]}")
        mask = None if allowed is None else self._mask(np.asarray(allowed, bool), x.shape[:-1])
        memory = self._as_memory(state, episode_start, math.prod(x.shape[:-1]))
        if deterministic and self.deployable:
            action, after = self._deployed(x, mask, memory.reshape(*x.shape[:-1], -1))
            return action, self._as_state(after)
        with torch.inference_mode():
            found, after = self._recall(np.atleast_2d(x), None if mask is None else np.atleast_2d(mask), memory)
            action = (found.mode() if deterministic else found.sample(self.noise_rng)).numpy()
        channels = self.environment.contract.actions
        within = np.clip(self.physical(action), [c.low for c in channels], [c.high for c in channels])
        return within.reshape(*x.shape[:-1], -1), self._as_state(after)

    def sample(self, observation: Floats, memory: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Draw from what is trained by a generator of one's own.

        Args:
            observation: (N, n) physical.
            memory: (N, ``settings.remembered``) what the step before returned; zeros at an episode's start.
            rng: the generator.

        Returns:
            (N, m) physical actions; the next memory.
        """
        with torch.inference_mode():
            policy, after = self._recall(observation, None, memory)
            return self.physical(policy.sample(rng).numpy()), after

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
            **({"fine_tuned": self.fine_tuned} if self.fine_tuned else {}),
            "shield": [dict(stage) for stage in self.shield.specification],
            "versions": {"puffer_edge": __version__, "torch": torch.__version__, "numpy": np.__version__},
        }
        if plant := self.environment.imperfections.to_dict():
            origin["plant"] = plant
        return Policy(contract, layers(), self._normalizer, Head(contract.head, self._scale, self._offset), origin)

    @property
    def deployable(self) -> bool:
        """Whether the network says what its layers are."""
        return hasattr(self.net, "layers")

    @property
    def calibration(self) -> tuple[Floats, Bools] | None:
        """The observations, and where episodes begin, that this training's policies must be put into integers with; None for any."""
        return None

    def proposer(self, policy: Policy) -> Proposer:
        """A policy of this training as evaluations run it."""
        return InFloat(policy)

    def _deployed(self, observation: Floats, allowed: Bools | None, memory: Floats) -> tuple[Floats, Floats]:
        """(..., m) physical actions of the policy as it would be deployed, and the (..., memory) next memory."""
        policy = self.policy()
        outputs, after = policy.step(observation, memory)
        return policy.decide(outputs if allowed is None else np.where(allowed, outputs, -np.inf)), after

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

    def _as_memory(self, state: State | None, episode_start: npt.ArrayLike | None, rows: int) -> Floats:
        """A state as (rows, memory) numbers, cleared where episodes begin."""
        s = self.settings
        parts, shape = s.remembered // s.memory_size, (1, rows, s.memory_size)
        if state is None or not parts:
            return np.zeros((rows, s.remembered))
        if len(state) != parts or any(np.shape(part) != shape for part in state):
            raise InvalidInput(f"the state of {rows} rows is {parts} of shape {shape}, not {[np.shape(part) for part in state]}")
        memory = np.concatenate([np.asarray(part, np.float64)[0] for part in state], -1)
        begins = np.zeros(rows, bool) if episode_start is None else np.broadcast_to(np.asarray(episode_start, bool), rows)
        return np.where(begins[:, None], 0.0, memory)

    def _as_state(self, memory: Floats) -> State | None:
        """(..., memory) numbers as a state."""
        memory = np.atleast_2d(memory)
        return tuple(np.split(memory[None], memory.shape[1] // self.settings.memory_size, -1)) if memory.shape[1] else None
