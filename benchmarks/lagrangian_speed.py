"""How much of native PPO's speed native PPO-Lagrangian keeps, at the same settings: the two take turns, and each round gives a ratio.

Once with the cost critic's own settings, and once with as many passes over as large minibatches as PPO makes. Seconds are those of the
processor, one thread, so that what else a machine does matters less; the ratio is of the medians over rounds, and the lowest and highest of a
single round stand beside it. One learner of each kind goes on from round to round.

python benchmarks/lagrangian_speed.py [--rounds 7] [--updates 8]
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from record import Row, save, show

from puffer_edge.train import PPOLagrangianSettings, PPOSettings
from puffer_edge.train.algorithms.ppo import PPO
from puffer_edge.train.algorithms.ppo_lagrangian import PPOLagrangian

SIZES: tuple[dict[str, Any], ...] = (
    {"environment": "cartpole", "hidden": (64, 64), "rows": 64, "horizon": 64, "minibatch": 256, "epochs": 10},
    {"environment": "cartpole", "hidden": (64, 64), "rows": 64, "horizon": 64, "minibatch": 1024, "epochs": 4},
    {"environment": "cartpole", "hidden": (16, 16), "rows": 64, "horizon": 64, "minibatch": 256, "epochs": 10},
    {"environment": "rover", "hidden": (64, 64), "rows": 64, "horizon": 64, "minibatch": 1024, "epochs": 10},
)


def compare(size: dict[str, Any], same: bool, rounds: int, updates: int) -> Row:
    """Steps per second of both at one size."""
    given = {name: value for name, value in size.items() if name != "environment"} | {"engine": "native", "threads": 1, "steps": 10**9}
    costs: dict[str, Any] = {"cost_limit": 10.0} | ({"cost_epochs": size["epochs"], "cost_minibatch": size["minibatch"]} if same else {})
    learners = [
        PPO(size["environment"], PPOSettings(**given)),
        PPOLagrangian(size["environment"], PPOLagrangianSettings(**given, **costs)),
    ]
    steps, seconds = size["rows"] * size["horizon"] * updates, ([], [])
    for learner in learners:
        learner.learn(steps)
    for _ in range(rounds):
        for learner, spent in zip(learners, seconds):
            began = time.process_time()
            learner.learn(steps)
            spent.append(time.process_time() - began)
    ratios = [a / b for a, b in zip(*seconds)]
    ppo, lagrangian = (steps / statistics.median(spent) for spent in seconds)
    shown = {name: str(value) if name == "hidden" else value for name, value in size.items()}
    shown |= {"cost_critic": "as PPO" if same else "its own"}
    found = {"ppo_steps_per_s": round(ppo), "lagrangian_steps_per_s": round(lagrangian), "kept": round(lagrangian / ppo, 3)}
    return shown | found | {"lowest": round(min(ratios), 3), "highest": round(max(ratios), 3)}


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--updates", type=int, default=8)
    settings = vars(parser.parse_args())
    rows = [compare(size, same, **settings) for size in SIZES for same in (False, True)]
    show("native PPO-Lagrangian beside native PPO, one thread", rows)
    save("lagrangian_speed", settings=settings, rows=rows)


if __name__ == "__main__":
    main()
