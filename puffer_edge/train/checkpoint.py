"""A training as one file, so exact that going on from it gives the bits of never having stopped."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from puffer_edge.envs.environment import Environment
from puffer_edge.errors import BundleError, InvalidInput
from puffer_edge.files import write_atomic
from puffer_edge.train.loop import Learner
from puffer_edge.train.settings import PPOSettings

FORMAT = 1
AnyLearner = TypeVar("AnyLearner", bound=Learner)


def save(learner: Learner, path: str | os.PathLike[str]) -> None:
    """Write networks, optimiser, moments, generators and plant. Atomic."""
    from safetensors.numpy import save as pack

    arrays = {key: np.ascontiguousarray(value) for key, value in _arrays(learner).items()}
    about = {
        "format": FORMAT,
        "algorithm": learner.name,
        "environment": learner.environment.name,
        "contract": learner.environment.contract.digest.hex(),
        "engine": learner.engine,
        "seed": learner.seed,
        "steps": learner.steps,
        "shield": [dict(stage) for stage in learner.shield.specification],
        "settings": learner.settings.to_dict(),
        "control": learner.control,
        "noise_rng": learner.noise_rng.bit_generator.state,
        "shuffle_rng": learner.shuffle_rng.bit_generator.state,
    }
    write_atomic(path, pack(arrays, metadata={"puffer_edge": json.dumps(about)}))


def load(kind: type[AnyLearner], path: str | os.PathLike[str], environment: Environment | None = None) -> AnyLearner:
    """Read what ``save`` wrote.

    Raises:
        InvalidInput: there is no such file, or no such environment.
        BundleError: the file is damaged, from a newer version, another algorithm or another contract.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise InvalidInput(f"there is no checkpoint at {os.fspath(path)}")
    try:
        with safe_open(path, "numpy") as file:
            about = json.loads((file.metadata() or {})["puffer_edge"])
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if about["format"] > FORMAT:
            raise BundleError(f"{os.fspath(path)} has format {about['format']}, this version reads up to {FORMAT}: upgrade puffer-edge")
        if about["algorithm"] != kind.name:
            raise BundleError(f"{os.fspath(path)} belongs to the algorithm {about['algorithm']!r}, not {kind.name!r}")
        settings = replace(PPOSettings.from_dict(about["settings"]), engine=about["engine"].partition(" ")[0])
        learner = kind(environment or about["environment"], settings, seed=about["seed"], shield=about["shield"])
        if learner.environment.contract.digest.hex() != about["contract"]:
            raise BundleError(f"{os.fspath(path)} was written for another contract than that of {learner.environment.name} now")
        _restore(learner, about, arrays)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(f"{os.fspath(path)} is not a checkpoint of this package, or it is damaged: {error}") from None
    return learner


def _arrays(learner: Learner) -> dict[str, Any]:
    arrays: dict[str, Any] = {f"net.{key}": value.numpy() for key, value in learner.net.state_dict().items()}
    for name, p in learner.net.named_parameters():
        arrays |= {f"optimizer.{name}.{key}": np.atleast_1d(value.numpy()) for key, value in learner.optimizer.state[p].items()}
    if learner.plant is not None:
        arrays |= {f"plant.{key}": value for key, value in learner.plant.save_state().items()}
    arrays |= {"moments.count": np.array([learner.moments.count]), "moments.mean": learner.moments.mean, "moments.m2": learner.moments.m2}
    if learner.reward_scale is not None:
        m = learner.reward_scale.moments
        arrays |= {"reward.moments": np.array([m.count, m.mean, m.m2]), "reward.returns": learner.reward_scale.returns}
    if learner.native is not None:
        arrays |= {f"native.{key}": value for key, value in learner.native.state().items()}
    if learner.held_noise is not None:
        arrays |= {"exploration.matrix": learner.held_noise.matrix, "exploration.age": learner.held_noise.age}
    arrays |= {
        "episode_return": learner.episode_return,
        "recent_returns": np.array(learner.recent_returns, np.float64),
        "recent_lengths": np.array(learner.recent_lengths, np.int64),
    }
    return arrays


def _restore(learner: Learner, about: dict[str, Any], arrays: dict[str, Any]) -> None:
    def part(prefix: str) -> dict[str, Any]:
        return {key[len(prefix) :]: value for key, value in arrays.items() if key.startswith(prefix)}

    learner.net.load_state_dict({key: torch.from_numpy(value) for key, value in part("net.").items()})
    for name, p in learner.net.named_parameters():
        state = {key: torch.from_numpy(value) for key, value in part(f"optimizer.{name}.").items()}
        if state:
            learner.optimizer.state[p] = state | {"step": state["step"][0]}
    if learner.plant is not None:
        learner.plant.load_state(part("plant."))
    learner.moments.count, learner.moments.mean, learner.moments.m2 = float(arrays["moments.count"][0]), arrays["moments.mean"], arrays["moments.m2"]
    if learner.reward_scale is not None:
        m = learner.reward_scale.moments
        m.count, m.mean, m.m2 = float(arrays["reward.moments"][0]), arrays["reward.moments"][1], arrays["reward.moments"][2]
        learner.reward_scale.returns = arrays["reward.returns"]
    if learner.native is not None:
        learner.native.load(part("native."))
    if learner.held_noise is not None:
        learner.held_noise.matrix, learner.held_noise.age = arrays["exploration.matrix"], arrays["exploration.age"]
    learner.episode_return = arrays["episode_return"]
    learner.recent_returns.extend(arrays["recent_returns"].tolist())
    learner.recent_lengths.extend(arrays["recent_lengths"].tolist())
    learner.noise_rng.bit_generator.state = about["noise_rng"]
    learner.shuffle_rng.bit_generator.state = about["shuffle_rng"]
    learner.control = {key: float(about["control"][key]) for key in learner.control}
    learner.steps = about["steps"]
    learner.refresh()
