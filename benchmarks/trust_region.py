"""What TRPO learns in 100,000 steps: the presets, seed by seed.

Return over 100 fresh episodes of the deterministic policy without a shield: of the policy kept, and of the last one. What it learns under a
limit on costs is in cmdp.py.

python benchmarks/trust_region.py [--seeds 5] [--environments cartpole pendulum]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from record import save, show

from puffer_edge import envs
from puffer_edge.envs import closed_loop
from puffer_edge.integer.reference import InFloat
from puffer_edge.integer.shield import Shield
from puffer_edge.train import preset, train
from puffer_edge.train.algorithms.trpo import TRPO

TASKS = {"cartpole": 475.0, "pendulum": -200.0}
"""What is wanted."""
EPISODES, EPISODE_SEED = 100, 777


def trained(name: str, seed: int) -> dict[str, Any]:
    """One training: return of the policy kept, of the last one, seconds."""
    with tempfile.TemporaryDirectory() as folder:
        run = train(name, "trpo", seed=seed, out=Path(folder) / "run", shield=False)
        last = TRPO.load(run.checkpoints()[-1]).policy()
    bare = Shield.none(envs.load(name).contract)
    played = closed_loop.play(envs.load(name), InFloat(last), bare, EPISODES, EPISODE_SEED)
    return {"kept": run.result["evaluation"]["return"], "last": float(played.returns.mean()), "seconds": run.result["seconds"]}


def summary(name: str, seeds: int) -> dict[str, Any]:
    """A row of the table."""
    found, wanted = [trained(name, seed) for seed in range(seeds)], TASKS[name]
    kept, last = ([round(one[key], 1) for one in found] for key in ("kept", "last"))
    about = {"environment": name, "steps": preset(name, "trpo").steps, "wanted": wanted, "kept": kept, "last": last}
    return about | {"reached": sum(x >= wanted for x in kept), "seeds": seeds, "median_s": round(median(one["seconds"] for one in found), 1)}


def main() -> None:
    """Train, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--environments", nargs="+", default=list(TASKS))
    options = parser.parse_args()
    rows = [summary(name, options.seeds) for name in options.environments]
    show(f"TRPO, {EPISODES} evaluation episodes", rows)
    save("trust_region", settings={"seeds": options.seeds, "episodes": EPISODES, "evaluation_seed": EPISODE_SEED}, rows=rows)


if __name__ == "__main__":
    main()
