"""What every bridge runs: rows of an environment with seeds of their own, and the spaces of its contract."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge import envs
from puffer_edge.contract import Contract
from puffer_edge.envs import native, picture
from puffer_edge.envs.composition import Composition, compose
from puffer_edge.envs.draw import ON_RESET, Draws
from puffer_edge.envs.environment import Environment
from puffer_edge.errors import InvalidInput, MissingExtra, Unsupported
from puffer_edge.integer.shield import Shield
from puffer_edge.spaces import Bools, Floats, Ints

try:
    from gymnasium import spaces
except ImportError:
    raise MissingExtra("train", "an environment for Gymnasium or PettingZoo") from None

Rows = npt.NDArray[np.int64]

A_CALL = 200
"""Compiled resets that take as long as calling from Python for one."""


def observation_space(contract: Contract) -> Any:
    """Float32 Box of the contract's ranges; what lies beyond is clamped, as a sensor does."""
    low, high = (np.array([getattr(c, end) for c in contract.observations], np.float32) for end in ("low", "high"))
    return spaces.Box(low, high, dtype=np.float32)


def action_space(contract: Contract) -> Any:
    """Discrete or MultiDiscrete over the contract's levels, or a float32 Box of its ranges."""
    if contract.head == "discrete":
        return spaces.Discrete(len(contract.levels))
    if contract.head == "multi_discrete":
        return spaces.MultiDiscrete([len(row) for row in contract.levels])
    low, high = (np.array([getattr(c, end) for c in contract.actions], np.float32) for end in ("low", "high"))
    return spaces.Box(low, high, dtype=np.float32)


