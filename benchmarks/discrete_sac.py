"""What discrete SAC learns: return of the policy kept, its deterministic head, over 100 fresh episodes, seed by seed.

The settings are the defaults but for the steps. A case that is trained behind its shield is evaluated behind it, the others without one. The
table is saved anew after each case.

python benchmarks/discrete_sac.py [--first 0] [--seeds 10]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from record import save, show

from puffer_edge.train import preset, train

CASES = (("cartpole", False, 475.0), ("cartpole", True, 475.0), ("acrobot", False, -100.0))


def learnt(name: str, shield: bool, wanted: float, seeds: range) -> dict[str, Any]:
    """A row for one case."""
    returns, kept, seconds = [], [], []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            run = train(name, "discrete-sac", seed=seed, out=Path(folder) / "run", shield=shield)
        returns.append(round(run.result["evaluation"]["return"], 2))
        kept.append(run.result["kept_step"])
        seconds.append(run.result["seconds"])
    row = {"environment": name, "shield": shield, "steps": run.result["steps"], "wanted": wanted, "reached": sum(r >= wanted for r in returns)}
    return row | {"seeds": len(seeds), "returns": returns, "kept_step": kept, "median_s": round(median(seconds), 1)}


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    rows = []
    for name, shield, wanted in CASES:
        rows.append(learnt(name, shield, wanted, range(options.first, options.first + options.seeds)))
        settings = {"first": options.first, "seeds": options.seeds, "cases": {case: preset(case, "discrete-sac").to_dict() for case, _, _ in CASES}}
        save("discrete_sac", settings=settings, rows=rows)
    show("what discrete SAC learns", rows)


if __name__ == "__main__":
    main()
