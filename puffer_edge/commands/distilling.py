"""distil: a trained policy becomes a smaller one that fits a budget."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import tyro
from rich.table import Table

from puffer_edge.commands.console import OUT, SIDE, WIDE, Flag, Folder, progress_bar, show_result
from puffer_edge.train.distillation.settings import DistilSettings


def distil(
    run: Folder,
    *,
    macs: int | None = None,
    kib: float | None = None,
    us: float | None = None,
    target: str | None = None,
    out: Path | None = None,
    seed: int = 0,
    episodes: int = 100,
    shield: bool = True,
    values: Annotated[DistilSettings, tyro.conf.arg(name="")] = DistilSettings(),  # noqa: B008  frozen
    json: Flag = False,
) -> None:
    """Distil a policy into the best student that fits a budget: 'puffer-edge distil RUN --target rp2040 --macs 2000 --kib 4 --us 200'.

    What each student would take is known before it is trained, from its shape: what does not fit is left out, and of the rest some
    are trained. A student acts, the teacher says what it would have done, the student learns that, and acts again. Each is then put into integers
    and compared with the teacher from the same starts, behind the shield. The one that surely keeps most of the teacher's return becomes a
    run, which eval, export and check take like any other, in the profile of integers that it was chosen in; the cheapest, where several keep the
    same. Each student is kept as soon as it is finished: Ctrl-C makes a run of the best so far, and the same command goes on with those that
    are missing. The table is in RUN/result.json, the picture in RUN/pareto.svg. Microseconds are predicted from the target's cost model.

    Args:
        run: the teacher: a run folder, or a policy.safetensors, of any network; imported ones need an environment (import --env).
        macs: at most so many multiply-accumulates of one run of the network.
        kib: at most so many KiB of flash for the policy image, policy.bin; the engine, which does not depend on the policy, is not in it.
        us: at most so many predicted microseconds of a tick on the target, the flash cache cold.
        target: name of a target, whose slot, RAM and control period are limits too; 'puffer-edge targets' lists them.
        out: folder of the run; runs/ENVIRONMENT-distil-SEED where not given. A run that is there already is kept as FOLDER.1, FOLDER.2 …
        seed: of everything random; the same seed gives the same bits.
        episodes: of each evaluation.
        shield: behind the environment's default shield (--no-shield: without any).
        values: how the students are trained.
        json: print the result as JSON.
    """
    from puffer_edge import train as verbs

    with progress_bar("distilling") as advance:
        found = verbs.distil(
            run, target, macs=macs, kib=kib, us=us, seed=seed, episodes=episodes, out=out, shield=shield, settings=values, progress=advance
        )
    report = found.result["distillation"]
    result = {"run": str(found.path), "environment": found.settings["environment"], "seed": seed, **report}
    show_result(json, result, lambda: _show(result))
    if found.result["status"] == "interrupted":
        missing = ", ".join("×".join(map(str, hidden)) or "linear" for hidden in report["students"]["missing"])
        SIDE.print(f"stopped by Ctrl-C; missing are {missing or 'none'}: the same command goes on with them", style="yellow")
        raise SystemExit(130)


def _show(result: dict[str, Any]) -> None:
    teacher, taken, budget = result["teacher"], result["taken"], result["budget"]
    limits = [f"{budget[key]:g} {unit}" for key, unit in (("macs", "MACs"), ("kib", "KiB"), ("us", "µs")) if budget[key] is not None]
    limits += [f"what {budget['target']} has"] if budget["target"] else []
    OUT.print(f"students of {teacher['path']} in {result['environment']}, at most {', '.join(limits)}; {result['episodes']} episodes each")
    label = taken["label"] or "predicted"
    table = Table(
        "hidden", "profile", "MACs", "image bytes", f"µs, {label}", "return", "95 % interval", "kept", "surely", "", box=None, pad_edge=False
    )
    table.add_row("teacher", "float", "", "", "", *_returns(teacher["return_float"], teacher["interval_float"], 1.0), "", "")
    if not teacher["refused"]:
        table.add_row(
            "teacher", teacher["profile"], *_needs(teacher), *_returns(teacher["return"], teacher["interval"], teacher["return_kept"]), "", ""
        )
    for row in result["table"]:
        name = "×".join(map(str, row["hidden"])) or "linear"
        words = "taken" if row["taken"] else "front" if row["front"] else ""
        returns = (
            ("–", "", "–", "–") if row["refused"] else (*_returns(row["return"], row["interval"], row["return_kept"]), f"{row['surely_kept']:.1%}")
        )
        table.add_row(name, row["profile"], *_needs(row), *returns, row["refused"] or words)
    WIDE.print(table)
    shape = "×".join(map(str, taken["hidden"])) or "linear"
    OUT.print(
        f"took {shape} in {taken['profile']}: keeps {taken['return_kept']:.1%} of the teacher's float return on {result['episodes']} other episodes"
        f" ({taken['integer']['return']:.1f} of {taken['teacher_float']['return']:.1f})"
    )
    OUT.print(f"  saved in {result['run']}, with the table and a picture, pareto.svg")
    name = budget["target"] or "rp2040"
    bundle = f"build/{result['environment']}-{name}".replace(":", "-")
    OUT.print(f"next: puffer-edge export {quote(result['run'])} --target {name} --out {bundle}")


def _needs(row: dict[str, Any]) -> tuple[str, str, str]:
    return f"{row['macs']:,}", f"{row['image_bytes']:,}", "–" if row["us"] is None else f"{row['us']:,}"


def _returns(returned: float, interval: list[float], share: float) -> tuple[str, str, str]:
    return f"{returned:.2f}", f"{interval[0]:.2f} … {interval[1]:.2f}", f"{share:.1%}"