class Running:
    """N rows of an environment, each with a seed of its own, stepped by numbers of its action space.

    The first episode of seed s starts as ``environment.start(0, [s])`` does: as episode s of a plant with seed 0. What follows depends on the
    seed, and on the episodes and steps that the row has made since it was given, not on the rows beside it.

    Args:
        environment: the task, or its name.
        n: N, number of rows.
        shield: put fixed point and the default shield between the action and the plant, as on a board; without, the dynamics are plain.

    Attributes:
        environment: with its surroundings.
        contract: names and units of what the spaces hold.
        over: (N,) the episode of the row has ended, or none has begun.
        gone: (N, A) agents whose part in it has ended.

    Raises:
        InvalidInput: there is no such environment, or n is below 1.
        Unsupported: the environment goes forward only, as Gymnasium's own do; or a shield is asked for and none can be composed around it.
    """

    def __init__(self, environment: Environment | str, n: int = 1, shield: bool = False) -> None:
        task = envs.load(environment) if isinstance(environment, str) else environment
        if not task.pure:
            raise Unsupported(f"{task.name} is not made of functions of a state: use it as it is")
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
            raise InvalidInput(f"the number of environments is a whole number from 1 on, not {n!r}")
        self._composed: Composition | None = compose(task, Shield.build(task.contract, task.shield)) if shield else None
        self.environment = self._composed.environment if self._composed else task
        self.contract, self.n, self.agents = task.contract, int(n), task.agents
        self.over = np.ones(n, bool)
        self.gone = np.zeros((n, task.agents), bool)
        self._state = np.zeros((n, self.environment.state_size))
        self._seed, self._elapsed = np.full(n, -1, np.int64), np.zeros(n, np.int64)
        self._begun, self._made = np.zeros(n, np.uint64), np.zeros(n, np.uint64)
        self._compiled = False
        c = task.contract
        self._low, self._high = (np.array([getattr(ch, end) for ch in c.observations], np.float64) for end in ("low", "high"))
        self._least, self._most = (np.array([getattr(ch, end) for ch in c.actions], np.float64) for end in ("low", "high"))
        self._levels = [np.array(row, np.float64) for row in c.levels]

    def compile(self) -> None:
        """Compile the dynamics now, where numba is installed and they are scalar functions; the first time takes a second or two."""
        if self.environment.scalars is not None and native.available():
            self.environment.pointer()
            self._compiled = True

    def seed(self, rows: Rows, seeds: Any) -> None:
        """Give rows new seeds, modulo 2^32: their next episodes are the seeds' first."""
        self._seed[rows] = [int(seed) % 2**32 for seed in seeds]
        self._begun[rows] = self._made[rows] = 0

    def seeded(self, rows: Rows) -> bool:
        """Whether all of these rows have a seed."""
        return bool((self._seed[rows] >= 0).all())

    def begin(self, rows: Rows) -> None:
        """Start the next episode of these rows."""
        reset = self.environment.reset
        if self._compiled and len(rows) * A_CALL > self.n:  # scattered rows are a call each: all at once cost less
            self._state[rows] = reset(Draws(0, np.maximum(self._seed, 0), self._begun, ON_RESET))[rows]
        else:
            self._state[rows] = reset(Draws(0, self._seed[rows], self._begun[rows], ON_RESET))
        self._begun[rows] += np.uint64(1)
        self._elapsed[rows], self.over[rows], self.gone[rows] = 0, False, False

    def step(self, action: Floats, resting: Bools) -> tuple[Floats, Floats, Bools, Bools]:
        """One step of (N, A, m) physical actions.

        Args:
            action: from ``physical``.
            resting: (N,) rows that stay as they are.

        Returns:
            (N, A) reward, cost, terminated and truncated; 0 and False of what rests, and of agents that are gone.
        """
        rests, held = bool(resting.any()), self._state
        found = self.environment.advance_agents(self._state, action, 0, self._seed, self._made, self.gone)
        self._state, reward, cost, ended, alive = found
        self._made += np.uint64(1)
        self._elapsed += 1
        if rests:
            self._state[resting] = held[resting]
            self._made[resting] -= np.uint64(1)
            self._elapsed[resting] -= 1
        there = ~self.gone & ~resting[:, None]
        acted = alive & there
        terminated = ended & acted
        truncated = (self._elapsed >= self.environment.max_steps)[:, None] & there & ~terminated
        self.gone |= terminated | truncated
        self.over |= self.gone.all(-1)
        return np.where(acted, reward, 0.0), np.where(acted, cost, 0.0), terminated, truncated

    def observe(self) -> npt.NDArray[np.float32]:
        """(N, A, n) what is seen, clamped to the contract's ranges."""
        seen = self.environment.observe(self._state).reshape(self.n, self.agents, -1)
        return np.clip(seen, self._low, self._high).astype(np.float32)

    def allowed(self) -> npt.NDArray[np.int8] | None:
        """(N, A, n_outputs) 1 for each choice that may be taken next, group after group; None where all may."""
        if self.environment.allowed is None:
            return None
        return self.environment.allowed(self._state).reshape(self.n, self.agents, -1).astype(np.int8)

    def picture(self, row: int) -> npt.NDArray[np.uint8]:
        """(height, width, 3) picture of a row.

        Raises:
            InvalidInput: no episode of it has begun.
            Unsupported: the environment has no ``draw``.
            MissingExtra: Pillow is not installed.
        """
        if not self.seeded(np.array([row])):
            raise InvalidInput(f"no episode of {self.contract.name} has begun: call reset")
        return np.asarray(picture.frame(self.environment, self._state[row]), np.uint8)

    def stages(self) -> Ints | None:
        """(N,) int32 bits of the shield's stages that acted in the last step; None without a shield."""
        return self._composed.stages(self._state) if self._composed else None

    def physical(self, chosen: Any) -> Floats:
        """Points of the action space, (rows, …), as (rows, m) outputs in the contract's units; numbers of a Box are clamped.

        Raises:
            InvalidInput: the shape is another, a choice does not exist, or a number is NaN.
        """
        c = self.contract
        if c.head in ("discrete", "multi_discrete"):
            return self._choices(np.asarray(chosen))
        numbers = np.asarray(chosen, np.float64)
        if numbers.ndim != 2 or numbers.shape[1] != c.n_actions or np.isnan(numbers).any():
            raise InvalidInput(f"{c.name} takes {c.n_actions} numbers an action, none of them NaN, not {chosen!r}")
        return np.clip(numbers, self._least, self._most)

    def _choices(self, chosen: npt.NDArray[Any]) -> Floats:
        c, several = self.contract, self.contract.head == "multi_discrete"
        counts = np.array([len(row) for row in c.levels] if several else len(c.levels))
        fits = chosen.shape[1:] == counts.shape and np.issubdtype(chosen.dtype, np.integer)
        if not fits or (chosen < 0).any() or (chosen >= counts).any():
            raise InvalidInput(f"{c.name} takes whole numbers from 0 to below {counts.tolist()}, not {chosen.tolist()}")
        if several:
            return np.stack([row[chosen[:, k]] for k, row in enumerate(self._levels)], -1)
        outputs: Floats = np.array(self._levels)[chosen]
        return outputs
