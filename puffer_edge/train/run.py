"""A run: the folder that a training writes, and the verbs that write it."""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from puffer_edge import envs
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.imperfect import imperfect
from puffer_edge.envs.imperfections import Imperfections
from puffer_edge.errors import BundleError, InvalidInput, MissingExtra
from puffer_edge.find import choose, names
from puffer_edge.policy import Policy
from puffer_edge.train import algorithms, lock
from puffer_edge.train.log import Log
from puffer_edge.train.settings import Settings
from puffer_edge.train.settings_file import ALGORITHMS, preset, read_run

if TYPE_CHECKING:
    from puffer_edge.train.loop import Learner
    from puffer_edge.train.progress import Callback
    from puffer_edge.train.writer import Writer

FORMAT = 2
SETTINGS, OLD_SETTINGS = "settings.toml", "settings.json"
POLICY, METRICS, RESULT, CURVE, CHECKPOINTS = "policy.safetensors", "metrics.jsonl", "result.json", "curve.svg", "checkpoints"


@dataclass(frozen=True, eq=False)
class Run:
    """What a training left behind, or has written so far.

    The folder holds ``settings.toml`` (what was asked for), ``policy.safetensors`` (the policy kept), ``metrics.jsonl`` (one line an
    update, one an evaluation), ``result.json`` (how it stands or ended), ``checkpoints/`` (to go on from) and, at the end, ``curve.svg``.

    Attributes:
        path: the folder.
        policy: the policy kept.
        settings: environment, algorithm, seed, shield, plant and the algorithm's settings.
        result: ``status``, ``steps``, ``seconds`` (evaluations in between included), ``kept_step``. The status is "complete", "stopped" (by
            a callback), "interrupted" (Ctrl-C), "failed" (an error), "running" (now, by some process) or "killed" (none wrote how it
            ended). The first three come with ``evaluation`` and ``evaluation_unshielded``: how the policy kept does behind the training's
            shield and behind none, on episodes that no choice was made by; where the environment masks choices with ``evaluation_masked`` too:
            how it does among what is allowed, which no device is told. ``resumed`` lists where the run was gone on with.
    """

    path: Path
    policy: Policy
    settings: dict[str, Any]
    result: dict[str, Any]

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Run:
        """Read a run's folder, also one that is being written to.

        Raises:
            InvalidInput: there is no run.
            BundleError: a file of it is damaged or from a newer version.
        """
        folder = Path(path)
        if not is_run(folder):
            raise InvalidInput(f"there is no run in {os.fspath(path)}: train one with 'puffer-edge train'")
        settings, result = _read_settings(folder), _read(folder / RESULT)
        if result.get("status") == "running" and not lock.is_held(folder / METRICS):
            result = _read(folder / RESULT)  # it may have ended between the two looks
            result |= {"status": "killed"} if result["status"] == "running" else {}
        return Run(folder, Policy.load(folder / POLICY), settings, result)

    def summary(self) -> dict[str, Any]:
        """Plain JSON values: what was trained, how it ended, and the evaluation behind the shield, where there is one."""
        about = {key: self.settings[key] for key in ("environment", "algorithm", "seed")}
        ended = {key: self.result[key] for key in ("status", "steps", "seconds", "kept_step")}
        found = self.result.get("evaluation", {}) | {"seed": self.settings["seed"]}
        return {**found, **about, **ended, "interrupted": ended["status"] in ("stopped", "interrupted")}

    @property
    def chosen(self) -> Settings:
        """The algorithm's settings."""
        return ALGORITHMS[self.settings["algorithm"]].from_dict(self.settings["settings"])

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of ``metrics.jsonl``; lines that are none are left out, and ``puffer_edge.train.log.Log`` says which they are."""
        return Log(self.path / METRICS).more() or []

    def checkpoints(self) -> tuple[Path, ...]:
        """The checkpoints kept, the latest last."""
        return checkpoints_in(self.path)


def train(
    environment: str | Environment,
    algorithm: str = "ppo",
    steps: int | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    shield: bool | Sequence[Mapping[str, Any]] = True,
    progress: Callback | Sequence[Callback] | None = None,
    settings: Settings | None = None,
    writers: Sequence[Writer] = (),
    fine_tune: str | os.PathLike[str] | None = None,
    plant: Imperfections | None = None,
) -> Run:
    """Train a policy and write a run.

    The deterministic policy is evaluated ``settings.evaluations`` times on one set of episodes, and the best is kept, the later one on
    ties. The number reported comes from other episodes. A run that is in the folder already is kept beside it, under the next free number.

    Args:
        environment: name, or the environment itself.
        algorithm: a file of ``puffer_edge/train/algorithms``.
        steps: environment steps in place of the settings' own.
        seed: of everything that is random.
        out: the folder; None means ``runs/<environment>-<algorithm>-<seed>``, or ``runs/<run>-fine-tuned``.
        shield: True trains behind the environment's shield, False behind none, a specification behind that.
        progress: one function or several, each called after each update; a False from any ends the training in peace, numbers by name are
            logged beside the others.
        settings: None takes the environment's preset, or those of the run that is fine-tuned.
        writers: each told of every row that is logged: ``TensorBoard()``, ``WandB()``, or one's own (``puffer_edge/train/writer.py``).
        fine_tune: a run whose policy kept is trained on: networks and normalisers are taken over, optimiser and steps begin anew.
        plant: what lies between the board and an ideal plant: delays, what sensors and actuators do, parameters that vary; None: nothing,
            or that of the run that is fine-tuned. Evaluations meet it too.

    Returns:
        The run. Ctrl-C ends the training, not the call: the policy kept is saved and evaluated, with status "interrupted".

    Raises:
        InvalidInput: an unknown name or a wrong setting, or a training is writing to that folder.
        Diverged: the numbers became NaN or infinite; the last good policy is saved then too.
        WriteFailed: the disk is full, or may not be written to.
        MissingExtra: torch is not installed.
        Unsupported: a plant around an environment that is not made of scalar functions.
    """
    task = envs.load(environment) if isinstance(environment, str) else environment
    source = None if fine_tune is None else Run.load(fine_tune)
    if source is not None and trained_by(source) != algorithm:
        from puffer_edge.train.checkpoint import of_another

        raise InvalidInput(of_another(os.fspath(source.path), trained_by(source), algorithm))
    if plant is None and source is not None and task.imperfections == Imperfections():
        plant = Imperfections.from_dict(source.settings["plant"])
    task = task if plant is None else imperfect(task, plant)
    theirs = preset(task.name, algorithm) if source is None else source.chosen
    chosen = settings or theirs
    chosen = chosen if steps is None else replace(chosen, steps=steps)
    learner = learner_of(algorithm)(task, chosen, seed=seed, shield=shield)
    if source is not None:
        _take_over(learner, source)
    name = f"{task.name}-{algorithm}-{seed}" if source is None else f"{source.path.resolve().name}-fine-tuned"
    folder = Path(out) if out is not None else Path("runs") / name
    from puffer_edge.train.recording import Recorder

    return Recorder.begin(folder, learner, writers).run(_callbacks(progress))


def resume(
    path: str | os.PathLike[str],
    steps: int | None = None,
    environment: Environment | None = None,
    progress: Callback | Sequence[Callback] | None = None,
    writers: Sequence[Writer] = (),
) -> Run:
    """Go on with a run that was stopped, interrupted or killed, from its latest checkpoint.

    With the same versions on the same kind of processor the bits are those of a run that never stopped; ``result["resumed"]`` says
    whether that holds, and if not, why. What was logged after the checkpoint is logged again.

    Args:
        path: the run's folder.
        steps: go on to that many steps in all, in place of the run's own number. Learning rate and evaluations follow the new number from
            here on, so the result is not that of a run which had it from the start.
        environment: in place of the one of that name.
        progress: as in ``train``.
        writers: as in ``train``.

    Raises:
        InvalidInput: there is no run, nothing is left to do, or a training is writing to it.
        BundleError: there is no checkpoint, it is damaged, or belongs to another environment or version.
        Diverged, WriteFailed, MissingExtra: as ``train``.
    """
    run = Run.load(path)
    kind = learner_of(trained_by(run))
    from puffer_edge.train.recording import Recorder

    return Recorder.go_on(run, kind, steps, environment, writers).run(_callbacks(progress))


def _take_over(learner: Learner, source: Run) -> None:
    """Begin with what the policy kept of another run was."""
    from puffer_edge.train import checkpoint

    step = source.result["kept_step"]
    file = source.path / CHECKPOINTS / f"step-{step:012}.safetensors"
    if not file.is_file():
        raise BundleError(f"{source.path} has no checkpoint of the policy kept, {file.name}: without its critic it cannot be trained on")
    learner.fine_tuned = {"run": source.path.name, "step": step}
    checkpoint.take_over(learner, file)


def is_run(folder: Path) -> bool:
    """Whether a training began in that folder."""
    return (folder / SETTINGS).is_file() or (folder / OLD_SETTINGS).is_file()


def trained_by(run: Run) -> str:
    """The algorithm that goes on with a run.

    Raises:
        InvalidInput: it was distilled, and has no checkpoint to go on from.
    """
    algorithm: str = run.settings["algorithm"]
    if algorithm == "distil":
        if run.result["status"] == "interrupted":
            raise InvalidInput(f"{run.path} was distilled until Ctrl-C: the same 'puffer-edge distil' command goes on with what is missing")
        raise InvalidInput(f"{run.path} was distilled in one go: to go further distil its teacher again, with more --rounds, into another --out")
    return algorithm


def keep_earlier(folder: Path) -> None:
    """Move a run that is in the way to ``FOLDER.1``, ``FOLDER.2`` …: a short new training must not cost a long old one.

    Raises:
        InvalidInput: a training is writing to it.
    """
    if not is_run(folder):
        return
    if lock.is_held(folder / METRICS):
        raise InvalidInput(f"a training is writing to {folder} right now: wait for it, stop it, or choose another folder")
    number = 1
    while os.path.lexists(f"{folder}.{number}"):
        number += 1
    os.replace(folder, f"{folder}.{number}")


def checkpoints_in(folder: Path) -> tuple[Path, ...]:
    """The checkpoints of a run's folder, by their steps."""
    files = (folder / CHECKPOINTS).glob("step-*.safetensors")
    return tuple(sorted((file for file in files if re.fullmatch(r"step-\d+", file.stem)), key=checkpoint_step))


