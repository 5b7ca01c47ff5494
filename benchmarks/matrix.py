"""The parity matrix: every kind of network, in every profile, exported in every format, each file run by its engines against the program.

What is run is what a bundle holds; ``puffer-edge verify`` does the same for one policy. Integer formats must give every bit; float and
QDQ models are held to the bound that the table shows. Slow engines (simulated boards) take fewer vectors.

python benchmarks/matrix.py [--vectors 1150000] [--networks mlp gru …] [--profiles int8 …] [--engines c onnx …] [--seed 0] [--jobs 1]
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
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
    board = dataclasses.replace(target.load("rp2040"), formats=bundle.formats())
    with tempfile.TemporaryDirectory() as folder:
        made = bundle.export(policy, board, Path(folder) / "b", observations, SHIELD, starts=starts, profile=profile)
        found = verify(made, vectors, seed, engines)
        left_out = made.manifest["left_out"]
    about = {"network": network, "head": head, "program": profile}
    table = [about | row.summary() for row in found]
    return table + [about | {"format": name, "engine": "none", "vectors": 0, "mismatches": 0, "note": why} for name, why in left_out.items()]


def summary(table: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A line a file and engine: what ran of all networks and profiles, and why the others did not."""
    kinds = list(dict.fromkeys((row["format"], row["engine"]) for row in table if row["vectors"]))
    for kind in kinds:
        ran = [row for row in table if (row["format"], row["engine"]) == kind and row["vectors"]]
        worst = max(ran, key=lambda row: row["max_difference"] / (row["bound"] or 1))
        yield {
            "file": kind[0],
            "engine": kind[1],
            "programs": len(ran),
            "vectors": f"{sum(row['vectors'] for row in ran):,}",
            "differ": sum(row["mismatches"] for row in ran),
            "most": f"{worst['max_difference']:.3g} {worst['unit']}, bound {worst['bound']:.3g}" if worst["bound"] else worst["max_difference"],
        }
    for why, count in Counter(f"{row['format']}: {row['note']}" for row in table if not row["vectors"]).items():
        print(f"not run for {count} programs: {why}")


def main() -> None:
    """Run, print and save the matrix."""
    from record import save, show

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_150_000, help="a ninth of the ticks is missed or invalid, which models do not see")
    parser.add_argument("--networks", nargs="+", default=list(samples.NETWORKS), choices=samples.NETWORKS)
    parser.add_argument("--profiles", nargs="+", default=list(PROFILES), choices=list(PROFILES))
    parser.add_argument("--engines", nargs="+", default=[], help="all where not given")
    parser.add_argument("--name", default="matrix", help="of the result's file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="programs at a time")
    settings = vars(parser.parse_args())
    pairs = [(k, j) for k in range(len(settings["networks"])) for j in range(len(settings["profiles"]))]
    table: list[dict[str, Any]] = []
    with ProcessPoolExecutor(settings["jobs"]) as pool:
        running = []
        for k, j in pairs:
            head = samples.HEADS[(j + k) % len(samples.HEADS)]
            about = settings["networks"][k], settings["profiles"][j], head, settings["vectors"], settings["seed"], settings["engines"]
            running.append(pool.submit(rows, *about))
        for done in running:
            found = done.result()
            table += found
            print(f"{found[0]['network']} {found[0]['program']}: {len(found)} rows, {sum(row['mismatches'] for row in found)} differ", flush=True)
            save(settings["name"], settings=settings, rows=table)
    show("formats × networks × profiles", list(summary(table)))


if __name__ == "__main__":
    main()
