"""watch and plot: a training that another process runs, and the curves of several."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.table import Table

from puffer_edge.commands.console import OUT, SIDE, WIDE, Flag, Folder, show_result
from puffer_edge.commands.dashboard import Dashboard
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.files import write_atomic
from puffer_edge.train import Run
from puffer_edge.train.log import Log
from puffer_edge.train.run import METRICS

POLL_S = 0.25


def watch(run: Folder) -> None:
    """Follow a training that another process runs, with the same dashboard; Ctrl-C ends the watching alone.

    Args:
        run: the run's folder.
    """
    found = Run.load(run)
    if not OUT.is_terminal:
        raise Unsupported("watch draws on a terminal; elsewhere read metrics.jsonl, a line for each update")
    damaged = _follow(run, found)
    status = Run.load(run).result["status"]
    OUT.print(f"{run} is {status}{'' if status == 'running' else ': puffer-edge plot ' + str(run) + ' draws its curve'}")
    if damaged:
        SIDE.print(f"line {', '.join(map(str, damaged))} of {run / METRICS} is damaged and left out", style="yellow")


def _follow(folder: Path, found: Run) -> list[int]:
    """Show rows until no process writes any more, or Ctrl-C; the numbers of damaged lines."""

    def anew() -> tuple[Log, Dashboard]:
        dashboard = Dashboard(OUT)
        dashboard.begin(folder, found.settings, 0)
        return Log(folder / METRICS), dashboard

    log, dashboard = anew()
    try:
        while True:
            running = Run.load(folder).result["status"] == "running"  # looked at before the rows: none that comes later is missed
            rows = log.more()
            if rows is None:  # it went on from an earlier checkpoint
                dashboard.close(None)
                log, dashboard = anew()
                continue
            for row in rows[:-1]:
                dashboard.take(row)
            for row in rows[-1:]:
                dashboard.write(row)
            if not running:
                break
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        pass
    finally:
        dashboard.close(None)
    return log.damaged


def plot(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    metric: str = "eval_rew_mean",
    x: Literal["steps", "seconds"] = "steps",
    smooth: float = 0.0,
    out: Path = Path("plot.svg"),
    json: Flag = False,
) -> None:
    """Draw the curves of one run or several, and print what they reached.

    Runs of one environment, algorithm and settings are one curve: the interquartile mean of its seeds with a 95 % bootstrap interval. What
    differs in the settings is in the legend; every environment has a panel of its own.

    Args:
        runs: folders of runs, or folders that hold some, as --seeds writes them.
        metric: a name in metrics.jsonl; by default the return of the evaluations.
        x: what the curve runs over.
        smooth: weight of the past in a moving average, from 0, none, to below 1.
        out: picture to write, .svg, or .png with the extra 'report'.
        json: print the table as JSON.
    """
    from puffer_edge.train import curve, groups

    if not runs:
        raise InvalidInput("which runs? name folders that 'puffer-edge train' wrote")
    if out.suffix not in (".svg", ".png"):
        raise InvalidInput(f"a picture ends in .svg or .png, not {out.name!r}")
    logged, without = groups.load(groups.find(runs))
    found = groups.groups(logged, metric, x, smooth)
    panels = {e: [g.curve for g in found if g.environment == e and g.curve.runs] for e in sorted({g.environment for g in found})}
    axis = {"steps": "environment steps", "seconds": "seconds"}[x]
    value = {"eval_rew_mean": "return of an evaluation", "ep_rew_mean": "return of training episodes"}.get(metric, metric)
    picture = curve.comparison({e: curves for e, curves in panels.items() if curves}, axis, value + (f", smoothed {smooth:g}" if smooth else ""))
    if out.suffix == ".png":
        from puffer_edge.train.raster import png

        write_atomic(out, png(picture))
    else:
        write_atomic(out, picture)
    result = {"metric": metric, "x": x, "smooth": smooth, "out": str(out), "groups": [g.summary() for g in found], "left_out": without}

    def show() -> None:
        table = Table("environment", "group", "seeds", f"ends at ({x})", f"last {metric}", "95 % interval", box=None, pad_edge=False)
        for g in found:
            s = g.summary()
            ends = "–" if s["end"] is None else " … ".join(f"{v:,.4g}" if v < 1000 else f"{v:,.0f}" for v in dict.fromkeys(s["end"]))
            interval = "–" if s["interval"] is None else "{:.5g} … {:.5g}".format(*s["interval"])
            table.add_row(g.environment, g.label, ", ".join(map(str, s["seeds"])), ends, "–" if s["last"] is None else f"{s['last']:.5g}", interval)
        WIDE.print(table)
        for note in (*(note for g in found for note in g.notes()), *without):
            OUT.print(f"  {note}", style="yellow")
        OUT.print(f"drawn in {out}")

    show_result(json, result, show)
