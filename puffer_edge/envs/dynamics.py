"""Dynamics: an environment as scalar functions of one row, and the numpy face over many rows that is made of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from puffer_edge.envs import rows
from puffer_edge.envs.draw import Draws
from puffer_edge.errors import InvalidInput
from puffer_edge.spaces import Bools, Floats

if TYPE_CHECKING:
    from puffer_edge.envs.native import Native


PATIENCE = 200_000
"""Rows that plain Python serves before numba is imported for the others."""


@dataclass(frozen=True)
class Parameter:
    """A constant of the dynamics that may be varied.

    Attributes:
        name: identifier.
        unit: unit as text.
        value: what it is unless it is varied.
    """

    name: str
    unit: str
    value: float


@dataclass(frozen=True, eq=False)
class Dynamics:
    """A task as scalar functions of one row (``envs/scalar.py`` says what they may call).

    Attributes:
        n_state: S, numbers in the state.
        n_observation: numbers that one agent sees.
        n_action: numbers that one agent drives.
        reset: ``(draw, state, parameters)`` writes a start state into ``state`` (S,).
        observe: ``(state, observation)`` writes what is seen, (n_observation,), or (agents, n_observation) with several agents.
        step: ``(draw, state, action, parameters) → reward, cost, terminated``, changes ``state`` in place; with several agents
            ``(draw, state, action, parameters, reward, cost, terminated, alive)`` writes (agents,) each; ``alive`` says who acted in this
            step: one that did not gets reward 0, cost 0 and terminated 1, and may act again later.
        parameters: what ``parameters`` holds, in order.
        agents: agents that share the state.
        random_steps: ``step`` draws random numbers.
        allow: ``(state, allowed)`` writes 1 for each choice that may be taken next and 0 for the others, (n_choices,), or (agents, n_choices)
            with several agents; None where all may. At least one of each group must be 1 for an agent that acts.
        n_choices: of one agent, where there is ``allow``: the contract's ``n_outputs``, group after group.
        around: the dynamics that these functions surround, if they do.
        scratch: 64-bit words behind ``draw[DRAW]`` that the functions may use while they run; what is in them before is not defined.
    """

    n_state: int
    n_observation: int
    n_action: int
    reset: Callable[..., None]
    observe: Callable[..., None]
    step: Callable[..., Any]
    parameters: tuple[Parameter, ...] = ()
    agents: int = 1
    random_steps: bool = False
    scratch: int = 0
    allow: Callable[..., None] | None = None
    n_choices: int = 0
    around: Dynamics | None = None

    @property
    def layers(self) -> tuple[Dynamics, ...]:
        """These, and what they surround, from outside to inside."""
        return (self, *(self.around.layers if self.around else ()))

    @cached_property
    def values(self) -> Floats:
        """(n_parameters,) what the parameters are."""
        return np.array([p.value for p in self.parameters], np.float64)

    @cached_property
    def native(self) -> Native | None:
        """The functions compiled by numba; None where numba is not installed: plain Python gives the same bits then."""
        from puffer_edge.envs import native

        return native.compile_dynamics(self) if native.available() else None

    @cached_property
    def _asked(self) -> list[int]:
        """How many rows plain Python has served."""
        return [0]

    def _fast(self, count: int) -> Native | None:
        """The compiled functions where they pay; None: plain Python serves these rows, with the same bits.

        Importing numba and compiling cost what some hundred thousand rows do in Python: an export asks for fewer, a training has it loaded.
        """
        self._asked[0] += count
        return self.native if "numba" in sys.modules or self._asked[0] > PATIENCE else None

    @cached_property
    def plain(self) -> tuple[rows.Loop, rows.Loop, rows.Loop]:
        """Loops in plain Python: reset, step, observe."""
        return (
            rows.reset_rows(self.reset, self.observe, self.values, self.agents, self.scratch),
            rows.step_rows(self.step, self.observe, self.values, self.agents, self.scratch),
            rows.observe_rows(self.observe, self.agents),
        )

    @cached_property
    def plain_allow(self) -> rows.Loop | None:
        """The loop of ``allow`` in plain Python; None without it."""
        return None if self.allow is None else rows.allow_rows(self.allow, self.agents)

    @cached_property
    def observe_line(self) -> Callable[..., None]:
        """``observe``, of all agents side by side in one line."""
        observe, agents, n = self.observe, self.agents, self.n_observation
        if agents == 1:
            return observe

        def observe_all(state: Any, line: Any) -> None:
            observe(state, line.reshape(agents, n))

        return observe_all

    def allow_within(self) -> Callable[..., None] | None:
        """``allow`` for dynamics around these, whose state begins with this one; None without it."""
        if self.allow is None:
            return None
        allow, size = self.allow, self.n_state

        def allow_front(state: Any, allowed: Any) -> None:
            allow(state[:size], allowed)

        return allow_front

    @property
    def permit(self) -> Callable[[Floats], Bools] | None:
        """``(n, S) states → (n, n_choices)``, or (n, agents, n_choices): the choices that may be taken next; None where all may."""
        return None if self.allow is None else self._permit

    def _permit(self, state: Floats) -> Bools:
        assert self.plain_allow is not None
        state = np.ascontiguousarray(state, np.float64)
        allowed = np.zeros((len(state), self.agents, self.n_choices), np.uint8)
        if (fast := self._fast(len(state))) is not None:
            fast.allow(state, allowed)
        else:
            with np.errstate(all="ignore"):
                self.plain_allow(state, allowed)
        found: Bools = allowed != 0
        return found[:, 0] if self.agents == 1 else found

    def start(self, draws: Draws) -> Floats:
        """(n, S) start states."""
        n = len(draws)
        state, observation = np.zeros((n, self.n_state)), np.zeros((n, self.agents, self.n_observation))
        for part, first in _runs(draws.environment):
            self.reset_in_place(first, draws.key, draws.step[part], np.ones(len(state[part]), np.uint8), state[part], observation[part])
        return state

    def look(self, state: Floats) -> Floats:
        """(n, n_observation) what is seen in (n, S) states; (n, agents, n_observation) with several agents."""
        state = np.ascontiguousarray(state, np.float64)
        observation = np.zeros((len(state), self.agents, self.n_observation))
        if (fast := self._fast(len(state))) is not None:
            fast.observe(state, observation)
        else:
            with np.errstate(all="ignore"):
                self.plain[2](state, observation)
        return observation[:, 0] if self.agents == 1 else observation

    def advance(self, state: Floats, action: Floats, draws: Draws | None = None) -> tuple[Any, ...]:
        """One step of every row.

        Args:
            state: (n, S) before; it is left alone.
            action: (n, n_action) in physical units, or (n, agents, n_action).
            draws: where the random numbers come from; None serves dynamics that draw none.

        Returns:
            (n, S) state, (n,) reward, (n,) cost, (n,) terminated; the last three (n, agents) with several agents, and (n, agents) alive.

        Raises:
            InvalidInput: the dynamics draw random numbers and there are none.
        """
        if self.random_steps and draws is None:
            raise InvalidInput("this environment's steps are random: give Draws (seed, environment or episode, step)")
        n = len(state)
        draws = draws or Draws(0, np.arange(n), np.zeros(n, np.uint64))
        following = np.array(state, np.float64, order="C")
        action = np.ascontiguousarray(action, np.float64).reshape(n, self.agents, self.n_action)
        reward, cost = np.zeros((n, self.agents)), np.zeros((n, self.agents))
        terminated, alive = np.zeros((n, self.agents), np.uint8), np.ones((n, self.agents), np.uint8)
        observation = np.zeros((n, self.agents, self.n_observation))
        for part, first in _runs(draws.environment):
            out = (action, following, observation, reward, cost, terminated, alive)
            self.step_in_place(first, draws.key, draws.step[part], *(array[part] for array in out))
        ended = terminated != 0
        return (following, reward[:, 0], cost[:, 0], ended[:, 0]) if self.agents == 1 else (following, reward, cost, ended, alive != 0)

    def reset_in_place(self, *arguments: Any) -> None:
        """``native.Native.reset``, or plain Python with the same bits."""
        if (fast := self._fast(len(arguments[2]))) is not None:
            fast.reset(*arguments)
        else:
            with np.errstate(all="ignore"):  # as compiled code does
                self.plain[0](*arguments)

    def step_in_place(self, *arguments: Any) -> None:
        """``native.Native.step``, or plain Python with the same bits."""
        if (fast := self._fast(len(arguments[2]))) is not None:
            fast.step(*arguments)
        else:
            with np.errstate(all="ignore"):
                self.plain[1](*arguments)


def _runs(numbers: npt.NDArray[np.int64]) -> list[tuple[slice, int]]:
    """Slices of rows whose numbers follow each other, and the first number of each."""
    ends = [*(np.flatnonzero(np.diff(numbers) != 1) + 1), len(numbers)] if len(numbers) else []
    return [(slice(int(a), int(b)), int(numbers[a])) for a, b in zip([0, *ends], ends)]
