"""Five trainings of each environment: returns of the policy that would be deployed, in float and in integers, and their interquartile mean.

The peer beside us is the policy itself in float, on the same episodes: what quantisation and shield cost. Writes ``docs/learning.md`` too,
and beside it ``learning/NAME.md`` with a picture for each environment; those that are not measured in this run keep what the last one
found. ``--pages`` trains nothing, and writes the pages anew from what was found.

python benchmarks/learning.py [--seeds 5] [--environments cartpole pendulum] [--processes 1] [--pages]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from record import RESULTS, save, show

from puffer_edge import envs
from puffer_edge.commands.sources import EVALUATION_SEED
from puffer_edge.envs import closed_loop
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.reference import InFloat
from puffer_edge.integer.shield import Shield
from puffer_edge.train import Run, iqm
from puffer_edge.train.seeds import train_seeds

EPISODES = 100
PAGE = Path(__file__).parents[1] / "docs" / "learning.md"
PICTURES = PAGE.parent / "learning"
INTRODUCTION = """# What PPO learns here

Written by `benchmarks/learning.py`; nothing stands here that was not measured, and trainings that fail are rows like the others.
Every number is a mean return over {episodes} fresh episodes, none of which any choice was made by, of the policy that a training keeps: its
deterministic head, as it would be deployed. *Integer* is the int8 program behind the environment's shield, on the same start states as
*float*, *16×8* the int16x8 one. The interquartile mean leaves out a quarter of the trainings at each end; its 95 % interval is a bootstrap
over trainings (Agarwal et al., 2021), and of five trainings it is a rough one. Seconds are wall time with all evaluations; other work may
have been going on. *Takes* is the cheapest profile of integers that keeps 99 % of the float return in the mean over trainings.

    python benchmarks/learning.py --seeds {seeds}

{machine}.

