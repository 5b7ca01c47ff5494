"""Writes a run's folder while its learner learns, so that whatever way it ends, the folder can be read and gone on from."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from puffer_edge.envs import closed_loop
from puffer_edge.envs.environment import Environment
from puffer_edge.errors import BundleError, InvalidInput, PufferEdgeError, WriteFailed
from puffer_edge.files import write_atomic
from puffer_edge.intake.observations import write_observations
from puffer_edge.integer.reference import Proposer
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import Policy
from puffer_edge.train import checkpoint, curve, learner_state, lock
from puffer_edge.train.loop import Learner
from puffer_edge.train.progress import Callback, Progress
from puffer_edge.train.run import (
    CHECKPOINTS,
    CURVE,
    FORMAT,
    METRICS,
    POLICY,
    RESULT,
    SETTINGS,
    Run,
    checkpoint_step,
    checkpoints_in,
    is_run,
    keep_earlier,
)
from puffer_edge.train.sampled import Sampled
from puffer_edge.train.settings_file import format_settings
from puffer_edge.train.verdict import rank, verdict
from puffer_edge.train.writer import Writer

FINAL_EPISODES = 100
RESERVED = ("steps", "seconds", "eval_", "time_")
"""Names, and beginnings of names, under which a callback may log nothing: a row that has them says something else."""


class Recorder:
    """A training and its folder; made by ``begin`` or ``go_on``, used once, by ``run``.

    Args:
        folder: of the run.
        learner: between two updates.
        writers: told of every row that ``metrics.jsonl`` gets.

    Attributes:
        best: the policy that did best in the evaluations so far; None before the first.
        chosen: what the evaluation said by which it was kept: "steps", "return", "cost", and under a limit on costs "sampled", a summary of
            the same policy, sampled from.
        resumed: one mapping for each time this run was gone on with: ``steps`` it started from, whether the bits are those of a run that
            never stopped (``exact``), and ``because``, the reasons why they may not be.
    """

    def __init__(self, folder: Path, learner: Learner, writers: Sequence[Writer] = ()) -> None:
        self.folder, self.learner, self.writers = folder, learner, writers
        self.best: Policy | None = None
        self.chosen: dict[str, Any] = {}
        self.selection_seed, self.final_seed = (int(s) for s in np.random.SeedSequence([learner.seed, 1]).generate_state(2))
        self.resumed: list[dict[str, Any]] = []
        self.seconds_before = 0.0
        self._steps_seen = learner.steps
        self._checkpoint_at = learner.steps
        self._stopped = False
        self._began = time.perf_counter()

    @staticmethod
    def begin(folder: Path, learner: Learner, writers: Sequence[Writer] = ()) -> Recorder:
        """Start a run: from here on the folder can be read. One that is there already is kept as ``FOLDER.1``, ``FOLDER.2`` …

        Raises:
            InvalidInput: another training is writing to it.
            WriteFailed: disk full, no permission.
        """
        recorder = Recorder(folder, learner, writers)
        keep_earlier(folder)
        with recorder._writing("the start of a run"):
            folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
            recorder._open_log(0)
            try:
                recorder._checkpoint()
                recorder._write_settings()  # last: what has no settings is no run yet
            except BaseException:
                recorder._log_file.close()
                raise
        return recorder

    @staticmethod
    def go_on(
        run: Run, kind: type[Learner], steps: int | None = None, environment: Environment | None = None, writers: Sequence[Writer] = ()
    ) -> Recorder:
        """Go on from a run's latest checkpoint.

        Args:
            run: not one that is being written to.
            kind: class of its learner.
            steps: total to go on to, in place of the settings' own.
            environment: in place of the one of that name.
            writers: as in ``Recorder``.

        Raises:
            InvalidInput: there is nothing left to do.
            BundleError: no checkpoint, one that is damaged or another's, or a log shorter than the checkpoint says.
        """
        found = checkpoints_in(run.path)
        if not found:
            raise BundleError(f"{run.path} has no checkpoint to go on from")
        manifest, arrays = checkpoint.read(found[-1])
        learner = checkpoint.restore(kind, found[-1], manifest, arrays, environment)
        planned = learner.settings.steps
        if (steps or planned) <= learner.steps and (steps is not None or run.result["status"] == "complete"):
            raise InvalidInput(f"{run.path} has done {learner.steps:,} steps of {steps or planned:,}: to go on give more steps than that")
        learner.settings = replace(learner.settings, steps=steps or planned)
        recorder = Recorder(run.path, learner, writers)
        recorder._restore(manifest, arrays, planned, found[-1])
        return recorder

    def run(self, callbacks: Sequence[Callback] = ()) -> Run:
        """Train to the end, and save whatever way it ends.

        Raises:
            Diverged: numbers became NaN or infinite.
            WriteFailed: the disk is full, or may not be written to.
        """
        self._began = time.perf_counter()
        written: dict[str, Any] | None = None
        try:
            status = self._learn(callbacks)
            self._conclude("running" if status == "complete" else status)  # complete is what has its evaluation too
            result = self._result(status)
            kept = self.best or self.learner.last_good
            about = kept, FINAL_EPISODES, self.final_seed
            kinds = dict(zip(("evaluation", "evaluation_unshielded"), self._evaluate(*about)))
            kinds |= {"evaluation_masked": self._masked(*about)} if self._masks else {}
            for name, found in kinds.items():
                result[name] = {"episodes": FINAL_EPISODES, "seed": self.final_seed, **found}
            result |= self._verdict(result["evaluation"])
            with self._writing("the result"):
                self._write_result(result)
                run = Run.load(self.folder)
                write_atomic(self.folder / CURVE, curve.picture([run.metrics()], f"{run.settings['environment']}, seed {self.learner.seed}"))
            written = result
        finally:
            with contextlib.ExitStack() as closing:  # every one is closed, whatever another one raises
                closing.callback(self._log_file.close)
                closing.callback(self.learner.close)
                for writer in self.writers:
                    closing.callback(writer.close, written)
        return run

    def _learn(self, callbacks: Sequence[Callback]) -> str:
        """Train; how it ended."""
        try:
            for writer in self.writers:
                writer.begin(self.folder, self._about(), self.learner.steps)
            self.learner.learn(callback=lambda p: self._update(p, callbacks))
        except KeyboardInterrupt:
            return "interrupted"
        except BaseException:
            with contextlib.suppress(WriteFailed):  # the first error says more
                self._conclude("failed")
            raise
        return "stopped" if self._stopped and self.learner.steps < self.learner.settings.steps else "complete"

    def _update(self, p: Progress, callbacks: Sequence[Callback]) -> bool:
        """After each update of the learner: log it, ask the callbacks, evaluate and write a checkpoint where they are due."""
        phases = self.learner.phases
        with phases("callbacks"):
            self._ask(p, callbacks)
        count, every = self.learner.settings.evaluations, self.learner.settings.checkpoint_every
        evaluate = p.steps >= p.total or p.steps * count // p.total > self._steps_seen * count // p.total
        self._steps_seen = p.steps
        if evaluate:
            with phases("evaluate"):
                self._select(p.steps)
        if evaluate or self._stopped or (every is not None and p.steps - self._checkpoint_at >= every):
            with phases("checkpoint"), self._writing("a checkpoint"):
                self._checkpoint()
                self._write_result(self._result("running"))
        return not self._stopped

    def _ask(self, p: Progress, callbacks: Sequence[Callback]) -> None:
        """Tell the callbacks in turn, and log the row with what they add to it, also where one of them raises."""
        self._stopped = False
        try:
            for callback in callbacks:
                answer = callback(p)
                if isinstance(answer, Mapping):
                    p = replace(p, metrics={**p.metrics, **_numbers(answer, p.metrics)})
                elif isinstance(answer, (bool, np.bool_)):
                    self._stopped |= not answer
                elif answer is not None:
                    raise InvalidInput(f"a callback returns None, False to end the training, or numbers by name, not {answer!r}")
        finally:
            self._log(p.metrics)

    def _select(self, steps: int) -> None:
        """Keep the policy if it does at least as well as the best one did, on the same episodes: first comes acting in the integers that it is
        trained for, then a limit on costs."""
        learner, policy = self.learner, self.learner.last_good
        episodes, seed = learner.settings.evaluation_episodes, self.selection_seed
        found, alone = self._evaluate(policy, episodes, seed)
        low, high = found["interval"]
        scores = {"eval_rew_mean": found["return"], "eval_rew_low": low, "eval_rew_high": high, "eval_cost_mean": found["cost"]}
        scores |= {"eval_intervention_rate": found["intervention_rate"]}
        scores |= {"eval_unshielded_rew_mean": alone["return"], "eval_unshielded_cost_mean": alone["cost"]}
        chosen = {"steps": steps, "return": found["return"], "cost": found["cost"]}
        chosen |= {"integers": True} if "integers" in policy.origin else {}
        if learner.cost_limit is not None:
            sampled = self._episodes(Sampled(learner, (seed, steps)), learner.shield, episodes, seed).summary(learner.shield.stages)
            scores |= {"eval_sampled_rew_mean": sampled["return"], "eval_sampled_cost_mean": sampled["cost"]}
            chosen["sampled"] = {"episodes": episodes, "seed": seed, **sampled}
        if self._masks:
            scores["eval_masked_rew_mean"] = self._masked(policy, episodes, seed)["return"]
        self._log({"steps": steps, **scores})
        if not self.chosen or self._rank(chosen) >= self._rank(self.chosen):
            self.best, self.chosen = policy, chosen

    def _rank(self, chosen: Mapping[str, Any]) -> tuple[bool, bool, float]:
        return (chosen.get("integers", False), *rank(chosen["return"], chosen["cost"], self.learner.cost_limit))

    def _checkpoint(self) -> None:
        """Write the policy kept, then a checkpoint from which this training can be gone on with, and remove those that are no longer kept."""
        learner = self.learner
        self._save_policy()
        os.fsync(self._log_file.fileno())  # the checkpoint says how long the log is
        beside = {
            "chosen": self.chosen,
            "log_bytes": os.fstat(self._log_file.fileno()).st_size,
            "seconds": self._seconds(),
            "resumed": self.resumed,
        }
        kept = np.frombuffer((self.folder / POLICY).read_bytes(), np.uint8)
        checkpoint.save(learner, self.folder / CHECKPOINTS / f"step-{learner.steps:012}.safetensors", beside, {"policy": kept})
        self._checkpoint_at = learner.steps
        files = checkpoints_in(self.folder)
        for file in files[: -learner.settings.checkpoints]:
            if self.best is None or checkpoint_step(file) != self.best.origin["steps"]:
                file.unlink()

    def _restore(self, manifest: Mapping[str, Any], arrays: Mapping[str, Any], planned: int, file: Path) -> None:
        """Put this recorder, the log and the policy kept back to where a checkpoint was written."""
        try:
            beside, policy = manifest["beside"], bytes(arrays["beside.policy"])
            chosen, log_bytes, seconds, resumed = (beside[key] for key in ("chosen", "log_bytes", "seconds", "resumed"))
        except (KeyError, TypeError) as error:
            raise BundleError(f"{file} belongs to no run: it lacks {error}") from None
        reasons = [
            f"{key} was {was} and is {now}"
            for key, now in learner_state.bits_depend_on(self.learner).items()
            if (was := manifest["bits_depend_on"].get(key)) != now
        ]
        if self.learner.settings.steps != planned:
            reasons.append(f"steps were {planned} and are {self.learner.settings.steps}: schedules and evaluations follow the new number")
        if not manifest["exact"]:
            reasons.append(manifest.get("because", "the environment keeps state that no checkpoint holds"))
        elif self.learner.plant is not None and self.learner.plant.forgets:
            reasons.append(self.learner.plant.forgets)
        self.resumed = [*resumed, {"steps": self.learner.steps, "exact": not reasons, "because": reasons}]
        self.seconds_before = seconds
        self._open_log(log_bytes)
        with self._writing("the policy kept"):
            for name in (POLICY, RESULT, SETTINGS, CURVE, f"{CHECKPOINTS}/step-"):
                for stray in (self.folder / name).parent.glob(f".{Path(name).name}*"):
                    stray.unlink()  # what a killed process was writing
            write_atomic(self.folder / POLICY, policy)
            if self.learner.settings.steps != planned:
                self._write_settings()
        if chosen:
            self.best, self.chosen = Policy.load(self.folder / POLICY), chosen

    def _conclude(self, status: str) -> None:
        """Save the policy kept, and how the training ended."""
        with self._writing("the result"):
            self._save_policy()
            self._write_result(self._result(status))

    def _save_policy(self) -> None:
        """Write the policy kept, and what it must be put into integers with."""
        (self.best or self.learner.last_good).save(self.folder / POLICY)
        if self.learner.calibration is not None:
            write_observations(self.folder, *self.learner.calibration)

    def _result(self, status: str) -> dict[str, Any]:
        kept = self.best or self.learner.last_good
        result: dict[str, Any] = {"status": status, "steps": self.learner.steps, "seconds": self._seconds(), "kept_step": kept.origin["steps"]}
        result |= {"engine": self.learner.engine, "engine_note": self.learner.engine_note}
        result |= {"integers": kept.origin["integers"]["profile"]} if "integers" in kept.origin else {}
        return result | ({"resumed": self.resumed} if self.resumed else {})

    def _verdict(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """What is to be said of the limit on costs, if there is one and a policy was chosen by it."""
        learner = self.learner
        if learner.cost_limit is None or not self.chosen:
            return {}
        return {"constraint": verdict(learner.cost_limit, learner.environment.name, found, self.chosen, learner.cost_seen)}

    def _seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self._began

    def _episodes(self, proposer: Proposer, shield: Shield, episodes: int, seed: int) -> closed_loop.Episodes:
        return closed_loop.play(self.learner.environment, proposer, shield, episodes, seed)

    def _evaluate(self, policy: Policy, episodes: int, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Episodes behind the training's shield and, the same, behind none: what is the shield's merit is not the policy's."""
        shield = self.learner.shield
        found = self._episodes(self.learner.proposer(policy), shield, episodes, seed)
        alone = found
        if found.intervention_rate > 0.0:  # else they are the same
            alone = self._episodes(self.learner.proposer(policy), Shield.none(policy.contract), episodes, seed)
        return found.summary(shield.stages), alone.summary(())

    @property
    def _masks(self) -> bool:
        """Whether the environment says what may be chosen: what ships does without, which is shown beside what it does with it in float."""
        return self.learner.environment.allowed is not None and self.learner.calibration is None

    def _masked(self, policy: Policy, episodes: int, seed: int) -> dict[str, Any]:
        shield = self.learner.shield
        return closed_loop.play(self.learner.environment, self.learner.proposer(policy), shield, episodes, seed, masked=True).summary(shield.stages)

    def _open_log(self, length: int) -> None:
        """Open the log, lock it, and cut off what came after its first ``length`` bytes."""
        path = self.folder / METRICS
        file = open(path, "ab", buffering=0)  # noqa: SIM115  held for the whole training; unbuffered, so that a full disk is met at once
        try:
            lock.hold(file, os.fspath(self.folder))
            size = os.fstat(file.fileno()).st_size
            if size < length:
                raise BundleError(f"{path} has {size:,} bytes, the checkpoint was written when it had {length:,}: lines are lost")
            file.truncate(length)
        except BaseException:
            file.close()
            raise
        self._log_file = file

    def _log(self, row: Mapping[str, float]) -> None:
        with self.learner.phases("log"):
            finite = {k: v if math.isfinite(v) else None for k, v in {**row, "seconds": round(self._seconds(), 3)}.items()}
            line = (json.dumps(finite, allow_nan=False) + "\n").encode()
            with self._writing("the log"):
                if self._log_file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(self.folder / METRICS))
            for writer in self.writers:
                writer.write(finite)

    def _about(self) -> dict[str, Any]:
        """What ``Run.settings`` will have."""
        learner = self.learner
        return {
            "format": FORMAT,
            "environment": learner.environment.name,
            "algorithm": learner.name,
            "seed": learner.seed,
            "versions": learner.last_good.origin["versions"],
            "shield": [dict(stage) for stage in learner.shield.specification],
            "plant": learner.environment.imperfections.to_dict(),
            "settings": learner.settings.to_dict(),
        }

    def _write_settings(self) -> None:
        about = self._about()
        settings = about.pop("settings")
        self._write_result(self._result("running"))
        write_atomic(self.folder / SETTINGS, format_settings(about, about["algorithm"], settings))

    def _write_result(self, result: Mapping[str, Any]) -> None:
        write_atomic(self.folder / RESULT, json.dumps(result, indent=2) + "\n")

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Say of a failed write what it was, how much room there is, and how to go on."""
        try:
            yield
        except PufferEdgeError:
            raise
        except OSError as error:
            free = f"{shutil.disk_usage(self.folder).free / 1024:,.0f} KiB are free there" if self.folder.is_dir() else "there is no such folder"
            if is_run(self.folder):
                stands = f"The run up to step {self._checkpoint_at} is whole: make room, then go on with 'puffer-edge train --resume {self.folder}'"
            else:
                stands = "Nothing of the run is there yet: make room, or give another folder with --out, and train again"
            raise WriteFailed(f"{what} could not be written to {self.folder}: {error.strerror or error}; {free}. {stands}") from error


def _numbers(answer: Mapping[str, float], taken: Mapping[str, float]) -> dict[str, float]:
    """What a callback wants logged, as floats.

    Raises:
        InvalidInput: a name that means something else, or a value that is no number.
    """
    for name, value in answer.items():
        if not isinstance(name, str) or name in taken or name.startswith(RESERVED):
            raise InvalidInput(f"a callback may not log {name!r}: the name has a meaning already; choose another, such as 'my_{name}'")
        if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise InvalidInput(f"a callback logged {value!r} as {name!r}: only numbers are logged")
    return {name: float(value) for name, value in answer.items()}
