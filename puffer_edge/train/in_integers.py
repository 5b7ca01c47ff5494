"""A learner whose actor may act and learn in integers: when it begins, what it is calibrated on, and what its policies say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from puffer_edge.envs import closed_loop
from puffer_edge.integer.reference import InFloat, Proposer
from puffer_edge.policy import Policy
from puffer_edge.spaces import Bools, Floats
from puffer_edge.train import learner_state
from puffer_edge.train.integers import Integers
from puffer_edge.train.loop import Learner
from puffer_edge.train.nets.actor_critic import ActorCritic
from puffer_edge.train.nets.soft_actor_critic import SoftActorCritic

EPISODES = 32
"""Of the float policy, before it goes on in integers: they are what the integers are calibrated on."""


class InIntegers(Learner):
    """A learner that knows the settings ``qat`` and ``qat_from``; its network is an ``ActorCritic`` or ``SoftActorCritic`` where they are used.
    An algorithm calls ``begin_integers`` before it goes on.

    Attributes:
        integers: in which the actor acts and learns; None while it does so in float.
    """

    integers: Integers | None

    def _prepare(self, seed: int) -> None:
        super()._prepare(seed)
        self.integers = None

    def begin_integers(self) -> None:
        """Act and learn in integers from here on, if that is due."""
        s = self.settings
        if s.qat != "none" and self.integers is None and self.steps >= s.qat_from * s.steps:
            self.go_on_in_integers()

    def go_on_in_integers(self) -> None:
        """From here on act and learn in the integers of ``settings.qat``, calibrated on episodes of the policy as it is now."""
        policy = self.policy()
        seed = int(np.random.SeedSequence([self.seed, 3]).generate_state(1)[0])
        ints, starts = closed_loop.play(self.environment, InFloat(policy), self.shield, EPISODES, seed).calibration()
        self._in_integers(policy.contract.physical_observation(ints), starts)
        self.last_good = self.policy()

    def _in_integers(self, observations: Floats, starts: Bools) -> None:
        assert isinstance(self.net, (ActorCritic, SoftActorCritic))
        self.integers = self.net.integers = Integers(super().policy, self.settings.qat, observations, starts)

    def _flat(self) -> torch.Tensor:
        assert isinstance(self.net, (ActorCritic, SoftActorCritic))
        return self.net.flat

    def own_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What the integers are calibrated on, beside the rest."""
        held = {} if self.integers is None else {"integers.observations": self.integers.observations, "integers.starts": self.integers.starts}
        return super().own_arrays() | held

    def load_own(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what ``own_arrays`` gave."""
        super().load_own(arrays)
        if self.settings.qat != "none" and "integers.observations" in arrays:
            self._in_integers(arrays["integers.observations"], arrays["integers.starts"])

    def take_over(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on with the networks and normaliser of another training's checkpoint; whatever belongs to its episodes begins anew."""
        learner_state.load_networks(self, arrays)
        self.refresh()
        if self.settings.qat == "none":
            return
        if "integers.observations" in arrays:  # its float weights are no policy that could be played
            self._in_integers(arrays["integers.observations"], arrays["integers.starts"])
            self.refresh()
        else:
            self.go_on_in_integers()

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
        trained = {"profile": self.settings.qat, "digest": self.integers.program(self._flat()).digest.hex()}
        return replace(policy, origin=policy.origin | {"integers": trained})

    def proposer(self, policy: Policy) -> Proposer:
        return self.integers.of(policy) if self.integers is not None and "integers" in policy.origin else super().proposer(policy)

    def _deployed(self, observation: Floats, allowed: Bools | None, memory: Floats) -> tuple[Floats, Floats]:
        if self.integers is None:
            return super()._deployed(observation, allowed, memory)
        contract, rows = self.environment.contract, np.atleast_2d(observation)
        if allowed is None:
            action = contract.physical_action(self.integers.program(self._flat()).run(contract.observe(rows)[0]))
        else:
            with torch.inference_mode():
                action = self.physical(self._distribution(rows, np.atleast_2d(allowed)).mode().numpy())
        return action.reshape(*observation.shape[:-1], -1), memory
