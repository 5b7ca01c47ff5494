"""What an environment is: a contract, and three functions that know neither shield nor fixed point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from puffer_edge.contract import Contract
from puffer_edge.envs.scalar import Faces, Numbers, Scalar
from puffer_edge.spaces import Bools, Floats


@dataclass(frozen=True, eq=False)
class Environment:
    """A task with continuous state, many rows at a time, float64 throughout.

    It never resets itself and keeps no state: ``puffer_edge.envs.plant`` does both.

    Attributes:
        name: the file's name, and the name on the command line.
        contract: names, units, ranges and rate of what is observed and driven.
        state_size: S, numbers in the state of one row.
        max_steps: an episode is truncated after so many steps.
        solved: mean return that counts as solved.
        shield: default shield, one mapping a stage, for ``Shield.build``.
        reset: ``(rng, n) → state (n, S)``: draw n start states.
        observe: ``state (n, S) → observation (n, n_observations)`` in the contract's units.
        step: ``state (n, S), action (n, n_actions) in physical units → state, reward (n,), cost (n,), terminated (n,)``.
        faces: the scalar functions that the three were made of; None where they were written for numpy.
    """

    name: str
    contract: Contract
    state_size: int
    max_steps: int
    solved: float
    shield: tuple[Mapping[str, Any], ...]
    reset: Callable[[np.random.Generator, int], Floats]
    observe: Callable[[Floats], Floats]
    step: Callable[[Floats, Floats], tuple[Floats, Floats, Floats, Bools]]
    faces: Faces | None = None

    @staticmethod
    def of(
        name: str,
        contract: Contract,
        state_size: int,
        max_steps: int,
        solved: float,
        shield: tuple[Mapping[str, Any], ...],
        reset: Callable[[Any], Numbers],
        observe: Callable[[Numbers], Numbers],
        step: Callable[[Numbers, Numbers], tuple[Numbers, Any, Any, Any]],
    ) -> Environment:
        """An environment of the scalar functions of ``puffer_edge/envs/scalar.py``; the native trainer runs such ones alone."""
        faces = Faces(Scalar(reset, observe, step))
        return Environment(name, contract, state_size, max_steps, solved, shield, faces.reset, faces.observe, faces.step, faces)

    @property
    def scalar(self) -> Scalar | None:
        """The scalar functions, if this environment's functions are what was made of them."""
        faces = self.faces
        made = faces is not None and (self.reset, self.observe, self.step) == (faces.reset, faces.observe, faces.step)
        return faces.scalar if faces is not None and made else None

    def under(self, contract: Contract) -> Environment:
        """This task for a policy whose continuous head is of the other kind: the plant does not see whether an output was clipped or squashed.

        Args:
            contract: the policy's.

        Returns:
            The task with that contract; itself where more differs than "clip" and "tanh".
        """
        heads = {self.contract.head, contract.head}
        return replace(self, contract=contract) if heads == {"clip", "tanh"} and replace(self.contract, head=contract.head) == contract else self
