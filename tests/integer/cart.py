"""A small task that the integer tests share: four observations, one force, a shield of three stages."""

from __future__ import annotations

from typing import Any

import numpy as np

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.integer.image import Image
from puffer_edge.integer.program import Program
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.shield import Shield
from puffer_edge.integer.vectors import make
from puffer_edge.spaces import Floats
from tests import samples

STAGES: tuple[dict[str, Any], ...] = (
    {
        "stage": "envelope",
        "bounds": {"angle": (-0.17, 0.17), "position": (-2.0, 2.0)},
        "law": {"force": {"position": 1.0, "velocity": 2.0, "angle": 40.0, "angular_velocity": 8.0}},
    },
    {"stage": "slew", "per_second": {"force": 500.0}},
    {"stage": "limit"},
)


def contract(head: str = "clip", **changes: Any) -> Contract:
    """The task's contract."""
    ranges = (("position", "m", 4.8), ("velocity", "m/s", 10.0), ("angle", "rad", 0.42), ("angular_velocity", "rad/s", 10.0))
    observations = tuple(ObservationChannel(name, unit, -high, high) for name, unit, high in ranges)
    action = ActionChannel("force", "N", -10.0, 10.0, safe=0.5, initial=-0.25)
    levels = ((-10.0,), (10.0,)) if head == "discrete" else ()
    fields: dict[str, Any] = {"policy_divider": 1, "staleness_limit": 2} | changes
    return Contract("cart", observations, (action,), head, 50.0, levels, **fields)


def observations(c: Contract, rows: int = 1000, seed: int = 1) -> Floats:
    """Physical observations over the whole range."""
    rng = np.random.default_rng(seed)
    return rng.uniform(c.physical_observation(c.observation_low), c.physical_observation(c.observation_high), (rows, c.n_observations))


def program(head: str = "clip", hidden: tuple[int, ...] = (8, 8), activation: str = "relu", **changes: Any) -> Program:
    """A program with random weights."""
    c = contract(head, **changes)
    return quantize(samples.policy(c, hidden, activation), observations(c))


def image(head: str = "clip", steps: int = 4) -> Image:
    """A small image with a shield and vectors."""
    p = program(head, (6,), "tanh")
    shield = Shield.build(p.contract, STAGES)
    vectors = make(p, shield, p.contract.observe(observations(p.contract, 64))[0], steps=16)
    return Image(p.contract, p, shield, vectors.head(steps))
