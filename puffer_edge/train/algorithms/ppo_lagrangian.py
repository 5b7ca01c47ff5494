"""PPO-Lagrangian (Ray, Achiam and Amodei, 2019, "Benchmarking safe exploration in deep reinforcement learning").

    max_θ min_{λ ≥ 0}  J_R(θ) − λ·(J_C(θ) − d)                             section 4, "Lagrangian methods"
    λ ← (λ + Adam of J_C − d)₊, before the policy                          ``puffer_edge/train/constraint.py``
    A = (A_r − λ·A_c)/(1 + λ), in the place of A in PPO's objective        ``puffer_edge/train/constrained.py``

J_C is the mean cost of an episode, undiscounted: of the episodes that ended in the rollout, or of the latest ``cost_episodes`` where
fewer did. λ stays where it is after a rollout in which none ended.

Differences from the paper:

- λ itself is clamped at 0 and moved by Adam, as in OmniSafe; the paper's code moves a number whose softplus is λ;
- the cost critic's gradient is clipped and its learning rate stays, whatever PPO's does;
- λ counts in deviations of the reward's advantages (``scale_multiplier``): those that are weighed against each other are A_r/σ_r and A_c;
- the differences of ``puffer_edge/train/algorithms/ppo.py``; a minibatch's mixed advantages are normalised, as PPO's are.
"""

from __future__ import annotations

from puffer_edge.train.algorithms.ppo import PPO
from puffer_edge.train.constrained import Lagrangian


class PPOLagrangian(Lagrangian, PPO):
    """PPO under a limit on costs: ``PPOLagrangian(environment, settings).learn()``, then ``policy()``."""

    name = "ppo-lagrangian"
