"""The bundle's own page: what it is, how to put it on the board, the contract, the shield as text, cost and digests."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from puffer_edge.export import micropython
from puffer_edge.export.source import Source

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2430}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem 1rem .2rem 0;text-align:left;vertical-align:top}
th{font-weight:600;color:#4a5568}pre{background:#f5f6f8;padding:1rem;overflow-x:auto;font-size:13px;line-height:1.4}code{font-size:.9em}"""


def agreement(calibration: Mapping[str, Any], head: str) -> str:
    """How well the integers follow the float policy, in words."""
    seen = f"on {calibration['observations']:,} calibration observations"
    if head == "discrete":
        return f"{calibration['agreement']:.2%} of the choices as in float {seen}"
    median, worst = calibration["median_action_error"], calibration["worst_action_error"]
    return f"actions differ from float by {median:.2%} of the range in the median, {worst:.1%} at most, {seen}"


def first_time(source: Source) -> str:
    """What a board needs before its first install."""
    ways = []
    if "uf2" in source.target.formats:
        ways.append(
            f"<p>First time: hold BOOTSEL, plug the board in, drag <code>{source.name}.uf2</code> onto it. That image speaks UART, not USB.</p>"
        )
    if "micropython" in source.target.formats:
        ways.append(
            "<p>First time with MicroPython (official firmware, also for a Pico with nothing but its USB cable):</p>"
            f"<pre>cd micropython\nmpremote run clean.py\nmpremote mip install --target / {micropython.package_for(source)}\nmpremote reset</pre>"
        )
    return "".join(ways)


def cost_rows(cost: Mapping[str, Any]) -> str:
    """Work and bytes, a row each."""
    return "".join(f"<tr><th>{key.replace('_', ' ')}</th><td>{value:,}</td></tr>" for key, value in cost.items() if isinstance(value, int))


def tick_rows(cost: Mapping[str, Any]) -> str:
    """The predicted time of a tick, a table with a row for each engine; words where nothing is predicted."""
    if not cost["ticks"]:
        return "<p>The time of a tick is not predicted for this policy on this target.</p>"
    head = "<tr><th>engine</th><th>MHz</th><th>µs a tick</th><th>flash cache cold</th><th>of the period</th><th></th></tr>"
    rows = "".join(
        f"<tr><td>{t['engine']}</td><td>{t['clock_mhz']}</td><td>{t['us']:,}</td><td>{t['cold_us']:,}</td>"
        f"<td>{t['share_of_period']:.1%}</td><td>{t['label']}</td></tr>"
        for t in cost["ticks"]
    )
    return f"<table>{head}{rows}</table><p>Predicted, not timed on a board; what lies outside the tick (sensors, link) is not in it.</p>"


def tick_words(cost: Mapping[str, Any]) -> list[str]:
    """The same for a terminal, a line for each engine."""
    lines = []
    for t in cost["ticks"]:
        cold = f", {t['cold_us']:,} with a cold flash cache" if t["cold_us"] != t["us"] else ""
        lines.append(
            f"{t['us']:,} µs a tick{cold}, {t['share_of_period']:.1%} of the period ({t['label']}, engine {t['engine']}, {t['clock_mhz']} MHz)"
        )
    lines = lines or ["the time of a tick is not predicted for this policy on this target"]
    demand = cost.get("demand", {"checked": True})
    return lines if demand["checked"] else [*lines, f"so the demand of {demand['rate_hz']:g} Hz was not checked"]


def _commands(source: Source, environment: bool) -> str:
    """What to type next; without an environment there is no plant to check a board with."""
    if source.target.name == "wasm":
        return "python3 -m http.server --bind 127.0.0.1 --directory wasm     # in this folder; then open the address it prints"
    verify = "puffer-edge verify  {this folder}                  # every file against the program"
    if source.target.simulator is None and source.target.serial is None:
        return verify
    where = "sim      # or the port of your board" if source.target.simulator else "PORT"
    check = f"puffer-edge check   {{this folder}} --board {where.split()[0]} --episodes 10 --report report"
    return "\n".join([verify, f"puffer-edge install {{this folder}} --board {where}", *([check] if environment else [])])


def _contents(files: Iterable[str]) -> str:
    """A row for each file or folder of the bundle; a folder leads to the page in it."""
    held = sorted(files)
    counts = Counter(name.partition("/")[0] for name in held)
    rows = []
    for name, count in counts.items():
        page = next((f"{name}/{known}" for known in ("README.md", "index.html") if f"{name}/{known}" in held), "")
        shown = name if name in held else f"{name}/"
        link = f'<a href="{page}">{shown}</a>' if page else shown
        rows.append(f"<tr><td>{link}</td><td>{'' if name in held else f'{count} files'}</td></tr>")
    return "".join(rows)


def bundle_page(source: Source, manifest: Mapping[str, Any], files: Iterable[str]) -> str:
    """One self-contained HTML page; ``files`` are the paths of the bundle."""
    contract, target, shield = source.policy.contract, source.target, source.image.shield
    observations = "".join(
        f"<tr><td>{i}</td><td>{ch.name}</td><td>{html.escape(ch.unit)}</td><td>{ch.low:g} … {ch.high:g}</td><td>{ch.fraction_bits}</td></tr>"
        for i, ch in enumerate(contract.observations)
    )
    actions = "".join(
        f"<tr><td>{j}</td><td>{ch.name}</td><td>{html.escape(ch.unit)}</td><td>{ch.low:g} … {ch.high:g}</td>"
        f"<td>{ch.fraction_bits}</td><td>{ch.safe:g}</td><td>{ch.initial:g}</td></tr>"
        for j, ch in enumerate(contract.actions)
    )
    cost, ticks = cost_rows(manifest["cost"]), tick_rows(manifest["cost"])
    digests = "".join(f"<tr><th>{key}</th><td><code>{value}</code></td></tr>" for key, value in manifest["digests"].items())
    left_out = "".join(f"<p>{name} was left out: {html.escape(why)}</p>" for name, why in manifest["left_out"].items())
    return f"""<!doctype html><html lang="en"><meta charset="utf-8">
<title>{html.escape(source.policy.name)} for {target.name}</title><style>{STYLE}</style>
<h1>{html.escape(source.policy.name)} for {html.escape(target.title)}</h1>
<p>{html.escape(target.notes)}</p>{left_out}{first_time(source)}
<pre>{_commands(source, bool(manifest.get("environment")))}</pre>
<h2>Contract</h2>
<p>{contract.rate_hz:g} Hz base rate, the policy runs every {contract.policy_divider} tick(s); head <b>{contract.head}</b>;
after more than {contract.staleness_limit} tick(s) without an observation the safe output acts.</p>
<table><tr><th></th><th>observation</th><th>unit</th><th>range</th><th>fraction bits</th></tr>{observations}</table>
<table><tr><th></th><th>action</th><th>unit</th><th>range</th><th>fraction bits</th><th>safe</th><th>initial</th></tr>{actions}</table>
<h2>Integers</h2>
<p>{agreement(manifest["calibration"], contract.head)}.</p><table>{cost}</table>{ticks}
<h2>Shield: {", ".join(shield.stages) or "none"}</h2>
<pre>{html.escape(shield.to_c(f"{source.name}_shield"))}</pre>
<h2>In this folder</h2><table>{_contents(files)}</table>
<h2>Digests</h2><table>{digests}</table></html>
"""
