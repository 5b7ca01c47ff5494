"""Stepping Python environments: beside Gymnasium's AsyncVectorEnv, how near to ideal where a step is dear, and a drill of kills.

    python benchmarks/vector.py [--seconds 3] [--rounds 7] [--kills 200]

All in one run. Peer and ours take turns, because the peer's rate swings by more than twice on a quiet machine: each figure is the median over
rounds, beside it the lowest and highest, and a ratio is the median of the rounds' own ratios. Steps are those of the world alone, without
fixed point and policy, as the peer's are, unless a row says "with a policy": then a rollout of PPO is what is timed. What a row that ends
costs is in it.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from record import save, show

from puffer_edge import envs
from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs import living
from puffer_edge.envs.environment import Environment
from puffer_edge.errors import WorkerFailed
from puffer_edge.train.algorithms.ppo import PPO
from puffer_edge.train.settings import PPOSettings
from puffer_edge.train.vector.processes import Processes
from puffer_edge.train.vector.serial import Serial

ROWS, WORKERS, DEAR_S = 64, 2, 1e-3


class Dear:
    """A plant that takes a millisecond of processor time, or of waiting for something else."""

    def __init__(self, works: bool) -> None:
        self.works = works

    def reset(self, seed: int, seen: Any, allowed: Any) -> None:
        seen[0] = 0.0

    def step(self, action: Any, seen: Any, reward: Any, cost: Any, terminated: Any, alive: Any, allowed: Any) -> bool:
        until = time.perf_counter() + DEAR_S
        if self.works:
            while time.perf_counter() < until:
                pass
        else:
            time.sleep(DEAR_S)
        seen[0], reward[0], cost[0], terminated[0], alive[0] = action[0], 0.0, 0.0, False, True
        return False

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class MakeDear:
    works: bool

    def __call__(self) -> Dear:
        return Dear(self.works)


CONTRACT = Contract(
    "dear", (ObservationChannel("x", "1", -1.0, 1.0),), (ActionChannel("u", "1", -1.0, 1.0, safe=0.0, initial=0.0),), "clip", rate_hz=100.0
)


def stepped(world: Any, seconds: float, action: Any) -> float:
    """Steps a second, with restarts of rows that end, numbered as a plant does."""
    n = len(world.cut)
    episodes = np.arange(n)
    world.start(np.arange(n), 0, episodes)
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        world.step(action)
        steps += n
        ended = np.flatnonzero(world.terminated.all(-1) | world.cut)
        if len(ended):
            episodes[ended] += n
            world.start(ended, 0, episodes[ended])
    return steps / (time.perf_counter() - began)


def peer(seconds: float, action: Any) -> float:
    """Gymnasium's processes, one an environment, with shared memory, as ``make_vec`` makes them."""
    import gymnasium

    world = gymnasium.make_vec("CartPole-v1", num_envs=ROWS, vectorization_mode="async")
    world.reset(seed=0)
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        world.step(action)
        steps += ROWS
    rate = steps / (time.perf_counter() - began)
    world.close()
    return rate


def collected(environment: Environment, n: int, seconds: float) -> float:
    """Steps a second of PPO's rollouts, 64×64, behind fixed point and shield."""
    settings = PPOSettings(rows=n, horizon=16, minibatch=16 * n, engine="torch", vector="processes", workers=WORKERS)
    learner = PPO(environment, settings)
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        steps += learner._collect().reward.size
    rate = steps / (time.perf_counter() - began)
    learner.close()
    return rate


def spread(name: str, values: list[float], digits: int) -> dict[str, float]:
    """Median, lowest and highest."""
    return {name: round(median(values), digits), f"{name}_low": round(min(values), digits), f"{name}_high": round(max(values), digits)}


def drill(kills: int) -> dict[str, Any]:
    """Kill a worker at a random moment, so many times: what came back, how long it took, and what was left behind."""
    environment, rng = living.of_contract(CONTRACT, MakeDear(False)), np.random.default_rng(0)
    shared = Path("/dev/shm")
    before, named, slowest = set(os.listdir(shared)), 0, 0.0
    for _ in range(kills):
        world = Processes(environment, 4, WORKERS, timeout_s=30.0)
        world.start(np.arange(4), 0, np.arange(4))
        victim, at = int(rng.integers(WORKERS)), time.perf_counter() + rng.uniform(0.0, 0.05)
        killed = 0.0
        try:
            while True:
                if not killed and time.perf_counter() > at:
                    os.kill(world._processes[victim].pid, signal.SIGKILL)
                    killed = time.perf_counter()
                world.step(np.zeros((4, 1, 1)))
        except WorkerFailed as error:
            named += f"worker {victim} of dear died with exit code -9" in str(error)
            slowest = max(slowest, time.perf_counter() - killed)
    left = len(set(os.listdir(shared)) - before)
    return {"what": f"{kills} kills", "named": named, "slowest_s": round(slowest, 2), "left_in_shared_memory": left}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--kills", type=int, default=200)
    args = parser.parse_args()
    cartpole, choices = envs.load("gym:CartPole-v1"), np.random.default_rng(0).integers(0, 2, ROWS)
    about = {"env": "CartPole-v1 of Gymnasium", "rows": ROWS}
    rows: list[dict[str, Any]] = []
    found: dict[str, list[float]] = {"gymnasium AsyncVectorEnv": [], "serial": [], "processes": []}
    for _ in range(args.rounds):
        found["gymnasium AsyncVectorEnv"].append(peer(args.seconds, choices))
        for name, made in (("serial", lambda: Serial(cartpole, ROWS)), ("processes", lambda: Processes(cartpole, ROWS, WORKERS))):
            world = made()
            found[name].append(stepped(world, args.seconds, choices[:, None, None].astype(float)))
            world.close()
    theirs = found["gymnasium AsyncVectorEnv"]
    for name, rates in found.items():
        ratios = [a / b for a, b in zip(rates, theirs)]
        workers = {"serial": 1, "processes": WORKERS}.get(name, ROWS)
        rows.append(about | {"engine": name, "workers": workers} | spread("steps_per_s", rates, 0) | spread("peer_ratio", ratios, 2))
    for works, n in ((False, ROWS), (False, WORKERS), (True, ROWS)):
        dear = living.of_contract(CONTRACT, MakeDear(works), max_steps=10**6)
        parts: dict[str, list[float]] = {"the world alone": [], "with a policy": []}
        for _ in range(max(args.rounds // 2, 1)):
            alone = stepped(Serial(dear, 1), args.seconds / 2, np.zeros((1, 1, 1)))  # what a millisecond is here
            world = Processes(dear, n, WORKERS)
            parts["the world alone"].append(stepped(world, args.seconds, np.zeros((n, 1, 1))) / (WORKERS * alone))
            world.close()
            parts["with a policy"].append(collected(dear, n, args.seconds) / (WORKERS * alone))
        kind = "computes" if works else "waits"
        for what, shares in parts.items():
            row = {"env": f"{kind} 1 ms a step, {what}", "rows": n, "engine": "processes", "workers": WORKERS}
            rows.append(row | spread("of_ideal", shares, 3))
    rows.append(drill(args.kills))
    columns = list(dict.fromkeys(key for r in rows for key in r))
    show("stepping Python environments", [{key: r.get(key, "") for key in columns} for r in rows])
    save("vector", settings=vars(args), rows=rows)


if __name__ == "__main__":
    main()
