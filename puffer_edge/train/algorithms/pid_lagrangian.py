"""PID-Lagrangian: PPO whose multiplier a controller sets (Stooke, Achiam and Abbeel, 2020, arXiv 2007.03964).

    Δ = J_C − d,  I ← (I + Δ)₊,  ∂ = (J_C − J_C before)₊
    λ = (K_P·Δ + K_I·I + K_D·∂)₊                                           algorithm 2; ``puffer_edge/train/constraint.py``
    A = (A_r − λ·A_c)/(1 + λ)                                              eq. 10, the objective scaled by 1/(1 + λ)

Plain dual ascent integrates, and so overshoots and swings; the other two parts damp that.

Differences from the paper:

- the integral is kept with K_I in it, and starts at ``multiplier``;
- Δ and ∂ are not smoothed: J_C is the mean of at least ``cost_episodes`` episodes;
- the differences of ``puffer_edge/train/algorithms/ppo_lagrangian.py``, but for those of its multiplier.
"""

from __future__ import annotations

from puffer_edge.train.algorithms.ppo import PPO
from puffer_edge.train.constrained import Lagrangian


class PIDLagrangian(Lagrangian, PPO):
    """PPO under a limit on costs that a controller keeps: ``PIDLagrangian(environment, settings).learn()``, then ``policy()``."""

    name = "pid-lagrangian"
