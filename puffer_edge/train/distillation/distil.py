"""The verb: a teacher and a budget in, a run of the best student out."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from puffer_edge import __version__, envs
from puffer_edge.device import target as targets
from puffer_edge.device.limits import Budget
from puffer_edge.device.target import Target
from puffer_edge.envs import closed_loop
from puffer_edge.envs.closed_loop import Episodes
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.imperfect import imperfect
from puffer_edge.envs.imperfections import Imperfections
from puffer_edge.errors import InvalidInput, MissingExtra, RangeError, ReturnLost, WriteFailed
from puffer_edge.files import write_atomic
from puffer_edge.integer.program import Program
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.reference import InFloat, Proposer
from puffer_edge.integer.search import kept
from puffer_edge.integer.shield import Shield
from puffer_edge.layers import describe
from puffer_edge.policy import Policy
from puffer_edge.spaces import Bools, Floats
from puffer_edge.train.distillation import ladder, picture, table
from puffer_edge.train.distillation.finished import Done, Finished
from puffer_edge.train.distillation.ladder import Candidate, Hidden, title
from puffer_edge.train.distillation.settings import DistilSettings
from puffer_edge.train.distillation.table import Row
from puffer_edge.train.run import FORMAT, METRICS, POLICY, RESULT, SETTINGS, Run, is_run, keep_earlier
from puffer_edge.train.settings_file import format_settings

if TYPE_CHECKING:
    from puffer_edge.train.distillation.student import Student

PICTURE = "pareto.svg"
STREAM = 3
"""Of a seed: no training draws from it."""
MAX_EPISODES = 100_000
Progress = Callable[[int, int, str], None]
"""Told what is done, of how much, and of what that was part."""


def distil(
    teacher: Policy | Run | str | os.PathLike[str],
    target: str | Target | None = None,
    *,
    macs: int | None = None,
    kib: float | None = None,
    us: float | None = None,
    seed: int = 0,
    episodes: int = 100,
    out: str | os.PathLike[str] | None = None,
    shield: bool | Sequence[Mapping[str, Any]] = True,
    environment: Environment | None = None,
    settings: DistilSettings | None = None,
    progress: Progress | None = None,
) -> Run:
    """Distil a policy into the best student that fits a budget, and write it as a run.

    What each of the students there could be takes is known from the cost model before any is trained. Of those that fit, at most
    ``settings.students`` shapes are trained on-policy (``student.Student``), put into integers in every profile that fits, and evaluated behind
    the shield, from the same starts as the teacher. The one that surely keeps most of the teacher's return (``table.best``) is kept, the cheapest of
    equals; the number that is reported of it comes from other episodes.

    A student that is finished is kept in the run's folder at once. Whatever ends a distillation early, the same call goes on with those that
    are missing, to the same bits. Ctrl-C ends the distillation, not the call, once a student is finished: the best of those is written as
    a run with status "interrupted".

    Args:
        teacher: a policy, a run, or the path of either: a run's folder, or a ``policy.safetensors``.
        target: whose limits and predicted microseconds count.
        macs: multiply-accumulates of one run of the network, at most.
        kib: KiB of the policy image, at most: what ``export`` reports as ``image_bytes``.
        us: predicted microseconds of a tick on the target, at most: what ``export`` reports as ``cold_us``.
        seed: of everything that is random.
        episodes: of each evaluation.
        out: folder of the run; None means ``runs/<environment>-distil-<seed>``. A run that is there already is kept under the next free number.
        shield: True takes the environment's, False none, a specification that.
        environment: in place of the one that the teacher names.
        settings: None takes the defaults.
        progress: called as it goes on.

    Raises:
        InvalidInput: no such teacher, target or environment, no limit, or one that is not positive.
        DoesNotFit: no student fits; the message says what the one that comes nearest needs, and which limit that breaks.
        ReturnLost: no student that was trained goes into integers.
        Unsupported: the environment or the teacher's contract cannot be trained on.
        Diverged: numbers became NaN or infinite.
        WriteFailed: the folder cannot be written to.
        KeyboardInterrupt: Ctrl-C before the first student was finished.
        MissingExtra: torch is not installed.
    """
    limits = Budget(targets.load(target) if isinstance(target, str) else target, macs, kib, us)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0 or not 1 <= episodes <= MAX_EPISODES:
        raise InvalidInput(f"the seed is not negative and episodes lie in 1 … {MAX_EPISODES:,}, not {seed!r} and {episodes!r}")
    where, policy = _teacher(teacher)
    task = _task(policy, environment, where).under(policy.contract)
    folder = Path(out) if out is not None else Path("runs") / f"{task.name}-distil-{seed}".replace(":", "-")
    if (folder / POLICY).exists() and not is_run(folder):
        raise InvalidInput(f"{folder} holds a policy that no training here wrote: choose another --out")
    specification = (task.shield if shield else ()) if isinstance(shield, bool) else shield
    job = _Job(policy, task, Shield.build(policy.contract, specification), limits, settings or DistilSettings(), seed, episodes)
    fitting = job.candidates()
    try:
        from puffer_edge.train.distillation.student import Student
        from puffer_edge.train.loop import one_thread
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtra("train", "distilling") from None
    finished = Finished(folder, job.question())
    if is_run(folder) and not (len(finished) and Run.load(folder).result["status"] == "interrupted"):
        keep_earlier(folder)
    with one_thread():
        interrupted = job.train(fitting, Student, finished, progress or (lambda done, total, note: None))
    if not job.rows:
        raise KeyboardInterrupt
    run = _write(job, folder, where, interrupted)
    if not interrupted:
        finished.clear()
    return run


@dataclass(eq=False)
class _Job:
    """A distillation and what it has found so far.

    Attributes:
        rows: one for each student and profile.
        log: a row for each round of each student.
        steps: environment steps of all students.
        seconds: of all students.
        before: students that were finished before.
        missing: shapes that were to be trained, and are not.
    """

    teacher: Policy
    environment: Environment
    shield: Shield
    budget: Budget
    settings: DistilSettings
    seed: int
    episodes: int
    rows: list[Row] = field(default_factory=list)
    log: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    before: int = 0
    missing: list[Hidden] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.choosing, self.reporting = (int(s) for s in np.random.SeedSequence([self.seed, STREAM]).generate_state(2))
        self.seen, starts = self._calibration(self.teacher)
        self.program: Program | None = None
        self.why = ""
        try:
            self.program = quantize(self.teacher, self.seen, starts)
        except RangeError as error:
            self.why = str(error)
        self.played = self.play(InFloat(self.teacher), self.choosing)

    def candidates(self) -> list[Candidate]:
        """Those that fit."""
        most = float("inf") if self.program is None else self.program.macs
        return ladder.candidates(self.teacher, self.shield, self.budget, self.settings, self.seen, most)

    def question(self) -> str:
        """SHA-256 of all that a student's bits and rows depend on, but its shape: not on which others there are."""
        settings = {key: value for key, value in self.settings.to_dict().items() if key != "students"}
        task = [self.environment.name, self.environment.contract.digest.hex(), self.environment.imperfections.to_dict()]
        asked = [digest(self.teacher), task, [dict(stage) for stage in self.shield.specification], self.budget.summary(), settings]
        return hashlib.sha256(json.dumps([*asked, self.seed, self.episodes, __version__], sort_keys=True).encode()).hexdigest()

    def train(self, fitting: Sequence[Candidate], kind: type[Student], finished: Finished, progress: Progress) -> bool:
        """Train shapes of those that fit, evaluate each in every profile that fits, and keep it; whether Ctrl-C ended that."""
        shapes = ladder.spread(fitting, self.settings.students)
        chosen = {hidden: [one for one in fitting if one.hidden == hidden] for hidden in shapes}
        done, total = 0, sum(self.settings.rounds + len(those) for those in chosen.values())
        try:
            for number, (hidden, those) in enumerate(chosen.items()):
                found, count = finished.load(title(hidden)), done
                if found is not None:
                    self.before += 1
                else:
                    found = self._student(kind, hidden, those, lambda k, note, at=count: progress(at + k, total, note))  # type: ignore[misc]
                    finished.save(title(hidden), found)
                done += self.settings.rounds + len(those)
                progress(done, total, title(hidden))
                self.rows += found.rows
                self.log += [{**row, "steps": self.steps + row["steps"], "student": number} for row in found.log]
                self.steps += found.steps
                self.seconds += found.seconds
        except KeyboardInterrupt:
            self.missing = [hidden for hidden in shapes if finished.load(title(hidden)) is None]
            return True
        return False

    def _student(self, kind: type[Student], hidden: Hidden, those: Sequence[Candidate], progress: Callable[[int, str], None]) -> Done:
        """Train a shape, and evaluate it in profiles."""
        began, log, rows = time.perf_counter(), [], []
        student = kind(self.teacher, hidden, self.environment, self.shield, self.settings, self.seed)
        try:
            for k in range(self.settings.rounds):
                progress(k, f"{title(hidden)}: round {student.round + 1} of {self.settings.rounds}")
                found = student.advance()
                log.append({"steps": student.steps, "student": 0, "round": student.round, **found})
            policy = student.policy()
        finally:
            student.close()
        observations, starts = self._calibration(policy)
        returned = float(self.play(InFloat(policy), self.choosing).returns.mean())
        for k, one in enumerate(those):
            progress(self.settings.rounds + k, f"{one.name}: {self.episodes} episodes")
            rows.append(self._row(one, policy, observations, starts, returned))
        return Done(rows, log, student.steps, time.perf_counter() - began)

    def _row(self, one: Candidate, policy: Policy, observations: Floats, starts: Bools, returned_float: float) -> Row:
        """A student in a profile, its image built from its own weights."""
        try:
            program = quantize(policy, observations, starts, one.profile)
        except RangeError as error:
            return table.refused(one.hidden, one.profile, policy, one.need, returned_float, str(error))
        need, found = self.budget.need(ladder.image_of(program, self.shield, observations)), self.play(program, self.choosing)
        apart, aim = closed_loop.difference(self.played, found), float(self.played.returns.mean())
        shares = kept(aim, aim + apart["mean"]), kept(aim, aim + apart["low"])
        return Row(one.hidden, one.profile, policy, need, float(found.returns.mean()), found.interval, returned_float, *shares)

    def integers(self, policy: Policy, profile: str) -> Program:
        """A student as ``export`` will make it."""
        return quantize(policy, *self._calibration(policy), profile)

    def play(self, proposer: Proposer, seed: int) -> Episodes:
        """Episodes behind the shield."""
        return closed_loop.play(self.environment, proposer, self.shield, self.episodes, seed)

    def report(self, proposer: Proposer, shield: Shield | None = None) -> dict[str, Any]:
        """A summary of the episodes that no choice is made by, behind a shield."""
        guard = shield or self.shield
        found = closed_loop.play(self.environment, proposer, guard, self.episodes, self.reporting).summary(guard.stages)
        return {"episodes": self.episodes, "seed": self.reporting, **found}

    def _calibration(self, policy: Policy) -> tuple[Floats, Bools]:
        return closed_loop.calibration(self.environment, policy, self.shield)


