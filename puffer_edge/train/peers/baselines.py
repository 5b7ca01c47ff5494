"""Steps per second of PPO on CartPole-v1 in Stable-Baselines3, or in sbx, which has the same interface. Needs nothing of puffer-edge.

python baselines.py MODULE '{"num_envs": 8, "horizon": 128, "minibatch": 256, "epochs": 4, "hidden": [64, 64], "threads": 1, "seconds": 2}'

Prints one line of JSON. Exit code 3: the module is not installed.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from importlib.metadata import version
from statistics import median
from typing import Any

DISTRIBUTIONS = {"stable_baselines3": "stable-baselines3", "sbx": "sbx-rl"}
REPEATS = 3


def main() -> None:
    """Train for a rollout to warm up, then measure."""
    module, setting = sys.argv[1], json.loads(sys.argv[2])
    try:
        algorithms: Any = importlib.import_module(module)
        from stable_baselines3.common.env_util import make_vec_env
    except ImportError as error:
        print(error, file=sys.stderr)
        raise SystemExit(3) from None
    import torch

    torch.set_num_threads(setting["threads"])
    env = make_vec_env("CartPole-v1", n_envs=setting["num_envs"], seed=0)
    policy = {"net_arch": list(setting["hidden"])}
    shape = {"n_steps": setting["horizon"], "batch_size": setting["minibatch"], "n_epochs": setting["epochs"]}
    model = algorithms.PPO("MlpPolicy", env, policy_kwargs=policy, device="cpu", seed=0, **shape)
    rollout = setting["num_envs"] * setting["horizon"]
    model.learn(rollout)
    rates = []
    for _ in range(REPEATS):
        done, began = 0, time.perf_counter()
        while done == 0 or time.perf_counter() - began < setting["seconds"]:
            model.learn(rollout, reset_num_timesteps=False)
            done += rollout
        rates.append(done / (time.perf_counter() - began))
    print(json.dumps({"steps_per_s": median(rates), "version": version(DISTRIBUTIONS[module])}))


if __name__ == "__main__":
    main()
