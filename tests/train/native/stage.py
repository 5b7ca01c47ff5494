"""What a rollout needs around it: environments in C and in Python behind the pointers of pe_env.h, and arrays of the right shapes."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from ctypes import POINTER, c_double, c_int64, c_uint8, c_uint32, c_uint64
from pathlib import Path
from typing import Any

import numpy as np

from puffer_edge.train.native import arrays, build, structs
from puffer_edge.train.native.engine import Engine, Shape, fill

ROOT = Path(__file__).parents[3]
Array = np.ndarray[Any, Any]
CHANGING = ("state", "observed", "step", "elapsed", "episode_return", "episode_cost")
MASK = np.uint64(0xFFFFFFFF)


def cartpole_in_c(folder: Path, max_steps: int = 500) -> tuple[Any, Any]:
    """The example, built by the line in its head; its structure, and the library that must stay alive."""
    source, made = ROOT / "examples" / "cartpole_c" / "cartpole.c", folder / "cartpole.so"
    compiler = build.compiler()
    assert compiler is not None
    command = [*compiler, "-O3", "-fPIC", "-shared", f"-I{build.HEADERS}", str(source), "-o", str(made), "-lm"]
    subprocess.run(command, check=True, capture_output=True)
    library = ctypes.CDLL(str(made))
    environment = structs.Environment.from_buffer_copy(structs.Environment.in_dll(library, "pe_environment"))
    environment.max_steps = max_steps
    return environment, library


def in_python(
    size: int, observations: int, actions: int, step: Callable[[Array, Array, Array], tuple[Array, ...]], agents: int = 1, max_steps: int = 0
) -> tuple[Any, Any]:
    """An environment of a Python function, whose observation is the start of its state.

    ``step(state (n, size), action (n, agents, actions), index (n,)) → reward, cost, terminated (n, agents)`` changes the state in place; it
    may give alive too, which is True otherwise.
    At a start the state is the environment's index in all columns.
    """
    f8, u1 = POINTER(c_double), POINTER(c_uint8)

    def view(pointer: Any, *shape: int) -> Array:
        return np.ctypeslib.as_array(pointer, shape)

    @ctypes.CFUNCTYPE(None, c_int64, c_int64, POINTER(c_uint32), POINTER(c_uint64), u1, f8, f8, f8)
    def reset_many(n: int, first: int, key: Any, steps: Any, mask: Any, parameters: Any, state: Any, observation: Any) -> None:
        s, o = view(state, n, size), view(observation, n, agents, observations)
        fresh = view(mask, n) != 0
        s[fresh] = (first + np.arange(n))[fresh, None]
        o[fresh] = s[fresh][:, : agents * observations].reshape(-1, agents, observations)

    @ctypes.CFUNCTYPE(None, c_int64, c_int64, POINTER(c_uint32), POINTER(c_uint64), f8, f8, f8, f8, f8, f8, u1, u1)
    def step_many(n: int, first: int, key: Any, steps: Any, parameters: Any, action: Any, state: Any, observation: Any, *out: Any) -> None:
        s = view(state, n, size)
        reward, cost, terminated, *alive = step(s, view(action, n, agents, actions), first + np.arange(n))
        view(observation, n, agents, observations)[:] = s[:, : agents * observations].reshape(n, agents, observations)
        for pointer, value in zip(out, (reward, cost, terminated, *(alive or [True]))):
            view(pointer, n, agents)[:] = value

    environment = structs.Environment(
        structs.ENVIRONMENT_VERSION, ctypes.sizeof(structs.Environment), agents, size, observations, actions, 0, max_steps
    )
    environment.reset_many, environment.step_many = (ctypes.cast(f, ctypes.c_void_p) for f in (reset_many, step_many))
    return environment, (reset_many, step_many)


def masking(environment: Any, choices: int, allowed: Callable[[Array], Array]) -> Any:
    """Give an environment ``allowed(state (n, size)) → (n, agents, choices)``; what must stay alive comes back."""

    @ctypes.CFUNCTYPE(None, c_int64, POINTER(c_double), POINTER(c_uint8))
    def allow_many(n: int, state: Any, out: Any) -> None:
        found = allowed(np.ctypeslib.as_array(state, (n, environment.n_state)))
        np.ctypeslib.as_array(out, (n, environment.agents, choices))[:] = found

    environment.allow_many, environment.n_choices = ctypes.cast(allow_many, ctypes.c_void_p), choices
    return allow_many


def stage(
    engine: Engine, environment: Any, horizon: int, environments: int, seed: int = 3, costs: bool = False, **given: Array
) -> tuple[Any, dict[str, Array]]:
    """The structure of a rollout, and its arrays by name."""
    kinds = arrays.rollout_kinds(engine.shape, environment, horizon, environments, engine.real, costs)
    held = {name: np.zeros(shape, dtype) for name, (shape, dtype) in kinds.items()} | given
    for name in ("deviation", "scale"):
        if name in held and name not in given:
            held[name][:] = 1
    r = structs.Rollout()
    r.env, r.horizon, r.environments, r.seed, r.clip = ctypes.addressof(environment), horizon, environments, seed, 10.0
    fill(r, **held)
    return r, held


def philox(counter: tuple[Array | int, ...], key: tuple[int, int]) -> list[Array]:
    """Philox4x32-10 on numpy, written from the paper; words as uint64 below 2^32."""
    c = [np.asarray(x, np.uint64) for x in counter]
    k = [np.uint64(x) for x in key]
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(b >> np.uint64(32)) ^ c[1] ^ k[0], b & MASK, (a >> np.uint64(32)) ^ c[3] ^ k[1], a & MASK]
        k = [(k[0] + np.uint64(0x9E3779B9)) & MASK, (k[1] + np.uint64(0xBB67AE85)) & MASK]
    return c


def uniform(word: Array) -> Array:
    """24 bits of a word, in [0, 1)."""
    found: Array = (word >> np.uint64(8)).astype(np.float64) / 2**24
    return found


def trained(engine: Engine, environment: Any, parameters: Array, rounds: int, kept: dict[str, Array] | None = None, **sizes: Any) -> dict[str, Array]:
    """So many rollouts with an update after each; all arrays afterwards, the optimiser's among them.

    Args:
        kept: arrays of an earlier call to go on from.
    """
    r, held = stage(engine, environment, sizes["horizon"], sizes["environments"], levels=np.array([-10.0, 10.0]))
    learnt = {"parameters": parameters.astype(engine.real), "adam_steps": np.zeros(1, np.int64), "updates": np.zeros(1, np.int64)}
    learnt |= {name: np.zeros(engine.shape.size, engine.real) for name in ("first", "second")}
    if kept is None:
        assert engine.reset(r) == (0, 0, 0)
    else:
        for name in (*CHANGING, *learnt):
            (held if name in held else learnt)[name][:] = kept[name]
    for _ in range(rounds):
        assert engine.rollout(learnt["parameters"], r) == (0, 0, 0)
        ends = (held[name].view(np.bool_) for name in ("terminated", "truncated"))
        advantage, returns = engine.advantages(held["reward"], held["value"], held["final_value"], *ends, 0.98, 0.9)
        u = structs.Update()
        u.samples, u.minibatch, u.epochs, u.seed, u.update = held["reward"].size, sizes.get("minibatch", 256), sizes.get("epochs", 4), 5, 0
        u.update = int(learnt["updates"][0])
        u.normalize_advantage, u.learning_rate, u.beta1, u.beta2, u.epsilon, u.max_grad_norm = 1, sizes.get("rate", 1e-3), 0.9, 0.999, 1e-5, 0.5
        u.loss.clip, u.loss.value_weight = 0.2, 0.5
        fill(u, advantage=advantage, returns=returns, **{name: held[name] for name in ("inputs", "log_prob", "value", "choice")})
        fill(u, **{name: learnt[name] for name in ("parameters", "first", "second", "adam_steps")})
        engine.update(u)
        learnt["updates"][0] += 1
    return held | learnt


def shaped(environment: Any, kind: str, sizes: tuple[int, ...]) -> Shape:
    """Small networks that fit an environment."""
    return Shape(environment.n_observation, (19, 8), "tanh", kind, sizes)
