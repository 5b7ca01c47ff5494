"""targets, envs and doctor: what there is, and what is missing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

import tyro
from rich.table import Table

from puffer_edge.commands.console import OUT, SIDE, WIDE, Flag, Name, show_result
from puffer_edge.errors import InvalidInput, MissingExtra


def targets(json: Flag = False) -> None:
    """List the targets.

    Args:
        json: print as JSON.
    """
    from puffer_edge.device import target

    found = [target.load(name) for name in target.names()]

    def show() -> None:
        table = Table("target", "board", "flash KiB", "RAM KiB", "firmware", "formats", "simulated by", box=None, pad_edge=False)
        for t in found:
            sizes = (f"{size:,}" if size else "–" for size in (t.flash_kib, t.ram_kib))
            table.add_row(t.name, t.title, *sizes, t.firmware, " ".join(t.formats), t.simulator.kind if t.simulator else "nothing here")
        WIDE.print(table)
        OUT.print("what a simulator runs, and what it does not: puffer-edge targets --json; facts and prices of a core: docs/targets.md")

    show_result(json, [asdict(t) for t in found], show)


def environments(
    what: Annotated[Literal["list", "check", "tune"], tyro.conf.Positional] = "list",
    name: Name = "",
    *,
    seed: int = 0,
    rows: int = 16,
    seconds: float = 2.0,
    json: Flag = False,
) -> None:
    """List the environments, check one of your own, or find out how to step it fastest: 'puffer-edge envs check my_module:MINE'.

    A check tries rule by rule what a training, an export and a board will rely on, and names the line to change. Exit code 1 if a rule is broken.
    Tuning is for environments that are not made of functions, as Gymnasium's: serial, processes and asynchronous stepping are measured.

    Args:
        what: list, check, or tune.
        name: what to check or tune: a name of the list, my_module:MINE, gym:ID, or pettingzoo:MODULE.
        seed: of a check's start states and actions.
        rows: of tuning: environments side by side.
        seconds: of tuning: for each way.
        json: print as JSON.
    """
    if what == "check":
        _check(name, seed, json)
    elif what == "tune":
        _tune(name, rows, seconds, json)
    elif name:
        raise InvalidInput(f"'envs list' takes no name; to check it: puffer-edge envs check {name}")
    else:
        _list(json)


def _list(json: bool) -> None:
    from puffer_edge import envs

    found = [envs.load(name) for name in envs.names()]
    rows: list[dict[str, Any]] = [
        {
            "name": e.name,
            "observations": [f"{c.name} [{c.unit}]" for c in e.contract.observations],
            "actions": [f"{c.name} [{c.unit}]" for c in e.contract.actions],
            "head": e.contract.head,
            "rate_hz": e.contract.rate_hz,
            "solved": e.solved,
            "shield": [str(stage["stage"]) for stage in e.shield],
            "parameters": {p.name: f"{p.value:g} {p.unit}" for p in e.dynamics.parameters} if e.dynamics else {},
        }
        for e in found
    ]

    def show() -> None:
        table = Table("environment", "observes", "drives", "head", "Hz", "solved at", "default shield", box=None, pad_edge=False)
        for r in rows:
            observed, driven = (", ".join(r[key]) for key in ("observations", "actions"))
            table.add_row(r["name"], observed, driven, r["head"], f"{r['rate_hz']:g}", f"{r['solved']:g}", " → ".join(r["shield"]))
        WIDE.print(table)

    show_result(json, rows, show)


def _check(name: str, seed: int, json: bool) -> None:
    from puffer_edge import envs
    from puffer_edge.envs import check
    from puffer_edge.envs.checking.patience import patience
    from puffer_edge.envs.checking.places import of_error
    from puffer_edge.envs.checking.subject import Finding

    if not name or not 0 <= seed < 2**32 - 1:
        raise InvalidInput(f"envs check needs a name, as in 'puffer-edge envs check my_module:MINE', and a seed from 0 on, not {name!r} and {seed}")
    try:
        with patience(name):
            found = list(check.verdicts(envs.load(name), seed))
    except InvalidInput as error:
        if error.__cause__ is None or (place := of_error(error.__cause__)) is None:
            raise
        found = [check.Verdict("import", "the module is imported", (Finding(str(error), place),))]
    broken = sum(bool(v.findings) for v in found)

    def show() -> None:
        for v in found:
            state = "broken" if v.findings else "waits" if v.waits else "ok"
            OUT.print(f"{state:7}{v.rule:20}{v.promise}", style={"broken": "red", "waits": "yellow"}.get(state, ""))
            if v.note:
                OUT.print(f"{'':27}{v.note}")
            if v.waits:
                OUT.print(f"{'':7}not tried: {v.waits} must hold first")
            for finding in v.findings:
                OUT.print(f"{'':7}{finding.message}")
                if finding.place is not None:
                    OUT.print(f"{'':7}→ {finding.place.file}:{finding.place.line}: {finding.place.text}")
        OUT.print(f"{name}: {broken} of {len(found)} rules broken" if broken else f"{name} keeps all {len(found)} rules")

    rules = [
        {"rule": v.rule, "promise": v.promise, "note": v.note, "waits_for": v.waits}
        | {"findings": [{"message": f.message} | (asdict(f.place) if f.place else {}) for f in v.findings]}
        for v in found
    ]
    show_result(json, {"environment": name, "ok": not broken, "rules": rules}, show)
    if broken:
        raise SystemExit(1)


def _tune(name: str, rows: int, seconds: float, json: bool) -> None:
    from puffer_edge import envs

    if not name or rows < 1 or not 0 < seconds <= 600:
        raise InvalidInput(f"envs tune needs a name, at least 1 row and up to 600 seconds, not {name!r}, {rows} and {seconds:g}")
    try:
        from puffer_edge.train.vector import tuning
    except ModuleNotFoundError:
        raise MissingExtra("train", "envs tune") from None
    found = []
    for way in tuning.tune(envs.load(name), rows, seconds):
        SIDE.print(f"{way.flags:48}{way.steps_per_s:12,.0f} steps/s")
        found.append(way)
    best = max(found, key=lambda way: way.steps_per_s)
    ways = [asdict(way) | {"flags": way.flags} for way in found]
    show_result(
        json,
        {"environment": name, "rows": rows, "ways": ways, "best": best.flags},
        lambda: OUT.print(f"fastest here: puffer-edge train {name} --rows {rows} {best.flags}"),
    )


def doctor(json: Flag = False) -> None:
    """What is installed, what is missing, and how to get it.

    Args:
        json: print as JSON.
    """
    from puffer_edge.device import doctor as checks

    found = checks.checks()

    def show() -> None:
        for c in found:
            OUT.print(f"{'ok     ' if c.ok else 'missing'} {c.name}: {c.found}", style="" if c.ok else "yellow")
            if not c.ok:
                OUT.print(f"        → {c.fix}")

    show_result(json, [asdict(c) for c in found], show)
