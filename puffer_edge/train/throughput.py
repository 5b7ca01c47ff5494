"""Environment steps per second of whole trainings: our engines, and beside them in the same run what others do.

Whole means: environment, policy, advantages and update; no evaluation, no files. A number of another machine, written down once, is marked
``recorded``; only a ratio of two numbers of one run says something.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from puffer_edge import __version__, find
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.train.settings import PPOSettings, cores

PEERS = "puffer_edge.train.peers"
REPEATS = 3
SECONDS = 1.5
"""Of one repeat, at least; the median of the repeats counts."""
PEER_LIMIT_S = 600


@dataclass(frozen=True)
class Setting:
    """What is trained; both sides of a ratio get the same, where a row says no other.

    Attributes:
        env: our name of it.
        hidden: widths of the hidden layers of actor and critic.
        epochs: passes over a rollout.
        num_envs: environments stepped side by side.
        horizon: steps of each between two updates.
        minibatch: samples of a gradient step.
        threads: of a peer's arithmetic; our engines choose theirs.
    """

    env: str = "cartpole"
    hidden: tuple[int, ...] = (64, 64)
    epochs: int = 4
    num_envs: int = 8
    horizon: int = 128
    minibatch: int = 256
    threads: int = 1


@dataclass(frozen=True)
class Engine:
    """One of ours.

    Attributes:
        name: in the table.
        why_not: None, or why it cannot run here.
        settings: of ``PPOSettings``, that choose it.
    """

    name: str
    why_not: Callable[[], str | None]
    settings: Mapping[str, Any]


def _torch_is_missing() -> str | None:
    try:
        import torch  # noqa: F401
    except ImportError:
        return "torch is not installed: pip install 'puffer-edge[train]'"
    return None


def _native_is_missing() -> str | None:
    if missing := _torch_is_missing():
        return missing
    from puffer_edge.envs.native import available
    from puffer_edge.train.native import why_not

    return why_not() or (None if available() else "numba is not installed: pip install 'puffer-edge[train]'")


ENGINES = (
    Engine("native, one trunk", _native_is_missing, {"engine": "native", "threads": cores(), "shared": True}),
    Engine("native", _native_is_missing, {"engine": "native", "threads": cores()}),
    Engine("torch", _torch_is_missing, {"engine": "torch"}),
)
"""An engine more is a line more. They take all cores, which pays on a machine that does nothing else. "one trunk": the critic uses the actor's
hidden layers, as PufferLib's does; Stable-Baselines3's does not."""

SMALL = Setting()
WIDE = Setting(num_envs=1024, horizon=64, minibatch=1024 * 64 // 4)
OURS = ((SMALL, "sb3"), (WIDE, "sb3"), (replace(WIDE, epochs=1), "pufferlib"), (replace(WIDE, hidden=(256, 256)), "torch"))
"""What our engines are measured at, and whom the row's ratio is against."""

RECORDED = (
    ("sb3", "2.9.2", SMALL.__dict__, 12_200.0),
    ("sbx", "0.28", SMALL.__dict__, 10_300.0),
    ("cleanrl", "ppo.py", replace(SMALL, num_envs=4, minibatch=128).__dict__, 6_500.0),
    ("pufferlib", "3.0.0", {"env": "cartpole", "hidden": [64], "epochs": 1, "num_envs": 4096, "threads": 1}, 626_000.0),
    ("rltools", None, {"env": "pendulum", "hidden": [64, 64], "epochs": 2, "minibatch": 256, "threads": 1}, 53_000.0),
)
"""Measured once, on two cores with AVX-512 (2026-11-20): to compare orders of magnitude with peers that are not installed. What is left out of
a setting was not noted then."""


def measure(engine: Engine, setting: Setting, seconds: float = SECONDS) -> tuple[float, int]:
    """Steps per second of one of our engines, the median of three after a rollout to warm up, and the threads that it took for itself."""
    from puffer_edge.train.algorithms.ppo import PPO

    chosen = PPOSettings.from_dict(
        {
            "rows": setting.num_envs,
            "horizon": setting.horizon,
            "minibatch": setting.minibatch,
            "epochs": setting.epochs,
            "hidden": setting.hidden,
            "activation": "tanh",
            **engine.settings,
        }
    )
    learner = PPO(setting.env, chosen, shield=False)
    rollout = setting.num_envs * setting.horizon
    learner.learn(rollout)
    rates = []
    for _ in range(REPEATS):
        before, began = learner.steps, time.perf_counter()
        while learner.steps == before or time.perf_counter() - began < seconds:
            learner.learn(rollout)
        rates.append((learner.steps - before) / (time.perf_counter() - began))
    return median(rates), learner.native.threads if learner.native else 1