def checkpoint_step(file: Path) -> int:
    """The step at which a checkpoint was written, from its name."""
    return int(file.stem.removeprefix("step-"))


def algorithm_names() -> tuple[str, ...]:
    """The algorithms that exist: the files of ``puffer_edge/train/algorithms``, a hyphen for each underscore."""
    return tuple(name.replace("_", "-") for name in names(algorithms.__name__, ".py"))


def learner_of(name: str) -> type[Learner]:
    """The class that learns by an algorithm.

    Raises:
        InvalidInput: there is no such algorithm.
        MissingExtra: torch is not installed.
    """
    try:
        file = choose("algorithm", name, algorithm_names()).replace("-", "_")
        module = importlib.import_module(f"{algorithms.__name__}.{file}")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtra("train", "training") from None
    learner: type[Learner] = next(kind for kind in vars(module).values() if getattr(kind, "name", None) == name)
    return learner


def _callbacks(progress: Callback | Sequence[Callback] | None) -> Sequence[Callback]:
    if progress is None:
        return ()
    return (progress,) if callable(progress) else tuple(progress)


def _read_settings(folder: Path) -> dict[str, Any]:
    """``settings.toml``, or the ``settings.json`` of earlier versions."""
    try:
        settings = read_run(folder / SETTINGS, FORMAT) if (folder / SETTINGS).is_file() else _read(folder / OLD_SETTINGS)
    except InvalidInput as error:
        raise BundleError(f"{folder} is damaged: {error}") from None
    if not isinstance(settings.get("format"), int) or settings["format"] > FORMAT:
        raise BundleError(f"{folder} has format {settings.get('format')}, this version reads up to {FORMAT}: upgrade puffer-edge")
    return settings


def _read(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} is missing or damaged: {error}") from None
    if not isinstance(data, dict):
        raise BundleError(f"{path} is damaged: it holds no table of values")
    return data
