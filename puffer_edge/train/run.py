"""A run: the folder that a training writes, and the verb that writes it."""

from __future__ import annotations

import importlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from puffer_edge import envs
from puffer_edge.envs import closed_loop
from puffer_edge.envs.environment import Environment
from puffer_edge.errors import BundleError, InvalidInput, MissingExtra
from puffer_edge.files import write_atomic
from puffer_edge.find import choose, names
from puffer_edge.integer.reference import InFloat, Runner
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import Policy
from puffer_edge.train import algorithms
from puffer_edge.train.settings import PPOSettings, preset

if TYPE_CHECKING:
    from puffer_edge.train.loop import Callback, Learner, Progress

FORMAT = 1
FINAL_EPISODES = 100


@dataclass(frozen=True, eq=False)
class Run:
    """What a training left behind.

    The folder holds ``policy.safetensors`` (the policy kept), ``settings.json`` (what was asked for), ``metrics.jsonl`` (one line
    an update, one an evaluation), ``result.json`` (how it ended) and ``checkpoint.safetensors`` (to go on from).

    Attributes:
        path: the folder.
        policy: the policy kept.
        settings: environment, algorithm, seed, shield and the algorithm's settings.
        result: ``status`` ("complete", "stopped", "interrupted" or "failed"), ``steps``, ``seconds`` (evaluations in between
            included), ``kept_step``; unless it failed, also ``evaluation`` and ``evaluation_unshielded``: how the policy kept does behind
            the training's shield and behind none, on episodes that no choice was made by.
    """

    path: Path
    policy: Policy
    settings: dict[str, Any]
    result: dict[str, Any]

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Run:
        """Read a run's folder.

        Raises:
            InvalidInput: there is no run.
            BundleError: a file of it is damaged or from a newer version.
        """
        folder = Path(path)
        if not (folder / "settings.json").is_file():
            raise InvalidInput(f"there is no run in {os.fspath(path)}: train one with 'puffer-edge train'")
        settings, result = _read(folder / "settings.json"), _read(folder / "result.json")
        if settings.get("format", 0) > FORMAT:
            raise BundleError(f"{os.fspath(path)} has format {settings['format']}, this version reads up to {FORMAT}: upgrade puffer-edge")
        return Run(folder, Policy.load(folder / "policy.safetensors"), settings, result)

    def summary(self) -> dict[str, Any]:
        """Plain JSON values: what was trained, how it ended, and the evaluation behind the shield, where there is one."""
        about = {key: self.settings[key] for key in ("environment", "algorithm", "seed")}
        ended = {key: self.result[key] for key in ("status", "steps", "seconds", "kept_step")}
        found = self.result.get("evaluation", {}) | {"seed": self.settings["seed"]}
        return {**found, **about, **ended, "interrupted": ended["status"] in ("stopped", "interrupted")}

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; a last line that was cut off is left out."""
        rows = []
        for line in (self.path / "metrics.jsonl").read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
        return rows


def train(
    environment: str | Environment,
    algorithm: str = "ppo",
    steps: int | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    shield: bool | Sequence[Mapping[str, Any]] = True,
    progress: Callback | None = None,
    settings: PPOSettings | None = None,
) -> Run:
    """Train a policy and write a run.

    The deterministic policy is evaluated ``settings.evaluations`` times on one set of episodes, and the best is kept, the later one on
    ties. The number reported comes from other episodes. A run that is in the folder already is kept beside it, under the next free number.

    Args:
        environment: name, or the environment itself.
        algorithm: a file of ``puffer_edge/train/algorithms``.
        steps: environment steps in place of the settings' own.
        seed: of everything that is random.
        out: the folder; None means ``runs/<environment>-<algorithm>-<seed>``.
        shield: True trains behind the environment's shield, False behind none, a specification behind that.
        progress: called after each update; False ends the training in peace.
        settings: None takes the environment's preset.

    Returns:
        The run. Ctrl-C ends the training, not the call: the policy kept is saved and evaluated, with status "interrupted".

    Raises:
        InvalidInput: an unknown name or a wrong setting.
        Diverged: the numbers became NaN or infinite; the last good policy is saved then too.
        MissingExtra: torch is not installed.
    """
    task = envs.load(environment) if isinstance(environment, str) else environment
    chosen = settings or preset(task.name)
    chosen = chosen if steps is None else replace(chosen, steps=steps)
    learner = _algorithm(algorithm)(task, chosen, seed=seed, shield=shield)
    folder = Path(out) if out is not None else Path("runs") / f"{task.name}-{algorithm}-{seed}"
    return _Writer(folder, learner).run(progress)


class _Writer:
    """Writes a run's folder while its learner learns."""

    def __init__(self, folder: Path, learner: Learner) -> None:
        self.folder, self.learner = folder, learner
        self.best, self.best_return = learner.last_good, -math.inf
        self.selection_seed, self.final_seed = (int(s) for s in np.random.SeedSequence([learner.seed, 1]).generate_state(2))
        self.every = learner.settings.steps / learner.settings.evaluations
        self.evaluations = 0
        self.stopped = False
        self.settings = {
            "format": FORMAT,
            "environment": learner.environment.name,
            "algorithm": learner.name,
            "seed": learner.seed,
            "shield": [dict(stage) for stage in learner.shield.specification],
            "settings": learner.settings.to_dict(),
            "versions": learner.last_good.origin["versions"],
        }

    def run(self, progress: Callback | None) -> Run:
        """Train, and save whatever way it ends."""
        learner, began, status = self.learner, time.perf_counter(), "failed"
        _keep_earlier(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / "settings.json", json.dumps(self.settings, indent=2) + "\n")
        try:
            with open(self.folder / "metrics.jsonl", "w", encoding="utf-8") as self.log:
                learner.learn(callback=lambda p: self._update(p, progress))
            status = "stopped" if self.stopped else "complete"
        except KeyboardInterrupt:
            status = "interrupted"
        finally:
            kept = self.best if self.evaluations else learner.last_good
            kept.save(self.folder / "policy.safetensors")
            result = {"status": status, "steps": learner.steps, "seconds": time.perf_counter() - began, "kept_step": kept.origin["steps"]}
            self._write(result)
        for name, shield in (("evaluation", learner.shield), ("evaluation_unshielded", Shield.none(kept.contract))):
            result[name] = {"episodes": FINAL_EPISODES, "seed": self.final_seed, **self._episodes(kept, shield, FINAL_EPISODES, self.final_seed)}
        self._write(result)
        return Run.load(self.folder)

    def _update(self, p: Progress, progress: Callback | None) -> bool:
        self._log(p.metrics)
        self.stopped = progress is not None and progress(p) is False
        if not self.stopped and (p.steps >= p.total or p.steps >= self.every * (self.evaluations + 1)):
            self._select(p.steps)
        return not self.stopped

    def _select(self, steps: int) -> None:
        """Keep the policy if it does at least as well as the best one did, on the same episodes."""
        learner, policy = self.learner, self.learner.last_good
        found = self._episodes(policy, learner.shield, learner.settings.evaluation_episodes, self.selection_seed)
        self._log({"steps": steps, "eval_rew_mean": found["return"], "eval_cost_mean": found["cost"]})
        self.evaluations += 1
        if found["return"] >= self.best_return:
            self.best, self.best_return = policy, found["return"]
            policy.save(self.folder / "policy.safetensors")
        learner.save(self.folder / "checkpoint.safetensors")

    def _episodes(self, policy: Policy, shield: Shield, episodes: int, seed: int) -> dict[str, Any]:
        return closed_loop.run(self.learner.environment, Runner(InFloat(policy), shield, episodes), seed).summary(shield.stages)

    def _log(self, row: Mapping[str, float]) -> None:
        finite = {k: v if math.isfinite(v) else None for k, v in row.items()}
        self.log.write(json.dumps(finite, allow_nan=False) + "\n")
        self.log.flush()

    def _write(self, result: Mapping[str, Any]) -> None:
        write_atomic(self.folder / "result.json", json.dumps(result, indent=2) + "\n")


def _keep_earlier(folder: Path) -> None:
    """Move a run that is in the way to ``FOLDER.1``, ``FOLDER.2`` …: a short new training must not cost a long old one."""
    if not (folder / "settings.json").is_file():
        return
    number = 1
    while os.path.lexists(f"{folder}.{number}"):
        number += 1
    os.replace(folder, f"{folder}.{number}")


def algorithm_names() -> tuple[str, ...]:
    """The algorithms that exist: the files of ``puffer_edge/train/algorithms``."""
    return names(algorithms.__name__, ".py")


def _algorithm(name: str) -> type[Learner]:
    try:
        module = importlib.import_module(f"{algorithms.__name__}.{choose('algorithm', name, algorithm_names())}")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtra("train", "training") from None
    learner: type[Learner] = getattr(module, name.upper())
    return learner


def _read(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} is missing or damaged: {error}") from None
    return data
