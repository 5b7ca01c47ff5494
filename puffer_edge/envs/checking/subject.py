"""What a rule examines: an environment, its text, and one rollout that all rules share; and what a rule finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np

from puffer_edge.envs import gym
from puffer_edge.envs.checking.places import Place, Source, of_error, of_function
from puffer_edge.envs.environment import Environment
from puffer_edge.errors import PufferEdgeError, WorkerFailed
from puffer_edge.spaces import Bools, Floats

ROWS = 32
EPISODES = np.arange(ROWS)
MOMENTS = 16
"""Steps of an episode whose states are kept, for rules that try several actions in one."""
RANDOM = ("random", "rng", "default_rng", "uniform", "normal", "time", "perf_counter", "urandom")
"""Names in a function's text that tell where its randomness comes from."""


@dataclass(frozen=True)
class Finding:
    """What breaks a rule.

    Attributes:
        message: what was found, in words and numbers.
        place: the line to change; None where there is no source to read.
        error: what was raised on the way, if it is of this library's kinds.
    """

    message: str
    place: Place | None
    error: PufferEdgeError | None = None


Findings = Iterator[Finding]


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        name: short.
        promise: what it asks.
        broken: yields what breaks it.
        needs: rules without which it cannot be tried.
        part: the function at fault where nothing nearer is known.
        applies: whether it is for this kind of environment.
    """

    name: str
    promise: str
    broken: Callable[[Subject], Findings]
    needs: tuple[str, ...] = ()
    part: str = "step"
    applies: Callable[[Subject], bool] = lambda subject: True

    def line(self, subject: Subject) -> Place | None:
        """Where its function begins."""
        return subject.source.function(self.part)


@dataclass
class Subject:
    """An environment under examination, and what the rules find out about it for each other.

    Attributes:
        notes: by rule, what else is worth knowing.
    """

    environment: Environment
    seed: int
    notes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scalars = self.environment.scalars
        made_of: Any = self.scalars or self.environment
        functions = {part: getattr(made_of, part) for part in ("reset", "observe", "step")}
        if self.instance is not None:
            functions = {"reset": type(self.instance).reset} | dict.fromkeys(("observe", "step"), type(self.instance).step)
        self.source = Source(functions)
        c = self.environment.contract
        self.low, self.high = (np.array([getattr(ch, end) for ch in c.actions], np.float64) for end in ("low", "high"))

    def actions(self, rng: np.random.Generator, n: int = ROWS) -> Floats:
        """(n, agents, m) random legal actions."""
        return rng.uniform(self.low, self.high, (n, self.environment.agents, len(self.low)))

    def shaped(self, action: Floats) -> Floats:
        """(n, agents, m) as ``step`` takes it."""
        return action[:, 0] if self.environment.agents == 1 else action

    @cached_property
    def instance(self) -> Any:
        """One of Gymnasium's, without wrappers, where the environment is such; else None."""
        env: Any = getattr(self.environment.living() if self.environment.living else None, "env", None)
        found = isinstance(env, gym.classes())
        return cast("Any", env).unwrapped if found else None

    @cached_property
    def walk(self) -> Walk:
        """One rollout of ``ROWS`` rows over ``max_steps``, made when the first rule asks for it."""
        return Walk(self)


