"""A plant: environments as a board meets them, in fixed point, behind a shield, starting again when an episode ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.envs.environment import Environment
from puffer_edge.envs.interventions import Interventions
from puffer_edge.envs.world import World, over
from puffer_edge.errors import Diverged, InvalidInput, Unsupported
from puffer_edge.integer.shield import Shield
from puffer_edge.spaces import Bools, Floats, Ints

_KEPT = ("last", "previous", "episode", "elapsed")
_UNKNOWN = "the environment keeps state that no checkpoint holds"


class States:
    """The world of an environment that is made of functions: its rows are states, which can be saved and put back.

    Args:
        environment: the task.
        n: N, number of rows.

    Attributes:
        state: (N, S).
        gone: (N, A) bool: who has terminated in the episode that its environment is in, and has not acted since.
    """

    def __init__(self, environment: Environment, n: int) -> None:
        self.environment = environment
        self.state = np.zeros((n, environment.state_size))
        rows = (n, environment.agents)
        self.seen = np.zeros((*rows, environment.contract.n_observations))
        self.reward, self.cost = np.zeros(rows), np.zeros(rows)
        self.terminated, self.alive, self.gone = np.zeros(rows, bool), np.ones(rows, bool), np.zeros(rows, bool)
        self.cut = np.zeros(n, bool)
        masked, choices = environment.allowed is not None, environment.contract.n_outputs
        self.allowed: Bools | None = np.ones((*rows, choices), bool) if masked else None
        self._episode, self._elapsed, self._seed = np.zeros(n, np.int64), np.zeros(n, np.int64), 0

    def start(self, rows: npt.NDArray[np.int64], seed: int, episodes: npt.NDArray[np.int64]) -> None:
        """Start these rows in these episodes of a seed."""
        self._seed = seed
        self._episode[rows], self._elapsed[rows], self.gone[rows] = episodes, 0, False
        self.state[rows] = self.environment.start(seed, episodes)
        self._look(rows)

    def step(self, action: Floats) -> None:
        """One step of every row: (N, A, m) physical actions."""
        found = self.environment.advance_agents(self.state, action, self._seed, self._episode, self._elapsed, self.gone)
        self.state, self.reward, self.cost, self.terminated, self.alive = found
        self._elapsed += 1
        self.gone = self.terminated.copy()
        self._look()

    def close(self) -> None:
        """There is nothing to give back."""

    def resume(self, seed: int, episode: npt.NDArray[np.int64], elapsed: npt.NDArray[np.int64], state: Floats, gone: Bools) -> None:
        """Go on from states in the middle of episodes."""
        self._seed, self._episode, self._elapsed = seed, episode.copy(), elapsed.copy()
        self.state, self.gone = state.copy(), gone.copy()
        self._look()

    def _look(self, rows: Any = slice(None)) -> None:
        e, state = self.environment, self.state[rows]
        self.seen[rows] = e.observe(state).reshape(-1, *self.seen.shape[1:])
        if self.allowed is not None and e.allowed is not None:
            self.allowed[rows] = e.allowed(state).reshape(-1, *self.allowed.shape[1:])


@dataclass(frozen=True, eq=False)
class StepResult:
    """What one step of N environments with A agents gave; rows are agents, R = N · A of them, environment after environment.

    Attributes:
        observation: (R, n) physical observation to act on next; where an episode ended, the first of the next episode.
        final_observation: (R, n) physical observation before any reset; a truncated episode bootstraps from it.
        reward: (R,) reward of the action just applied; 0 where the agent did not act.
        cost: (R,) cost of the action just applied; 0 where the agent did not act.
        terminated: (R,) the task ended the agent's part: nothing follows. Also True where the agent did not act.
        truncated: (R,) only the clock, or one of the environment's own, ended it; never true together with ``terminated``.
        alive: (R,) the agent acted in this step; from a step in which it did not there is nothing to learn.
        allowed: (R, n_outputs) the choices that may be taken next; None where all may.
        length: (R,) steps of the episode so far, this one included.
        applied: (R, m) int32 fixed-point action that acted.
        stages: (R,) int32, bit k set where stage k of the shield acted.
    """

    observation: Floats
    final_observation: Floats
    reward: Floats
    cost: Floats
    terminated: Bools
    truncated: Bools
    alive: Bools
    allowed: Bools | None
    length: npt.NDArray[np.int64]
    applied: Ints
    stages: Ints


class Plant:
    """N environments: observation → fixed point → (policy) → shield → physical action → dynamics, agent by agent.

    Episode k of a seed starts from the same state whatever N is and whoever acts, so that runs of a float policy,
    its integers and a board are paired. Environments take episodes 0 … N−1 first, then the next free number, in their order. A
    row that lives takes the number N further on, which its process can know before any other row has ended.
    An episode is over when all agents have terminated, or at the clock. An agent that did not act in a step starts anew when it acts again:
    to the shield its previous action is the contract's initial one.

    Args:
        environment: the task.
        n: N, number of environments.
        seed: seed of the episodes, not negative.
        shield: between proposal and actuator; None applies the proposal, clamped to the contract.
        world: where the N environments live; None for the environment's own functions, in this process.
        interventions: what a training makes of what the shield changes; None: nothing.

    Attributes:
        rows: R = N · A, agents in all.
        last: (R, n) int32 observation in fixed point, as a device receives it.
        allowed: (R, n_outputs) the choices that may be taken next; None where all may.
        episode: (N,) number of the episode that each environment is in.
        elapsed: (N,) steps done in it.
        forgets: why what ``save_state`` gave last, or ``load_state`` took, lacks the state of the environments; empty where it has it.

    Raises:
        InvalidInput: n or seed out of range, the shield belongs to another contract, or the environment observed NaN.
        Unsupported: the contract runs the policy at fewer than every base tick.
    """

    def __init__(
        self,
        environment: Environment,
        n: int = 1,
        seed: int = 0,
        shield: Shield | None = None,
        world: World | None = None,
        interventions: Interventions | None = None,
    ) -> None:
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
        self.rows = n * environment.agents
        self.seed = seed
        self.shield = shield
        self.interventions = interventions or Interventions()
        self.world = States(environment, n) if world is None else world
        self._no_fallback = np.zeros(self.rows, np.int32)
        self._price = np.zeros(self.rows)
        self._all = np.arange(n)
        self.forgets = ""
        self.reset()

    @property
    def state(self) -> Floats:
        """(N, S) states of an environment that is made of functions.

        Raises:
            Unsupported: the environments live elsewhere.
        """
        if not isinstance(self.world, States):
            raise Unsupported(f"{self.environment.name} lives in a world of its own: it has no state that could be read")
        return self.world.state

    def reset(self, seed: int | None = None) -> Floats:
        """Start every environment afresh, from episode 0 on, with another seed if one is given. Returns (R, n) physical observations."""
        contract = self.environment.contract
        self.seed = self.seed if seed is None else seed
        self._next_episode = 0
        self.episode = np.arange(self.n) - self.n
        self.elapsed = np.zeros(self.n, np.int64)
        self.last = np.zeros((self.rows, contract.n_observations), np.int32)
        self.previous = np.zeros((self.rows, contract.n_actions), np.int32)
        self._start(self._all)
        self._mask()
        return contract.physical_observation(self.last)

    def step(self, raw: npt.ArrayLike) -> StepResult:
        """Let the shield pass or replace (R, m) proposals in physical units, and apply what it gives.

        Raises:
            Diverged: a proposal is NaN or infinite.
            InvalidInput: what was observed after it is, or an agent acted that was allowed no choice.
        """
        applied, stages, action = self.propose(raw)
        self.world.step(action)
        return self.take(applied, stages)

    def propose(self, raw: npt.ArrayLike) -> tuple[Ints, Ints, Floats]:
        """The first half of ``step``: what the shield lets act in the place of (R, m) proposals, without acting.

        Returns:
            (R, m) int32 applied and (R,) int32 stages, for ``take``; (N, A, m) physical actions, for the world.

        Raises:
            Diverged: a proposal is NaN or infinite.
        """
        proposal = np.asarray(raw, np.float64)
        if not np.isfinite(proposal).all():
            row = int(np.flatnonzero(~np.isfinite(proposal).all(-1))[0])
            raise Diverged(f"the policy proposed {proposal[row]} in row {row}: its weights have diverged")
        contract = self.environment.contract
        proposed = applied = contract.fixed_action(proposal)
        stages = self._no_fallback
        if self.shield is not None:
            applied, stages = self.shield.apply(self.last, proposed, self.previous, self._no_fallback)
        if self.interventions.priced:
            self._price = self.interventions.price(contract, proposed, applied, stages)
        return applied, stages, contract.physical_action(applied).reshape(self.n, self.environment.agents, -1)

    def take(self, applied: Ints, stages: Ints) -> StepResult:
        """The second half of ``step``, once the world has made it: what ``propose`` gave has acted.

        Raises:
            InvalidInput: what was observed after it is NaN, or an agent acted that was allowed no choice.
        """
        environment, contract, world = self.environment, self.environment.contract, self.world
        alive, terminated, reward, cost = (x.copy() for x in (world.alive, world.terminated, world.reward, world.cost))
        ended = over(terminated, alive, world.cut)
        self._check_choice(alive.reshape(-1))
        self.previous = applied
        if self.interventions.priced:
            reward -= self._price.reshape(reward.shape)
        if not alive.all():
            dead = ~alive
            reward[dead], cost[dead], terminated[dead] = 0.0, 0.0, True
            self.previous = np.where(dead.reshape(-1, 1), contract.action_initial, applied)
        self.elapsed += 1
        cut = (self.elapsed >= environment.max_steps) | world.cut
        truncated = cut[:, None] & ~terminated
        length = np.repeat(self.elapsed, environment.agents)
        self._sense(self._all)
        observation = final = contract.physical_observation(self.last)
        begins = np.flatnonzero(cut | ended)
        if len(begins):
            self._start(begins)
            observation = contract.physical_observation(self.last)
        self._mask()
        gained, ends = (reward.reshape(-1), cost.reshape(-1)), (terminated.reshape(-1), truncated.reshape(-1))
        return StepResult(observation, final, *gained, *ends, alive.reshape(-1), self.allowed, length, applied, stages)

    def save_state(self) -> dict[str, npt.NDArray[Any]]:
        """Everything that changes, as arrays by name; ``forgets`` then says whether that holds."""
        kept, self.forgets = self._own_state(), "" if self.environment.pure else _UNKNOWN
        if not isinstance(self.world, States):
            try:
                kept |= {f"world.{name}": held for name, held in self.world.save_state().items()}
                self.forgets = ""
            except Unsupported as error:
                self.forgets = str(error)
        return kept

    def _own_state(self) -> dict[str, npt.NDArray[Any]]:
        """All but environments that live elsewhere."""
        kept = {"next_episode": np.array([self._next_episode])} | {name: getattr(self, name).copy() for name in _KEPT}
        if isinstance(self.world, States):
            kept["state"] = self.world.state.copy()
            kept |= {"gone": self.world.gone.copy()} if self.environment.agents > 1 else {}
        return kept

    def load_state(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what ``save_state`` gave; environments whose state is not in it start the next episodes.

        Raises:
            InvalidInput: an array is missing or has another shape.
        """
        for name, held in self._own_state().items():
            if name not in arrays or arrays[name].shape != held.shape:
                raise InvalidInput(f"the plant's saved {name} is missing or was saved for another number of rows than {self.n}")
        for name in _KEPT:
            setattr(self, name, arrays[name].copy())
        self._next_episode = int(arrays["next_episode"][0])
        if self.environment.pure and isinstance(self.world, States):
            gone = arrays.get("gone", np.zeros_like(self.world.gone))
            self.world.resume(self.seed, self.episode, self.elapsed, arrays["state"], gone)
            self._mask()
            return
        self.forgets = self._load_world({name.removeprefix("world."): held for name, held in arrays.items() if name.startswith("world.")})
        if self.forgets:
            self._start(self._all)
        self._mask()

    def _load_world(self, arrays: Mapping[str, npt.NDArray[Any]]) -> str:
        """Put environments that live back; why they cannot be."""
        if isinstance(self.world, States) or not arrays:
            return _UNKNOWN
        try:
            self.world.load_state(arrays)
        except Unsupported as error:
            return str(error)
        return ""

    def _rows(self, environments: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The agents' rows of these environments."""
        agents = self.environment.agents
        return (environments[:, None] * agents + np.arange(agents)).reshape(-1)

    def _sense(self, environments: npt.NDArray[np.int64]) -> None:
        """Take what these environments show into ``last``."""
        e, everyone = self.environment, len(environments) == self.n
        seen = (self.world.seen if everyone else self.world.seen[environments]).reshape(len(environments) * e.agents, -1)
        observation, _, invalid = e.contract.observe(seen)
        if invalid.any():
            k = int(np.flatnonzero(invalid)[0])
            own = environments[k // e.agents]
            where = f"row {own * e.agents + k % e.agents}, episode {self.episode[own]}, step {self.elapsed[own]}"
            raise InvalidInput(f"{e.name} observed a NaN or an infinity: {seen[k]} in {where}")
        if everyone:
            self.last = observation
        else:
            self.last[self._rows(environments)] = observation

    def _mask(self) -> None:
        """Take the masks; an agent that is left no choice in a group gets them all there, and must not act."""
        self.allowed, self._stuck = None, np.zeros(0, np.int64)
        if self.world.allowed is not None:
            groups = self.environment.contract.groups
            allowed = self.world.allowed.reshape(self.rows, -1)
            none = ~np.logical_or.reduceat(allowed, np.cumsum([0, *groups[:-1]]), axis=-1)
            self.allowed = allowed | np.repeat(none, groups, axis=-1)
            self._stuck = np.flatnonzero(none.any(-1))
        if self.interventions.mask and self.shield is not None:
            self.allowed = self.interventions.narrow(self.shield, self.last, self.previous, self.allowed)

    def _check_choice(self, alive: Bools) -> None:
        wrong = self._stuck[alive[self._stuck]]
        if len(wrong):
            k = int(wrong[0]) // self.environment.agents
            raise InvalidInput(no_choice(self.environment.name, int(wrong[0]), f"in episode {self.episode[k]}, step {self.elapsed[k]}"))

    def _start(self, environments: npt.NDArray[np.int64]) -> None:
        if self.environment.living is not None:
            self.episode[environments] += self.n
        else:
            self.episode[environments] = self._next_episode + np.arange(len(environments))
            self._next_episode += len(environments)
        self.elapsed[environments] = 0
        self.world.start(environments, self.seed, self.episode[environments])
        self._sense(environments)
        self.previous = self.previous.copy()  # the array given out as ``applied`` stays as it was
        self.previous[self._rows(environments)] = self.environment.contract.action_initial


def no_choice(name: str, row: int, where: str) -> str:
    """What is said of an environment whose mask leaves a row that acts nothing to choose."""
    return f"{name} allowed no choice to row {row}, which acted, {where}: its mask must leave at least one of each group"
