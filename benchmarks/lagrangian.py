"""What a limit on costs does to a rover among obstacles: PPO, PPO-Lagrangian and PID-Lagrangian, the same preset, seed by seed.

Each training is a run as ``puffer-edge train`` makes it. "deployed" is the deterministic policy that is kept, behind the shield, over 100
fresh episodes; "sampled" is what was trained, behind the same shield: the mean over the last quarter of the training.

python benchmarks/lagrangian.py [--environment rover] [--limit 3] [--seeds 3] [--steps 2000000]
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from record import Row, save, show

from puffer_edge.train import preset, train


def one(environment: str, algorithm: str, limit: float, seed: int, steps: int) -> Row:
    """One training's numbers."""
    settings = replace(preset(environment, algorithm), steps=steps, engine="native", threads=1, evaluation_episodes=200)
    if algorithm != "ppo":
        settings = replace(settings, cost_limit=limit)  # type: ignore[call-arg]
    with tempfile.TemporaryDirectory() as folder:
        run = train(environment, algorithm, seed=seed, out=Path(folder) / "run", settings=settings)
        rows = [row for row in run.metrics() if "ep_cost_mean" in row]
    last, found = rows[-(len(rows) // 4) :], run.result["evaluation"]
    return {
        "algorithm": algorithm,
        "seed": seed,
        "deployed_return": round(found["return"], 2),
        "deployed_cost": round(found["cost"], 2),
        "sampled_return": round(float(np.mean([row["ep_rew_mean"] for row in last])), 2),
        "sampled_cost": round(float(np.mean([row["ep_cost_mean"] for row in last])), 2),
        "lambda": round(float(np.mean([row["lambda"] for row in last])), 3) if algorithm != "ppo" else None,
        "kept_step": run.result["kept_step"],
    }


def main() -> None:
    """Train, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", default="rover")
    parser.add_argument("--limit", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2_000_000)
    settings = vars(parser.parse_args())
    about = settings["environment"], settings["limit"], settings["steps"]
    rows = []
    for algorithm in ("ppo", "ppo-lagrangian", "pid-lagrangian"):
        rows += [one(about[0], algorithm, about[1], seed, about[2]) for seed in range(settings["seeds"])]
        same = [row for row in rows if row["algorithm"] == algorithm]
        means = {name: round(float(np.mean([row[name] for row in same])), 2) for name in same[0] if name.endswith(("return", "cost"))}
        rows.append({"algorithm": algorithm, "seed": "mean", **means, "lambda": None, "kept_step": None})
        print(rows[-1], flush=True)
    show(f"{settings['environment']}, at most {settings['limit']:g} an episode", rows)
    save("lagrangian", settings=settings, rows=rows)


if __name__ == "__main__":
    main()
