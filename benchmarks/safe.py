"""Return and cost of algorithms with and without a limit: rover, balancer and point_goal, five trainings each, with curves.

Each environment's preset names the limit, ``cost_limit``, and all algorithms make the same number of steps there; it is saved as soon as it
is done. Of each training: return and cost of the policy kept, its deterministic head behind the environment's shield, over 100 fresh
episodes, none of which any choice was made by. Pictures go to docs/safe/NAME.svg: evaluations of the deterministic policy as a training goes
on. ``--tables`` prints the tables of docs/safe.md from what was found.

python benchmarks/safe.py [--seeds 5] [--environments rover …] [--algorithms ppo cpo …] [--tables]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from record import RESULTS, save, show

from puffer_edge.train import Run, iqm, preset, train
from puffer_edge.train.curve import comparison
from puffer_edge.train.groups import Logged, groups

ENVIRONMENTS = ("rover", "balancer", "point_goal")
ALGORITHMS = ("ppo", "ppo-lagrangian", "trpo-lagrangian", "cpo")
STEPS = {"rover": 1_000_000}
"""Of environments whose preset asks for more than the torch engine, on which TRPO-Lagrangian and CPO train, makes in good time."""
PICTURES = Path(__file__).parents[1] / "docs" / "safe"
CURVES = {"eval_rew_mean": "{}: return, deterministic policy", "eval_cost_mean": "{}: cost, limit {:g}, deterministic policy"}
"""Metrics, and titles of their pictures."""


def row(run: Run, limit: float) -> dict[str, Any]:
    """One training."""
    found = run.result["evaluation"]
    return {
        **{key: run.settings[key] for key in ("environment", "algorithm", "seed")},
        "steps": run.result["steps"],
        "return": round(found["return"], 2),
        "cost": round(found["cost"], 3),
        "limit": limit,
        "kept": bool(found["cost"] <= limit),
        "engine": run.result["engine"],
        "train_s": round(run.result["seconds"], 1),
    }


def limit_of(name: str) -> tuple[float, int]:
    """The limit of an environment, and its steps, as the preset of PPO-Lagrangian says them, or ``STEPS``."""
    settings = preset(name, "ppo-lagrangian")
    limit = getattr(settings, "cost_limit")  # noqa: B009  of its class, which ``preset`` does not tell
    return float(limit), STEPS.get(name, settings.steps)


def environment_rows(name: str, algorithms: list[str], seeds: int) -> list[dict[str, Any]]:
    """Train on one environment; the picture goes beside the page."""
    (limit, steps), rows = limit_of(name), []
    with tempfile.TemporaryDirectory() as folder:
        for algorithm in algorithms:
            settings = replace(preset(name, algorithm), steps=steps)
            for seed in range(seeds):
                path = Path(folder) / f"{algorithm}-{seed}"
                rows.append(row(train(name, algorithm, seed=seed, out=path, settings=settings), limit))
                print(rows[-1], flush=True)
        logged = [Logged.load(path) for path in sorted(Path(folder).iterdir())]
        curves = {words.format(name, limit): [group.curve for group in groups(logged, key)] for key, words in CURVES.items()}
        PICTURES.mkdir(exist_ok=True)
        limits = {words.format(name, limit): limit for key, words in CURVES.items() if "cost" in key}
        (PICTURES / f"{name}.svg").write_text(comparison(curves, "environment steps", "mean of an episode", limits))
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows of one environment as a table of the page: an algorithm a line."""
    lines = ["| algorithm | return: mean of middle half | each seed | cost: mean | each seed | kept the limit | seconds, mean |", "|" + "---|" * 7]
    for algorithm in dict.fromkeys(r["algorithm"] for r in rows):
        mine = [r for r in rows if r["algorithm"] == algorithm]
        gained, spent = ([r[key] for r in mine] for key in ("return", "cost"))
        kept = f"{sum(r['kept'] for r in mine)} of {len(mine)}"
        each = (", ".join(f"{x:.1f}" for x in gained), f"{mean(spent):.2f}", ", ".join(f"{x:.2f}" for x in spent))
        lines.append(f"| {algorithm} | {iqm.iqm(gained):.1f} | {' | '.join(each)} | {kept} | {mean(r['train_s'] for r in mine):.0f} |")
    first = rows[0]
    return f"**{first['environment']}**, {first['steps']:,} steps, limit {first['limit']:g}:\n\n" + "\n".join(lines)


def saved() -> list[dict[str, Any]]:
    """The rows that were found so far."""
    file = RESULTS / "safe.json"
    return list(json.loads(file.read_text())["rows"]) if file.is_file() else []


def main() -> None:
    """Train, draw, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--environments", nargs="+", default=list(ENVIRONMENTS))
    parser.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS))
    parser.add_argument("--tables", action="store_true", help="train nothing, print the tables of what was found")
    options = parser.parse_args()
    for name in [] if options.tables else options.environments:
        found = environment_rows(name, options.algorithms, options.seeds)
        show(f"{name}, {options.seeds} seeds", found)
        others = [r for r in saved() if r["environment"] != name]
        save("safe", settings={"seeds": options.seeds, "algorithms": options.algorithms}, rows=others + found)
    rows = saved()
    for name in dict.fromkeys(r["environment"] for r in rows):
        print("\n" + table([r for r in rows if r["environment"] == name]))


if __name__ == "__main__":
    main()
