"""How often the policy that a constrained training keeps is within its limit: chosen by the mean cost of its evaluation, or with a standard error.

PPO-Lagrangian with the presets, on seeds by which nothing was decided. Every policy that was evaluated is in a checkpoint, so both rules choose
among the same ones, and what they choose plays the same fresh episodes.

python benchmarks/kept.py [--seeds 5] [--first 100] [--environments rover …] [--episodes 1000]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from record import Row, save, show
from safe import ENVIRONMENTS, limit_of

from puffer_edge.envs import closed_loop
from puffer_edge.train import preset, train
from puffer_edge.train.run import checkpoint_step, learner_of
from puffer_edge.train.verdict import rank

ALGORITHM = "ppo-lagrangian"
FRESH = 1_000_003
"""Seed of the fresh episodes: no training's."""


def chosen(rows: list[dict[str, Any]], limit: float, errors: float) -> int:
    """The step of the policy that is kept where an evaluation counts with so many standard errors of its cost; the later one on ties."""

    def order(row: Mapping[str, Any]) -> tuple[tuple[bool, float], int]:
        return rank(row["eval_rew_mean"], row["eval_cost_mean"] + errors * row["eval_cost_error"], limit), row["steps"]

    return int(max(rows, key=order)["steps"])


def one(name: str, seed: int, episodes: int) -> list[Row]:
    """A training, and what each rule keeps of it."""
    limit, steps = limit_of(name)
    settings = preset(name, ALGORITHM)
    settings = replace(settings, steps=steps, checkpoints=settings.evaluations + 1)
    with tempfile.TemporaryDirectory() as folder:
        run = train(name, ALGORITHM, seed=seed, out=Path(folder) / "run", settings=settings)
        evaluated = [row for row in run.metrics() if "eval_cost_mean" in row]
        files, found = {checkpoint_step(file): file for file in run.checkpoints()}, []
        for rule, errors in (("mean", 0.0), ("mean and a standard error", 1.0)):
            step = chosen(evaluated, limit, errors)
            assert errors == 0 or step == run.result["kept_step"], "the rule is that of a training"
            learner = learner_of(ALGORITHM).load(files[step])
            fresh = closed_loop.play(learner.environment, learner.proposer(learner.policy()), learner.shield, episodes, FRESH)
            learner.close()
            gained, cost = float(fresh.returns.mean()), float(fresh.costs.mean())
            about = {"environment": name, "seed": seed, "rule": rule, "step": step, "limit": limit}
            found.append({**about, "return": round(gained, 2), "cost": round(cost, 3), "kept": cost <= limit})
    return found


def main() -> None:
    """Train, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=100, help="the first seed")
    parser.add_argument("--environments", nargs="+", default=list(ENVIRONMENTS))
    parser.add_argument("--episodes", type=int, default=1000)
    settings = vars(parser.parse_args())
    rows: list[Row] = []
    for name in settings["environments"]:
        for seed in range(settings["first"], settings["first"] + settings["seeds"]):
            rows += one(name, seed, settings["episodes"])
            print(rows[-2], rows[-1], sep="\n", flush=True)
    summary: list[Row] = []
    for key in dict.fromkeys((row["environment"], row["rule"]) for row in rows):
        mine = [row for row in rows if (row["environment"], row["rule"]) == key]
        over = [row["cost"] / row["limit"] for row in mine]
        summary.append(
            {"environment": key[0], "rule": key[1], "kept": sum(row["kept"] for row in mine), "of": len(mine), "worst_of_limit": round(max(over), 3)}
            | {"return": round(mean(row["return"] for row in mine), 2)}
        )
    show(f"{ALGORITHM}, {settings['episodes']} fresh episodes each", summary)
    save("kept", settings=settings, rows=rows + summary)


if __name__ == "__main__":
    main()