def _teacher(teacher: Policy | Run | str | os.PathLike[str]) -> tuple[str, Policy]:
    """Where it is from, empty for a policy in memory, and the policy."""
    if isinstance(teacher, Policy):
        return "", teacher
    if isinstance(teacher, Run):
        return os.fspath(teacher.path), teacher.policy
    path = Path(teacher)
    return os.fspath(path), Policy.load(path / POLICY if path.is_dir() else path)


def _task(policy: Policy, environment: Environment | None, where: str) -> Environment:
    name = policy.origin.get("environment")
    if environment is None and not isinstance(name, str):
        raise InvalidInput(f"{where or policy.name} does not say which environment it belongs to, and a student learns by acting: import with --env")
    return environment or imperfect(envs.load(str(name)), Imperfections.from_dict(policy.origin.get("plant", {})))


def _write(job: _Job, folder: Path, where: str, interrupted: bool) -> Run:
    """The run of the best row."""
    rows = job.rows
    if all(row.refused for row in rows):
        raise ReturnLost(f"no student goes into integers: {'; '.join(row.refused for row in rows[:3])}")
    taken, first = table.best(rows), table.front(rows)
    about = {"sha256": digest(job.teacher), "algorithm": job.teacher.origin.get("algorithm"), "seed": job.teacher.origin.get("seed")}
    policy = replace(taken.policy, origin=taken.policy.origin | {"profile": taken.profile, "teacher": about})
    report = {
        "teacher": {"path": where, **about, **_of_teacher(job)},
        "budget": job.budget.summary(),
        "episodes": job.episodes,
        "seed": job.choosing,
        "students": {"finished_before": job.before, "missing": [list(hidden) for hidden in job.missing]},
        "table": [row.summary() | {"front": row in first, "taken": row is taken} for row in rows],
        "taken": {"hidden": list(taken.hidden), "profile": taken.profile, **taken.need.summary(), **_reported(job, policy, taken.profile)},
    }
    result: dict[str, Any] = {"status": "interrupted" if interrupted else "complete", "steps": job.steps}
    result |= {"seconds": job.seconds, "kept_step": policy.origin["steps"]}
    result |= {"engine": "torch", "engine_note": "", "evaluation": job.report(InFloat(policy))}
    result |= {"evaluation_unshielded": job.report(InFloat(policy), Shield.none(policy.contract)), "distillation": report}
    settings: dict[str, Any] = {"format": FORMAT, "environment": job.environment.name, "algorithm": "distil", "seed": job.seed}
    settings |= {"versions": policy.origin["versions"], "shield": [dict(stage) for stage in job.shield.specification]}
    settings["plant"] = job.environment.imperfections.to_dict()
    try:
        policy.save(folder / POLICY)
        write_atomic(folder / METRICS, "".join(json.dumps(row) + "\n" for row in job.log))
        write_atomic(folder / RESULT, json.dumps(result, indent=2) + "\n")
        write_atomic(folder / PICTURE, picture.draw(report, f"{job.environment.name}: students of a teacher"))
        write_atomic(folder / SETTINGS, format_settings(settings, "distil", job.settings.to_dict()))  # last: what has no settings is no run yet
    except OSError as error:
        raise WriteFailed(f"the student could not be written to {folder}: {error.strerror or error}; give another folder with --out") from error
    return Run.load(folder)


