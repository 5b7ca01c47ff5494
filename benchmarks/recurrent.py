"""Policies with memory against policies without, where what is seen is not enough: returns in float and in integers, and what memory costs.

Every training is a preset with another ``memory``; the memoryless rows are the peer. Five seeds each, their interquartile mean and its 95 %
interval (a bootstrap over trainings), over 100 fresh episodes of the policy that is kept, as it is deployed; *integer* is the int8 program
on the same start states. Settings are the presets, ``puffer_edge/train/presets``. What is not measured in this run keeps what the last one
found.

python benchmarks/recurrent.py [--seeds 5] [--environments cartpole_no_velocity memory grid] [--memories none gru lstm] [--no-save]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from record import RESULTS, commit, save, show

from puffer_edge import envs
from puffer_edge.commands.sources import EVALUATION_SEED, calibration
from puffer_edge.envs import closed_loop
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.reference import InFloat
from puffer_edge.integer.shield import Shield
from puffer_edge.train import Run, iqm, train
from puffer_edge.train.settings_file import preset

EPISODES = 100
PROFILES = ("int8", "int16x8")


def measured(run: Run) -> dict[str, float]:
    """Mean returns of a run's policy, and how fast it was trained."""
    environment = envs.load(run.settings["environment"])
    guard = Shield.build(environment.contract, environment.shield)
    seen = calibration(environment, run.policy, guard)
    proposers: dict[str, Any] = {"float": InFloat(run.policy)} | {name: quantize(run.policy, *seen, profile=name) for name in PROFILES}
    found = {name: float(closed_loop.play(environment, p, guard, EPISODES, EVALUATION_SEED).returns.mean()) for name, p in proposers.items()}
    rates = [row["steps_per_second"] for row in run.metrics() if row.get("steps_per_second")]
    return found | {"macs": float(proposers["int8"].macs), "steps_per_second": median(rates)}


def row(name: str, memory: str, seeds: int) -> dict[str, Any]:
    """So many trainings of one environment with one kind of memory."""
    settings = replace(preset(name), memory=memory)
    with tempfile.TemporaryDirectory() as folder:
        runs = [train(name, seed=seed, out=Path(folder) / str(seed), settings=settings) for seed in range(seeds)]
        each = [measured(run) for run in runs]
    about: dict[str, Any] = {"environment": name, "memory": memory, "steps": settings.steps, "engine": runs[0].result["engine"], "commit": commit()}
    for key in ("float", *PROFILES):
        scores = [found[key] for found in each]
        low, high = iqm.interval(scores)
        about |= {f"{key}_iqm": round(iqm.iqm(scores), 2), f"{key}_95_percent": f"{low:.1f} … {high:.1f}"}
        about |= {f"{key}_returns": " ".join(f"{score:.4g}" for score in scores)}
    about["solved"] = f"{sum(found['int8'] >= envs.load(name).solved for found in each)} of {seeds}"
    return about | {"macs": int(each[0]["macs"]), "steps_per_second": round(float(np.median([found["steps_per_second"] for found in each])))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--environments", nargs="+", default=["cartpole_no_velocity", "memory", "grid"])
    parser.add_argument("--memories", nargs="+", default=["none", "gru", "lstm"])
    parser.add_argument("--no-save", action="store_true")
    options = parser.parse_args()
    held = RESULTS / "recurrent.json"
    rows: list[dict[str, Any]] = json.loads(held.read_text())["rows"] if held.is_file() else []
    for name in options.environments:
        for memory in options.memories if name != "grid" else ["none"]:  # a picture says all
            rows = [r for r in rows if (r["environment"], r["memory"]) != (name, memory)] + [row(name, memory, options.seeds)]
            show("memory", rows[-1:])
            if not options.no_save:
                save("recurrent", {"seeds": options.seeds, "episodes": EPISODES}, rows)


if __name__ == "__main__":
    main()
