"""The buffers of one rollout, allocated once and written in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.contract import Contract
from puffer_edge.envs.plant import StepResult
from puffer_edge.spaces import Bools, Floats


class Rollout:
    """T steps of N rows, which are agents.

    Args:
        contract: of the task.
        horizon: T.
        rows: N.
        masked: the environment says which choices are allowed.
        asynchronous: rows go at their own pace, so that samples may be of an earlier policy.
        memory: M, numbers that the networks keep of each row from step to step.
        stretch: steps of a sequence, of which T is a multiple.

    Attributes:
        observation: (T, N, n) physical observation that was acted on.
        final_observation: (T, N, n) physical observation that followed, before any reset.
        action: what the policy sampled: (T, N) int64 choices, (T, N, m) of them, or (T, N, m) float32 outputs; log-probabilities belong to it.
        applied: (T, N, m) int32 fixed-point action that the shield let act.
        stages: (T, N) int32 bits of the shield stages that acted.
        reward: (T, N).
        cost: (T, N).
        terminated: (T, N) bool.
        truncated: (T, N) bool.
        alive: (T, N) bool: the agent acted; there is nothing to learn where it did not.
        allowed: (T, N, n_outputs) bool: the choices that could be taken; None where all could.
        log_prob: (T, N) float32 log-probability with which the action was sampled; None where the policy is still that one.
        lag: (T, N) updates that were made between sampling and learning.
        start: (N, M) float32 what the networks remembered when the rollout began.
        after: (T, N, M) float32 what they remembered after each step, before any of it was cleared.
        kept: (T, N) bool: memory went on after the step; it was cleared where the episode ended, or the agent did not act.
    """

    def __init__(
        self, contract: Contract, horizon: int, rows: int, masked: bool = False, asynchronous: bool = False, memory: int = 0, stretch: int = 1
    ) -> None:
        shape = (horizon, rows)
        width = {"discrete": (), "multi_discrete": (contract.n_actions,)}
        self.observation = np.zeros((*shape, contract.n_observations))
        self.final_observation = np.zeros_like(self.observation)
        self.action: npt.NDArray[np.int64] | npt.NDArray[np.float32]
        if contract.head in width:
            self.action = np.zeros((*shape, *width[contract.head]), np.int64)
        else:
            self.action = np.zeros((*shape, contract.n_actions), np.float32)
        self.applied = np.zeros((*shape, contract.n_actions), np.int32)
        self.stages = np.zeros(shape, np.int32)
        self.reward = np.zeros(shape)
        self.cost = np.zeros(shape)
        self.terminated = np.zeros(shape, bool)
        self.truncated = np.zeros(shape, bool)
        self.alive = np.ones(shape, bool)
        self.allowed = np.ones((*shape, contract.n_outputs), bool) if masked else None
        self.log_prob = np.zeros(shape, np.float32) if asynchronous else None
        self.lag = np.zeros(shape, np.int64)
        self.stretch = stretch
        self.start, self.after = np.zeros((rows, memory), np.float32), np.zeros((*shape, memory), np.float32)
        self.kept = np.ones(shape, bool)

    @property
    def intervention_rate(self) -> float:
        """Share of the agents' steps at which the shield acted."""
        return float(((self.stages != 0) & self.alive).sum()) / max(int(self.alive.sum()), 1)

    @property
    def before(self) -> npt.NDArray[np.float32]:
        """(T, N, M) what the networks remembered when they were asked."""
        return np.concatenate([self.start[None], np.where(self.kept[:-1, :, None], self.after[:-1], np.float32(0))])

    def write(
        self,
        t: int,
        observation: Floats,
        allowed: Bools | None,
        action: npt.NDArray[np.int64] | npt.NDArray[np.float32],
        step: StepResult,
        rows: slice = slice(None),
    ) -> None:
        """Put step t of these rows in its place: what was seen and allowed, what was sampled, and what came of it."""
        self.observation[t, rows] = observation
        if self.allowed is not None:
            self.allowed[t, rows] = allowed
        self.action[t, rows] = action
        for name in ("final_observation", "applied", "stages", "reward", "cost", "terminated", "truncated", "alive"):
            getattr(self, name)[t, rows] = getattr(step, name)

    def arranged(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(T, N, …) as an update takes it, in an array of its own: (T · N, …); with memory (S, stretch, …), sequences of all rows in turn."""
        parts = x.reshape(-1, self.stretch, *x.shape[1:]).swapaxes(1, 2) if self.start.size else x
        ahead = (-1, self.stretch) if self.start.size else (-1,)
        found: npt.NDArray[Any] = np.array(parts, order="C").reshape(*ahead, *x.shape[2:])
        return found

    def in_time(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(T · N,) numbers, in the order of ``arranged``, as (T, N) again."""
        rows = self.reward.shape[1]
        found: npt.NDArray[Any] = x.reshape(-1, rows, self.stretch).swapaxes(1, 2).reshape(-1, rows)
        return found
