"""The best policy of the sanity set's ``cmdp``, by linear programming over occupancy measures (Altman, 1999, chapter 4).

x[t, s, a] is the probability of being in state s after t steps and choosing a. Return and cost are linear in x, and so is what makes x the
occupancy of a policy: what is in a state leaves it. A policy that does not draw puts all of a state's x on one choice: an integer program.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from puffer_edge.envs.sanity.cmdp import STEPS, arrays
from puffer_edge.spaces import Floats


def best(limit: float = np.inf, draws: bool = True) -> Floats:
    """(STEPS, S, A) probabilities of the choices of the policy with the highest return whose cost is at most ``limit``.

    Args:
        limit: of the mean cost of an episode.
        draws: False looks among the policies that choose one thing in each state and step.
    """
    reward, cost, following = arrays()
    states, choices = reward.shape
    steps, n = STEPS * states, STEPS * states * choices
    leaves = np.kron(np.eye(steps), np.ones(choices))
    arrives = np.zeros((steps, n))
    arrives[states:, : n - states * choices] = np.kron(np.eye(STEPS - 1), following.reshape(-1, states).T)
    start = np.eye(steps)[0]
    flows, within = LinearConstraint(leaves - arrives, start, start), LinearConstraint(np.tile(cost.ravel(), STEPS)[None], ub=limit)
    loss = -np.tile(reward.ravel(), STEPS)
    if draws:
        x = _solved(loss, [flows, within], np.zeros(n))
    else:  # beside each x a variable that is 1 where that choice is made
        none = np.zeros((steps, n))
        both = [LinearConstraint(np.hstack([c.A, np.zeros((len(c.A), n))]), c.lb, c.ub) for c in (flows, within)]
        made = [LinearConstraint(np.hstack([np.eye(n), -np.eye(n)]), ub=0.0), LinearConstraint(np.hstack([none, leaves]), 1.0, 1.0)]
        x = _solved(np.concatenate([loss, np.zeros(n)]), both + made, np.repeat([0.0, 1.0], n))[n:]
    share = x.reshape(STEPS, states, choices).clip(0.0)
    whole = share.sum(-1, keepdims=True)
    return np.where(whole > 1e-12, share / np.where(whole > 1e-12, whole, 1.0), 1.0 / choices)


def _solved(loss: Floats, constraints: list[Any], integral: Floats) -> Floats:
    found = milp(loss, constraints=constraints, integrality=integral, bounds=Bounds(0.0, 1.0))
    if not found.success:
        raise RuntimeError(found.message)
    x: Floats = found.x
    return x
