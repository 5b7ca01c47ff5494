"""SAC in C: environments, replay and updates in one call, on numpy arrays that own all state."""

from __future__ import annotations

import ctypes
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.train.native import HERE, structs
from puffer_edge.train.native.engine import ACTIVATIONS, MOST_PARAMETERS, Array, Held, fill
from puffer_edge.train.replay import NO_STEP, Replay

__all__ = ["SACEngine", "SACShape", "fill"]


@dataclass(frozen=True)
class SACShape:
    """What the networks are.

    Attributes:
        inputs: n, numbers of an observation.
        numbers: m, of an action.
        hidden: widths of the actor's one to three hidden layers.
        critic_hidden: of each critic's.
        activation: "relu" or "tanh".
        state_noise: noise is a function of the actor's last hidden layer (gSDE).
    """

    inputs: int
    numbers: int
    hidden: tuple[int, ...]
    critic_hidden: tuple[int, ...]
    activation: str = "relu"
    state_noise: bool = False

    @property
    def critic_size(self) -> int:
        """Numbers of one critic."""
        return _size((self.inputs + self.numbers, *self.critic_hidden, 1))

    @property
    def size(self) -> int:
        """Numbers of the flat buffer: actor, gSDE's log_std, two critics, the logarithm of the temperature."""
        spread = self.hidden[-1] * self.numbers if self.state_noise else 0
        outputs = self.numbers if self.state_noise else 2 * self.numbers
        return _size((self.inputs, *self.hidden, outputs)) + spread + 2 * self.critic_size + 1

    def why_not(self) -> str:
        """Why the native engine does not take it; empty where it does."""
        for hidden in (self.hidden, self.critic_hidden):
            if not 1 <= len(hidden) < structs.MOST_LAYERS:
                return f"it takes 1 to {structs.MOST_LAYERS - 1} hidden layers, not {len(hidden)}"
            if not 1 <= min(hidden) <= max(hidden) <= 4096:
                return "it takes widths of 1 up to 4096"
        if self.activation not in ACTIVATIONS:
            return f"it takes activation {' or '.join(ACTIVATIONS)}, not {self.activation!r}"
        if not 1 <= self.numbers <= structs.MOST_GROUPS or not 1 <= self.inputs <= 4096:
            return f"it takes up to 4096 observations and {structs.MOST_GROUPS} actions, not {self.inputs} and {self.numbers}"
        return "" if self.size <= MOST_PARAMETERS else f"it takes {MOST_PARAMETERS} parameters, not {self.size}"


def _size(widths: tuple[int, ...]) -> int:
    return sum(a * b + b for a, b in itertools.pairwise(widths))


