"""Which arrays the structures of a rollout and an update hold: sizes, shapes and types are checked here, C trusts them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.train.native import structs

Array = npt.NDArray[Any]
Kinds = dict[str, tuple[tuple[int, ...], Any]]
MOST_SAMPLES = 2**31 - 1


def rollout_kinds(shape: Any, environment: Any, horizon: int, environments: int, real: npt.DTypeLike, costs: bool = False) -> Kinds:
    """Shape and type of each array that a rollout needs, by the field's name.

    Args:
        shape: ``engine.Shape`` of the networks.
        environment: ``structs.Environment``.
        horizon: T, steps.
        environments: E; N = E · agents are the rows.
        real: type of the library's numbers.
        costs: there is a critic of costs.

    Raises:
        Unsupported: the environment is of another ABI, or does not fit the networks.
        InvalidInput: T or E is zero, negative or absurd.
    """
    _check_environment(shape, environment)
    for name, value in (("horizon", horizon), ("environments", environments)):
        if value < 1:
            raise InvalidInput(f"a rollout's {name} must be at least 1, not {value}")
    n, m, groups, rows = shape.inputs, environment.n_action, len(shape.sizes), environments * environment.agents
    if horizon * rows * n > MOST_SAMPLES:
        raise InvalidInput(
            f"a rollout holds up to {MOST_SAMPLES} numbers of observation, not {horizon} · {rows} · {n}: take a shorter horizon or fewer rows"
        )
    f8, u1, i4 = np.float64, np.uint8, np.int32
    kinds: Kinds = {"state": ((environments, environment.n_state), f8), "step": ((environments,), np.uint64), "elapsed": ((environments,), i4)}
    kinds |= {"observed": ((rows, n), f8)}
    kinds |= dict.fromkeys(("episode_return", "episode_cost"), ((rows,), f8))
    kinds |= dict.fromkeys(("mean", "deviation"), ((n,), f8))
    kinds |= {"observation": ((horizon, rows, n), f8), "inputs": ((horizon, rows, n), real), "finished_length": ((horizon, rows), i4)}
    kinds |= dict.fromkeys(("log_prob", "value", "final_value"), ((horizon, rows), real))
    kinds |= dict.fromkeys(("reward", "cost", "finished_return", "finished_cost"), ((horizon, rows), f8))
    kinds |= dict.fromkeys(("terminated", "truncated", "alive"), ((horizon, rows), u1))
    if environment.allow_many:
        kinds["allowed"] = ((horizon, rows, shape.outputs), u1)
    if environment.n_parameters:
        kinds["parameters"] = ((environments, environment.n_parameters), f8)
    if costs:
        kinds |= dict.fromkeys(("cost_value", "final_cost_value"), ((horizon, rows), real))
    if shape.kind == "gaussian":
        return kinds | {"number": ((horizon, rows, groups), real), "scale": ((m,), f8), "offset": ((m,), f8)}
    return kinds | {"choice": ((horizon, rows, groups), i4), "levels": ((shape.outputs * (m if groups == 1 else 1),), f8)}


def _check_environment(shape: Any, environment: Any) -> None:
    size = structs.size_of(structs.Environment)
    if (environment.version, environment.size) != (structs.ENVIRONMENT_VERSION, size):
        raise Unsupported(
            f"the environment is built for version {environment.version} of pe_env.h with {environment.size} bytes, "
            f"this trainer for version {structs.ENVIRONMENT_VERSION} with {size}: build it again with the header in puffer_edge/envs"
        )
    if not environment.reset_many or not environment.step_many:
        raise Unsupported("the environment lacks reset_many or step_many")
    if not 1 <= environment.agents <= structs.BLOCK:
        raise Unsupported(f"an environment has 1 to {structs.BLOCK} agents here, not {environment.agents}")
    if environment.max_steps > structs.MOST_STEPS:
        raise Unsupported(f"an episode has up to {structs.MOST_STEPS} steps here, not {environment.max_steps}; 0 stands for no bound")
    if environment.n_observation != shape.inputs:
        raise Unsupported(f"the environment gives {environment.n_observation} numbers of observation, the networks take {shape.inputs}")
    if not 1 <= environment.n_action <= structs.MOST_ACTIONS:
        raise Unsupported(f"an action has 1 to {structs.MOST_ACTIONS} numbers here, not {environment.n_action}")
    several = shape.kind == "gaussian" or len(shape.sizes) > 1
    if several and environment.n_action != len(shape.sizes):
        raise Unsupported(f"the environment takes {environment.n_action} numbers of action, the head gives {len(shape.sizes)}")
    if environment.allow_many and (shape.kind == "gaussian" or environment.n_choices != shape.outputs):
        raise Unsupported(
            f"the environment masks {environment.n_choices} choices, the {shape.kind} head has {shape.outputs} outputs: a mask needs one of each"
        )


def update_kinds(shape: Any, samples: int, real: npt.DTypeLike) -> Kinds:
    """The same of an update on so many samples."""
    kinds: Kinds = {"inputs": ((samples, shape.inputs), real), "adam_steps": ((1,), np.int64)}
    kinds |= dict.fromkeys(("parameters", "first", "second"), ((shape.size,), real))
    kinds |= dict.fromkeys(("value", "returns"), ((samples,), real))
    if shape.kind == "value":
        return kinds
    kinds |= dict.fromkeys(("log_prob", "advantage"), ((samples,), real))
    action = ("number", real) if shape.kind == "gaussian" else ("choice", np.int32)
    return kinds | {action[0]: ((samples, len(shape.sizes)), action[1])}


def check_rollout(shape: Any, rollout: Any, real: npt.DTypeLike, costs: bool = False) -> None:
    """See that a rollout holds what C will read and write.

    Raises:
        Unsupported: the environment is of another ABI, or does not fit the networks.
        InvalidInput: a number is out of range, or an array is missing or of another shape or type.
    """
    if not rollout.env:
        raise InvalidInput("a rollout needs an environment")
    environment = structs.Environment.from_address(rollout.env)
    kinds = rollout_kinds(shape, environment, rollout.horizon, rollout.environments, real, costs)
    _check_arrays("rollout", rollout, kinds, exact=True)


def check_update(shape: Any, update: Any, real: npt.DTypeLike) -> None:
    """See that an update holds what C will read and write; samples may have several axes.

    Raises:
        InvalidInput: a number is out of range, or an array is missing or of another shape or type.
    """
    _check_between("samples", update.samples, 1, MOST_SAMPLES)
    _check_between("minibatch", update.minibatch, 1, MOST_SAMPLES)
    _check_between("epochs", update.epochs, 1, structs.MOST_EPOCHS)
    if not 0 <= update.learning_rate < math.inf:
        raise InvalidInput(f"an update's learning_rate must be a finite number of at least 0, not {update.learning_rate:g}")
    if not 0 < update.epsilon < math.inf:  # without it what pads the networks would become 0 / 0
        raise InvalidInput(f"an update's epsilon must be a positive finite number, not {update.epsilon:g}")
    if not update.max_grad_norm >= 0:
        raise InvalidInput(f"an update's max_grad_norm must be at least 0, not {update.max_grad_norm:g}; infinity clips nothing")
    for name in ("beta1", "beta2"):
        if not 0 <= getattr(update, name) < 1:
            raise InvalidInput(f"an update's {name} must lie in 0 … 1, 1 excluded, not {getattr(update, name):g}")
    _check_between("value form", update.loss.value_form, 0, len(structs.VALUE_FORMS) - 1)
    kinds = update_kinds(shape, update.samples, real)
    if update.allowed:
        kinds["allowed"] = ((update.samples, shape.outputs), np.uint8)
    _check_arrays("update", update, kinds, exact=False)
    if shape.kind == "categorical":
        choice = update.held["choice"].reshape(-1, len(shape.sizes))
        for g, size in enumerate(shape.sizes):
            low, high = int(choice[:, g].min()), int(choice[:, g].max())
            if low < 0 or high >= size:
                raise InvalidInput(f"choices of group {g} must lie in 0 … {size - 1}, not {low} … {high}")


def _check_between(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidInput(f"an update's {name} must lie in {low} … {high}, not {value}")


def _check_arrays(what: str, structure: Any, kinds: Kinds, exact: bool) -> None:
    held: dict[str, Array] = getattr(structure, "held", {})
    for name, (shape, dtype) in kinds.items():
        x = held.get(name)
        if x is None or getattr(structure, name) != x.ctypes.data:
            raise InvalidInput(f"the {what} needs {name}, {shape} of {np.dtype(dtype)}: fill(…) puts it there")
        trailing = shape[1:]
        fits = x.shape == shape if exact else x.size == math.prod(shape) and (not trailing or x.shape[-len(trailing) :] == trailing)
        if not fits or x.dtype != dtype:
            raise InvalidInput(f"the {what}'s {name} is {x.shape} of {x.dtype}, it needs {shape} of {np.dtype(dtype)}")