def rows(quick: bool = False, pythons: Mapping[str, str] | None = None, cleanrl: Path | None = None) -> Iterator[dict[str, Any]]:
    """Every row as it is measured; ratios need them all, ``with_ratios`` adds those.

    Args:
        quick: our engines alone.
        pythons: interpreters for peers ("sb3", "sbx", "cleanrl"); others run in this one.
        cleanrl: a checkout of CleanRL; without one its recorded figure is shown.

    Raises:
        InvalidInput: an unknown peer, or no CleanRL in that folder.
        Unsupported: none of our engines runs here, or a peer is installed but fails.
    """
    for name in pythons or {}:
        find.choose("peer", name, ("sb3", "sbx", "cleanrl"))
    able = [engine for engine in ENGINES if engine.why_not() is None]
    if not able:
        raise Unsupported("; ".join(f"{engine.name}: {engine.why_not()}" for engine in ENGINES))
    for setting, peer in OURS:
        for engine in able:
            rate, threads = measure(engine, setting)
            yield _row(engine.name, setting.__dict__ | {"threads": threads}, rate, __version__, peer)
    if not quick:
        yield from _peers(dict(pythons or {}), cleanrl)


def with_ratios(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, and those recorded where a peer was not measured; with ``peer_ratio`` where ours has a peer to be compared with.

    That is a row of the peer with as many epochs and as wide a first layer, at the same setting if there is one.
    """
    measured = {row["engine"] for row in found}
    whole = found + [_row(name, setting, rate, release) | {"recorded": True} for name, release, setting, rate in RECORDED if name not in measured]
    for row in found:
        theirs = [
            o for o in whole if o["engine"] == row["peer"] != row["engine"] and o["epochs"] == row["epochs"] and o["hidden"][0] == row["hidden"][0]
        ]
        theirs.sort(key=lambda other: [other[key] != row[key] for key in ("num_envs", "horizon", "minibatch")])
        if theirs:
            row |= {"peer_ratio": row["steps_per_s"] / theirs[0]["steps_per_s"], "peer_recorded": theirs[0]["recorded"]}
    return whole


def machine() -> dict[str, Any]:
    """Processor, cores and versions; no names of hosts or users."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor() or "unknown")
    return {
        "processor": processor,
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": version("numpy"),
    }


def _row(engine: str, setting: Mapping[str, Any], steps_per_s: float, release: str | None, peer: str | None = None) -> dict[str, Any]:
    about = {key: setting.get(key) for key in SMALL.__dict__} | {"hidden": list(setting["hidden"])}
    measured = {"steps_per_s": steps_per_s, "peer": peer, "peer_ratio": None, "peer_recorded": None, "recorded": False}
    return {"engine": engine, "version": release, **about, **measured}


def _peers(pythons: dict[str, str], cleanrl: Path | None) -> Iterator[dict[str, Any]]:
    """Those that are installed, each in a process of its own."""
    script = find.folder(PEERS) / "baselines.py"
    for name, module in (("sb3", "stable_baselines3"), ("sbx", "sbx")):
        words = [str(script), module, json.dumps(SMALL.__dict__ | {"seconds": SECONDS})]
        answer = _run(name, pythons.get(name, sys.executable), words, SMALL.threads, absent=3)
        if answer is not None:
            told = json.loads(answer.splitlines()[-1])
            yield _row(name, SMALL.__dict__, told["steps_per_s"], told["version"])
    if cleanrl is not None:
        yield _cleanrl(cleanrl, pythons.get("cleanrl", sys.executable))


def _cleanrl(checkout: Path, python: str) -> dict[str, Any]:
    """CleanRL's ppo.py as it is, with its defaults; the last SPS that it prints."""
    script = checkout / "cleanrl" / "ppo.py"
    if not script.is_file():
        raise InvalidInput(f"there is no cleanrl/ppo.py in {checkout}: name the folder of a CleanRL checkout")
    setting = replace(SMALL, num_envs=4, minibatch=128)
    answer = _run("cleanrl", python, [str(script.resolve()), "--total-timesteps", "40000"], setting.threads)
    found = re.findall(r"^SPS: (\d+)", answer or "", re.MULTILINE)
    if not found:
        raise Unsupported(f"{script} printed no 'SPS: …'")
    return _row("cleanrl", setting.__dict__, float(found[-1]), "ppo.py")


def _run(name: str, python: str, words: list[str], threads: int, absent: int | None = None) -> str | None:
    """What a peer printed; None where it ended with the exit code ``absent``."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory() as folder:  # some write files where they stand
        try:
            ended = subprocess.run([python, *words], env=environment, cwd=folder, capture_output=True, text=True, timeout=PEER_LIMIT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unsupported(f"{name} could not be measured with {python}: {error}") from None
    if ended.returncode == absent:
        return None
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["nothing was printed"])[-1]
        raise Unsupported(f"{name} ended with exit code {ended.returncode}: {last}")
    return ended.stdout
