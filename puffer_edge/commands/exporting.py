"""export: a policy becomes a bundle, or a bundle for every target that it fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

from rich.table import Table

from puffer_edge import find
from puffer_edge.commands.console import OUT, SIDE, WIDE, Flag, Folder, progress_bar, show_result
from puffer_edge.commands.sources import Task, task_of
from puffer_edge.envs.closed_loop import CALIBRATION_SEED
from puffer_edge.errors import DoesNotFit, InvalidInput

CHOICE_EPISODES = 64
CHOICE_SEED = CALIBRATION_SEED + 1
"""Other episodes than those of the calibration, and than those of eval and check."""


def export(
    run: Folder,
    out: Path,
    target: str | None = None,
    all_targets: Flag = False,
    rate: float | None = None,
    profile: str | None = None,
    ranges: str = "percentile",
    min_return_kept: float | None = None,
    observations: Path | None = None,
    also: tuple[str, ...] = (),
    converter: str = "own",
    shield: bool = True,
    shield_file: Path | None = None,
    json: Flag = False,
) -> None:
    """Put a policy into integers and write a bundle for a target, or one for every target that it fits.

    Args:
        run: a run folder, or a policy.safetensors.
        out: folder of the bundle; with --all-targets the folder of their folders.
        target: name of a target; 'puffer-edge targets' lists them.
        all_targets: write OUT/TARGET for every target; exit code 0 if the policy fits at least one.
        rate: demand, in Hz, that a tick fit at this rate by the predicted time; refuse otherwise. The contract's rate stays.
        profile: of the integers: int8, int16x8 (16-bit activations), int4 (4-bit weights) or shift (no multipliers); not given, that which the
            policy was trained in or distilled for, or int8.
        ranges: how ranges are read off the calibration: percentile, minmax, tight, or search (by the closed-loop return, layer by layer).
        min_return_kept: take the cheapest profile that keeps this share of the float return, such as 0.99: int8, then int16x8.
        observations: .npy or .npz of physical observations to calibrate on, in place of rollouts.
        also: formats beside the target's own, such as tvm (machine code for a Raspberry Pi, Jetson or PC; takes seconds), onnx or wasm.
        converter: own, or tensorflow: a second .tflite by TensorFlow's converter, for comparison (extra 'tensorflow').
        shield: put the default shield before the actuator (--no-shield: the contract's range alone).
        shield_file: TOML with one [[stage]] table for each stage of the shield, in place of the default.
        json: print the manifest, or the table of all targets, as JSON.
    """
    from puffer_edge.device import target as targets
    from puffer_edge.device.budget import MOST_HZ
    from puffer_edge.export.bundle import export as write
    from puffer_edge.export.bundle import formats

    if all_targets == (target is not None):
        raise InvalidInput("export takes --target NAME or --all-targets, one of the two")
    if rate is not None and not 0 < rate <= MOST_HZ:
        raise InvalidInput(f"--rate lies above 0 and up to {MOST_HZ:,.0f} Hz, not {rate:g}")
    board = targets.load(target) if target else None
    if also and board is None:
        raise InvalidInput("--also goes with one --target")
    if board is not None:
        board = replace(board, formats=tuple(dict.fromkeys((*board.formats, *(find.choose("format", name, formats()) for name in also)))))
    task = task_of(run, shield, observations, shield_file)
    how, chosen = _quantization(task, profile, ranges, min_return_kept)
    how |= {"starts": task.starts, "rate_hz": rate, "converter": converter}
    about = task.about | chosen
    if board is None:
        _export_all(task, out, about, how, json)
        return
    bundle = write(task.policy, board, out, task.observations, task.shield.specification, about, **how)
    task.check_trained(bundle.manifest["digests"]["program"])
    show_result(json, dict(bundle.manifest), lambda: _show_bundle(bundle, board, task.shield.stages, task.policy.head.kind))


def _show_bundle(bundle: Any, board: Any, stages: tuple[str, ...], head: str) -> None:
    from puffer_edge.export.page import agreement, tick_words

    manifest = bundle.manifest
    cost = manifest["cost"]
    OUT.print(f"bundle for {board.title}: {bundle.path}")
    OUT.print(f"  {cost['macs']:,} multiply-accumulates, image {cost['image_bytes']:,} bytes, shield {' → '.join(stages) or 'none'}")
    if manifest["target"] != "wasm":
        OUT.print(f"  flash {cost['flash_bytes']:,} bytes with the engine, RAM {cost['ram_bytes']:,}")
    for line in tick_words(cost):
        OUT.print(f"  {line}")
    OUT.print(f"  {agreement(manifest['calibration'], head)}; {len(manifest['files'])} files")
    for name, why in manifest["left_out"].items():
        OUT.print(f"  {name} left out: {why}", style="yellow")
    for name in manifest["files"]:
        if name.endswith(".uf2"):
            OUT.print(f"  drag onto the Pico: {bundle.path / name}")
    if manifest["target"] == "wasm":
        OUT.print(f"next: python3 -m http.server --bind 127.0.0.1 --directory {quote(str(bundle.path / 'wasm'))}")
    else:
        simulated = board.simulator is not None and bool(bundle.environment)
        OUT.print(f"next: puffer-edge {'check' if simulated else 'verify'} {quote(str(bundle.path))}{' --board sim' if simulated else ''}")


def _quantization(task: Task, profile: str | None, ranges: str, least: float | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Profile and ranges for the export, and what the manifest says of how they were chosen."""
    from puffer_edge.integer.reference import InFloat
    from puffer_edge.integer.search import keep_return, kept, search

    if least is None and ranges != "search":
        return {"profile": profile or task.profile, "ranges": ranges}, {}
    if least is not None and (profile or not 0 < least <= 1):
        raise InvalidInput(f"--min-return-kept lies above 0 and up to 1, and chooses the profile itself, so without --profile; not {least:g}")
    if least is not None and task.trained_in:
        raise InvalidInput(
            f"{task.policy.name} was trained in the integers of {task.trained_in}, and they are what it returns: its float weights are no policy to "
            "measure them by; leave out --min-return-kept"
        )
    wanted = float(task.returns(InFloat(task.policy), CHOICE_EPISODES, CHOICE_SEED).returns.mean())
    with progress_bar("choosing") as advance:
        done = 0

        def score(program: Any) -> float:
            nonlocal done
            done += 1
            advance(done, done + 1, "")
            return float(task.returns(program, CHOICE_EPISODES, CHOICE_SEED).returns.mean())

        if least is not None:
            choice = keep_return(task.policy, task.observations, score, wanted, least, task.starts)
        else:
            choice = search(task.policy, task.observations, score, task.starts, profile or task.profile)
    share = kept(wanted, choice.score)
    for line in choice.tried:
        SIDE.print(f"  {line}")
    SIDE.print(f"  took {choice.profile}, ranges {', '.join(choice.ranges)}: keeps {share:.2%} of the float return, {CHOICE_EPISODES} episodes")
    about = {"return_float": wanted, "return_integer": choice.score, "return_kept": share, "episodes": CHOICE_EPISODES, "tried": list(choice.tried)}
    return {"profile": choice.profile, "ranges": choice.ranges}, {"chosen_by_return": about}


def _export_all(task: Task, out: Path, about: dict[str, Any], how: dict[str, Any], json: bool) -> None:
    from puffer_edge.export.all_targets import export_all

    rate = how["rate_hz"]
    with progress_bar("exporting") as advance:
        found = export_all(task.policy, out, task.observations, task.shield.specification, about, progress=advance, **how)
    rows = [one.summary() for one in found]

    def show() -> None:
        table = Table("target", "flash", "RAM", "engine", "µs a tick", "", "period", "", box=None, pad_edge=False)
        for row in rows:
            known = row["us"] is not None
            share = row["cold_us"] * rate / 1e6 if known and rate else row["share_of_period"]
            time = (row["engine"], f"{row['cold_us']:,}", row["label"], f"{share:.1%}") if known else ("", "–", "not predicted", "")
            fits = "fits" if known or not rate else f"fits; whether at {rate:g} Hz is not known"
            cells = (f"{row['flash_bytes']:,}", f"{row['ram_bytes']:,}", *time, fits) if row["fits"] else ("", "", "", "", "", "", "refused")
            table.add_row(row["target"], *cells)
        WIDE.print(table)
        for row in rows:
            if row["refused"]:
                OUT.print(f"{row['target']} refused: {row['refused']}", style="yellow")

    show_result(json, {"out": str(out), "rate_hz": rate, "targets": rows}, show)
    if not any(row["fits"] for row in rows):
        raise SystemExit(DoesNotFit.exit_code)
