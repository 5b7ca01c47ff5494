"""One home for the results of benchmarks: a table on the terminal, and machine, commit and settings beside the numbers.

A benchmark is a script in this folder. It ends with::

    from record import save, show

    rows = [{"net": "64x64", "cycles": 32102}, ...]
    show("ticks on the emulated RP2040", rows)
    save("ticks", settings={"seed": 0, "steps": 2000}, rows=rows)

``save`` writes ``benchmarks/results/ticks.json``, renewed by the next run and reviewed as a diff. Rows are dictionaries of
plain values with the unit in the name (``_us``, ``_cycles``, ``_kib``). Time is compared with a peer in the same run, as a ratio.
"""

from __future__ import annotations

import json
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from puffer_edge.train.throughput import machine

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]


def commit() -> str:
    """Commit that was measured; "+" after it when files have changed since, "none" outside git."""
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return f"{head}{'+' if changed else ''}" if head else "none"


def save(name: str, settings: Row, rows: list[Row]) -> Path:
    """Write one result, and say where.

    Args:
        name: name of the file, without ".json".
        settings: all that the script was told, seeds included.
        rows: what was measured.
    """
    record = {
        "benchmark": name,
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "settings": settings,
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    print(f"saved {path.relative_to(RESULTS.parents[1])}")
    return path


def show(title: str, rows: list[Row]) -> None:
    """Print rows as a table whose columns are the keys of the first one; turned on its side where they are too wide, and few."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    cells = [[key, *(_text(row.get(key)) for row in rows)] for key in rows[0]]
    wide = sum(max(map(len, column)) + 3 for column in cells) > console.width and len(rows) < len(cells)
    table = Table(title=title, title_justify="left", show_header=not wide)
    for line in zip(*cells) if wide else cells:
        table.add_column("" if wide else line[0], justify="left")
    for line in cells if wide else list(zip(*cells))[1:]:
        table.add_row(*line)
    console.print(table)


def _text(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _git(*words: str) -> str:
    try:
        answer = subprocess.run(["git", *words], cwd=RESULTS.parent.parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
