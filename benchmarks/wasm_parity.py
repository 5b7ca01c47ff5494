"""Does the WebAssembly engine give the reference's bits? Every network and profile under node, missed and invalid ticks among them.

Every tick is compared in proposal, action, outcome and state digest. The time that a tick takes under node is recorded with it:
it is this machine's, calls from JavaScript included, and no promise for a browser.

python benchmarks/wasm_parity.py [--steps 1000000] [--seed 0] [--only mlp-int8 gru-int8 …]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from record import save, show

from puffer_edge.device import target
from puffer_edge.device.bundle import Bundle
from puffer_edge.engines._steps import by_reference, difference, make_steps
from puffer_edge.engines.wasm import batch
from puffer_edge.export.bundle import export

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests import samples

CASES = tuple((name, "int8") for name in samples.NETWORKS) + tuple(
    (name, profile) for name in ("mlp", "conv_gru", "lstm") for profile in ("int16x8", "int4", "shift")
)


def make(name: str, profile: str, folder: Path) -> Bundle:
    """A bundle of one network behind a shield that slews and limits."""
    policy = samples.network(name, "tanh")
    observations, starts = samples.episodes(policy.contract)
    shield = ({"stage": "slew", "per_second": {"force": 30.0}}, {"stage": "limit"})
    board = replace(target.load("wasm"), formats=("wasm",))
    return export(policy, board, folder, observations, shield, starts=starts, profile=profile)


def row(name: str, profile: str, steps: int, seed: int) -> dict[str, Any]:
    """One network's comparison."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = make(name, profile, Path(folder) / "bundle")
        image = bundle.image
        ticks = make_steps(image.contract, steps, seed)
        ran = batch(bundle.path / "wasm", ticks, image.contract.n_actions)
    wanted = by_reference(image, ticks)
    return {
        "network": name,
        "profile": profile,
        "macs": image.program.macs,
        "steps": ticks.count,
        "different": difference(ran.tick, wanted).steps,
        "shield_acted": round(float(((wanted.outcome >> 16 & 255) != 0).mean()), 4),
        "node_us_a_tick": round(1e6 * ran.seconds / ticks.count, 3),
        "node": ran.node,
    }


def main() -> None:
    """Print and save the table; exit code 1 where a bit differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[], choices=["-".join(case) for case in CASES], help="network and profile")
    options = parser.parse_args()
    chosen = [case for case in CASES if not options.only or "-".join(case) in options.only]
    rows = [row(name, profile, options.steps, options.seed) for name, profile in chosen]
    show("WebAssembly against the reference", rows)
    save("wasm_parity", vars(options), rows)
    raise SystemExit(any(r["different"] for r in rows))


if __name__ == "__main__":
    main()
