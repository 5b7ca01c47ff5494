"""What ``puffer-edge bench train`` measures, and how long CartPole takes to be solved, as a result with machine and commit.

Solved: the policy as it is after ``learn`` of the preset, its deterministic head behind the shield, has a mean return of 475 or more over
100 fresh episodes. Seconds are those of ``learn`` alone; making the learner compiles the environment once, or reads the cache, and is
printed apart.

python benchmarks/training_speed.py [--seeds 30]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from record import save, show

from puffer_edge import envs
from puffer_edge.envs import closed_loop
from puffer_edge.integer.reference import InFloat
from puffer_edge.integer.shield import Shield
from puffer_edge.train import settings_for
from puffer_edge.train.algorithms.ppo import PPO
from puffer_edge.train.throughput import rows, with_ratios


def solved(seeds: int) -> dict[str, Any]:
    """Seconds and returns of the preset, seed by seed."""
    env = envs.load("cartpole")
    shield = Shield.build(env.contract, env.shield)
    began = time.perf_counter()
    engine = PPO(env, settings_for("cartpole")).engine
    made, seconds, returns = time.perf_counter() - began, [], []
    for seed in range(seeds):
        learner = PPO(env, settings_for("cartpole"), seed=seed)
        began = time.perf_counter()
        learner.learn()
        seconds.append(time.perf_counter() - began)
        found = closed_loop.play(env, InFloat(learner.policy()), shield, 100, 8_500_000 + seed)
        returns.append(float(found.returns.mean()))
    return {
        "engine": engine,
        "seeds": seeds,
        "solved": sum(value >= 475 for value in returns),
        "median_s": round(float(np.median(seconds)), 3),
        "worst_s": round(max(seconds), 3),
        "first_learner_s": round(made, 2),
        "lowest_return": min(returns),
    }


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    settings = vars(parser.parse_args())
    quick = solved(settings["seeds"])
    show("CartPole, the preset", [quick])
    found = with_ratios(list(rows()))
    show(
        "steps per second",
        [
            {
                key: row[key]
                for key in ("engine", "hidden", "epochs", "num_envs", "horizon", "threads", "steps_per_s", "peer", "peer_ratio", "recorded")
            }
            for row in found
        ],
    )
    save("training_speed", settings=settings, rows=[quick, *found])


if __name__ == "__main__":
    main()
