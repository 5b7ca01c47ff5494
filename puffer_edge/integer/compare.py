"""How far two policies are apart: their actions on the same observations, each with its own memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.contract import Contract
from puffer_edge.errors import ContractError
from puffer_edge.integer.reference import Proposer
from puffer_edge.integer.scales import over_time
from puffer_edge.spaces import Floats

SAME = 1e-9


@dataclass(frozen=True, eq=False)
class Divergence:
    """Differences of two policies over observations, as shares of each action's range.

    Attributes:
        contract: the contract of the first.
        difference: (N, n_actions) absolute difference over range.
        signs: (N, n_actions) whether the two push to opposite sides of the safe output, more than 1 % of the range apart.
    """

    contract: Contract
    difference: Floats
    signs: npt.NDArray[np.bool_]

    @property
    def flips(self) -> float:
        """Share of observations with another choice (discrete heads), or with an action on the other side of its safe output."""
        other = self.difference > SAME if self.contract.levels else self.signs
        return float(other.any(1).mean())

    def summary(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = {
            channel.name: {
                "mean": float(column.mean()),
                "median": float(np.median(column)),
                "p99": float(np.quantile(column, 0.99)),
                "max": float(column.max()),
                "identical": float((column <= SAME).mean()),
            }
            for channel, column in zip(self.contract.actions, self.difference.T)
        }
        return {"observations": len(self.difference), "flips": self.flips, "actions": rows}


def comparable(a: Contract, b: Contract) -> None:
    """Raise unless two contracts observe and drive the same channels in the same units.

    Raises:
        ContractError: they do not; the message names every difference that matters.
    """
    matter = [d for d in a.differences(b) if d.startswith(("observations", "actions")) and any(f in d for f in (".name", ".unit", ".fraction_bits"))]
    if (a.n_observations, a.n_actions) != (b.n_observations, b.n_actions) or matter:
        sizes = f"{a.n_observations} observations and {a.n_actions} actions against {b.n_observations} and {b.n_actions}"
        raise ContractError(f"the two policies do not speak of the same things ({sizes}): {'; '.join(matter[:6])}")


def diverge(a: Proposer, b: Proposer, observations: npt.NDArray[np.int32], starts: npt.NDArray[np.bool_]) -> Divergence:
    """Run two policies over the same observations.

    Args:
        a: a program, or ``InFloat``.
        b: the other.
        observations: (N, n) int32 fixed-point observations in order of time.
        starts: (N,) whether a row begins an episode, where both memories are cleared.

    Raises:
        ContractError: the two do not observe and drive the same channels.
    """
    comparable(a.contract, b.contract)
    c = a.contract
    first, second = (p.contract.physical_action(over_time(p.step, observations, starts, p.start(1))) for p in (a, b))
    span = np.array([ch.high - ch.low for ch in c.actions])
    safe = np.array([ch.safe for ch in c.actions])
    apart = np.abs(first - second) / span
    return Divergence(c, apart, ((first - safe) * (second - safe) < 0) & (apart > 0.01))
