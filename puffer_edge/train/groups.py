"""Runs put together by environment, algorithm and the settings in which they differ, and what each group reached."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from puffer_edge.errors import BundleError, InvalidInput, PufferEdgeError
from puffer_edge.spaces import Floats
from puffer_edge.train import iqm
from puffer_edge.train.curve import Curve
from puffer_edge.train.log import Log
from puffer_edge.train.run import METRICS, Run, is_run

RETURN = "eval_rew_mean"
ENDS = {RETURN: ("eval_rew_low", "eval_rew_high")}
"""Metrics that have an interval of their own, over episodes: the band of a single run."""
NOT_LEARNING = ("steps", "evaluations", "evaluation_episodes", "checkpoints", "checkpoint_every", "threads")
"""Settings of how long, how often and on how many cores, which do not part runs into groups."""
GRID = 200
"""Most points of a band."""
RESAMPLES = 2000
X = Literal["steps", "seconds"]


@dataclass(frozen=True, eq=False)
class Logged:
    """A run and its log.

    Attributes:
        run: complete, stopped, or still being written.
        rows: of ``metrics.jsonl``.
        damaged: numbers of the lines that are no row.
    """

    run: Run
    rows: Sequence[Mapping[str, Any]]
    damaged: Sequence[int]

    @staticmethod
    def load(path: Path) -> Logged:
        """Read a run's folder.

        Raises:
            InvalidInput: there is no run, or it has no log.
            BundleError: a file of it is damaged.
        """
        run, log = Run.load(path), Log(path / METRICS)
        try:
            rows = log.more() or []
        except FileNotFoundError:
            raise InvalidInput(f"{path} has no {METRICS}") from None
        return Logged(run, rows, log.damaged)

    def points(self, metric: str, x: X, smooth: float) -> Floats:
        """(k, 2) of the rows that have the metric.

        Raises:
            InvalidInput: seconds are asked for, and an earlier version logged none.
        """
        found = [row for row in self.rows if row.get(metric) is not None]
        if found and any(row.get(x) is None for row in found):
            raise InvalidInput(f"{self.run.path} has no {x} in its log, as earlier versions wrote it: plot over steps")
        points = np.array([(row[x], row[metric]) for row in found], np.float64).reshape(-1, 2)
        points[:, 1] = smoothed(points[:, 1], smooth)
        return points


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that differ in the seed alone, or in what does not bear on learning.

    Attributes:
        environment: name.
        label: algorithm, and the settings that other groups have otherwise.
        members: by seed.
        without: paths of those that logged no such metric.
        curve: of the others.
        last: their last values.
        ends: where each of them ends on the axis.
    """

    environment: str
    label: str
    members: Sequence[Logged]
    without: Sequence[str]
    curve: Curve
    last: Sequence[float]
    ends: Sequence[float]

    def summary(self) -> dict[str, Any]:
        """Plain JSON values: the interquartile mean of the last values and its interval, None of a single run, and what to know of them."""
        low, high = iqm.interval(self.last) if len(self.last) > 1 else (None, None)
        return {
            "environment": self.environment,
            "group": self.label,
            "seeds": [m.run.settings["seed"] for m in self.members],
            "end": [min(self.ends), max(self.ends)] if self.ends else None,
            "last": iqm.iqm(self.last) if self.last else None,
            "interval": None if low is None else [low, high],
            "notes": self.notes(),
        }

    def notes(self) -> list[str]:
        """What a picture does not show."""
        notes = [f"{m.run.path} is {m.run.result['status']}" for m in self.members if m.run.result["status"] not in ("complete", "stopped")]
        notes += [f"{m.run.path}: line {', '.join(map(str, m.damaged))} of {METRICS} is damaged and left out" for m in self.members if m.damaged]
        notes += [f"{path} has no such metric" for path in self.without]
        seeds = [m.run.settings["seed"] for m in self.members]
        if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
            notes.append(f"seed {', '.join(map(str, twice))} is there more than once: the interval takes all runs for independent")
        if self.ends and max(self.ends) > min(self.ends) * 1.01:
            last, longest = (f"{value:,.4g}" if value < 1000 else f"{value:,.0f}" for value in (min(self.ends), max(self.ends)))
            notes.append(f"{self.label}: the mean ends at {last}, where the shortest run does; others go on to {longest}")
        return notes


