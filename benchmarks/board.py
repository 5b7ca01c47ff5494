"""A trained 64×64 policy on the emulated RP2040: size of the firmware, cycles of network and shield, round trip, returns.

The peer beside us is the same policy in float and in the numpy reference, on the same episodes. Cycles are emulated, without
flash cache misses (the firmware runs from SRAM); the round trip is wall time of the emulator on this machine, not of a chip.

python benchmarks/board.py [--target rp2040] [--episodes 5]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from record import save, show

import puffer_edge.firmware
from puffer_edge import envs
from puffer_edge.commands.sources import EVALUATION_SEED
from puffer_edge.device import target as targets
from puffer_edge.device.board import open_board
from puffer_edge.envs import closed_loop
from puffer_edge.export.bundle import export
from puffer_edge.hil.check import check
from puffer_edge.integer.shield import Shield
from puffer_edge.train import train

ROM_KIB_ALLOWED = 16
RAM_BYTES_ALLOWED = 2048


def firmware() -> dict[str, Any]:
    """Size of the prebuilt image, as its build recorded it."""
    about = json.loads((Path(puffer_edge.firmware.__file__).parent / "prebuilt" / "rp2040.json").read_text())
    return {
        "image_bytes": about["bytes"],
        "image_allowed_bytes": ROM_KIB_ALLOWED * 1024,
        "data_ram_bytes": about["data_ram_bytes"],
        "data_ram_allowed_bytes": RAM_BYTES_ALLOWED,
        "compiler": about["compiler"],
    }


def row(name: str, target: str, episodes: int) -> dict[str, Any]:
    """Train, export, install, check."""
    env = envs.load(name)
    guard = Shield.build(env.contract, env.shield)
    with tempfile.TemporaryDirectory() as folder:
        run = train(env, seed=0, out=Path(folder) / "run")
        about = {"environment": name}
        observations, starts = closed_loop.calibration(env, run.policy, guard)
        bundle = export(run.policy, targets.load(target), Path(folder) / "bundle", observations, env.shield, about, starts=starts)
        with open_board("sim", bundle) as board:
            board.install(bundle.image.data)
            found = check(bundle, board, env, episodes, EVALUATION_SEED).summary()
    cycles = {part: found[f"{part}_cycles"] or {"median": None, "max": None} for part in ("ticks", "policy", "shield")}
    clock = targets.load(target).clock_mhz
    return {
        "environment": name,
        "macs": bundle.manifest["cost"]["macs"],
        "policy_cycles": cycles["policy"]["median"],
        "shield_cycles": cycles["shield"]["median"],
        "tick_cycles_max": cycles["ticks"]["max"],
        "emulated_us": round(cycles["ticks"]["median"] / clock, 1) if clock and cycles["ticks"]["median"] else None,
        "round_trip_us": round(found["round_trip_us"]["median"]),
        "mismatches": found["mismatches"],
        "steps": found["vectors"] + found["steps"],
        "return_float": found["return_float"],
        "return_integer": found["return_integer"],
        "return_device": found["return_device"],
    }


def main() -> None:
    """Run, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="rp2040")
    parser.add_argument("--episodes", type=int, default=5)
    options = parser.parse_args()
    if options.target == "rp2040":
        show("RP2040 firmware: UART, protocol, engine, bytecode shield, without weights", [firmware()])
    rows = [row(name, options.target, options.episodes) for name in envs.names()]
    show(f"64×64 policies on the simulated {options.target}", rows)
    save(f"board_{options.target}", settings={**vars(options), "firmware": firmware()}, rows=rows)


if __name__ == "__main__":
    main()
