"""Everything of a learner that changes while it learns, as arrays and plain values: what a checkpoint holds, and how it is put back."""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from puffer_edge import __version__
from puffer_edge.envs.environment import Environment
from puffer_edge.train.loop import Learner

PACKAGES = ("gymnasium", "mujoco", "pettingzoo")
"""Those whose versions decide what environments that live do."""


def arrays_of(learner: Learner) -> dict[str, Any]:
    """Networks, optimiser, moments, plant and recent episodes, as arrays by name."""
    arrays: dict[str, Any] = {f"net.{key}": value.numpy() for key, value in learner.net.state_dict().items()}
    for name, p in learner.net.named_parameters():
        arrays |= {f"optimizer.{name}.{key}": np.atleast_1d(value.numpy()) for key, value in learner.optimizer.state[p].items()}
    if learner.plant is not None:
        arrays |= {f"plant.{key}": value for key, value in learner.plant.save_state().items()}
    if learner.native is not None:
        arrays |= {f"native.{key}": value for key, value in learner.native.state().items()}
    if learner.held_noise is not None:
        arrays |= {"exploration.matrix": learner.held_noise.matrix, "exploration.age": learner.held_noise.age}
    arrays |= {"moments.count": np.array([learner.moments.count]), "moments.mean": learner.moments.mean, "moments.m2": learner.moments.m2}
    arrays |= learner.own_arrays()
    arrays |= {
        "episode_return": learner.episode_return,
        "episode_cost": learner.episode_cost,
        "recent_returns": np.array(learner.recent_returns, np.float64),
        "recent_costs": np.array(learner.recent_costs, np.float64),
        "recent_lengths": np.array(learner.recent_lengths, np.int64),
    }
    return arrays


def values_of(learner: Learner) -> dict[str, Any]:
    """Counters and generators, as plain JSON values."""
    return {
        "steps": learner.steps,
        "control": learner.control,
        "fine_tuned": learner.fine_tuned,
        "noise_rng": learner.noise_rng.bit_generator.state,
        "shuffle_rng": learner.shuffle_rng.bit_generator.state,
    }


def restore(learner: Learner, arrays: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Put back what ``arrays_of`` and ``values_of`` gave.

    Raises:
        KeyError, ValueError, RuntimeError: something is missing, or has another shape.
    """

    def part(prefix: str) -> dict[str, Any]:
        return {key[len(prefix) :]: value for key, value in arrays.items() if key.startswith(prefix)}

    load_networks(learner, arrays)
    for name, p in learner.net.named_parameters():
        state = {key: torch.from_numpy(value) for key, value in part(f"optimizer.{name}.").items()}
        if state:
            learner.optimizer.state[p] = state | {"step": state["step"][0]}
    if learner.plant is not None:
        learner.plant.load_state(part("plant."))
    if learner.native is not None:
        learner.native.load(part("native."))
    if learner.held_noise is not None:
        learner.held_noise.matrix, learner.held_noise.age = arrays["exploration.matrix"], arrays["exploration.age"]
    learner.load_own(arrays)
    learner.episode_return, learner.episode_cost = arrays["episode_return"], arrays["episode_cost"]
    learner.recent_returns.extend(arrays["recent_returns"].tolist())
    learner.recent_costs.extend(arrays["recent_costs"].tolist())
    learner.recent_lengths.extend(arrays["recent_lengths"].tolist())
    learner.noise_rng.bit_generator.state = values["noise_rng"]
    learner.shuffle_rng.bit_generator.state = values["shuffle_rng"]
    learner.control = {key: float(values["control"][key]) for key in learner.control}
    learner.steps, learner.fine_tuned = values["steps"], values.get("fine_tuned", {})
    learner.refresh()


def load_networks(learner: Learner, arrays: Mapping[str, Any]) -> None:
    """Put back networks and the observations' moments alone.

    Raises:
        KeyError, RuntimeError: something is missing, or has another shape.
    """
    learner.net.load_state_dict({key[len("net.") :]: torch.from_numpy(value) for key, value in arrays.items() if key.startswith("net.")})
    moments = learner.moments
    moments.count, moments.mean, moments.m2 = float(arrays["moments.count"][0]), arrays["moments.mean"], arrays["moments.m2"]


def bits_depend_on(learner: Learner) -> dict[str, Any]:
    """What decides the bits beside the state: engine, instruction set, threads, versions, and the source of the environment.

    Two trainings from one state give equal bits where these are equal; torch and numpy promise nothing across versions.
    """
    return {
        "engine": "native" if learner.native else "torch",
        "kernels": "native" if learner.native else learner.kernels,
        "instruction_set": learner.native.variant if learner.native else torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "threads": "any" if learner.native else 1,  # ``Learner.learn`` sets it for torch
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "puffer_edge": __version__,
        "environment_source": source_digest(learner.environment),
    } | ({} if learner.environment.living is None else {name: sys.modules[name].__version__ for name in PACKAGES if name in sys.modules})


def identity(environment: Environment) -> dict[str, Any]:
    """What makes an environment another one: its name, contract, sizes and imperfections."""
    return {
        "name": environment.name,
        "contract": environment.contract.digest.hex(),
        "state_size": environment.state_size,
        "max_steps": environment.max_steps,
        "plant": environment.imperfections.to_dict(),
    }


@lru_cache(maxsize=8)
def source_digest(environment: Environment) -> str:
    """SHA-256 of the files that define the dynamics, be it a library; "unknown" where there is none to read, as for code typed at a prompt."""
    steps: list[Any] = [layer.step for layer in environment.scalars.layers] if environment.scalars else [environment.step]
    if environment.living is not None:
        one = environment.living()
        steps = [type(getattr(getattr(one, "env", one), "unwrapped", one))]
        one.close()
    whole = hashlib.sha256()
    for step in steps:
        try:
            file = getattr(step, "library", None) or inspect.getsourcefile(step)
        except TypeError:
            return "unknown"
        if file is None or not os.path.isfile(file):
            return "unknown"
        whole.update(Path(file).read_bytes())
    return whole.hexdigest()
