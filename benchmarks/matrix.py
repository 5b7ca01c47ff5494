"""The parity matrix: every kind of network, in every profile, exported in every format, each file run by its engines against the program.

What is run is what a bundle holds; ``puffer-edge verify`` does the same for one policy. Integer formats must give every bit; float and
QDQ models are held to the bound that the table shows. Slow engines (simulated boards) take fewer vectors.

python benchmarks/matrix.py [--vectors 1000000] [--networks mlp gru …] [--profiles int8 …] [--engines c onnx …] [--seed 0]
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from puffer_edge.device import target
from puffer_edge.engines import verify
from puffer_edge.export import bundle
from puffer_edge.integer.scales import PROFILES

sys.path.append(str(Path(__file__).parents[1]))  # the networks that the tests compare are measured here at length
from tests import samples

SHIELD: tuple[dict[str, Any], ...] = ({"stage": "slew", "per_second": {"force": 400.0}}, {"stage": "limit"})


def rows(network: str, profile: str, head: str, vectors: int, seed: int, engines: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One network in one profile through every engine."""
    policy = samples.network(network, head, seed)
    observations, starts = samples.episodes(policy.contract, seed=seed)
    host = dataclasses.replace(target.load("host"), formats=bundle.formats())
    with tempfile.TemporaryDirectory() as folder:
        made = bundle.export(policy, host, Path(folder) / "b", observations, SHIELD, starts=starts, profile=profile)
        found = verify(made, vectors, seed, engines)
        left_out = made.manifest["left_out"]
    about = {"network": network, "head": head, "program": profile}
    table = [about | row.summary() for row in found]
    return table + [about | {"format": name, "engine": "none", "vectors": 0, "mismatches": 0, "note": why} for name, why in left_out.items()]


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row as one reads it."""
    ran = row["vectors"] > 0
    return {
        "network": f"{row['network']} {row['head']}",
        "program": row["program"],
        "format": row["format"],
        "engine": row["engine"],
        "differ": f"{row['mismatches']:,} of {row['vectors']:,}" if ran else "–",
        "most": f"{row['max_difference']:.3g} (bound {row['bound']:.3g})" if ran and row["bound"] else "" if ran else row["note"][:60],
    }


def main() -> None:
    """Run, print and save the matrix."""
    from record import save, show

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--networks", nargs="+", default=list(samples.NETWORKS), choices=samples.NETWORKS)
    parser.add_argument("--profiles", nargs="+", default=list(PROFILES), choices=list(PROFILES))
    parser.add_argument("--engines", nargs="+", default=[], help="all where not given")
    parser.add_argument("--name", default="matrix", help="of the result's file")
    parser.add_argument("--seed", type=int, default=0)
    settings = vars(parser.parse_args())
    table: list[dict[str, Any]] = []
    for k, network in enumerate(settings["networks"]):
        for j, profile in enumerate(settings["profiles"]):
            start = time.perf_counter()
            found = rows(network, profile, samples.HEADS[(j + k) % len(samples.HEADS)], settings["vectors"], settings["seed"], settings["engines"])
            table += found
            wrong = sum(row["mismatches"] for row in found)
            print(f"{network} {profile}: {len(found)} rows, {wrong} differ, {time.perf_counter() - start:.0f} s", flush=True)
            save(settings["name"], settings=settings, rows=table)
    show("formats × networks × profiles", [shown(row) for row in table])


if __name__ == "__main__":
    main()
