"""Closing the loop around an environment: for many rows with the reference, or step by step with a board."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from puffer_edge.contract import Contract
from puffer_edge.envs.environment import Environment
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer.reference import InFloat, Proposer, Runner
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import Policy
from puffer_edge.spaces import Bools, Floats, Ints
from puffer_edge.trace import COLUMNS, Trace

RESAMPLES = 2000
CALIBRATION_EPISODES = 32
CALIBRATION_SEED = 7_000_000
"""Of the rollouts on which a policy with an environment is put into integers: everywhere the same, so that the integers are."""


@dataclass(frozen=True, eq=False)
class Episodes:
    """What happened in so many episodes. A tick is one action of one agent.

    Attributes:
        returns: (episodes,) sum of rewards; of several agents the mean of theirs, as a training's ``ep_rew_mean``.
        costs: (episodes,) sum of costs, likewise.
        lengths: (episodes,) steps.
        outcome: (ticks,) uint32 flags and reasons of every tick of every episode.
        observations: (ticks, n) int32 fixed-point observations.
        episode: (ticks,) what every tick belongs to: an agent's part in an episode, from where it begins, or begins anew, to where it
            ends; the ticks of one are in order of time.
        seed: of the episodes.
        forbidden: ticks at which the policy proposed what the environment did not allow; None where it allows everything. Policies are
            deployed without masks, so they are evaluated without.
        chosen: ticks at which what it proposed was looked at: all but those of agents that wait for another's turn.
    """

    returns: Floats
    costs: Floats
    lengths: npt.NDArray[np.int64]
    outcome: npt.NDArray[np.uint32]
    observations: Ints
    episode: npt.NDArray[np.int64]
    seed: int
    forbidden: int | None = None
    chosen: int = 0

    def calibration(self) -> tuple[Ints, Bools]:
        """What the policy itself saw: (N, n) observations of the ticks at which it ran, episode by episode, and (N,) where each begins."""
        ran = np.flatnonzero((self.outcome & protocol.POLICY_RAN) != 0)
        rows = ran[np.argsort(self.episode[ran], kind="stable")]
        starts = np.diff(self.episode[rows], prepend=-1) != 0
        return self.observations[rows], starts

    @property
    def intervention_rate(self) -> float:
        """Share of the ticks at which the shield, or the fallback, acted."""
        return float(np.count_nonzero(self.outcome >> np.uint32(protocol.REASON_SHIFT))) / max(len(self.outcome), 1)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % percentile-bootstrap interval of the mean return over episodes; it says nothing about other trainings."""
        return _interval(self.returns, self.seed)

    @property
    def cost_error(self) -> float:
        """Standard error of the mean cost over episodes; 0 for a single one, which tells none."""
        return float(self.costs.std(ddof=1)) / math.sqrt(len(self.costs)) if len(self.costs) > 1 else 0.0

    def summary(self, stages: Sequence[str]) -> dict[str, Any]:
        """Plain JSON values; ``stages`` names the shield's stages."""
        return {
            "return": float(self.returns.mean()),
            "interval": list(self.interval),
            "lowest": float(self.returns.min()),
            "cost": float(self.costs.mean()),
            "cost_error": self.cost_error,
            "steps": int(self.lengths.sum()),
            "interventions": count_reasons(self.outcome, stages),
            "intervention_rate": self.intervention_rate,
        } | ({} if self.forbidden is None else {"forbidden_share": self.forbidden / max(self.chosen, 1)})


def difference(a: Episodes, b: Episodes) -> dict[str, float]:
    """Mean of b's return − a's over the same starts, with its 95 % percentile-bootstrap interval."""
    apart = b.returns - a.returns
    low, high = _interval(apart, a.seed)
    return {"mean": float(apart.mean()), "low": low, "high": high}


def _interval(values: Floats, seed: int) -> tuple[float, float]:
    """95 % percentile-bootstrap interval of the mean."""
    picks = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[picks].mean(1), (2.5, 97.5))
    return float(low), float(high)


def count_reasons(outcome: Any, stages: Sequence[str]) -> dict[str, int]:
    """Steps at which each stage of the shield, or the fallback, acted; equal stages are numbered."""
    reasons = np.asarray(outcome, np.int64) >> protocol.REASON_SHIFT
    counts = {name if stages.count(name) == 1 else f"{name}#{k}": int((reasons >> k & 1).sum()) for k, name in enumerate(stages)}
    counts["invalid"] = int(((reasons & protocol.REASON_INVALID) != 0).sum())
    counts["stale"] = int(((reasons & protocol.REASON_STALE) != 0).sum())
    return counts


def play(environment: Environment, proposer: Proposer, shield: Shield, episodes: int, seed: int = 0, masked: bool = False) -> Episodes:
    """Episodes of a program, or of ``InFloat``, behind a shield; all agents of an environment have the same one.

    Args:
        environment: the plant.
        proposer: the policy.
        shield: behind which it acts.
        episodes: how many.
        seed: of their starts.
        masked: let it choose among what the environment allows, as in training. What ships has no mask, and is worth what it does without.

    Raises:
        InvalidInput: they were made for another contract than the environment's.
        Unsupported: masks for a program.
    """
    return run(environment, Runner(proposer, shield, episodes * environment.agents), seed, masked=masked)


Watch = Callable[[Floats, "npt.NDArray[np.uint32]", Floats], None]
"""(n, S) states before a step, the (n · agents,) outcomes of its ticks, and (n,) returns before it; of episodes that have ended, the last."""