def _of_teacher(job: _Job) -> dict[str, Any]:
    """Its returns on the choosing episodes, and what its integers take."""
    found: dict[str, Any] = {"return_float": float(job.played.returns.mean()), "interval_float": list(job.played.interval)}
    if job.program is None:
        return found | {"return": None, "interval": None, "return_kept": None, "profile": None, "refused": job.why}
    played, need = job.play(job.program, job.choosing), job.budget.need(ladder.image_of(job.program, job.shield, job.seen))
    returned = float(played.returns.mean())
    found |= {"return": returned, "interval": list(played.interval), "return_kept": kept(found["return_float"], returned)}
    return found | {"profile": "int8", **need.summary(), "refused": None}


def _reported(job: _Job, policy: Policy, profile: str) -> dict[str, Any]:
    """What is said of the student taken: teacher and student in float and integers, on episodes that no choice was made by."""
    proposers: dict[str, Proposer] = {"teacher_float": InFloat(job.teacher), "float": InFloat(policy), "integer": job.integers(policy, profile)}
    found = {name: job.report(proposer) for name, proposer in proposers.items()}
    return {"return_kept": kept(found["teacher_float"]["return"], found["integer"]["return"]), **found}


def digest(policy: Policy) -> str:
    """SHA-256 of what a policy computes: contract, normaliser, layers and head."""
    described = [describe(layer) for layer in policy.layers]
    words = [policy.contract.digest.hex(), repr(policy.normalizer.clip), policy.head.kind, *(repr(sorted(about.items())) for about, _ in described)]
    arrays = [policy.normalizer.mean, policy.normalizer.std, policy.head.scale, policy.head.offset]
    arrays += [array for _, tensors in described for _, array in sorted(tensors.items())]
    found = hashlib.sha256("\n".join(words).encode())
    for array in arrays:
        found.update(np.ascontiguousarray(array, "<f8").tobytes())
    return found.hexdigest()
