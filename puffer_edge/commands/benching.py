"""bench: how fast trainings are here, beside others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.table import Table

from puffer_edge.commands.console import OUT, SIDE, WIDE, Flag, show_result
from puffer_edge.errors import InvalidInput


def bench(
    what: Annotated[Literal["train"], tyro.conf.Positional],
    quick: Flag = False,
    peer_python: tuple[str, ...] = (),
    cleanrl: Path | None = None,
    json: Flag = False,
) -> None:
    """Environment steps per second of whole trainings: our engines, and beside them others in processes of their own.

    Stable-Baselines3 and sbx run where they are installed; for others, and where they are not, figures recorded on another machine are
    shown, marked as recorded. Ratios are of this run, unless the peer's figure is marked.

    Args:
        what: train.
        quick: our engines alone, under a minute.
        peer_python: NAME=INTERPRETER of environments that peers are installed in, for example sb3=/opt/sb3/bin/python.
        cleanrl: folder of a CleanRL checkout, whose ppo.py is then run.
        json: print as JSON.
    """
    from puffer_edge.train import throughput

    pythons = dict(pair.split("=", 1) for pair in peer_python if "=" in pair)
    if len(pythons) != len(peer_python):
        raise InvalidInput(f"--peer-python takes NAME=INTERPRETER, each name once, not {' '.join(peer_python)}")
    found = []
    for row in throughput.rows(quick, pythons, cleanrl):
        hidden = "×".join(map(str, row["hidden"]))
        SIDE.print(f"{row['engine']}, {row['num_envs']} × {row['horizon']}, {hidden}, epochs {row['epochs']}: {row['steps_per_s']:,.0f} steps/s")
        found.append(row)
    rows = throughput.with_ratios(found)
    result: dict[str, Any] = {"machine": throughput.machine(), "repeats": throughput.REPEATS, "seconds": throughput.SECONDS, "rows": rows}

    def show() -> None:
        OUT.print("PPO, whole loop; " + ", ".join(f"{key} {value}" for key, value in result["machine"].items()))
        names = ("engine", "version", "env", "hidden", "epochs", "envs × horizon", "minibatch", "threads", "steps/s", "ratio")
        table = Table(*names, box=None, pad_edge=False)
        for r in rows:
            ratio = f"{r['peer_ratio']:.2f} × {r['peer']}{' (recorded)' if r['peer_recorded'] else ''}" if r["peer_ratio"] else ""
            rate = f"{r['steps_per_s']:,.0f}{' (recorded)' if r['recorded'] else ''}"
            hidden, shape = "×".join(map(str, r["hidden"])), f"{_known(r['num_envs'])} × {_known(r['horizon'])}"
            cells = (r["engine"], r["version"], r["env"], hidden, r["epochs"], shape, r["minibatch"], r["threads"])
            table.add_row(*map(_known, cells), rate, ratio)
        WIDE.print(table)

    show_result(json, result, show)


def _known(value: Any) -> str:
    return "–" if value is None else str(value)
