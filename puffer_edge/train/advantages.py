"""Generalised advantage estimation (Schulman et al., 2016), with termination and truncation kept apart, and its off-policy form with the
clipped importance weights of V-trace (Espeholt et al., 2018, arXiv 1802.01561). The native engine computes the same in C; a test compares.

Convention: ``reward[t]`` is what the action taken in ``observation[t]`` earned, ``value[t] = V(observation[t])``.
"""

from __future__ import annotations

import numpy as np

from puffer_edge.spaces import Bools, Floats


def advantages(
    reward: Floats,
    value: Floats,
    final_value: Floats,
    terminated: Bools,
    truncated: Bools,
    discount: float,
    trace_decay: float,
    ratio: Floats | None = None,
    ratio_clip: float = 1.0,
    trace_clip: float = 1.0,
    alive: Bools | None = None,
) -> tuple[Floats, Floats]:
    """Advantages and the returns that the critic learns.

    δ[t] = ρ[t]·(r[t] + γ·V'[t] − V[t]), A[t] = δ[t] + γλ·c[t]·A[t+1], with ρ = min(ratio, ρ̄) and c = min(ratio, c̄), both 1 where no ratio
    is given. V' is 0 after termination and ``final_value[t]`` otherwise; an episode's
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
        ratio: (T, N) probability of each action under the policy now over that when it was taken; None for 1.
        ratio_clip: ρ̄.
        trace_clip: c̄.
        alive: (T, N) the agent acted; nothing goes through a step in which it did not to earlier ones. None for True throughout.

    Returns:
        (T, N) advantages; (T, N) returns, advantage + value.
    """
    delta = reward + discount * np.where(terminated, 0.0, final_value) - value
    keep = np.where(terminated | truncated, 0.0, discount * trace_decay)
    if ratio is not None:
        delta, keep = np.minimum(ratio, ratio_clip) * delta, np.minimum(ratio, trace_clip) * keep
    result = np.empty_like(delta)
    carry = np.zeros(reward.shape[1])
    for t in range(len(reward) - 1, -1, -1):
        carry = delta[t] + keep[t] * carry
        if alive is not None:
            carry = np.where(alive[t], carry, 0.0)
        result[t] = carry
    return result, result + value
