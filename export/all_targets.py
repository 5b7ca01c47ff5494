"""One policy to every target: which boards it fits, what it costs on each, and why not where it does not."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from puffer_edge.device import target as targets
from puffer_edge.device.bundle import Bundle
from puffer_edge.errors import DoesNotFit, Unsupported
from puffer_edge.export.bundle import export
from puffer_edge.policy import Policy


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one target.

    Attributes:
        target: its name.
        bundle: what was written; None where the target was refused.
        refused: why it was; empty where it was not.
    """

    target: str
    bundle: Bundle | None
    refused: str = ""

    def summary(self) -> dict[str, Any]:
        """The row of the table: bytes, the predicted tick by the target's own engine, its label, and whether it fits."""
        cost = dict(self.bundle.manifest["cost"]) if self.bundle else {}
        tick = cost["ticks"][0] if cost.get("ticks") else {}
        return {
            "target": self.target,
            "fits": self.bundle is not None,
            "flash_bytes": cost.get("flash_bytes"),
            "ram_bytes": cost.get("ram_bytes"),
            "engine": tick.get("engine"),
            "us": tick.get("us"),
            "cold_us": tick.get("cold_us"),
            "label": tick.get("label"),
            "share_of_period": tick.get("share_of_period"),
            "bundle": str(self.bundle.path) if self.bundle else None,
            "refused": self.refused or None,
        }


def export_all(
    policy: Policy,
    out: str | os.PathLike[str],
    observations: npt.ArrayLike,
    shield: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any] | None = None,
    rate_hz: float | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
    **how: Any,
) -> list[Outcome]:
    """Write a bundle for every target that the policy fits, each into its own folder.

    Args:
        policy: the float policy.
        out: folder of the folders ``out/TARGET``.
        observations: (N, n_observations) physical observations of the policy's own rollouts.
        shield: specification of the shield.
        about: further manifest fields.
        rate_hz: demand that a tick fit at this rate, by the predicted time.
        progress: called before each target with targets done, targets in all and the target's name.
        how: what else ``export`` takes.

    Raises:
        InvalidInput, RangeError: the policy or shield cannot be put into integers, for any target.
    """
    found, names = [], targets.names()
    for k, name in enumerate(names):
        progress(k, len(names), name)
        try:
            found.append(Outcome(name, export(policy, targets.load(name), Path(out) / name, observations, shield, about, rate_hz=rate_hz, **how)))
        except (DoesNotFit, Unsupported) as error:
            found.append(Outcome(name, None, str(error)))
    progress(len(names), len(names), "")
    return found
