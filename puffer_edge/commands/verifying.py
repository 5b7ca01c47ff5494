"""verify: does every file of a bundle compute what the program is?"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from puffer_edge.commands.console import OUT, SIDE, WIDE, Flag, Folder, progress_bar, show_result
from puffer_edge.commands.sources import task_of
from puffer_edge.errors import InvalidInput, Mismatch

MOST_VECTORS = 1_000_000_000


def verify(
    policy: Folder,
    vectors: int = 1_000_000,
    profile: str | None = None,
    engine: tuple[str, ...] = (),
    seed: int = 0,
    json: Flag = False,
) -> None:
    """Run every engine on a bundle's own files, and count what differs from the program.

    A run is first exported, in all formats, to a folder that is removed afterwards. Integer formats must give every bit; float
    formats and QDQ stay within the bound that the table shows. Slow engines take fewer vectors, which the table shows too.
    Exit code 0 when nothing differs by more than its bound, 8 otherwise.

    Args:
        policy: a run folder, a policy.safetensors, or a bundle.
        vectors: how many for a fast engine.
        profile: of the integers that a run becomes: int8, int16x8, int4 or shift; not given, that which it was made for, or int8; a bundle has
            its own.
        engine: engines to run, all where not given.
        seed: of the vectors.
        json: print the rows as JSON.
    """
    from puffer_edge.device.bundle import MANIFEST, Bundle
    from puffer_edge.engines import verify as run_engines

    if not 1 <= vectors <= MOST_VECTORS or seed < 0:
        raise InvalidInput(f"--vectors lies in 1 … {MOST_VECTORS:,} and --seed is not negative, not {vectors:,} and {seed}")
    with tempfile.TemporaryDirectory() as folder, progress_bar("verifying") as advance:
        bundle = Bundle.load(policy) if (policy / MANIFEST).is_file() else _exported(policy, Path(folder) / "bundle", profile)
        rows = run_engines(bundle, vectors, seed, engine, advance)
        left_out = dict(bundle.manifest.get("left_out", {}))
    failed = [row for row in rows if row.mismatches]
    result = {"policy": str(policy), "seed": seed, "rows": [row.summary() for row in rows], "left_out": left_out}
    show_result(json, result, lambda: _show(result))
    if failed:
        SIDE.print(f"{failed[0].format} in {failed[0].engine}: {failed[0].mismatches} of {failed[0].vectors} differ", style="red")
        raise SystemExit(Mismatch.exit_code)


def _exported(run: Path, out: Path, profile: str | None) -> Any:
    """A bundle for this computer in every format that there is."""
    from puffer_edge.device import target
    from puffer_edge.export import bundle

    task = task_of(run)
    board = replace(target.load("host"), formats=bundle.formats())
    how = {"starts": task.starts, "profile": profile or task.profile}
    return bundle.export(task.policy, board, out, task.observations, task.shield.specification, task.about, **how)


def _show(result: dict[str, Any]) -> None:
    table = Table("format", "engine", "profile", "vectors", "differ", "most", "bound", "", box=None, pad_edge=False)
    for row in result["rows"]:
        if row["vectors"] == 0:
            table.add_row(row["format"], row["engine"], row["profile"], "–", "–", "–", "–", row["note"])
            continue
        numbers = f"{row['vectors']:,}", f"{row['mismatches']:,}", f"{row['max_difference']:.3g}", f"{row['bound']:.3g}"
        table.add_row(row["format"], row["engine"], row["profile"], *numbers, row["unit"] if row["bound"] else "")
    WIDE.print(table)
    for name, why in result["left_out"].items():
        OUT.print(f"{name} left out: {why}", style="yellow")
