"""What a training makes of its shield's interventions, beyond letting them act: a price, or a mask of the choices that it would change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from puffer_edge.contract import Contract
from puffer_edge.integer.shield import Shield
from puffer_edge.spaces import Bools, Floats, Ints


@dataclass(frozen=True)
class Interventions:
    """The defaults let the shield's action act, and no more.

    Attributes:
        penalty: taken from the reward of each step at which a stage of the shield acted.
        change_penalty: taken from it for a change of an action over its whole range, and in proportion for a smaller one; of several
            actions the sum. What the contract's range clamps is no change.
        mask: choices whose proposal the shield would change may not be taken; where it would change all of a group, all may. With several
            groups of choices each is tried while the other actions stay as last applied.
    """

    penalty: float = 0.0
    change_penalty: float = 0.0
    mask: bool = False

    @property
    def priced(self) -> bool:
        """Whether an intervention has a price."""
        return self.penalty != 0.0 or self.change_penalty != 0.0

    def price(self, contract: Contract, proposal: Ints, applied: Ints, stages: Ints) -> Floats:
        """(R,) what is taken from the rewards of (R, m) fixed-point proposals."""
        change, weight = np.zeros(len(proposal)), weights(contract)
        for k in range(contract.n_actions):
            change += np.abs(proposal[:, k].astype(np.float64) - applied[:, k]) * weight[k]
        price: Floats = self.penalty * (stages != 0) + self.change_penalty * change
        return price

    def narrow(self, shield: Shield, last: Ints, previous: Ints, allowed: Bools | None) -> Bools:
        """(R, n_outputs) which of the choices that are allowed the shield would pass, after (R, n) observations and (R, m) applied actions."""
        contract = shield.contract
        levels, chosen = tries(contract)
        proposals = np.where(chosen, levels, previous[:, None]).astype(np.int32)
        applied, _ = shield.apply(last[:, None], proposals, previous[:, None], np.zeros(proposals.shape[:2], np.int32))
        passed: Bools = ((applied == proposals) | ~chosen).all(-1)
        before = np.ones_like(passed) if allowed is None else allowed
        firsts = np.cumsum([0, *contract.groups[:-1]])
        left = np.logical_or.reduceat(passed & before, firsts, axis=-1)
        return np.where(np.repeat(left, contract.groups, axis=-1), passed & before, before)


def weights(contract: Contract) -> Floats:
    """(m,) by which a change of a fixed-point action becomes a share of its range."""
    return 1.0 / (contract.action_high.astype(np.float64) - contract.action_low)


def tries(contract: Contract) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """(n_outputs, m) fixed-point actions that each choice proposes, and which of the actions it is about: all, or one of its group."""
    if contract.head == "discrete":
        return contract.level_ints, np.ones(contract.level_ints.shape, bool)
    about = np.repeat(np.arange(contract.n_actions), contract.groups)[:, None] == np.arange(contract.n_actions)
    return np.where(about, contract.level_ints[:, None], 0).astype(np.int32), about