def run(environment: Environment, runner: Runner, seed: int = 0, watch: Watch | None = None, masked: bool = False) -> Episodes:
    """One episode a row, or for as many rows as there are agents, through the tick that devices compute.

    An episode is over when all agents have terminated, or at the clock.

    Args:
        environment: the plant.
        runner: a program (or ``InFloat`` policy) behind its shield, one row an agent, episode after episode.
        seed: episode k starts from ``environment.start(seed, k)``.
        watch: is shown every step.
        masked: as in ``play``.

    Raises:
        InvalidInput: the runner's contract is not the environment's, or its rows are not a multiple of the agents.
    """
    c = runner.contract
    environment = environment.under(c)
    if c.digest != environment.contract.digest:
        raise InvalidInput(f"the policy was made for another contract than {environment.name}: " + "; ".join(c.differences(environment.contract)))
    agents, n = environment.agents, runner.rows // environment.agents
    if n * agents != runner.rows:
        raise InvalidInput(f"{environment.name} has {agents} agents: {runner.rows} rows are no whole number of episodes")
    numbers, state = np.arange(n), environment.start(seed, np.arange(n))
    going, gone = np.ones(n, bool), np.zeros((n, agents), bool)
    returns, costs, lengths = np.zeros((n, agents)), np.zeros((n, agents)), np.zeros(n, np.int64)
    outcomes, seen, parts, part, forbidden, chosen = [], [], [], np.arange(runner.rows), 0, 0
    allowed = None
    anew = np.ones(runner.rows, bool)
    for elapsed in range(environment.max_steps):
        observation, _, invalid = c.observe(environment.observe(state).reshape(runner.rows, -1))
        flags: Any = anew * np.uint32(protocol.STEP_RESET) | invalid * np.uint32(protocol.STEP_INVALID)
        if environment.allowed is not None:
            allowed = environment.allowed(state).reshape(runner.rows, -1)
        tick = runner.tick(observation, flags, digest=False, allowed=_some(c, allowed) if masked and allowed is not None else None)
        if watch is not None:
            watch(state, tick.outcome, returns.mean(-1))
        action = c.physical_action(tick.applied).reshape(n, agents, -1)
        following, reward, cost, terminated, alive = environment.advance_agents(state, action, seed, numbers, elapsed, gone)
        acted = alive & going[:, None]
        rows = acted.reshape(-1)
        if allowed is not None:
            chose = rows if environment.waiting is None else rows & ~environment.waiting(state).reshape(-1)
            forbidden, chosen = forbidden + int((~_within(c, tick.raw, allowed) & chose).sum()), chosen + int(chose.sum())
        state = np.where(going[:, None], following, state)  # what has ended rests: its plant may diverge
        outcomes.append(tick.outcome[rows])
        seen.append(observation[rows])
        parts.append(part[rows])
        returns += np.where(acted, reward, 0.0)
        costs += np.where(acted, cost, 0.0)
        lengths += going
        anew, gone = ~rows, terminated
        part = part + runner.rows * anew
        going &= ~(terminated.all(-1) & alive.any(-1))
        if not going.any():
            break
    about = np.concatenate(outcomes), np.concatenate(seen), np.concatenate(parts)
    return Episodes(returns.mean(-1), costs.mean(-1), lengths, *about, seed, None if allowed is None else forbidden, chosen)


def _some(c: Contract, allowed: Bools) -> Bools:
    """The mask, with all choices of a group in which none is left: whoever has none does not act."""
    none = ~np.logical_or.reduceat(allowed, np.cumsum([0, *c.groups[:-1]]), axis=-1)
    return np.asarray(allowed | np.repeat(none, c.groups, axis=-1))


def _within(c: Contract, raw: Ints, allowed: Bools) -> Bools:
    """(rows,) whether (rows, m) proposals are choices that (rows, n_outputs) ``allowed`` leaves, in every group."""
    if c.head == "discrete":
        return np.asarray(((raw[:, None] == c.level_ints).all(-1) & allowed).any(-1))
    columns = np.repeat(np.arange(c.n_actions), c.groups)
    chosen = (raw[:, columns] == c.level_ints) & allowed
    return np.asarray(np.logical_or.reduceat(chosen, np.cumsum([0, *c.groups[:-1]]), axis=-1).all(-1))


def calibration(environment: Environment, policy: Policy, shield: Shield) -> tuple[Floats, Bools]:
    """(N, n) physical observations of the policy's own rollouts, in order of time, and (N,) where episodes begin."""
    observations, starts = play(environment, InFloat(policy), shield, CALIBRATION_EPISODES, CALIBRATION_SEED).calibration()
    return environment.contract.physical_observation(observations), starts


def integer_returns(environment: Environment, program: Proposer, shield: Shield, episodes: int, seed: int) -> Floats:
    """(episodes,) returns of the integer program behind its shield."""
    return play(environment, program, shield, episodes, seed).returns


def float_returns(environment: Environment, policy: Policy, shield: Shield, episodes: int, seed: int) -> Floats:
    """(episodes,) returns of the float policy behind the same shield."""
    return play(environment, InFloat(policy), shield, episodes, seed).returns


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

    Raises:
        Unsupported: the environment has several agents: a board is one of them.
    """

    def __init__(self, environment: Environment, seed: int, source: str, sense: Callable[[Floats], Floats] | None = None) -> None:
        if environment.agents > 1:
            raise Unsupported(f"{environment.name} has {environment.agents} agents, a board is one: 'puffer-edge eval --integer' runs all")
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
