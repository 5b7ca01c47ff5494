"""What an environment is: a contract, and dynamics over many rows that know neither shield nor fixed point."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.contract import Contract
from puffer_edge.envs.draw import Draws
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.imperfections import Imperfections
from puffer_edge.envs.native import Pointer
from puffer_edge.envs.world import Living, World
from puffer_edge.errors import InvalidInput, MissingExtra, Unsupported
from puffer_edge.spaces import Bools, Floats


@dataclass(frozen=True, eq=False)
class Environment:
    """A task with a state of float64 numbers, many rows at a time.

    It never resets itself and keeps no state: ``puffer_edge.envs.plant`` and the trainer do both. Written as scalar functions
    (``of_scalars``) it runs in the native engine too; numpy functions over many rows serve everything else.

    Attributes:
        name: the file's name, and the name on the command line.
        contract: names, units, ranges and rate of what is observed and driven; of one agent, where there are several.
        state_size: S, numbers in the state of one row.
        max_steps: an episode is truncated after so many steps.
        solved: mean return that counts as solved; inf where nobody says.
        shield: default shield, one mapping a stage, for ``Shield.build``.
        reset: ``draws → state (n, S)``: the start states of n rows; all randomness comes from ``draws``.
        observe: ``state (n, S) → observation (n, n_observations)`` in the contract's units.
        step: ``state (n, S), action (n, n_actions) in physical units → state, reward (n,), cost (n,), terminated (n,)``; the state that
            it is given stays as it was. A third argument, ``draws``, where ``random_steps`` is true.
        random_steps: ``step`` draws random numbers.
        agents: agents that share a row's state: observation, action, reward, cost and terminated are (n, agents, …) where there are
            several, and ``step`` may give a fifth array, ``alive`` (n, agents): who acted in the step. One that did not gets reward 0,
            cost 0 and terminated True, and may act again later. Without that array whoever has terminated acts no more in its episode.
        dynamics: the scalar functions that the three are made of, if they are.
        pure: all that changes is in the state, so that it can be saved and put back; of Gymnasium's environments it is not.
        living: makes one environment that goes forward only, where it is such; a plant steps that, and the functions here serve the rest.
        allowed: ``state (n, S) → (n, n_outputs)``, (n, agents, n_outputs) where there are several: the choices that may be taken next; None
            where all may.
        waiting: ``state (n, S) → (n, agents)``: whose proposal the next step does not look at, since it is another's turn; None: of nobody.
        draw: ``(state (S,), canvas)`` puts a picture of a state onto a ``puffer_edge.envs.picture.Canvas``; None where there is none.
        world: makes so many rows that live side by side, where that is another thing than as many of ``living``.
        imperfections: that ``puffer_edge.envs.imperfect`` has put around it.
        unstacked: the environment whose last observations this one shows (``puffer_edge.envs.frames``), if it does.

    Raises:
        InvalidInput: there are masks, and the head is not one of choices; or ``solved`` is no number.
    """

    name: str
    contract: Contract
    state_size: int
    max_steps: int
    solved: float
    shield: tuple[Mapping[str, Any], ...]
    reset: Callable[[Draws], Floats]
    observe: Callable[[Floats], Floats]
    step: Callable[..., tuple[Any, ...]]
    random_steps: bool = False
    agents: int = 1
    dynamics: Dynamics | None = None
    pure: bool = True
    living: Callable[[], Living] | None = None
    allowed: Callable[[Floats], Bools] | None = None
    world: Callable[[int], World] | None = None
    draw: Callable[[Floats, Any], None] | None = None
    waiting: Callable[[Floats], Bools] | None = None
    imperfections: Imperfections = Imperfections()  # noqa: RUF009  frozen
    unstacked: Environment | None = None

    def __post_init__(self) -> None:
        if isinstance(self.solved, bool) or not isinstance(self.solved, Real) or math.isnan(self.solved):
            raise InvalidInput(f"{self.name}: solved is the mean return that counts as such, not {self.solved!r}; leave it out where nobody knows")
        if self.allowed is not None and self.contract.head not in ("discrete", "multi_discrete"):
            raise InvalidInput(f"{self.name} masks choices, but its head {self.contract.head!r} gives numbers: a mask needs a head of choices")

    @staticmethod
    def of_scalars(
        contract: Contract,
        dynamics: Dynamics,
        *,
        max_steps: int,
        solved: float = math.inf,
        shield: tuple[Mapping[str, Any], ...] = ({"stage": "limit"},),
        name: str = "",
        draw: Callable[[Floats, Any], None] | None = None,
    ) -> Environment:
        """An environment from scalar functions of one row; its name is the contract's unless another is given.

        Raises:
            InvalidInput: the dynamics mask another number of choices than the contract has, or the head has none.
        """
        if dynamics.allow is not None and dynamics.n_choices != contract.n_outputs:
            raise InvalidInput(f"{name or contract.name}: the dynamics mask {dynamics.n_choices} choices, the contract has {contract.n_outputs}")
        faces: dict[str, Any] = {"reset": dynamics.start, "observe": dynamics.look, "step": dynamics.advance, "allowed": dynamics.permit}
        about: dict[str, Any] = {"random_steps": dynamics.random_steps, "agents": dynamics.agents, "dynamics": dynamics, "draw": draw}
        return Environment(name or contract.name, contract, dynamics.n_state, max_steps, solved, shield, **faces, **about)

    @staticmethod
    def of_library(
        file: str | Path,
        contract: Contract,
        *,
        solved: float = math.inf,
        max_steps: int = 0,
        shield: tuple[Mapping[str, Any], ...] = ({"stage": "limit"},),
        random_steps: bool = True,
        name: str = "",
    ) -> Environment:
        """An environment from a library in C, C++ or Rust that holds ``const pe_env pe_environment`` (``pe_env.h``).

        Args:
            file: the shared library; write ``Path(__file__).parent / "mine.so"`` for one beside your module. It is loaded: its code runs.
            contract: names, units and ranges of what it observes and drives.
            solved: as in ``Environment``.
            max_steps: as in ``Environment``; 0: what the library says.
            shield: as in ``Environment``.
            random_steps: False if its step draws no random number.
            name: the contract's unless another is given.

        Raises:
            InvalidInput: the file is missing, no library, or one for another version of ``pe_env.h``; or nobody says max_steps.
            ContractError: its sizes are others than the contract's.
            Unsupported: it wants parameters for each environment.
        """
        from puffer_edge.envs import library

        pointer = library.open_library(Path(file), contract)
        max_steps = max_steps or int(pointer.struct.max_steps)
        if not max_steps:
            raise InvalidInput(f"{Path(file).name} never ends an episode: say max_steps")
        made = library.dynamics(Path(file), pointer, random_steps)
        return Environment.of_scalars(contract, made, max_steps=max_steps, solved=solved, shield=shield, name=name)

    @property
    def scalars(self) -> Dynamics | None:
        """The scalar functions, if reset, observe, step and allowed are still made of them."""
        d = self.dynamics
        if d is None or (self.reset, self.observe, self.step, self.allowed) != (d.start, d.look, d.advance, d.permit):
            return None
        return d

    def pointer(self) -> Pointer:
        """This environment as the ``pe_env`` of ``pe_env.h``; the first call compiles, which takes a second or two, or reads the cache.

        Raises:
            Unsupported: its functions are numpy's, not scalar.
            MissingExtra: numba is not installed.
            InvalidInput: numba cannot compile a function.
        """
        if self.scalars is None:
            raise Unsupported(f"{self.name} is written as numpy functions: the native engine needs Environment.of_scalars; the torch engine runs it")
        if self.scalars.native is None:
            raise MissingExtra("train", f"{self.name} in the native engine")
        return self.scalars.native.pointer(self.max_steps)

    def start(self, seed: int, episodes: npt.ArrayLike) -> Floats:
        """(n, S) start states of episodes: the same for float, integer and device, however many run at once."""
        return self.reset(Draws.of_episodes(seed, np.asarray(episodes, np.int64)))

    def advance(
        self, state: Floats, action: Floats, seed: int, episodes: npt.ArrayLike, elapsed: npt.ArrayLike
    ) -> tuple[Floats, Floats, Floats, Bools]:
        """One step of rows that are in episodes of a seed.

        Args:
            state: (n, S).
            action: (n, n_actions) in physical units.
            seed: seed of the episodes.
            episodes: (n,) number of the episode of each row.
            elapsed: (n,) steps done in it, or one number for all.

        Returns:
            what ``step`` does.
        """
        following, reward, cost, terminated, *_ = self._stepped(state, action, seed, episodes, elapsed)
        return following, reward, cost, terminated

    def advance_agents(
        self, state: Floats, action: Floats, seed: int, episodes: npt.ArrayLike, elapsed: npt.ArrayLike, gone: Bools
    ) -> tuple[Floats, Floats, Floats, Bools, Bools]:
        """``advance``, agent by agent, however many there are.

        Args:
            state: (n, S).
            action: (n, agents, n_actions) in physical units.
            seed: as in ``advance``.
            episodes: as in ``advance``.
            elapsed: as in ``advance``.
            gone: (n, agents) who terminated before in its episode; they do not act where ``step`` says nothing about it.

        Returns:
            (n, S) state; (n, agents) reward, cost and terminated, 0, 0 and True of those that did not act; (n, agents) alive, who acted.
            Of an environment that lives terminated is False where an agent did not act but will in the next step.
        """
        n, agents = len(state), self.agents
        following, *found = self._stepped(state, action[:, 0] if agents == 1 else action, seed, episodes, elapsed)
        reward, cost, terminated = (x.reshape(n, agents) for x in found[:3])
        alive = found[3] if len(found) > 3 else ~gone
        if not alive.all():
            reward, cost = np.where(alive, reward, 0.0), np.where(alive, cost, 0.0)
            terminated = terminated if self.living is not None else terminated | ~alive
        return following, reward, cost, terminated, alive

    def _stepped(self, state: Floats, action: Floats, seed: int, episodes: npt.ArrayLike, elapsed: npt.ArrayLike) -> tuple[Any, ...]:
        if not self.random_steps:
            return self.step(state, action)
        numbers = np.asarray(episodes, np.int64)
        return self.step(state, action, Draws(seed, numbers, np.broadcast_to(np.asarray(elapsed, np.uint64), numbers.shape)))

    def under(self, contract: Contract) -> Environment:
        """This task for a policy whose continuous head is of the other kind: the plant does not see whether an output was clipped or squashed.

        Args:
            contract: the policy's.

        Returns:
            The task with that contract; itself where more differs than "clip" and "tanh".
        """
        heads = {self.contract.head, contract.head}
        return replace(self, contract=contract) if heads == {"clip", "tanh"} and replace(self.contract, head=contract.head) == contract else self
