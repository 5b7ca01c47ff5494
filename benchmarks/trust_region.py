"""What TRPO learns in 100,000 steps, beside sb3-contrib's at its defaults in the same run.

The presets, seed by seed; return over 100 fresh episodes of the deterministic policy without a shield, of the policy kept and of the last one;
of sb3-contrib's, which keeps none, of the last one.

python benchmarks/trust_region.py [--seeds 5] [--environments cartpole pendulum]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from record import save, show

from puffer_edge import envs
from puffer_edge.envs import closed_loop
from puffer_edge.integer.reference import InFloat
from puffer_edge.integer.shield import Shield
from puffer_edge.train import preset, train
from puffer_edge.train.algorithms.trpo import TRPO

TASKS = {"cartpole": ("CartPole-v1", 475.0), "pendulum": ("Pendulum-v1", -200.0)}
"""Gymnasium's name, and what is wanted."""
EPISODES, EPISODE_SEED = 100, 777


def ours(name: str, seed: int) -> dict[str, Any]:
    """One training: return of the policy kept, of the last one, seconds."""
    with tempfile.TemporaryDirectory() as folder:
        run = train(name, "trpo", seed=seed, out=Path(folder) / "run", shield=False)
        last = TRPO.load(run.checkpoints()[-1]).policy()
    bare = Shield.none(envs.load(name).contract)
    played = closed_loop.play(envs.load(name), InFloat(last), bare, EPISODES, EPISODE_SEED)
    return {"kept": run.result["evaluation"]["return"], "last": float(played.returns.mean()), "seconds": run.result["seconds"]}


def theirs(name: str, seed: int, steps: int) -> dict[str, Any]:
    """One training of sb3-contrib's."""
    import gymnasium
    from sb3_contrib import TRPO as Peer
    from stable_baselines3.common.evaluation import evaluate_policy

    torch.set_num_threads(1)
    began = time.perf_counter()
    model = Peer("MlpPolicy", gymnasium.make(name), seed=seed, device="cpu").learn(steps)
    seconds = time.perf_counter() - began
    environment = gymnasium.make(name)
    environment.reset(seed=EPISODE_SEED)
    found, _ = evaluate_policy(model, environment, EPISODES, warn=False)
    return {"last": float(found), "seconds": seconds}  # type: ignore[arg-type]  # the mean, as no list was asked for


def summary(name: str, kind: str, wanted: float, found: list[dict[str, Any]]) -> dict[str, Any]:
    """A row of the table."""
    row: dict[str, Any] = {"environment": name, "trained by": kind, "steps": preset(name, "trpo").steps, "wanted": wanted}
    for key in ("kept", "last"):
        row[key] = [round(one[key], 1) for one in found] if key in found[0] else None
    best = row["kept"] or row["last"]
    return row | {"reached": sum(x >= wanted for x in best), "seeds": len(found), "median_s": round(median(one["seconds"] for one in found), 1)}


def main() -> None:
    """Train, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--environments", nargs="+", default=list(TASKS))
    options = parser.parse_args()
    rows = []
    for name in options.environments:
        gymnasiums, wanted = TASKS[name]
        rows.append(summary(name, "puffer-edge", wanted, [ours(name, seed) for seed in range(options.seeds)]))
        peers = [theirs(gymnasiums, seed, preset(name, "trpo").steps) for seed in range(options.seeds)]
        rows.append(summary(name, f"sb3-contrib {version('sb3-contrib')}", wanted, peers))
        show(f"TRPO, {EPISODES} evaluation episodes", rows)
    save("trust_region", settings={"seeds": options.seeds, "episodes": EPISODES, "evaluation_seed": EPISODE_SEED}, rows=rows)


if __name__ == "__main__":
    main()
