"""A plant: an environment as a board meets it, in fixed point, behind a shield, starting again when an episode ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.envs.environment import Environment
from puffer_edge.errors import Diverged, InvalidInput, Unsupported
from puffer_edge.integer.shield import Shield
from puffer_edge.spaces import Bools, Floats, Ints

_STATE = ("state", "last", "previous", "episode", "elapsed")


@dataclass(frozen=True, eq=False)
class StepResult:
    """What one step of N rows gave.

    Attributes:
        observation: (N, n) physical observation to act on next; where an episode ended, the first of the next episode.
        final_observation: (N, n) physical observation before any reset; a truncated episode bootstraps from it.
        reward: (N,) reward of the action just applied.
        cost: (N,) cost of the action just applied.
        terminated: (N,) the task ended the episode: nothing follows.
        truncated: (N,) only the clock ended it; never true together with ``terminated``.
        applied: (N, m) int32 fixed-point action that acted.
        stages: (N,) int32, bit k set where stage k of the shield acted.
    """

    observation: Floats
    final_observation: Floats
    reward: Floats
    cost: Floats
    terminated: Bools
    truncated: Bools
    applied: Ints
    stages: Ints


class Plant:
    """N rows of an environment: observation → fixed point → (policy) → shield → physical action → dynamics.

    Episode k of a seed starts from the same state whatever N is and whoever acts, so that runs of a float policy,
    its integers and a board are paired. Rows take episodes 0 … N−1 first, then the next free number, in row order.

    Args:
        environment: the task.
        n: N, number of rows.
        seed: seed of the episodes, not negative.
        shield: between proposal and actuator; None applies the proposal, clamped to the contract.

    Attributes:
        last: (N, n) int32 observation in fixed point, as a device receives it.
        episode: (N,) number of the episode that each row is in.
        elapsed: (N,) steps done in it.

    Raises:
        InvalidInput: n or seed out of range, the shield belongs to another contract, or the environment observed NaN.
        Unsupported: the contract runs the policy at fewer than every base tick, or the environment has several agents.
    """

    def __init__(self, environment: Environment, n: int = 1, seed: int = 0, shield: Shield | None = None) -> None:
        if environment.agents > 1:
            raise Unsupported(f"{environment.name} has {environment.agents} agents: a plant is one agent's; the native engine runs several")
        if n < 1 or seed < 0:
            raise InvalidInput(f"a plant needs at least 1 row and a seed that is not negative, not n={n}, seed={seed}")
        if shield is not None and shield.contract.digest != environment.contract.digest:
            raise InvalidInput(f"the shield was built for another contract: {'; '.join(environment.contract.differences(shield.contract))}")
        if environment.contract.policy_divider != 1:
            raise Unsupported(
                f"{environment.name} runs its policy at one of {environment.contract.policy_divider} ticks: a plant needs it at every one"
            )
        self.environment = environment
        self.n = n
        self.seed = seed
        self.shield = shield
        self._no_fallback = np.zeros(n, np.int32)
        self.reset()

    def reset(self, seed: int | None = None) -> Floats:
        """Start every row afresh, from episode 0 on, with another seed if one is given. Returns (N, n) physical observations."""
        contract = self.environment.contract
        self.seed = self.seed if seed is None else seed
        self._next_episode = 0
        self.episode = np.zeros(self.n, np.int64)
        self.elapsed = np.zeros(self.n, np.int64)
        self.state = np.zeros((self.n, self.environment.state_size))
        self.last = np.zeros((self.n, contract.n_observations), np.int32)
        self.previous = np.zeros((self.n, contract.n_actions), np.int32)
        self._start(np.arange(self.n))
        return contract.physical_observation(self.last)

    def step(self, raw: npt.ArrayLike) -> StepResult:
        """Let the shield pass or replace (N, m) proposals in physical units, and apply what it gives.

        Raises:
            InvalidInput: a proposal is NaN or infinite, or what was observed after it is.
        """
        proposal = np.asarray(raw, np.float64)
        if not np.isfinite(proposal).all():
            row = int(np.flatnonzero(~np.isfinite(proposal).all(-1))[0])
            raise Diverged(f"the policy proposed {proposal[row]} in row {row}: its weights have diverged")
        environment, contract = self.environment, self.environment.contract
        applied, stages = contract.fixed_action(proposal), self._no_fallback
        if self.shield is not None:
            applied, stages = self.shield.apply(self.last, applied, self.previous, self._no_fallback)
        self.state, reward, cost, terminated = environment.advance(
            self.state, contract.physical_action(applied), self.seed, self.episode, self.elapsed
        )
        self.previous = applied
        self.elapsed += 1
        truncated = (self.elapsed >= environment.max_steps) & ~terminated
        self.last = self._observe(self.state)
        observation = final = contract.physical_observation(self.last)
        ended = np.flatnonzero(terminated | truncated)
        if len(ended):
            self._start(ended)
            observation = contract.physical_observation(self.last)
        return StepResult(observation, final, reward, cost, terminated, truncated, applied, stages)

    def save_state(self) -> dict[str, npt.NDArray[Any]]:
        """Everything that changes, as arrays by name."""
        return {"next_episode": np.array([self._next_episode])} | {name: getattr(self, name).copy() for name in _STATE}

    def load_state(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what ``save_state`` gave; an environment that is not pure starts the next episodes.

        Raises:
            InvalidInput: an array is missing or has another shape.
        """
        for name in _STATE:
            if name not in arrays or arrays[name].shape != getattr(self, name).shape:
                raise InvalidInput(f"the plant's saved {name} is missing or was saved for another number of rows than {self.n}")
            setattr(self, name, arrays[name].copy())
        self._next_episode = int(arrays["next_episode"][0])
        if not self.environment.pure:
            self._start(np.arange(self.n))

    def _observe(self, state: Floats) -> Ints:
        observation, _, invalid = self.environment.contract.observe(self.environment.observe(state))
        if invalid.any():
            raise InvalidInput(f"{self.environment.name} observed a NaN or an infinity in the state {state[np.flatnonzero(invalid)[0]]}")
        return observation

    def _start(self, rows: npt.NDArray[np.int64]) -> None:
        self.episode[rows] = self._next_episode + np.arange(len(rows))
        self._next_episode += len(rows)
        self.state[rows] = self.environment.start(self.seed, self.episode[rows])
        self.elapsed[rows] = 0
        self.last[rows] = self._observe(self.state[rows])
        self.previous = self.previous.copy()  # the array given out as ``applied`` stays as it was
        self.previous[rows] = self.environment.contract.action_initial
