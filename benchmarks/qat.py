"""What int4 costs a policy, and what training in its integers gives back: float, put into integers afterwards, and trained on in them.

    python benchmarks/qat.py --tasks furuta:64:150000 --name qat_furuta
    python benchmarks/qat.py --algorithm sac --tasks swingup:16:10000 --seeds 3 --name qat_sac
    python benchmarks/qat.py [--seeds 5] [--first 1] [--tasks cartpole:4:50000] [--algorithm ppo] [--profile int4] [--rate 3e-4] [--name qat]

Of every seed one policy is trained in float by the environment's preset (two hidden layers of the width that the task names; SAC's critics
have two of 64). It is put into integers as ``export`` does it. Then it is trained on, for as many steps as the task names, in two ways; the
preset's settings but for the learning rate:

- in float, as a control. The policy kept is the one whose integers, made afterwards, do best in the evaluations of the training: more training
  and the choice among its evaluations is what the other way has too;
- in integers (``qat``).

Returns are of what ships, means over 100 episodes that no choice was made by, behind the environment's shield; then the interquartile mean of
the seeds, and its 95 % interval. The tasks are such where int4 was seen to cost something: the question is what training in it gives back.
Seed 0 is not in the table: it is the one that was looked at while this was written.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from record import Row, save, show

from puffer_edge.commands.sources import EVALUATION_SEED, task_of
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.reference import InFloat, Proposer
from puffer_edge.policy import Policy
from puffer_edge.train import Run, checkpoint, iqm, settings_for, train
from puffer_edge.train.loop import Learner
from puffer_edge.train.recording import Recorder
from puffer_edge.train.run import learner_of
from puffer_edge.train.settings import Settings

EPISODES = 100
WAYS = ("float", "integers afterwards", "float on, integers afterwards", "qat")


def afterwards(kind: type[Learner], made_with: tuple[Any, Any, str]) -> type[Learner]:
    """An algorithm in float that is evaluated, and so kept, as the integers that would be made of it afterwards."""

    class Afterwards(kind):  # type: ignore[valid-type, misc]
        def proposer(self, policy: Policy) -> Proposer:
            return quantize(policy, *made_with)

    return Afterwards


def returns(run: Path, profile: str | None) -> float:
    """Mean return of a run's policy, in float or in integers made by the ordinary way."""
    task = task_of(run)
    proposer = quantize(task.policy, task.observations, task.starts, profile) if profile else InFloat(task.policy)
    return float(task.returns(proposer, EPISODES, EVALUATION_SEED).returns.mean())


def trained_on(run: Run, settings: Settings, out: Path, profile: str) -> Path:
    """A run gone on with in float, kept by its integers."""
    task = task_of(run.path)
    kind = afterwards(learner_of(run.settings["algorithm"]), (task.observations, task.starts, profile))
    learner = kind(task.environment, settings, seed=run.settings["seed"])
    learner.fine_tuned = {"run": run.path.name, "step": run.result["kept_step"]}
    checkpoint.take_over(learner, run.path / "checkpoints" / f"step-{run.result['kept_step']:012}.safetensors")
    return Recorder.begin(out, learner).run().path


def measure(algorithm: str, environment: str, width: int, profile: str, steps: int, rate: float, seed: int, folder: Path) -> dict[str, float]:
    """Return by way."""
    critics = {"critic_hidden": [64, 64]} if algorithm == "sac" else {}
    settings = settings_for(environment, None, algorithm, {"hidden": [width, width], "evaluations": 5, **critics})
    run = train(environment, algorithm, seed=seed, out=folder / "float", settings=settings)
    further = replace(settings, steps=steps, learning_rate=rate, engine="torch" if algorithm == "sac" else "auto")
    fine = train(environment, algorithm, seed=seed, out=folder / "qat", settings=replace(further, qat=profile), fine_tune=run.path)
    control = trained_on(run, further, folder / "on", profile)
    return dict(zip(WAYS, (returns(run.path, None), *(returns(path, profile) for path in (run.path, control, fine.path)))))


def summary(environment: str, width: int, way: str, scores: list[float]) -> Row:
    """A row of the table."""
    low, high = iqm.interval(scores)
    return {"task": f"{environment} {width}×{width}", "policy": way, "iqm": iqm.iqm(scores), "low": low, "high": high, "by_seed": scores}


def main() -> None:
    """Run, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--tasks", nargs="+", default=["cartpole:4:50000", "pendulum:6:60000"])
    parser.add_argument("--algorithm", default="ppo")
    parser.add_argument("--profile", default="int4")
    parser.add_argument("--rate", type=float, default=3e-4, help="learning rate of both ways of training on")
    parser.add_argument("--name", default="qat", help="of the file of results")
    options = parser.parse_args()
    rows: list[Row] = []
    for task in options.tasks:
        environment, width, steps = task.split(":")[0], *map(int, task.split(":")[1:])
        found, before = [], rows
        for seed in range(options.first, options.first + options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                found.append(measure(options.algorithm, environment, width, options.profile, steps, options.rate, seed, Path(folder)))
            print(task, seed, {way: round(score, 1) for way, score in found[-1].items()}, flush=True)
            rows = before + [summary(environment, width, way, [one[way] for one in found]) for way in WAYS]
            save(options.name, settings=vars(options) | {"episodes": EPISODES}, rows=rows)  # after each: they take long
    show(options.profile, [{key: value for key, value in row.items() if key != "by_seed"} for row in rows])


if __name__ == "__main__":
    main()
