"""targets, envs and doctor: what there is, and what is missing."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from puffer_edge.commands.console import OUT, WIDE, Flag, show_result


def targets(json: Flag = False) -> None:
    """List the targets.

    Args:
        json: print as JSON.
    """
    from dataclasses import asdict

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


def environments(json: Flag = False) -> None:
    """List the environments.

    Args:
        json: print as JSON.
    """
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
        }
        for e in found
    ]

    def show() -> None:
        table = Table("environment", "observes", "drives", "head", "Hz", "solved at", "default shield", box=None, pad_edge=False)
        for r in rows:
            observed, driven = (", ".join(r[key]) for key in ("observations", "actions"))
            table.add_row(r["name"], observed, driven, r["head"], f"{r['rate_hz']:g}", f"{r['solved']:g}", " → ".join(r["shield"]))
        OUT.print(table)

    show_result(json, rows, show)


def doctor(json: Flag = False) -> None:
    """What is installed, what is missing, and how to get it.

    Args:
        json: print as JSON.
    """
    from dataclasses import asdict

    from puffer_edge.device import doctor as checks

    found = checks.checks()

    def show() -> None:
        for c in found:
            OUT.print(f"{'ok     ' if c.ok else 'missing'} {c.name}: {c.found}", style="" if c.ok else "yellow")
            if not c.ok:
                OUT.print(f"        → {c.fix}")

    show_result(json, [asdict(c) for c in found], show)
