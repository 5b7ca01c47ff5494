"""A policy of Stable-Baselines3, trained here for a minute, on a simulated ESP32: train, import, export, check."""

from __future__ import annotations

import sys
from pathlib import Path

import gymnasium as gym
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from puffer_edge.cli import main as puffer_edge

steps = sys.argv[1] if len(sys.argv) > 1 else "6000"
target = sys.argv[2] if len(sys.argv) > 2 else "esp32"
folder = Path("build") / "import_sb3"


def train(path: Path, normalizer: Path) -> None:
    """SAC on Gymnasium's pendulum, behind VecNormalize, whose statistics are saved beside the model."""
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]), norm_reward=False)
    model = SAC("MlpPolicy", env, policy_kwargs={"net_arch": [32, 32]}, learning_rate=2e-3, learning_starts=200, seed=0, device="cpu")
    model.learn(int(steps))
    model.save(path)
    env.save(str(normalizer))


def main() -> None:
    """The three commands that follow a training, as they would be typed."""
    folder.mkdir(parents=True, exist_ok=True)
    model, normalizer, run, bundle = (str(folder / name) for name in ("model.zip", "vecnormalize.pkl", "run", f"pendulum-{target}"))
    train(Path(model), Path(normalizer))
    puffer_edge(["import", model, "--normalizer", normalizer, "--env", "pendulum", "--out", run])
    puffer_edge(["export", run, "--target", target, "--out", bundle])
    puffer_edge(["check", bundle, "--board", "sim", "--episodes", "2"])


if __name__ == "__main__":
    main()