| environment | steps | solved at | solved, in integers | interquartile mean, float | 95 % interval | takes |
|---|---|---|---|---|---|---|
"""


def row(name: str, seed: int, run: Run) -> dict[str, Any]:
    """One training, evaluated three ways on the same start states; None where it failed."""
    about: dict[str, Any] = {"environment": name, "seed": seed, "status": run.result["status"], "steps": run.result["steps"]}
    about["train_s"] = round(run.result["seconds"], 1)
    if "evaluation" not in run.result:
        keys = ("return_float", "return_float_unshielded", "return_integer", "return_int16x8", "integer_95_percent", "shield_acted_steps")
        return about | dict.fromkeys(keys) | {"solved": False}
    env = envs.load(name)
    guard, bare = Shield.build(env.contract, env.shield), Shield.none(env.contract)
    seen = closed_loop.calibration(env, run.policy, guard)
    found = {
        key: closed_loop.play(env, proposer, shield, EPISODES, EVALUATION_SEED)
        for key, proposer, shield in (
            ("float", InFloat(run.policy), guard),
            ("float_unshielded", InFloat(run.policy), bare),
            ("integer", quantize(run.policy, *seen), guard),
            ("int16x8", quantize(run.policy, *seen, profile="int16x8"), guard),
        )
    }
    low, high = found["integer"].interval
    acted = int(((found["integer"].outcome >> 16) != 0).sum())
    return {
        **about,
        **{f"return_{key}": round(float(episodes.returns.mean()), 2) for key, episodes in found.items()},
        "integer_95_percent": f"{low:.1f} … {high:.1f}",
        "shield_acted_steps": f"{acted} of {int(found['integer'].lengths.sum())}",
        "solved": bool(np.mean(found["integer"].returns) >= env.solved),
    }


def environment_rows(name: str, seeds: int, processes: int) -> list[dict[str, Any]]:
    """Train an environment so many times; its picture goes beside the page."""
    with tempfile.TemporaryDirectory() as folder:
        found = train_seeds(name, seeds, out=Path(folder) / "runs", processes=processes)
        picture = found.path / "curve.svg"
        PICTURES.mkdir(exist_ok=True)
        if picture.is_file():
            (PICTURES / f"{name}.svg").write_text(picture.read_text())
        return [row(name, seed, run) for seed, run in found.runs.items()]


def kept(rows: list[dict[str, Any]]) -> dict[str, float]:
    """What each profile keeps of the float return, in the mean over trainings that did not fail."""
    ran = [r for r in rows if r["return_float"] is not None]
    whole = sum(r["return_float"] for r in ran)
    return {name: 1 + (sum(r[key] for r in ran) - whole) / abs(whole) for name, key in (("int8", "return_integer"), ("int16x8", "return_int16x8"))}


def takes(shares: dict[str, float]) -> str:
    """The cheapest profile that keeps 99 %."""
    return next((name for name, share in shares.items() if share >= 0.99), "neither")


def write_pages(record: dict[str, Any]) -> None:
    """The pages of a result file: one for each environment, and the one that leads to them."""
    machine, settings = record["machine"], record["settings"]
    words = f"{record['when'][:10]}, {machine['processor']}, {machine['cores']} cores, Python {machine['python']}, numpy {machine['numpy']}"
    lines = []
    for name in sorted({r["environment"] for r in record["rows"]}):
        rows = [r for r in record["rows"] if r["environment"] == name]
        (PICTURES / f"{name}.md").write_text(page(name, rows))
        scores = [r["return_float"] for r in rows if r["return_float"] is not None]
        solved = f"{envs.load(name).solved:g} | {sum(r['solved'] for r in rows)} of {len(rows)}"
        measured = "– | – | –"
        if scores:
            low, high = iqm.interval(scores)
            measured = f"{iqm.iqm(scores):.1f} | {low:.1f} … {high:.1f} | {takes(kept(rows))}"
        lines.append(f"| [{name}](learning/{name}.md) | {max(r['steps'] for r in rows):,} | {solved} | {measured} |")
    PAGE.write_text(INTRODUCTION.format(episodes=settings["episodes"], seeds=settings["seeds"], machine=words) + "\n".join(lines) + "\n")


def page(name: str, rows: list[dict[str, Any]]) -> str:
    """The page of an environment: seed by seed, failures too."""
    parts = [
        f"# What PPO learns on {name}",
        "Written by `benchmarks/learning.py`; what the numbers mean, and on which machine they were measured: [learning.md](../learning.md).",
        f"Solved at {envs.load(name).solved:g}: {sum(r['solved'] for r in rows)} of {len(rows)} trainings, in integers.",
    ]
    scores = [r["return_float"] for r in rows if r["return_float"] is not None]
    if scores:
        low, high = iqm.interval(scores)
        parts.append(f"Interquartile mean {iqm.iqm(scores):.1f}, 95 % interval {low:.1f} … {high:.1f} (float, behind the shield).")
        shares = kept(rows)
        words = ", ".join(f"{profile} keeps {share:.1%}" for profile, share in shares.items())
        parts.append(f"Of the float return {words}, in the mean over trainings: it takes {takes(shares)}.")
    lines = ["| seed | steps | seconds | float | without shield | integer | its 95 % interval | 16×8 | solved |", "|" + "---|" * 9]
    for r in rows:
        cells = (r["seed"], f"{r['steps']:,}", r["train_s"], r["return_float"], r["return_float_unshielded"], r["return_integer"])
        solved = "yes" if r["solved"] else f"no ({r['status']})" if r["status"] != "complete" else "no"
        lines.append("| " + " | ".join("–" if c is None else str(c) for c in (*cells, r["integer_95_percent"], r["return_int16x8"], solved)) + " |")
    parts.append("\n".join(lines))
    if (PICTURES / f"{name}.svg").is_file():
        parts.append(f"![Learning curve of {name}: every seed's evaluations, and their interquartile mean]({name}.svg)")
    parts.append(f"To see it yourself: `puffer-edge train {name} --seeds {len(rows)}`.")
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Run, print, save, and write the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--environments", nargs="+", default=envs.names())
    parser.add_argument("--processes", type=int, default=1, help="trainings side by side; the seconds are then those of a busy machine")
    parser.add_argument("--pages", action="store_true", help="train nothing, write the pages anew")
    options = parser.parse_args()
    if options.pages:
        return write_pages(json.loads((RESULTS / "learning.json").read_text()))
    before = json.loads((RESULTS / "learning.json").read_text())["rows"] if (RESULTS / "learning.json").is_file() else []
    rows = [r for r in before if r["environment"] not in options.environments and "status" in r]
    for name in options.environments:
        found = environment_rows(name, options.seeds, options.processes)
        show(f"PPO on {name}, {EPISODES} evaluation episodes from the same starts", found)
        rows += found
    settings = {"seeds": options.seeds, "episodes": EPISODES, "evaluation_seed": EVALUATION_SEED}
    path = save("learning", settings=settings, rows=rows)
    write_pages(json.loads(path.read_text()))


if __name__ == "__main__":
    main()
