"""Environments in C, C++ or Rust: a shared library that holds a ``pe_env`` (``pe_env.h``), as scalar functions around its own.

So everything that takes scalar functions takes them: fixed point and shield around them, frames, both engines, evaluation and export. The
state of a row is the library's, and after it what was observed last, which ``pe_env.h`` gives out with a reset or a step alone.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from puffer_edge.contract import Contract
from puffer_edge.envs.draw import DRAW
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.native import ALLOW_MANY, RESET_MANY, STEP_MANY, PeEnv, Pointer
from puffer_edge.envs.rewire import Foreign
from puffer_edge.envs.scalar import Number, Row
from puffer_edge.errors import ContractError, InvalidInput, Unsupported

SYMBOL = "pe_environment"
"""What a library calls its ``const pe_env``."""

SCRATCH = 6
"""64-bit words: key, step, mask or reward, cost, terminated, alive."""

_SHIFT = np.uint64(32)


def open_library(file: Path, contract: Contract) -> Pointer:
    """Load a library, and see before it is called that it is what the contract says.

    Raises:
        InvalidInput: there is no such file, it is no library of this machine, or it holds no ``pe_env`` of this version.
        ContractError: its sizes are others than the contract's.
        Unsupported: it wants parameters for each environment.
    """
    if not file.is_file():
        raise InvalidInput(f"there is no library {file}: compile it first")
    try:
        library = ctypes.CDLL(str(file.resolve()))
    except OSError as error:
        raise InvalidInput(f"{file} cannot be loaded: {error}") from None
    try:
        pointer = Pointer.at(ctypes.addressof(PeEnv.in_dll(library, SYMBOL)), library)
    except ValueError:
        raise InvalidInput(f"{file} has no {SYMBOL}: const pe_env {SYMBOL} = {{PE_ENV_VERSION, sizeof(pe_env), …}}") from None
    s = pointer.struct
    if (s.n_observation, s.n_action) != (contract.n_observations, contract.n_actions):
        raise ContractError(
            f"{file.name} observes {s.n_observation} numbers and drives {s.n_action}, the contract of {contract.name} has "
            f"{contract.n_observations} and {contract.n_actions}"
        )
    if s.allow_many and s.n_choices != contract.n_outputs:
        raise ContractError(f"{file.name} masks {s.n_choices} choices, the contract of {contract.name} has {contract.n_outputs}")
    if s.n_parameters:
        raise Unsupported(f"{file.name} wants {s.n_parameters} parameters for each environment: compile them in, and let n_parameters be 0")
    return pointer


def dynamics(file: Path, pointer: Pointer, random_steps: bool) -> Dynamics:
    """The scalar functions of a loaded library.

    Args:
        file: the library; its SHA-256 names its functions in compiled code.
        pointer: its ``pe_env``.
        random_steps: its step draws random numbers.
    """
    s, digest = pointer.struct, hashlib.sha256(file.read_bytes()).hexdigest()[:24]
    reset_many = Foreign(f"pe_reset_many_{digest}", s.reset_many, RESET_MANY, pointer)
    step_many = Foreign(f"pe_step_many_{digest}", s.step_many, STEP_MANY, pointer)
    agents, size, n = int(s.agents), int(s.n_state), int(s.n_observation)
    step: Callable[..., Any] = _step(step_many, size) if agents == 1 else _step_agents(step_many, size)
    step.library = file  # type: ignore[attr-defined]  # what a checkpoint takes for the source
    faces = _reset(reset_many, size), _observe(size, agents, n), step
    about: dict[str, Any] = {"agents": agents, "random_steps": random_steps, "scratch": SCRATCH}
    if s.allow_many:
        allow_many = Foreign(f"pe_allow_many_{digest}", s.allow_many, ALLOW_MANY, pointer)
        about |= {"allow": _allow(allow_many), "n_choices": int(s.n_choices)}
    return Dynamics(size + agents * n, n, int(s.n_action), *faces, **about)


def _reset(reset_many: Foreign, size: int) -> Callable[..., None]:
    def reset(draw: Row, state: Row, parameters: Row) -> None:
        key, step, mask = draw[DRAW : DRAW + 1].view(np.uint32), draw[DRAW + 1 : DRAW + 2], draw[DRAW + 2 : DRAW + 3].view(np.uint8)
        key[0], key[1] = draw[0], draw[1]
        step[0] = draw[4] | (draw[5] << _SHIFT)
        mask[0] = 1
        reset_many(1, int(draw[3]), key.ctypes, step.ctypes, mask.ctypes, parameters.ctypes, state.ctypes, state[size:].ctypes)

    return reset


def _observe(size: int, agents: int, n: int) -> Callable[..., None]:
    def observe(state: Row, observation: Row) -> None:
        for k in range(n):
            observation[k] = state[size + k]

    def observe_agents(state: Row, observation: Row) -> None:
        for a in range(agents):
            for k in range(n):
                observation[a, k] = state[size + a * n + k]

    return observe if agents == 1 else observe_agents


def _step(step_many: Foreign, size: int) -> Callable[..., Any]:
    def step(draw: Row, state: Row, action: Row, parameters: Row) -> tuple[Number, Number, Number]:
        key, clock = draw[DRAW : DRAW + 1].view(np.uint32), draw[DRAW + 1 : DRAW + 2]
        reward, cost = draw[DRAW + 2 : DRAW + 3].view(np.float64), draw[DRAW + 3 : DRAW + 4].view(np.float64)
        terminated, alive = draw[DRAW + 4 : DRAW + 5].view(np.uint8), draw[DRAW + 5 : DRAW + 6].view(np.uint8)
        key[0], key[1] = draw[0], draw[1]
        clock[0] = draw[4] | (draw[5] << _SHIFT)
        row = int(draw[3])
        step_many(
            *(1, row, key.ctypes, clock.ctypes, parameters.ctypes, action.ctypes, state.ctypes, state[size:].ctypes),
            *(reward.ctypes, cost.ctypes, terminated.ctypes, alive.ctypes),
        )
        return reward[0], cost[0], terminated[0] != 0

    return step


def _step_agents(step_many: Foreign, size: int) -> Callable[..., Any]:
    def step(draw: Row, state: Row, action: Row, parameters: Row, reward: Row, cost: Row, terminated: Row, alive: Row) -> None:
        key, clock = draw[DRAW : DRAW + 1].view(np.uint32), draw[DRAW + 1 : DRAW + 2]
        key[0], key[1] = draw[0], draw[1]
        clock[0] = draw[4] | (draw[5] << _SHIFT)
        row = int(draw[3])
        step_many(
            *(1, row, key.ctypes, clock.ctypes, parameters.ctypes, action.ctypes, state.ctypes, state[size:].ctypes),
            *(reward.ctypes, cost.ctypes, terminated.ctypes, alive.ctypes),
        )

    return step


def _allow(allow_many: Foreign) -> Callable[..., None]:
    def allow(state: Row, allowed: Row) -> None:
        allow_many(1, state.ctypes, allowed.ctypes)

    return allow