class SACEngine(Held):
    """Threads, and room for networks of one shape.

    Args:
        shape: of the networks.
        threads: how many; the bits are the same for any number.
        variant: of the library; empty for the best.
        folder: where libraries lie.

    Raises:
        Unsupported: there is no native trainer here, or it does not take this shape.
        InvalidInput: the number of threads is out of range.
    """

    free = "pe_sac_free"

    def __init__(self, shape: SACShape, threads: int = 1, variant: str = "", folder: Path = HERE) -> None:
        if why := shape.why_not():
            raise Unsupported(f"the native trainer does not take these networks: {why}")
        super().__init__(threads, variant, folder)
        self.shape = shape
        s = structs.SacShape()
        s.inputs, s.numbers, s.hidden, s.critic_hidden = shape.inputs, shape.numbers, len(shape.hidden), len(shape.critic_hidden)
        s.widths[: s.hidden], s.critic_widths[: s.critic_hidden] = list(shape.hidden), list(shape.critic_hidden)
        s.activation, s.state_noise = ACTIVATIONS.index(shape.activation), shape.state_noise
        self._make("pe_sac_new", ctypes.byref(s))
        assert self._library.pe_sac_flat(self._engine) == shape.size

    def start(self, structure: Any) -> tuple[int, int, int]:
        """Start all environments afresh; returns what ``run`` does."""
        self._check(structure)
        self._call("pe_sac_start", ctypes.byref(structure))
        return tuple(structure.fault)

    def run(self, structure: Any) -> tuple[int, int, int]:
        """``horizon`` steps of every environment with the updates that they are due; without environments, ``horizon`` times ``updates``.

        Args:
            structure: ``structs.Sac``, its arrays put there by ``fill``; ``kinds`` lists them.

        Returns:
            What was NaN or infinite (0: nothing, else a key of ``structs.FAULTS``), at which step and row.

        Raises:
            InvalidInput: a number is out of range, or an array is missing or of another shape or type.
            MemoryError: there is no room for the batch.
        """
        self._check(structure)
        if not self._call("pe_sac_run", ctypes.byref(structure)):
            raise MemoryError(f"there is no room for a batch of {structure.batch} samples")
        return tuple(structure.fault)

    def kinds(self, structure: Any) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and type of each array that a structure needs, by the field's name."""
        s, rows = self.shape, structure.ring.rows
        f8, real = np.float64, self.real
        found: dict[str, tuple[tuple[int, ...], Any]] = dict.fromkeys(("flat", "first", "second"), ((s.size,), real))
        found |= {"target": ((2 * s.critic_size,), real), "adam_steps": ((1,), np.int64), "drawn": ((1,), np.uint64)}
        found |= dict.fromkeys(("mean", "deviation"), ((s.inputs,), f8))
        if not structure.env:
            return found
        environment = structs.Environment.from_address(structure.env)
        found |= {"state": ((rows, environment.n_state), f8), "observed": ((rows, s.inputs), f8), "step": ((rows,), np.uint64)}
        found |= {"elapsed": ((rows,), np.int32), "ticks": ((1,), np.uint64), "seen": ((structure.horizon, rows, s.inputs), f8)}
        found |= dict.fromkeys(("episode_return", "episode_cost"), ((rows,), f8))
        found |= dict.fromkeys(("scale", "offset"), ((s.numbers,), f8))
        found |= dict.fromkeys(("reward", "cost", "finished_return", "finished_cost"), ((structure.horizon, rows), f8))
        found |= {"finished_length": ((structure.horizon, rows), np.int32)}
        if s.state_noise:
            found |= {"noise": ((rows, s.hidden[-1], s.numbers), np.float32), "age": ((rows,), np.int32)}
        if environment.n_parameters:
            found["parameters"] = ((rows, environment.n_parameters), f8)
        return found

    def _check(self, structure: Any) -> None:
        """See that a structure holds what C will read and write."""
        for name, low in (("horizon", 1), ("batch", 1), ("every", 1), ("updates", 0), ("n_step", 1), ("hold", 1), ("warmup", 0)):
            if getattr(structure, name) < low:
                raise InvalidInput(f"{name} must be at least {low}, not {getattr(structure, name)}")
        if not 0 < structure.epsilon < np.inf:  # without it what pads the networks would become 0 / 0
            raise InvalidInput(f"epsilon must be a positive finite number, not {structure.epsilon:g}")
        if structure.env:
            _check_environment(self.shape, structs.Environment.from_address(structure.env))
        held: dict[str, Array] = getattr(structure, "held", {})
        for name, (shape, dtype) in self.kinds(structure).items():
            x = held.get(name)
            if x is None or x.shape != shape or x.dtype != dtype:
                have = "nothing" if x is None else f"{x.shape} of {x.dtype}"
                raise InvalidInput(f"{name} needs {shape} of {np.dtype(dtype)}, it has {have}")
        replay: Replay | None = getattr(structure, "replay", None)
        if replay is None or replay.observation.shape[2] != self.shape.inputs or replay.action.shape[2] != self.shape.numbers:
            raise InvalidInput("a replay of these networks' sizes is needed: fill_ring puts it there")
        if not structure.env and not (replay.kind != NO_STEP).any():
            raise InvalidInput("the replay holds no step to learn from")


def _check_environment(shape: SACShape, environment: Any) -> None:
    size = structs.size_of(structs.Environment)
    if (environment.version, environment.size) != (structs.ENVIRONMENT_VERSION, size):
        raise Unsupported(f"the environment is built for version {environment.version} of pe_env.h, this trainer for {structs.ENVIRONMENT_VERSION}")
    if environment.agents != 1:
        raise Unsupported(f"SAC trains one agent, the environment has {environment.agents}")
    if (environment.n_observation, environment.n_action) != (shape.inputs, shape.numbers):
        sizes = f"{environment.n_observation} observations and {environment.n_action} actions"
        raise Unsupported(f"the environment has {sizes}, the networks {shape.inputs} and {shape.numbers}")


def fill_ring(structure: Any, replay: Replay) -> None:
    """Put the addresses of a replay's arrays into a structure, which keeps them alive."""
    structure.ring.rows, structure.ring.slots = replay.rows, replay.slots
    for name in ("observation", "action", "reward", "cost", "kind", "place"):
        setattr(structure.ring, name, getattr(replay, name).ctypes.data)
    structure.replay = replay