def find(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The runs that are meant: folders of runs, or folders that hold such folders, as ``train --seeds`` writes them.

    Raises:
        InvalidInput: a path that is neither.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        inside = [path] if is_run(path) else sorted(child for child in path.glob("*") if is_run(child))
        if not inside:
            raise InvalidInput(f"there is no run in {path}, nor in a folder of it: train one with 'puffer-edge train'")
        found += [run for run in inside if run not in found]
    return found


def load(paths: Sequence[Path]) -> tuple[list[Logged], list[str]]:
    """Runs with their logs, and why others are left out, in words.

    Raises:
        InvalidInput: none of them has a log.
        BundleError: the only one is damaged.
    """
    found: list[Logged] = []
    failed: list[PufferEdgeError] = []
    for path in paths:
        try:
            found.append(Logged.load(path))
        except (InvalidInput, BundleError) as error:
            failed.append(error)
    if failed and not found:
        raise failed[0]
    return found, [f"left out: {error}" for error in failed]


def groups(logged: Sequence[Logged], metric: str = RETURN, x: X = "steps", smooth: float = 0.0) -> list[Group]:
    """Put runs together.

    Args:
        logged: at least one.
        metric: a name that rows of ``metrics.jsonl`` have.
        x: what the curves run over.
        smooth: weight of the past in a moving average, 0 for none.

    Raises:
        InvalidInput: no run has that metric, or a value is out of range.
    """
    if not 0 <= smooth < 1:
        raise InvalidInput(f"smooth is a weight from 0 to below 1, not {smooth}")
    known = sorted({name for each in logged for row in each.rows for name, value in row.items() if value is not None} - {"steps", "seconds"})
    if metric not in known:
        damaged = "".join(f"; {len(each.damaged)} lines of {each.run.path / METRICS} are damaged" for each in logged if each.damaged)
        raise InvalidInput(f"none of the {len(logged)} runs has a number named {metric!r} yet; there are: {', '.join(known) or 'none'}{damaged}")
    together: dict[tuple[str, str], list[Logged]] = {}
    labels = _labels([each.run for each in logged])
    for label, each in zip(labels, logged):
        together.setdefault((each.run.settings["environment"], label), []).append(each)
    return [_group(env, label, members, metric, x, smooth) for (env, label), members in sorted(together.items())]


def smoothed(values: Floats, weight: float) -> Floats:
    """(k,) exponential moving average, divided by the sum of its weights, so that the first values count in full."""
    out, average, total = np.empty_like(values), 0.0, 0.0
    for k, value in enumerate(values):
        average, total = weight * average + (1 - weight) * value, weight * total + (1 - weight)
        out[k] = average / total
    return out


def _labels(runs: Sequence[Run]) -> list[str]:
    """Of each run its algorithm, and the settings in which runs of that environment and algorithm differ."""
    labels = []
    for run in runs:
        kin = [r for r in runs if all(r.settings[key] == run.settings[key] for key in ("environment", "algorithm"))]
        mine, all_of = _told_apart(run), [_told_apart(r) for r in kin]
        differ = [key for key in mine if any(mine[key] != other.get(key) for other in all_of)]
        labels.append(" ".join([run.settings["algorithm"], *(f"{key}={_plain(mine[key])}" for key in differ)]))
    return labels


def _told_apart(run: Run) -> dict[str, Any]:
    settings = {key: value for key, value in run.settings["settings"].items() if key not in NOT_LEARNING}
    return settings | {"shield": [dict(stage) for stage in run.settings.get("shield", [])], "plant": run.settings.get("plant", {})}


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{_plain(item)}" for key, item in value.items()) or "ideal"
    if isinstance(value, (list, tuple)):
        return "×".join(str(v.get("stage", v)) if isinstance(v, Mapping) else str(v) for v in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _group(environment: str, label: str, members: Sequence[Logged], metric: str, x: X, smooth: float) -> Group:
    members = sorted(members, key=lambda m: int(m.run.settings["seed"]))
    found = [(m, m.points(metric, x, smooth)) for m in members]
    runs = [points for _, points in found if len(points)]
    without = [str(m.run.path) for m, points in found if not len(points)]
    middle, band = _together(runs)
    if len(runs) == 1 and metric in ENDS and not smooth:
        rows = next(m.rows for m, points in found if len(points))
        ends = [(row[x], *(row[name] for name in ENDS[metric])) for row in rows if row.get(metric) is not None and ENDS[metric][0] in row]
        band = np.array(ends, np.float64).reshape(-1, 3)
    words = f"{label}, seed {members[0].run.settings['seed']}" if len(members) == 1 else f"{label}, {len(runs)} seeds"
    curve = Curve(words, runs, middle, band)
    return Group(environment, label, members, without, curve, [float(p[-1, 1]) for p in runs], [float(p[-1, 0]) for p in runs])


def _together(runs: Sequence[Floats]) -> tuple[Floats, Floats]:
    """IQM (k, 2) and band (k, 3) where every run has values; between its points a run is a straight line. A single run is itself."""
    none = np.zeros((0, 3))
    if len(runs) < 2:
        return (runs[0] if runs else none[:, :2]), none
    grid = np.unique(np.concatenate([points[:, 0] for points in runs]))
    grid = grid[(grid >= max(p[0, 0] for p in runs)) & (grid <= min(p[-1, 0] for p in runs))]
    if len(grid) > GRID:
        grid = grid[np.linspace(0, len(grid) - 1, GRID).astype(int)]
    if not len(grid):  # they never overlap
        return none[:, :2], none
    values = np.array([np.interp(grid, points[:, 0], points[:, 1]) for points in runs])
    middle = np.array([iqm.iqm(scores) for scores in values.T])
    ends = np.array([iqm.interval(scores, resamples=RESAMPLES) for scores in values.T])
    return np.stack([grid, middle], 1), np.column_stack([grid, ends])
