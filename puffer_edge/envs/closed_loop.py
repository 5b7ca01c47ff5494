"""Closing the loop around an environment: for many rows with the reference, or step by step with a board."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from puffer_edge.envs.environment import Environment
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer.reference import InFloat, Runner
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import Policy
from puffer_edge.spaces import Bools, Floats, Ints
from puffer_edge.trace import COLUMNS, Trace

RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Episodes:
    """What happened in one episode of every row.

    Attributes:
        returns: (episodes,) sum of rewards.
        costs: (episodes,) sum of costs.
        lengths: (episodes,) steps.
        outcome: (ticks,) uint32 flags and reasons of every tick of every episode.
        observations: (ticks, n) int32 fixed-point observations.
        episode: (ticks,) episode of every tick; the ticks of one episode are in order of time.
    """

    returns: Floats
    costs: Floats
    lengths: npt.NDArray[np.int64]
    outcome: npt.NDArray[np.uint32]
    observations: Ints
    episode: npt.NDArray[np.int64]
    seed: int

    def calibration(self) -> tuple[Ints, Bools]:
        """What the policy itself saw: (N, n) observations of the ticks at which it ran, episode by episode, and (N,) where each begins."""
        ran = np.flatnonzero((self.outcome & protocol.POLICY_RAN) != 0)
        rows = ran[np.argsort(self.episode[ran], kind="stable")]
        starts = np.diff(self.episode[rows], prepend=-1) != 0
        return self.observations[rows], starts

    @property
    def interval(self) -> tuple[float, float]:
        """95 % percentile-bootstrap interval of the mean return over episodes; it says nothing about other trainings."""
        picks = np.random.default_rng(self.seed).integers(0, len(self.returns), (RESAMPLES, len(self.returns)))
        low, high = np.percentile(self.returns[picks].mean(1), (2.5, 97.5))
        return float(low), float(high)

    def summary(self, stages: Sequence[str]) -> dict[str, Any]:
        """Plain JSON values; ``stages`` names the shield's stages."""
        return {
            "return": float(self.returns.mean()),
            "interval": list(self.interval),
            "lowest": float(self.returns.min()),
            "cost": float(self.costs.mean()),
            "steps": int(self.lengths.sum()),
            "interventions": count_reasons(self.outcome, stages),
        }


def count_reasons(outcome: Any, stages: Sequence[str]) -> dict[str, int]:
    """Steps at which each stage of the shield, or the fallback, acted; equal stages are numbered."""
    reasons = np.asarray(outcome, np.int64) >> protocol.REASON_SHIFT
    counts = {name if stages.count(name) == 1 else f"{name}#{k}": int((reasons >> k & 1).sum()) for k, name in enumerate(stages)}
    counts["invalid"] = int(((reasons & protocol.REASON_INVALID) != 0).sum())
    counts["stale"] = int(((reasons & protocol.REASON_STALE) != 0).sum())
    return counts


def run(environment: Environment, runner: Runner, seed: int = 0) -> Episodes:
    """One episode a row, through the tick that devices compute.

    Args:
        environment: the plant.
        runner: a program (or ``InFloat`` policy) behind its shield, one row an episode.
        seed: episode k starts from ``environment.start(seed, k)``.

    Raises:
        InvalidInput: the runner's contract is not the environment's.
        Unsupported: the environment has several agents.
    """
    c = runner.contract
    if environment.agents > 1:
        raise Unsupported(f"{environment.name} has {environment.agents} agents: a closed loop is one agent's")
    environment = environment.under(c)
    if c.digest != environment.contract.digest:
        raise InvalidInput(f"the policy was made for another contract than {environment.name}: " + "; ".join(c.differences(environment.contract)))
    rows = runner.rows
    numbers = np.arange(rows)
    state = environment.start(seed, numbers)
    alive = np.ones(rows, bool)
    returns, costs, lengths = np.zeros(rows), np.zeros(rows), np.zeros(rows, np.int64)
    outcomes, seen, episode = [], [], []
    flags: Any = protocol.STEP_RESET
    for elapsed in range(environment.max_steps):
        observation, _, invalid = c.observe(environment.observe(state))
        tick = runner.tick(observation, flags | invalid * np.uint32(protocol.STEP_INVALID), digest=False)
        flags = 0
        following, reward, cost, terminated = environment.advance(state, c.physical_action(tick.applied), seed, numbers, elapsed)
        state = np.where(alive[:, None], following, state)  # an ended row rests: its plant may diverge
        outcomes.append(tick.outcome[alive])
        seen.append(observation[alive])
        episode.append(np.flatnonzero(alive))
        returns += np.where(alive, reward, 0.0)
        costs += np.where(alive, cost, 0.0)
        lengths += alive
        alive &= ~terminated
        if not alive.any():
            break
    return Episodes(returns, costs, lengths, np.concatenate(outcomes), np.concatenate(seen), np.concatenate(episode), seed)


