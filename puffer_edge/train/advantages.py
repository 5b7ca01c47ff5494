"""Generalised advantage estimation (Schulman et al., 2016), with termination and truncation kept apart.

Convention: ``reward[t]`` is what the action taken in ``observation[t]`` earned, ``value[t] = V(observation[t])``.
"""

from __future__ import annotations

import numpy as np

from puffer_edge.spaces import Bools, Floats


def advantages(
    reward: Floats, value: Floats, final_value: Floats, terminated: Bools, truncated: Bools, discount: float, trace_decay: float
) -> tuple[Floats, Floats]:
    """Advantages and the returns that the critic learns.

    δ[t] = r[t] + γ·V'[t] − V[t], A[t] = δ[t] + γλ·A[t+1]. V' is 0 after termination and ``final_value[t]`` otherwise; an episode's
    end of either kind cuts the carry. ``final_value[t]`` is the value of what followed step t *before* any reset: inside an episode
    it is ``value[t+1]``, on truncation the value of an observation that no row of the rollout holds.

    Args:
        reward: (T, N).
        value: (T, N).
        final_value: (T, N).
        terminated: (T, N) the task ended the episode at this step.
        truncated: (T, N) only the clock did.
        discount: γ.
        trace_decay: λ.

    Returns:
        (T, N) advantages; (T, N) returns, advantage + value.
    """
    delta = reward + discount * np.where(terminated, 0.0, final_value) - value
    keep = np.where(terminated | truncated, 0.0, discount * trace_decay)
    result = np.empty_like(delta)
    carry = np.zeros(reward.shape[1])
    for t in range(len(reward) - 1, -1, -1):
        carry = delta[t] + keep[t] * carry
        result[t] = carry
    return result, result + value
