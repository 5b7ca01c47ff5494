"""Constrained policy optimisation (Achiam et al., 2017, arXiv 1705.10528).

    max_θ  E[r(θ)·A_r]  subject to  J_C + E over an episode of r(θ)·A_c ≤ d,  E[KL(π_old ‖ π_θ)] ≤ δ      eq. 10
    the step: both linear in θ, the KL quadratic                           eq. 11 and 12, ``puffer_edge/train/trust_region.py``
    where no step of the region obeys: one that lowers the cost            eq. 14, and below
    then a line search along it: the KL is at most δ; what was feasible loses no reward; the cost rises by at most max(−c, 0)

with r(θ) = π_θ(a | s)/π_old(a | s). A mean over samples is one over steps, so that c = (J_C − d)/L, L being the mean length of an episode.

Differences from the paper:

- conjugate gradients have at most ``solver_steps`` products, H is damped (``damping``), and the line search tries ``search_steps`` shares: the
  numbers of OmniSafe;
- where c > 0 it is multiplied by ``caution``: b is an estimate, whose noise makes s, and with it the reach of a step, look larger than it
  is, so that a policy which believes it stays above the limit. OmniSafe has c = J_C − d, which is L times as much, on either side;
- where no step obeys, the paper's lowers the cost as far as it can, whatever that does to the reward, and so begins by learning the cheapest
  policy there is, which may be to fall at once. Here a step is asked for a share of that, ``recovery``, and the reward has the rest of it;
- c ≤ 0 without a cost gradient is TRPO's step; c > 0 without one, and a limit before any episode has ended, is none;
- advantages of costs keep their scale, and are brought to mean 0; those of rewards are normalised unless ``normalize_advantage`` is off;
- the rest are those of ``puffer_edge/train/algorithms/trpo.py``. J_C is that of ``puffer_edge/train/algorithms/ppo_lagrangian.py``.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from puffer_edge.train import trust_region
from puffer_edge.train.algorithms.trpo import TRPO, Surroundings
from puffer_edge.train.constrained import Constrained
from puffer_edge.train.on_policy import Batch
from puffer_edge.train.trust_region_settings import CPOSettings


class CPO(Constrained, TRPO):
    """CPO on a plant: ``CPO(environment, settings).learn()``, then ``policy()``. It trains on the torch engine."""

    name = "cpo"
    settings: CPOSettings

    def _improve(self, batch: Batch) -> dict[str, float]:
        s, around = self.settings, Surroundings(self.net, batch)
        assert self.cost_limit is not None
        advantage = torch.from_numpy(self.costs.advantage[self.costs.alive].astype(np.float32))
        advantage -= advantage.mean()
        policy, parameters = around.now(), self.policy_parameters
        gain, cost = around.gain(policy, batch.advantage), around.gain(policy, advantage)
        g, b = (trust_region.gradient(value, parameters) for value in (gain, cost))
        if math.isnan(self.cost_estimate):  # no episode has ended: nothing is known of the limit
            return self._move(around, torch.zeros_like(g), [(batch.advantage, gain.item(), math.inf)]) | {"case": math.nan}
        c = (self.cost_estimate - self.cost_limit) / float(np.mean(self.recent_lengths))
        c *= s.caution if c > 0 else 1.0
        product = trust_region.hessian_product(around.kl(policy), parameters, s.damping)
        step = trust_region.cpo_step(g, b, c, product, self.delta, s.solver_steps, s.recovery)
        slack = 0.0 if step.case > trust_region.RECOVERABLE else math.inf
        wanted = [(batch.advantage, gain.item(), slack), (-advantage, -cost.item(), max(-c, 0.0))]
        return self._move(around, step.direction, wanted) | {"case": step.case}
