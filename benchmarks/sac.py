"""Speed of SAC, and what it learns.

Speed: Pendulum, the whole loop, one environment and one gradient step a step, so that steps and updates per second are the same number. Ours
and the peers', Stable-Baselines3's and sbx's, take turns in one run, each peer in a process of its own; the median of the turns counts, and a
machine that does something else meanwhile does it to all. Where sbx is not installed, ratios to it are to what was recorded once on such a
machine (2026-11-20).

Learning: the presets, seed by seed; return of the policy kept, its deterministic head without a shield, over 100 fresh episodes. Of the
double integrator it is that of the last policy over 400 starts, divided by the best one's from there, of SAC and of PPO.

python benchmarks/sac.py [--seeds 5] [--turns 3] [--seconds 5] [--peer-python PYTHON]

PYTHON is that of an environment that has the peers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from record import save, show

from puffer_edge import envs
from puffer_edge.envs import closed_loop
from puffer_edge.envs.sanity.double_integrator import optimum
from puffer_edge.integer.reference import InFloat
from puffer_edge.integer.shield import Shield
from puffer_edge.train import SACSettings, preset, train
from puffer_edge.train.algorithms.ppo import PPO
from puffer_edge.train.algorithms.sac import SAC
from puffer_edge.train.settings import cores

SIZES = (((256, 256), 256), ((64, 64), 100))
RECORDED = {(256, 256): 197.0, (64, 64): 655.0}
"""Of sbx 0.28."""
PEERS = ("stable_baselines3", "sbx")
TASKS = (("pendulum", "sac", -180.0), ("mountain_car_continuous", "sac", 90.0), ("cartpole", "discrete-sac", 475.0))
WITHIN = 1.03


def ours(engine: str, threads: int, hidden: tuple[int, ...], minibatch: int, seconds: float) -> float:
    """Steps per second of one of our engines."""
    settings = SACSettings(engine=engine, threads=threads, hidden=hidden, minibatch=minibatch, warmup=256, horizon=64, learning_rate=3e-4)
    learner = SAC("pendulum", settings, shield=False)
    learner.learn(320)
    before, began = learner.steps, time.perf_counter()
    while time.perf_counter() - began < seconds:
        learner.learn(settings.horizon)
    return (learner.steps - before) / (time.perf_counter() - began)


def theirs(python: str, peer: str, hidden: tuple[int, ...], minibatch: int, seconds: float) -> float | None:
    """Steps per second of a peer; None where it is not installed."""
    setting = {"hidden": hidden, "minibatch": minibatch, "threads": 1, "seconds": seconds}
    script = Path(__file__).with_name("sac_peer.py")
    ended = subprocess.run([python, str(script), peer, json.dumps(setting)], capture_output=True, text=True, check=False)
    if ended.returncode == 3:
        return None
    ended.check_returncode()
    return float(json.loads(ended.stdout.splitlines()[-1])["steps_per_s"])


def speeds(turns: int, seconds: float, python: str) -> list[dict[str, Any]]:
    """A row for each size and engine."""
    found = []
    kinds = {f"native, {n} thread{'s' * (n > 1)}": ("native", n) for n in sorted({1, cores()})} | {"torch": ("torch", 1)}
    for hidden, minibatch in SIZES:
        rates: dict[str, list[float]] = {name: [] for name in (*kinds, *PEERS)}
        for _ in range(turns):
            for name, (engine, threads) in kinds.items():
                rates[name].append(ours(engine, threads, hidden, minibatch, seconds))
            for name in PEERS:
                peer = theirs(python, name, hidden, minibatch, seconds)
                rates[name] += [] if peer is None else [peer]
        peers = {name: median(rates[name]) if rates[name] else None for name in PEERS}
        recorded = {} if peers["sbx"] else {"of_sbx_recorded": RECORDED[hidden]}
        for name, seen in rates.items():
            if seen:
                rate = median(seen)
                row = {"hidden": list(hidden), "minibatch": minibatch, "engine": name, "updates_per_s": round(rate), "best_per_s": round(max(seen))}
                beside = {"of_sb3": peers["stable_baselines3"], "of_sbx": peers["sbx"]} | recorded
                found.append(row | {name: rate / peer for name, peer in beside.items() if peer})
    return found


def learnt(seeds: int) -> list[dict[str, Any]]:
    """A row for each task."""
    found = []
    for name, algorithm, wanted in TASKS:
        returns, seconds = [], []
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                run = train(name, algorithm, seed=seed, out=Path(folder) / "run", shield=False)
            returns.append(round(run.result["evaluation"]["return"], 3))
            seconds.append(run.result["seconds"])
        row = {
            "environment": name,
            "algorithm": algorithm,
            "steps": run.result["steps"],
            "wanted": round(wanted, 3),
            "reached": sum(r >= wanted for r in returns),
        }
        found.append(row | {"seeds": seeds, "returns": returns, "median_s": round(median(seconds), 1)})
    return found


def beside_riccati(seeds: int) -> list[dict[str, Any]]:
    """The double integrator, a row for each algorithm."""
    environment, found = envs.load("double_integrator"), []
    best = optimum(environment.start(777, range(400)))
    for kind in (SAC, PPO):
        losses, seconds = [], []
        for seed in range(seeds):
            learner, began = kind(environment, preset("double_integrator", kind.name), seed=seed), time.perf_counter()
            learner.learn()
            seconds.append(time.perf_counter() - began)
            played = closed_loop.play(learner.environment, InFloat(learner.policy()), Shield.none(learner.environment.contract), 400, 777)
            losses.append(round(float(played.returns.mean()) / best, 4))
        row = {
            "environment": f"double_integrator, {kind.name}",
            "steps": learner.steps,
            "wanted": WITHIN,
            "reached": sum(x <= WITHIN for x in losses),
        }
        found.append(row | {"seeds": seeds, "returns": losses, "median_s": round(median(seconds), 1)})
    return found


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--peer-python", default=sys.executable)
    options = parser.parse_args()
    speed = speeds(options.turns, options.seconds, options.peer_python)
    show("SAC on Pendulum, one update a step", speed)
    learning = learnt(options.seeds) + beside_riccati(options.seeds)
    show("what it learns", learning)
    settings = {"seeds": options.seeds, "turns": options.turns, "seconds": options.seconds}
    save("sac", settings=settings, rows=[*speed, *learning])


if __name__ == "__main__":
    main()