def integer_returns(environment: Environment, runner: Runner, seed: int) -> Floats:
    """(rows,) returns of the integer program behind its shield."""
    return run(environment, runner, seed).returns


def float_returns(environment: Environment, policy: Policy, shield: Shield, episodes: int, seed: int) -> Floats:
    """(episodes,) returns of the float policy behind the same shield."""
    return run(environment, Runner(InFloat(policy), shield, episodes), seed).returns


class Reply(Protocol):
    """What a board answers to a step."""

    @property
    def outcome(self) -> int: ...

    @property
    def state(self) -> int: ...

    @property
    def raw(self) -> Ints: ...

    @property
    def applied(self) -> Ints: ...

    @property
    def cycles_policy(self) -> int: ...

    @property
    def cycles_shield(self) -> int: ...

    @property
    def round_trip_us(self) -> float: ...


class Loop:
    """One episode after the other, driven by somebody else's actions, recorded as a trace.

    Args:
        environment: the plant.
        seed: of the episodes.
        source: who gives the actions.
        sense: changes physical observations on their way to the board (noise, NaN, loss); None for the plant's own.
    """

    def __init__(self, environment: Environment, seed: int, source: str, sense: Callable[[Floats], Floats] | None = None) -> None:
        self.environment, self.seed, self.source, self.sense = environment, seed, source, sense
        self.step = 0
        self._episode = 0
        self._rows: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        self._state: Floats = np.zeros((1, environment.state_size))

    def begin(self, episode: int) -> tuple[Ints, int]:
        """Start an episode: the first observation (n,) and its step flags."""
        self._episode, self.step = episode, 0
        self._state = self.environment.start(self.seed, [episode])
        observation, flags = self._observe()
        return observation, flags | protocol.STEP_RESET

    def advance(self, reply: Reply) -> tuple[Ints, int] | None:
        """Apply an answer to the plant: the next observation and flags, or None at the episode's end."""
        c = self.environment.contract
        action = c.physical_action(np.asarray(reply.applied, np.int32))[None]
        self._state, reward, cost, terminated = self.environment.advance(self._state, action, self.seed, [self._episode], self.step)
        self.step += 1
        truncated = not terminated[0] and self.step >= self.environment.max_steps
        row = {
            "time_us": (self.step - 1) * c.period_us,
            "episode": self._episode,
            "observation": self._seen,
            "reward": reward[0],
            "cost": cost[0],
            "terminated": bool(terminated[0]),
            "truncated": truncated,
        }
        row |= {name: getattr(reply, name) for name in ("raw", "applied", "outcome", "state", "round_trip_us", "cycles_policy", "cycles_shield")}
        for name, value in row.items():
            self._rows[name].append(value)
        return None if terminated[0] or truncated else self._observe()

    def _observe(self) -> tuple[Ints, int]:
        physical = self.environment.observe(self._state)[0]
        observation, _, invalid = self.environment.contract.observe(self.sense(physical) if self.sense else physical)
        self._seen = observation
        return observation, protocol.STEP_INVALID if invalid else 0

    def trace(self, about: dict[str, Any]) -> Trace:
        """Everything recorded so far."""
        c = self.environment.contract
        kinds: dict[str, Any] = dict.fromkeys(("reward", "cost", "round_trip_us"), np.float64)
        kinds |= {"time_us": np.int64, "terminated": np.bool_, "truncated": np.bool_}
        kinds |= dict.fromkeys(("outcome", "state", "cycles_policy", "cycles_shield"), np.uint32)
        columns: dict[str, Any] = {name: np.array(values, kinds.get(name, np.int32)) for name, values in self._rows.items()}
        for name, width in (("observation", c.n_observations), ("raw", c.n_actions), ("applied", c.n_actions)):
            columns[name] = columns[name].reshape(-1, width)
        return Trace(**columns, source=self.source, seed=self.seed, about=about)
