"""A policy from anywhere: plain numpy weights, your own contract and shield, a bundle, and a board that replays its vectors."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from puffer_edge import ActionChannel, Contract, Head, Layer, Normalizer, ObservationChannel, Policy
from puffer_edge.device import target
from puffer_edge.device.board import open_board
from puffer_edge.export.bundle import export
from puffer_edge.hil.check import replay

contract = Contract(
    name="tilt_servo",
    observations=(ObservationChannel("tilt", "rad", -1.0, 1.0), ObservationChannel("tilt_rate", "rad/s", -20.0, 20.0)),
    actions=(ActionChannel("pulse", "us", 1000.0, 2000.0, safe=1500.0, initial=1500.0, fraction_bits=10),),
    head="tanh",
    rate_hz=100.0,
    staleness_limit=5,
)
shield = (
    {"stage": "envelope", "bounds": {"tilt": (-0.6, 0.6)}, "law": {"pulse": {"tilt": -400.0, "tilt_rate": -20.0}}, "bias": {"pulse": 1500.0}},
    {"stage": "slew", "per_second": {"pulse": 8000.0}},
    {"stage": "limit", "low": {"pulse": 1100.0}, "high": {"pulse": 1900.0}},
)
rng = np.random.default_rng(0)
policy = Policy(
    contract,
    layers=(
        Layer(rng.standard_normal((16, 2)), rng.standard_normal(16) * 0.1, "tanh"),
        Layer(rng.standard_normal((1, 16)) * 0.3, np.zeros(1), "none"),
    ),
    normalizer=Normalizer(mean=np.zeros(2), std=np.array([0.3, 3.0])),
    head=Head("tanh", scale=np.array([500.0]), offset=np.array([1500.0])),
)
observations = rng.standard_normal((2000, 2)) * [0.3, 3.0]  # use recordings of your own robot here


def main() -> None:
    """Export for a target, and replay the bundle's vectors on a simulated board."""
    name = sys.argv[1] if len(sys.argv) > 1 else "host"
    bundle = export(policy, target.load(name), Path("build") / f"tilt_servo-{name}", observations, shield)
    with open_board("sim", bundle) as board:
        board.install(bundle.image.data)
        wrong, first = replay(bundle.vectors, contract, board, lambda stage, done, total: None)
    print(f"{bundle.path}: {len(bundle.vectors)} vectors replayed on {board.identity.target}, {wrong} differ {first}")


if __name__ == "__main__":
    main()
