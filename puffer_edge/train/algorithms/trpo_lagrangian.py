"""TRPO-Lagrangian (Ray, Achiam and Amodei, 2019, "Benchmarking safe exploration in deep reinforcement learning").

    max_θ min_{λ ≥ 0}  J_R(θ) − λ·(J_C(θ) − d)                             section 4, "Lagrangian methods"
    λ ← (λ + Adam of J_C − d)₊, before the policy                          ``puffer_edge/train/constraint.py``
    A = (A_r − λ·A_c)/(1 + λ), in the place of A in TRPO's L               ``puffer_edge/train/constrained.py``

Differences from the paper: those of ``puffer_edge/train/algorithms/ppo_lagrangian.py``, but for PPO's own, and those of
``puffer_edge/train/algorithms/trpo.py``. The region bounds how far the policy moves, not how far λ does.
"""

from __future__ import annotations

from puffer_edge.train.algorithms.trpo import TRPO
from puffer_edge.train.constrained import Lagrangian


class TRPOLagrangian(Lagrangian, TRPO):
    """TRPO under a limit on costs: ``TRPOLagrangian(environment, settings).learn()``, then ``policy()``."""

    name = "trpo-lagrangian"
