"""Steps per second of SAC on Pendulum-v1 in Stable-Baselines3, or in sbx, one gradient step a step. Needs nothing of puffer-edge.

python sac_peer.py MODULE '{"hidden": [256, 256], "minibatch": 256, "threads": 1, "seconds": 5}'

Prints one line of JSON. Exit code 3: the module is not installed.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from importlib.metadata import version
from typing import Any

DISTRIBUTIONS = {"stable_baselines3": "stable-baselines3", "sbx": "sbx-rl"}
WARMUP, STRETCH = 300, 50


def main() -> None:
    """Warm up, then measure."""
    module, setting = sys.argv[1], json.loads(sys.argv[2])
    try:
        algorithms: Any = importlib.import_module(module)
        import torch
    except ImportError as error:
        print(error, file=sys.stderr)
        raise SystemExit(3) from None
    torch.set_num_threads(setting["threads"])
    policy = {"net_arch": list(setting["hidden"])}
    model = algorithms.SAC("MlpPolicy", "Pendulum-v1", batch_size=setting["minibatch"], policy_kwargs=policy, device="cpu", seed=0)
    model.learn(WARMUP)
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < setting["seconds"]:
        model.learn(STRETCH, reset_num_timesteps=False)
        steps += STRETCH
    print(json.dumps({"steps_per_s": steps / (time.perf_counter() - began), "version": version(DISTRIBUTIONS[module])}))


if __name__ == "__main__":
    main()
