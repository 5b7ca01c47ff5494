"""Algorithms that keep a limit of cost, beside the best there is: ``cmdp`` of the sanity set, whose optimum a linear program gives.

Every algorithm that knows ``cost_limit`` trains with its preset. Of the last policy of each training, exactly, by going backwards through the
steps: return and cost where it draws its choices, as it was trained, and where it makes the likeliest one, as it is deployed. Wanted of the
former: at least 95 % of the optimum, and at most 5 % above the limit, of every seed. No policy that does not draw can do that within the
limit (``linear_program.py``), so what is deployed either loses return or breaks the limit, and the table says which.

python benchmarks/cmdp.py [--seeds 5] [--first 0] [--algorithms ppo-lagrangian …]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numba  # noqa: F401  many rows are compiled from the first step on
import numpy as np
from linear_program import best
from record import save, show

from puffer_edge import envs
from puffer_edge.envs.sanity import cmdp
from puffer_edge.policy import Policy
from puffer_edge.spaces import Floats
from puffer_edge.train import preset
from puffer_edge.train.run import learner_of
from puffer_edge.train.settings_file import ALGORITHMS

WITHIN = 0.05


def keepers() -> tuple[str, ...]:
    """The algorithms that know a limit of cost."""
    return tuple(name for name, kind in ALGORITHMS.items() if hasattr(kind, "cost_limit"))


def choices(policy: Policy) -> tuple[Floats, Floats]:
    """(STEPS, S, A) probabilities of a policy that draws its choices, and of one that makes the likeliest."""
    logits = policy.outputs(cmdp.observations().reshape(-1, len(cmdp.STATES) + 1)).reshape(cmdp.STEPS, len(cmdp.STATES), -1)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True), np.eye(cmdp.CHOICES)[logits.argmax(-1)]


def trained(name: str, seed: int) -> dict[str, Any]:
    """A row: one training."""
    began = time.perf_counter()
    learner = learner_of(name)(envs.load("cmdp"), preset("cmdp", name), seed=seed).learn()
    seconds = time.perf_counter() - began
    (gained, spent), (deployed, charged) = (cmdp.value(p) for p in choices(learner.policy()))
    return {
        "algorithm": name,
        "seed": seed,
        "steps": learner.steps,
        "return": round(gained, 4),
        "cost": round(spent, 4),
        "of_optimum": round(gained / cmdp.OPTIMUM, 4),
        "of_limit": round(spent / cmdp.LIMIT, 4),
        "reached": bool(gained >= (1 - WITHIN) * cmdp.OPTIMUM and spent <= (1 + WITHIN) * cmdp.LIMIT),
        "deployed_return": round(deployed, 4),
        "deployed_cost": round(charged, 4),
        "engine": learner.engine,
        "train_s": round(seconds, 1),
    }


def references() -> list[dict[str, Any]]:
    """Rows of what is known without training."""
    asked = {"linear program": (cmdp.LIMIT, True), "best that does not draw": (cmdp.LIMIT, False), "no limit": (np.inf, True), "no cost": (0.0, True)}
    found = []
    for name, question in asked.items():
        gained, spent = cmdp.value(best(*question))
        found.append({"algorithm": name, "return": round(gained, 4), "cost": round(spent, 4), "of_optimum": round(gained / cmdp.OPTIMUM, 4)})
    return found


def main() -> None:
    """Train, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed: one by which no setting was chosen")
    parser.add_argument("--algorithms", nargs="+", default=keepers())
    options = parser.parse_args()
    rows = references()
    show(f"cmdp, limit {cmdp.LIMIT}", rows)
    for name in options.algorithms:
        found = [trained(name, seed) for seed in range(options.first, options.first + options.seeds)]
        show(f"{name}: {sum(row['reached'] for row in found)} of {options.seeds} seeds within {WITHIN:.0%}", found)
        for row in found:
            if row["deployed_cost"] > cmdp.LIMIT:
                print(f"warning: {name}, seed {row['seed']}: the likeliest choices cost {row['deployed_cost']}, and break the limit {cmdp.LIMIT}")
        rows += found
    save("cmdp", settings={"seeds": options.seeds, "within": WITHIN, "limit": cmdp.LIMIT, "optimum": cmdp.OPTIMUM}, rows=rows)


if __name__ == "__main__":
    main()