class Walk:
    """Random legal actions for ``max_steps``; rows begin anew when their episode ends. What it meets is kept, the first of each kind.

    Attributes:
        found: by rule, what broke it.
        moments: some states on the way, with the steps done.
        lengths: of the episodes that ended by themselves.
        lowest: (n,) least that each channel showed.
        highest: (n,) most.
    """

    def __init__(self, subject: Subject) -> None:
        e, self._subject = subject.environment, subject
        self.found: dict[str, dict[str, Finding]] = {"observe": {}, "step": {}, "draws": {}, "rows": {}, "masks": {}}
        self.moments: list[tuple[int, Floats]] = []
        self.lengths: list[int] = []
        n = e.contract.n_observations
        self.lowest, self.highest = np.full(n, np.inf), np.full(n, -np.inf)
        rng, state, age = np.random.default_rng(subject.seed), e.start(subject.seed, EPISODES), np.zeros(ROWS, np.int64)
        gone = np.zeros((ROWS, e.agents), bool)
        every = max(1, e.max_steps // MOMENTS)
        for elapsed in range(e.max_steps):
            if not self._look(state):
                return
            self._masked(state, gone)
            if elapsed % every == 0:
                self.moments.append((elapsed, state.copy()))
            following = self._advance(state, subject.shaped(subject.actions(rng)), elapsed)
            if following is None:
                return
            state, ended = following
            over: Bools = np.asarray(ended.all(-1))
            gone = ended & ~over[:, None]
            age += 1
            self.lengths += age[over].tolist()
            age[over] = 0
            if over.any() and elapsed + 1 < e.max_steps:
                begun = e.start(subject.seed + 1, EPISODES + ROWS * elapsed)
                state = np.where(over[:, None], begun, state)

    def _note(self, rule: str, key: str, message: str, place: Place | None) -> None:
        self.found[rule].setdefault(key, Finding(message, place))

    def _called(self, part: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function gives; None where it raised, which is noted."""
        try:
            return function(*arguments)
        except Exception as raised:  # whatever a function of somebody's own raises
            error = raised.__cause__ or raised if isinstance(raised, WorkerFailed) else raised
            self._note(part, "raised", f"{part} raised {type(error).__name__}: {error}", of_error(error) or self._subject.source.returned(part))
            return None

    def _look(self, state: Floats) -> bool:
        e, source = self._subject.environment, self._subject.source
        n, before = e.contract.n_observations, state.copy()
        seen = self._called("observe", e.observe, state)
        if seen is None:
            return False
        if wrong := wrong_array("observe gives numbers", seen, (ROWS, n) if e.agents == 1 else (ROWS, e.agents, n), np.float64):
            self._note("observe", "array", wrong, at_fault(source, "observe", wrong, seen))
            return False
        if not np.array_equal(before, state):
            self._note("observe", "state", "observe changed the state that it was given", source.written("observe", 0, -1))
        flat = seen.reshape(-1, n)
        self.lowest, self.highest = np.minimum(self.lowest, flat.min(0)), np.maximum(self.highest, flat.max(0))
        return True

    def _masked(self, state: Floats, gone: Bools) -> None:
        e, k = self._subject.environment, self._subject.environment.contract.n_outputs
        if e.allowed is None:
            return
        allowed, place = e.allowed(state), of_function(e.dynamics.allow if e.scalars and e.dynamics else e.allowed)
        if wrong := wrong_array("allowed gives choices", allowed, (ROWS, k) if e.agents == 1 else (ROWS, e.agents, k), np.bool_):
            self._note("masks", "array", wrong, place)
            return
        some = np.logical_or.reduceat(allowed.reshape(ROWS, e.agents, k), np.cumsum([0, *e.contract.groups[:-1]]), axis=-1).all(-1)
        if not (some | gone).all():
            row, agent = np.argwhere(~(some | gone))[0]
            self._note("masks", "none", f"allowed leaves no choice to agent {agent} in the state {state[row]}", place)

    def _advance(self, state: Floats, action: Floats, elapsed: int) -> tuple[Floats, Bools] | None:
        e, seed, source = self._subject.environment, self._subject.seed, self._subject.source
        before = state.copy(), action.copy()
        results = self._called("step", e.advance, state, action, seed, EPISODES, elapsed)
        if results is None:
            return None
        if wrong := self._wrong(results):
            self._note("step", "array", *wrong)
            return None
        if not (np.array_equal(before[0], state) and np.array_equal(before[1], action)):
            self._note("step", "arguments", "step changed the arrays that it was given", source.function("step"))
            state, action = before
        if e.pure:
            self._repeat(state, action, elapsed, results)
        return results[0], results[3].reshape(ROWS, -1)

    def _repeat(self, state: Floats, action: Floats, elapsed: int, results: Any) -> None:
        """The same step again, and one row of it alone."""
        e, seed, source = self._subject.environment, self._subject.seed, self._subject.source
        if any(not np.array_equal(a, b) for a, b in zip(results, e.advance(state, action, seed, EPISODES, elapsed))):
            message = "the same step gave two results: it remembers something, or draws from elsewhere than its draws"
            self._note("draws", "step", message, source.named("step", RANDOM))
            return
        alone = e.advance(state[1:2], action[1:2], seed, EPISODES[1:2], elapsed)
        if any(not np.array_equal(row, many[1:2]) for row, many in zip(alone, results)):
            self._note("rows", "step", "a row's step depends on the rows beside it", source.function("step"))

    def _wrong(self, results: Any) -> tuple[str, Place | None] | None:
        e, source = self._subject.environment, self._subject.source
        if not isinstance(results, tuple) or len(results) < 4:
            return f"step gives {type(results).__name__}: it must be state, reward, cost and terminated", source.returned("step")
        one = (ROWS,) if e.agents == 1 else (ROWS, e.agents)
        for what, array, shape, kind in zip(
            ("states", "rewards", "costs", "terminated"), results, ((ROWS, e.state_size), one, one, one), (np.float64,) * 3 + (np.bool_,)
        ):
            if wrong := wrong_array(f"step gives {what}", array, shape, kind):
                return wrong, at_fault(source, "step", wrong, array) if what == "states" else source.returned("step")
        return None


def at_fault(source: Source, part: str, wrong: str, array: Any) -> Place | None:
    """The line that writes the number that is NaN into a function's second argument, the function's first where another thing is wrong."""
    return source.written(part, 1, int(np.argwhere(~np.isfinite(array))[0, -1])) if "NaN" in wrong else source.function(part)


def wrong_array(what: str, array: object, shape: tuple[int, ...], kind: type) -> str:
    """What is wrong with an array, empty where nothing is."""
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != kind:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        return f"{what}: {found}, expected {np.dtype(kind)} {shape}"
    return "" if np.isfinite(array).all() else f"{what} with NaN or infinite numbers"
