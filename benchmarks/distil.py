"""What students keep of their teachers: return against products, bytes and predicted microseconds.

For each environment and seed a teacher is trained by its preset (two hidden layers of 64), and distilled with the same seed for an RP2040 with at
most a tenth of the teacher's multiply-accumulates, 4 KiB of image and 200 µs a tick. All settings are the defaults, but for how many shapes are
trained. A student's row has all seeds: what its integers keep of the float return of its own teacher, on the episodes that choose. ``taken`` rows are
the students chosen, seed by seed, on other episodes. What is there is saved after each environment, and the
picture of the first seed of the last one goes to ``docs/distil.svg``.

python benchmarks/distil.py [--environments pendulum swingup acrobot] [--seeds 5] [--students 5] [--episodes 100]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from record import RESULTS, save, show

from puffer_edge.files import write_atomic
from puffer_edge.train import DistilSettings, distil, train
from puffer_edge.train.distillation.distil import PICTURE
from puffer_edge.train.distillation.ladder import title

TARGET, KIB, US = "rp2040", 4.0, 200.0
PART = 10
DOCS = RESULTS.parents[1] / "docs"


def seed_of(name: str, seed: int, students: int, episodes: int, folder: Path) -> dict[str, Any]:
    """A teacher and its distillation."""
    teacher = train(name, seed=seed, out=folder / f"{name}-{seed}")
    inputs, outputs, hidden = teacher.policy.contract.n_observations, teacher.policy.contract.n_outputs, teacher.settings["settings"]["hidden"]
    widths = [inputs, *hidden, outputs]
    macs = sum(a * b for a, b in zip(widths, widths[1:]))
    settings = DistilSettings(students=students)
    out = folder / f"{name}-{seed}-distil"
    run = distil(teacher, TARGET, macs=macs // PART, kib=KIB, us=US, seed=seed, episodes=episodes, out=out, settings=settings)
    found: dict[str, Any] = run.result["distillation"] | {"seconds": run.result["seconds"], "picture": (out / PICTURE).read_text("utf-8")}
    print(f"{name}, seed {seed}: took {title(tuple(found['taken']['hidden']))} {found['taken']['profile']}, {found['seconds']:.0f} s", flush=True)
    return found


def students(name: str, reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each student, over all seeds, and one for the teachers' integers."""
    teachers = [report["teacher"] for report in reports]
    rows = [_row(name, "teacher", "int8", teachers)]
    for k, first in enumerate(reports[0]["table"]):
        rows.append(_row(name, title(tuple(first["hidden"])), first["profile"], [report["table"][k] for report in reports]))
    return rows


def _row(name: str, hidden: str, profile: str, those: list[dict[str, Any]]) -> dict[str, Any]:
    kept = [one["return_kept"] for one in those if not one["refused"]]
    first = those[0]
    row = {"environment": name, "student": hidden, "profile": profile, "macs": first["macs"], "image_bytes": first["image_bytes"], "us": first["us"]}
    row |= {"label": first["label"], "kept_median": round(median(kept), 4) if kept else None, "kept_least": round(min(kept), 4) if kept else None}
    return row | {"refused": sum(bool(one["refused"]) for one in those)}


def taken(name: str, reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each seed's student, on the episodes that no choice was made by."""
    found = []
    for seed, report in enumerate(reports):
        one = report["taken"]
        row = {"environment": name, "seed": seed, "taken": title(tuple(one["hidden"])), "profile": one["profile"], "macs": one["macs"]}
        row |= {"macs_teacher": report["teacher"]["macs"], "image_bytes": one["image_bytes"], "us": one["us"]}
        row |= {"teacher": round(one["teacher_float"]["return"], 2), "student": round(one["integer"]["return"], 2)}
        found.append(row | {"kept": round(one["return_kept"], 4), "seconds": round(report["seconds"])})
    return found


def main() -> None:
    """Train, distil, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", nargs="+", default=["pendulum", "swingup", "acrobot"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--students", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=100)
    options = parser.parse_args()
    rows, chosen = [], []
    fixed = {"target": TARGET, "macs_part": PART, "kib": KIB, "us": US, "distil": DistilSettings(students=options.students).to_dict()}
    for number, name in enumerate(options.environments, 1):
        with tempfile.TemporaryDirectory() as folder:
            reports = [seed_of(name, seed, options.students, options.episodes, Path(folder)) for seed in range(options.seeds)]
        show(f"students of {name}, {options.seeds} seeds", students(name, reports))
        show(f"taken, {name}", taken(name, reports))
        rows, chosen = rows + students(name, reports), chosen + taken(name, reports)
        write_atomic(DOCS / "distil.svg", reports[0]["picture"])
        save("distil", settings={**vars(options), "environments": options.environments[:number], **fixed}, rows=[*chosen, *rows])


if __name__ == "__main__":
    main()
