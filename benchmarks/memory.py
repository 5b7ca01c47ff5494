"""Does a long training grow? Resident memory of the process that trains, from a million steps to ten million.

One training with everything that a run has (log, evaluations, checkpoints); a callback reads the memory. Linux with glibc.

python benchmarks/memory.py [--environment cartpole] [--start 1000000] [--end 10000000]
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

from record import save, show

from puffer_edge.train import PPOSettings, train

LIMIT_KIB = 1024
POINTS = 10


def resident_kib() -> int:
    """Resident memory of this process now, without what the allocator holds back of freed blocks: that goes up and down by tens of MiB."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def measure(environment: str, start: int, end: int) -> list[dict[str, Any]]:
    """Steps and memory at ``POINTS`` places from start to end."""
    settings = PPOSettings(
        steps=end, rows=512, horizon=64, epochs=1, minibatch=8192, evaluations=20, evaluation_episodes=20, checkpoint_every=(end - start) // 30
    )
    due = [start + (end - start) * k // (POINTS - 1) for k in range(POINTS)]
    rows: list[dict[str, Any]] = []

    def look(progress: Any) -> None:
        if len(rows) < POINTS and progress.steps >= due[len(rows)]:
            now = resident_kib()
            rows.append({"steps": progress.steps, "resident_kib": now, "growth_kib": now - (rows[0]["resident_kib"] if rows else now)})

    with tempfile.TemporaryDirectory() as folder:
        train(environment, out=Path(folder) / "run", settings=settings, progress=look)
    return rows


def main() -> None:
    """Run, print, save; exit code 1 where it grew by more than the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", default="cartpole")
    parser.add_argument("--start", type=int, default=1_000_000)
    parser.add_argument("--end", type=int, default=10_000_000)
    parser.add_argument("--no-save", action="store_true")
    options = parser.parse_args()
    rows = measure(options.environment, options.start, options.end)
    show(f"resident memory of a training of {options.environment}", rows)
    if not options.no_save:
        save("memory", settings={key: value for key, value in vars(options).items() if key != "no_save"}, rows=rows)
    growth = rows[-1]["growth_kib"]
    print(f"growth {growth:,.0f} KiB, limit {LIMIT_KIB:,} KiB")
    sys.exit(growth > LIMIT_KIB)


if __name__ == "__main__":
    main()
