"""The report of a check: one self-contained page with a picture, figures and what they do not prove."""

from __future__ import annotations

import html
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.errors import MissingExtra
from puffer_edge.files import write_atomic
from puffer_edge.firmware.shared import protocol
from puffer_edge.hil.check import CheckResult

BLUE, ORANGE, RED, GREY = "#2563a8", "#d97706", "#c02626", "#8a8f98"
STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2430}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .9rem .25rem 0;text-align:left;vertical-align:top}
th{font-weight:600;color:#4a5568}.good{color:#15803d;font-weight:600}.bad{color:#c02626;font-weight:600}
svg{max-width:100%;height:auto}code{font-size:.9em}small{color:#5b6472}"""


def write_report(result: CheckResult, contract: Contract, folder: str | os.PathLike[str]) -> Path:
    """Write ``report.html``, ``report.png``, ``trace.npz`` and ``check.json`` into a folder.

    Args:
        result: what a check found.
        contract: names and units of the channels.
        folder: made if missing.

    Returns:
        path of the page.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    target = Path(folder)
    svg, png = picture(result, contract)
    summary = result.summary()
    result.trace.save(target / "trace.npz")
    write_atomic(target / "check.json", json.dumps(summary, indent=1) + "\n")
    write_atomic(target / "report.png", png)
    write_atomic(target / "report.html", page(summary, contract, svg))
    return target / "report.html"


def require_matplotlib() -> None:
    """Raise MissingExtra where matplotlib is not installed: to be asked before a long check, not after it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtra("report", "a report's picture") from None


def picture(result: CheckResult, contract: Contract) -> tuple[str, bytes]:
    """The first episode's observations and actions, the returns and the round trips, as SVG text and PNG bytes."""
    require_matplotlib()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n, m = contract.n_observations, contract.n_actions
    shown = min(n, 6)
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "puffer-edge"}):
        figure = Figure(figsize=(10, 1.15 * shown + 1.7 * min(m, 3) + 2.4), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(shown + min(m, 3) + 1, 2, height_ratios=[1] * shown + [1.5] * min(m, 3) + [1.8])
        _time_plots(figure, grid, result, contract, shown)
        _returns_plot(figure.add_subplot(grid[-1, 0]), result)
        _round_trip_plot(figure.add_subplot(grid[-1, 1]), result)
        figure.suptitle(
            f"{contract.name} on {'simulated ' if result.about['simulated'] else ''}{result.board['target']}: first episode, returns and round trips",
            fontsize=11,
        )
        vector, raster = io.StringIO(), io.BytesIO()
        figure.savefig(vector, format="svg", metadata={"Date": None})
        figure.savefig(raster, format="png", dpi=110)
    return vector.getvalue()[vector.getvalue().index("<svg") :], raster.getvalue()


def _time_plots(figure: Any, grid: Any, result: CheckResult, contract: Contract, shown: int) -> None:
    trace = result.trace
    rows = trace.episode == 0
    seconds = trace.time_us[rows] / 1e6
    observation = contract.physical_observation(trace.observation[rows])
    raw, applied = contract.physical_action(trace.raw[rows]), contract.physical_action(trace.applied[rows])
    acted = (trace.outcome[rows] >> protocol.REASON_SHIFT) != 0
    axes = None
    for i in range(shown):
        axes = figure.add_subplot(grid[i, :], sharex=axes)
        axes.plot(seconds, observation[:, i], color=BLUE, linewidth=1)
        axes.set_ylabel(_label(contract.observations[i]))
        axes.tick_params(labelbottom=False)
    for j in range(min(contract.n_actions, 3)):
        axes = figure.add_subplot(grid[shown + j, :], sharex=axes)
        axes.plot(seconds, raw[:, j], color=GREY, linewidth=0.8, label="proposed by the policy")
        axes.plot(seconds, applied[:, j], color=ORANGE, linewidth=1, label="applied after the shield")
        if acted.any():
            axes.plot(seconds[acted], applied[acted, j], ".", color=RED, markersize=4, label="shield acted")
        axes.set_ylabel(_label(contract.actions[j]))
        axes.legend(loc="lower right", ncols=3, fontsize=8, frameon=False, bbox_to_anchor=(1, 0.98))
    if axes is not None:
        axes.set_xlabel("time of the plant [s]")


def _label(channel: ObservationChannel | ActionChannel) -> str:
    """Name and unit, broken into short lines."""
    return channel.name.replace("_", "\n") + f"\n[{channel.unit}]"


def _returns_plot(axes: Any, result: CheckResult) -> None:
    names = list(result.returns)
    for k, name in enumerate(names):
        values = result.returns[name]
        jitter = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else np.zeros(1)
        axes.plot(k + jitter, values, "o", color=BLUE, alpha=0.6, markersize=4)
        axes.plot([k - 0.25, k + 0.25], [values.mean()] * 2, color=ORANGE, linewidth=2)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("return of an episode")


def _round_trip_plot(axes: Any, result: CheckResult) -> None:
    wall = result.trace.round_trip_us / 1000
    axes.hist(np.clip(wall, None, np.percentile(wall, 99.5)), bins=40, color=BLUE, alpha=0.8)
    axes.set_xlabel("round trip of a step [ms, wall time of this link]")
    axes.set_ylabel("steps")


def page(summary: dict[str, Any], contract: Contract, svg: str) -> str:
    """The page's HTML."""
    same = summary["mismatches"] == 0
    verdict = (
        f'<p class="good">Every bit as the reference: {summary["vectors"]} vector steps and {summary["steps"]} closed-loop steps, 0 mismatches.</p>'
        if same
        else f'<p class="bad">{summary["mismatches"]} steps differ from the reference. First: {html.escape(str(summary["first_difference"]))}</p>'
    )
    board = summary["board"]
    rows = {
        "board": f"{board['target']}, firmware {board['firmware']} ({board['kind']}), id {board['unique_id']}",
        "return, float / integer / device": f"{summary['return_float']} / {summary['return_integer']} / {summary['return_device']}"
        f" over {summary['episodes']} episodes from the same starts",
        "shield acted": f"{summary['interventions']} of {summary['steps']} steps"
        + "".join(f", {name} {count}" for name, count in summary["interventions_by_reason"].items() if count),
        "round trip": f"median {summary['round_trip_us']['median']:.0f} µs, 99 % below {summary['round_trip_us']['p99']:.0f} µs"
        if summary["round_trip_us"]
        else "–",
    }
    if summary["ticks_cycles"]:
        policy, shield = summary["policy_cycles"], summary["shield_cycles"]
        rows["cycles of a tick"] = (
            f"median {summary['ticks_cycles']['median']:,}, most {summary['ticks_cycles']['max']:,}"
            f" (network {policy['median']:,}, shield {shield['median']:,}), {summary['cycles_are']}"
        )
    rows["contract"] = f"<code>{contract.digest.hex()[:16]}…</code> {contract.rate_hz:g} Hz, head {contract.head}"
    if summary.get("note"):
        rows["note"] = html.escape(str(summary["note"]))
    if summary.get("simulated"):
        rows["simulated board"] = html.escape(str(summary["simulated"]))
    table = "".join(f"<tr><th>{k}</th><td>{v}</td></tr>" for k, v in rows.items())
    channels = "".join(
        f"<tr><td>{kind}</td><td>{ch.name}</td><td>{html.escape(ch.unit)}</td><td>{ch.low:g} … {ch.high:g}</td><td>{extra}</td></tr>"
        for kind, group in (("observation", contract.observations), ("action", contract.actions))
        for ch in group
        for extra in ([f"safe {ch.safe:g}" if hasattr(ch, "safe") else f"{ch.fraction_bits} fraction bits"])
    )
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(contract.name)}: check report</title><style>{STYLE}</style>
<h1>{html.escape(contract.name)} on {board["target"]}</h1>{verdict}<table>{table}</table>{svg}
<h2>Contract</h2><table><tr><th></th><th>name</th><th>unit</th><th>range</th><th></th></tr>{channels}</table>
<p><small>What this shows: the board computed the reference's bits on these steps, and this plant, driven by the board's own actions, gave these
returns. What it does not show: other plants, other noise, missed deadlines, or another board.</small></p></html>
"""
