"""The whole way in one script: train, compare, export, install on an emulated RP2040, check, report."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path


def command(*words: str) -> list[str]:
    """A puffer-edge command line, shown before it runs."""
    print(f"\n$ puffer-edge {' '.join(words)}", flush=True)
    return [sys.executable, "-m", "puffer_edge.cli", *words]


def run(*words: str) -> None:
    """Run a command; stop the demo where it fails."""
    finished = subprocess.run(command(*words), check=False)
    if finished.returncode:
        raise SystemExit(finished.returncode)


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("environment", nargs="?", default="pendulum")
    parser.add_argument("--out", type=Path, default=Path("build/demo"))
    parser.add_argument("--episodes", type=int, default=5)
    options = parser.parse_args()
    trained, out = str(options.out / "run"), options.out
    started = time.monotonic()
    run("train", options.environment, "--out", trained)
    run("eval", trained, "--integer")
    run("export", trained, "--target", "rp2040", "--out", str(out / "rp2040"))
    run("export", trained, "--target", "esp32", "--out", str(out / "esp32"))
    board = subprocess.Popen(command("simulate", "rp2040", "--json"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert board.stdout is not None
        line = board.stdout.readline()
        if not line:
            raise SystemExit("the emulated board did not start")
        address = json.loads(line)["board"]
        run("install", str(out / "rp2040"), "--board", address)
        run("check", str(out / "rp2040"), "--board", address, "--episodes", str(options.episodes), "--report", str(out / "report"))
    finally:
        board.communicate()
    print(f"\nThe demo took {time.monotonic() - started:.0f} s. Open {out / 'report' / 'report.html'} in a browser.")


if __name__ == "__main__":
    main()
