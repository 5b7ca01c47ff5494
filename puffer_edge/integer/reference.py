"""The definition of a tick in numpy: plain, slow, complete (``docs/tick.md``). Every engine is compared with it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from puffer_edge.contract import Contract
from puffer_edge.errors import ContractError, InvalidInput, Unsupported
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import Policy
from puffer_edge.spaces import Bools, Floats, Ints


@dataclass(frozen=True, eq=False)
class Tick:
    """What came out of one tick, a row per environment.

    Attributes:
        raw: (rows, m) int32, proposed.
        applied: (rows, m) int32, after the shield.
        outcome: (rows,) uint32, flags and reasons.
        state: (rows,) uint32, state digest after the tick; zeros when it was not asked for.
    """

    raw: Ints
    applied: Ints
    outcome: npt.NDArray[np.uint32]
    state: npt.NDArray[np.uint32]


class Proposer(Protocol):
    """What proposes actions: a ``Program``, or a float policy for comparison."""

    @property
    def contract(self) -> Contract:
        """What it observes and drives."""
        ...

    def start(self, rows: int) -> Any:
        """(rows, memory) cleared memory."""
        ...

    def step(self, observation: Ints, memory: Any) -> tuple[Ints, Any]:
        """(rows, n) int32 observations and the memory to (rows, m) int32 proposed actions and the next memory."""
        ...


@dataclass(frozen=True, eq=False)
class InFloat:
    """A float policy in a program's place: for comparing returns, never on a device.

    Attributes:
        policy: the float policy.
    """

    policy: Policy

    @property
    def contract(self) -> Contract:
        """The policy's contract."""
        return self.policy.contract

    def start(self, rows: int) -> Floats:
        """(rows, memory) zeros."""
        return np.zeros((rows, self.policy.memory))

    def step(self, observation: Ints, memory: Floats, allowed: Bools | None = None) -> tuple[Ints, Floats]:
        """(rows, n) int32 observations and the memory to (rows, m) int32 actions and the next memory, by float64.

        ``allowed`` (rows, n_outputs) says which choices are left; None leaves all, as on a device.
        """
        c = self.policy.contract
        action, after = self.policy.act_step(c.physical_observation(observation), memory, allowed)
        return c.fixed_action(action), after

    def run(self, observation: Ints) -> Ints:
        """(rows, n) int32 observations to (rows, m) int32 actions, from cleared memory."""
        return self.step(observation, self.start(len(observation)))[0]


class Runner:
    """A program behind its shield, for any number of independent rows.

    Args:
        program: the policy in integers, or ``InFloat``.
        shield: the shield; ``Shield.none`` for none.
        rows: number of independent copies.

    Raises:
        ContractError: program and shield were made for different contracts.
    """

    def __init__(self, program: Proposer, shield: Shield, rows: int = 1) -> None:
        if program.contract.digest != shield.contract.digest:
            raise ContractError("program and shield have different contracts: " + "; ".join(program.contract.differences(shield.contract)))
        self.program, self.shield, self.contract, self.rows = program, shield, program.contract, rows
        c = self.contract
        self.previous: Ints = np.zeros((rows, c.n_actions), np.int32)
        self.held: Ints = np.zeros((rows, c.n_actions), np.int32)
        self.last: Ints = np.zeros((rows, c.n_observations), np.int32)
        self.phase: Ints = np.zeros(rows, np.int32)
        self.stale: Ints = np.zeros(rows, np.int32)
        self.memory = program.start(rows)
        self.reset()

    def reset(self, mask: npt.NDArray[np.bool_] | None = None) -> None:
        """Clear the state of all rows, or of those in ``mask`` (rows,)."""
        rows = np.ones(self.rows, bool) if mask is None else mask
        self.previous[rows] = self.contract.action_initial
        self.held[rows] = self.contract.action_safe
        self.last[rows] = 0
        self.phase[rows] = 0
        self.memory[rows] = 0
        self.stale[rows] = self.contract.staleness_limit + 1

    def tick(self, observation: npt.ArrayLike, step_flags: Any = 0, digest: bool = True, allowed: Bools | None = None) -> Tick:
        """One base tick of every row.

        Args:
            observation: (rows, n) int32 fixed point.
            step_flags: scalar or (rows,), bits STEP_RESET, STEP_MISSED, STEP_INVALID of the protocol.
            digest: compute the state digests.
            allowed: (rows, n_outputs) choices that are left to a policy ``InFloat``; None leaves all, as on a device.

        Raises:
            InvalidInput: the observation has another shape.
            Unsupported: a program is to choose among what is allowed.
        """
        c = self.contract
        flags = np.broadcast_to(np.asarray(step_flags, np.uint32), self.rows)
        seen = np.asarray(observation, np.int32)
        if seen.shape != (self.rows, c.n_observations):
            raise InvalidInput(f"observations must have shape {(self.rows, c.n_observations)}, not {seen.shape}")
        if (flags & protocol.STEP_RESET).any():
            self.reset((flags & protocol.STEP_RESET) != 0)
        invalid = (flags & protocol.STEP_INVALID) != 0
        missed = ((flags & protocol.STEP_MISSED) != 0) & ~invalid
        good = ~(invalid | missed)
        clipped = np.clip(seen, c.observation_low, c.observation_high)
        saturated = good & (clipped != seen).any(1)
        self.last = np.where(good[:, None], clipped, self.last)
        self.stale = np.where(good, 0, np.minimum(self.stale + 1, c.staleness_limit + 1)).astype(np.int32)
        stale = self.stale > c.staleness_limit
        fallback = invalid | stale
        ran = good & (self.phase == 0)
        if allowed is not None and not isinstance(self.program, InFloat):
            raise Unsupported("a program has no masks, as no device has: it chooses among all")
        if ran.any() and allowed is not None and isinstance(self.program, InFloat):
            self.held[ran], self.memory[ran] = self.program.step(self.last[ran], self.memory[ran], allowed[ran])
        elif ran.any():
            self.held[ran], self.memory[ran] = self.program.step(self.last[ran], self.memory[ran])
        self.phase = ((self.phase + 1) % c.policy_divider).astype(np.int32)
        raw = np.where(fallback[:, None], c.action_safe, self.held).astype(np.int32)
        applied, stages = self.shield.apply(self.last, raw, self.previous, fallback.astype(np.int32))
        applied = np.clip(applied, c.action_low, c.action_high).astype(np.int32)
        self.previous = applied.copy()
        p = protocol
        outcome = saturated * p.SATURATED + missed * p.MISSED + invalid * p.INVALID + stale * p.STALE + ran * p.POLICY_RAN
        reasons = stages + invalid * p.REASON_INVALID + (stale & ~invalid) * p.REASON_STALE
        outcome = (outcome + (reasons.astype(np.int64) << p.REASON_SHIFT)).astype(np.uint32)
        return Tick(raw, applied, outcome, self.state_digests() if digest else np.zeros(self.rows, np.uint32))

    def state_digests(self) -> npt.NDArray[np.uint32]:
        """(rows,) CRC-32 of each row's state; a float policy's memory is not in it."""
        state = np.concatenate([self.previous, self.held, self.last, self.phase[:, None], self.stale[:, None]], 1).astype("<i4")
        memory = self.memory.astype("<i2") if self.memory.dtype == np.int16 else self.memory[:, :0]
        return np.array([zlib.crc32(kept.tobytes(), zlib.crc32(row.tobytes())) for row, kept in zip(state, memory)], np.uint32)
