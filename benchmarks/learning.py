"""Five trainings of each environment: seconds, and the deterministic policy's return in float and in integers.

The peer beside us is the policy itself in float, on the same episodes: what quantisation and shield cost.

python benchmarks/learning.py [--seeds 5] [--environments cartpole pendulum]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from record import save, show

from puffer_edge import envs
from puffer_edge.commands.sources import EVALUATION_SEED, calibration
from puffer_edge.envs import closed_loop
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.reference import InFloat, Runner
from puffer_edge.integer.shield import Shield
from puffer_edge.train import train

EPISODES = 100


def row(name: str, seed: int) -> dict[str, Any]:
    """Train once, and evaluate three ways on the same start states."""
    env = envs.load(name)
    with tempfile.TemporaryDirectory() as folder:
        run = train(env, seed=seed, out=Path(folder) / "run")
    guard, bare = Shield.build(env.contract, env.shield), Shield.none(env.contract)
    program = quantize(run.policy, *calibration(env, run.policy, guard))
    found = {
        key: closed_loop.run(env, Runner(proposer, shield, EPISODES), EVALUATION_SEED)
        for key, proposer, shield in (
            ("float", InFloat(run.policy), guard),
            ("float_unshielded", InFloat(run.policy), bare),
            ("integer", program, guard),
        )
    }
    low, high = found["integer"].interval
    returns = {key: float(episodes.returns.mean()) for key, episodes in found.items()}
    acted = int(((found["integer"].outcome >> 16) != 0).sum())
    return {
        "environment": name,
        "seed": seed,
        "train_s": round(run.result["seconds"], 1),
        "steps": run.result["steps"],
        "return_float": round(returns["float"], 2),
        "return_float_unshielded": round(returns["float_unshielded"], 2),
        "return_integer": round(returns["integer"], 2),
        "integer_95_percent": f"{low:.1f} … {high:.1f}",
        "integer_against_float": f"{(returns['integer'] - returns['float']) / abs(returns['float']):+.3%}",
        "shield_acted_steps": f"{acted} of {int(found['integer'].lengths.sum())}",
        "solved": bool(np.mean(found["integer"].returns) >= env.solved),
    }


def main() -> None:
    """Run, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--environments", nargs="+", default=envs.names())
    options = parser.parse_args()
    rows = [row(name, seed) for name in options.environments for seed in range(options.seeds)]
    show(f"PPO, {EPISODES} evaluation episodes from the same starts", rows)
    save("learning", settings={"seeds": options.seeds, "episodes": EPISODES, "evaluation_seed": EVALUATION_SEED}, rows=rows)


if __name__ == "__main__":
    main()
