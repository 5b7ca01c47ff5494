"""A budget: the limits of a target and those that a user sets, and which of them a policy breaks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from puffer_edge.device import budget, cost
from puffer_edge.device.cost import SHARE
from puffer_edge.device.target import Target
from puffer_edge.errors import InvalidInput
from puffer_edge.integer.image import Image


@dataclass(frozen=True)
class Need:
    """What a policy in integers takes; it depends on its shape, profile and shield, not on its weights.

    Attributes:
        macs: multiply-accumulates of one run of the network.
        image_bytes: of the policy image, ``policy.bin``: contract, program, shield and self-test vectors, all that a target's slot holds.
        ram_bytes: image where the engine copies it, activations and memory; 0 without a target.
        us: predicted microseconds of a tick, the flash cache cold, by the engine of the target's firmware; None where nothing is predicted.
        label: "measured", "emulated" or "modelled", the weakest among the prices; empty where nothing is predicted.
    """

    macs: int
    image_bytes: int
    ram_bytes: int
    us: float | None
    label: str

    def summary(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**vars(self), "us": None if self.us is None else round(self.us, 1)}


@dataclass(frozen=True)
class Limit:
    """One limit, and what a policy takes of it.

    Attributes:
        what: the resource with its unit, and whose limit it is.
        needs: what the policy takes.
        has: what there is.
    """

    what: str
    needs: float
    has: float

    @property
    def share(self) -> float:
        """What is taken of what there is; more than 1 does not fit."""
        return self.needs / self.has


@dataclass(frozen=True)
class Budget:
    """What a policy may take: any of three numbers, and a target with limits of its own.

    Attributes:
        target: whose slot, RAM and control period hold too; None for none.
        macs: multiply-accumulates of one run of the network.
        kib: KiB of the policy image, the manifest's ``image_bytes``; the engine is not in it.
        us: predicted microseconds of a tick on the target, the flash cache cold: the manifest's ``cold_us``.

    Raises:
        InvalidInput: there is no limit at all, one is not positive, or microseconds are asked of a target for which none are predicted.
    """

    target: Target | None = None
    macs: int | None = None
    kib: float | None = None
    us: float | None = None

    def __post_init__(self) -> None:
        numbers = {"macs": self.macs, "kib": self.kib, "us": self.us}
        if self.target is None and not any(value is not None for value in numbers.values()):
            raise InvalidInput("a budget needs a number or a target: --macs, --kib, --us with --target, or --target alone for the board's own limits")
        for name, value in numbers.items():
            if value is not None and not 0 < value < math.inf:
                raise InvalidInput(f"a budget of {name} must be a positive number, not {value:g}: leave out what shall not be limited")
        if self.us is not None and self.target is None:
            raise InvalidInput("microseconds are those of a target: give --target too; 'puffer-edge targets' lists them")
        if self.us is not None and self.target is not None and not (self.target.core and self.target.clock_mhz):
            raise InvalidInput(f"no time is predicted for {self.target.name}, which has no prices: leave out --us, or take another target")

    def need(self, image: Image) -> Need:
        """What a policy image takes."""
        own = budget.own_prediction(image, self.target) if self.target else None
        ram = budget.ram_bytes(image, self.target) if self.target else 0
        return Need(image.program.macs, len(image.data), ram, own.cold_us if own else None, own.label if own else "")

    def limits(self, need: Need, rate_hz: float) -> tuple[Limit, ...]:
        """Every limit that holds, with what is taken of it.

        Args:
            need: of a policy.
            rate_hz: of its contract: a tick may take ``SHARE`` of the target's period.
        """
        found = []
        us = math.inf if need.us is None else need.us
        if self.macs is not None:
            found.append(Limit("multiply-accumulates", need.macs, self.macs))
        if self.kib is not None:
            found.append(Limit("KiB of policy image", need.image_bytes / 1024, self.kib))
        if self.us is not None:
            found.append(Limit("predicted µs for a tick", us, self.us))
        if self.target is not None:
            t = self.target
            found.append(Limit(f"KiB of {t.name}'s slot for the policy image", need.image_bytes / 1024, t.image_max_bytes / 1024))
            found.append(Limit(f"KiB of {t.name}'s RAM for the policy", need.ram_bytes / 1024, t.ram_for_policy_bytes / 1024))
            if need.us is not None:
                found.append(Limit(f"predicted µs of {SHARE:.0%} of the period at {rate_hz:g} Hz", need.us, SHARE * 1e6 / rate_hz))
        return tuple(found)

    def fits(self, need: Need, rate_hz: float) -> bool:
        """Whether no limit is broken."""
        return all(limit.share <= 1 for limit in self.limits(need, rate_hz))

    def summary(self) -> dict[str, Any]:
        """Plain JSON values."""
        engine = cost.engines(self.target)[0] if self.target else ""
        return {"target": self.target.name if self.target else None, "engine": engine, "macs": self.macs, "kib": self.kib, "us": self.us}
