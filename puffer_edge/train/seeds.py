"""Several trainings that differ in the seed alone, and what they say together: one training says little about an algorithm."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from puffer_edge.envs.environment import Environment
from puffer_edge.envs.imperfections import Imperfections
from puffer_edge.errors import Diverged, InvalidInput
from puffer_edge.files import write_atomic
from puffer_edge.train import curve, iqm
from puffer_edge.train.run import CURVE, Run, train
from puffer_edge.train.settings import Settings

SUMMARY = "seeds.json"
MAX_SEEDS = 1000


@dataclass(frozen=True, eq=False)
class Seeds:
    """Runs of one environment, algorithm and settings.

    Attributes:
        path: the folder that holds ``seed-0``, ``seed-1`` …, ``seeds.json`` and ``curve.svg``.
        runs: by seed; a training that failed has no evaluation.
        returns: mean return of each policy kept, by seed, behind the training's shield, on episodes that no choice was made by; only of
            trainings that did not fail.
        failed: seeds whose training diverged.
    """

    path: Path
    runs: Mapping[int, Run]
    returns: Mapping[int, float]
    failed: tuple[int, ...]

    def summary(self) -> dict[str, Any]:
        """Plain JSON values: every seed's return, cost and status, their interquartile mean and its 95 % interval; None where all failed."""
        scores = list(self.returns.values())
        first = next(iter(self.runs.values()))
        return {
            "run": str(self.path),
            "environment": first.settings["environment"],
            "algorithm": first.settings["algorithm"],
            "seeds": [
                {"seed": seed, "status": run.result["status"], "return": self.returns.get(seed), "cost": run.result.get("evaluation", {}).get("cost")}
                for seed, run in self.runs.items()
            ],
            "iqm": iqm.iqm(scores) if scores else None,
            "interval": list(iqm.interval(scores)) if scores else None,
            "failed": list(self.failed),
        }


class Watcher(Protocol):
    """Told after each training: how many are done, of how many, and the run."""

    def __call__(self, done: int, total: int, run: Run) -> None: ...


def train_seeds(
    environment: str | Environment,
    seeds: int = 5,
    first: int = 0,
    algorithm: str = "ppo",
    out: str | os.PathLike[str] | None = None,
    shield: bool | Sequence[Mapping[str, Any]] = True,
    settings: Settings | None = None,
    processes: int | None = None,
    watch: Watcher | None = None,
    plant: Imperfections | None = None,
) -> Seeds:
    """Train with the seeds ``first`` … ``first + seeds − 1``, each into a folder of its own, and sum up.

    Args:
        environment: name, or the environment itself; the latter is trained in this process, one seed after the other.
        seeds: how many.
        first: the smallest seed.
        algorithm: as in ``train``.
        out: the folder; None means ``runs/<environment>-<algorithm>-seeds``.
        shield: as in ``train``.
        settings: as in ``train``.
        processes: trainings side by side, each with one torch thread; None takes as many as there are cores. The bits do not depend on it.
            A script that calls this with more than one needs ``if __name__ == "__main__"``, as always when processes are spawned.
        watch: called after each training.
        plant: as in ``train``.

    Raises:
        InvalidInput: an unknown name, a wrong setting, or numbers out of range.
        WriteFailed, MissingExtra: as ``train``. A training that diverges does not end the others.
    """
    if not 1 <= seeds <= MAX_SEEDS or first < 0:
        raise InvalidInput(f"seeds must lie in 1 … {MAX_SEEDS:,} and the first not be negative, not {seeds} and {first}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    side_by_side = min(seeds, cores if processes is None else processes)
    if side_by_side < 1:
        raise InvalidInput(f"processes must be at least 1, not {processes}")
    name = environment if isinstance(environment, str) else environment.name
    folder = Path(out) if out is not None else Path("runs") / f"{name}-{algorithm}-seeds".replace(":", "-")
    jobs = [(environment, algorithm, seed, folder / f"seed-{seed}", shield, settings, plant) for seed in range(first, first + seeds)]
    runs: dict[int, Run] = {}
    for seed, path in _done(jobs, side_by_side if isinstance(environment, str) else 1):
        runs[seed] = Run.load(path)
        if runs[seed].result["status"] == "interrupted":  # Ctrl-C is meant for all of them
            raise KeyboardInterrupt
        if watch is not None:
            watch(len(runs), seeds, runs[seed])
    returns = {seed: float(run.result["evaluation"]["return"]) for seed, run in sorted(runs.items()) if "evaluation" in run.result}
    found = Seeds(folder, dict(sorted(runs.items())), returns, tuple(seed for seed in sorted(runs) if seed not in returns))
    _write(found)
    return found


def _done(jobs: Sequence[Any], side_by_side: int) -> Iterator[tuple[int, Path]]:
    """Seeds and folders of trainings, in order of their seeds."""
    if side_by_side == 1:
        yield from map(_train_one, jobs)
        return
    with ProcessPoolExecutor(side_by_side, multiprocessing.get_context("spawn")) as pool:  # fork does not go with torch's threads
        try:
            yield from pool.map(_train_one, jobs)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _train_one(job: Any) -> tuple[int, Path]:
    environment, algorithm, seed, path, shield, settings, plant = job
    with contextlib.suppress(Diverged):  # its run says "failed", and the summary counts it
        train(environment, algorithm, seed=seed, out=path, shield=shield, settings=settings, plant=plant)
    return seed, path


def _write(found: Seeds) -> None:
    summary = found.summary()
    write_atomic(found.path / SUMMARY, json.dumps(summary, indent=2) + "\n")
    sound = [run.metrics() for seed, run in found.runs.items() if seed in found.returns]
    if sound:
        failures = f", {len(found.failed)} more failed" if found.failed else ""
        write_atomic(found.path / CURVE, curve.picture(sound, f"{summary['environment']}, {len(sound)} seeds{failures}"))
