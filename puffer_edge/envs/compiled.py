"""Scalar environments compiled by numba: the two pointers of ``pe_env.h``, bare or behind fixed point and shield.

Needs numba (extra ``train``). The scalar functions are compiled as they stand, with the words of ``scalar.py`` in their numba form;
what they call in their own module is compiled with them. No fast-math: the bits are those of the numpy face.
"""

from __future__ import annotations

import ctypes
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from puffer_edge.envs import scalar as words
from puffer_edge.envs.environment import Environment
from puffer_edge.errors import MissingExtra, Unsupported
from puffer_edge.integer.shield import Shield

VERSION = 1
"""``PE_ENV_VERSION``."""
HEADER = ("version", "size", "agents", "n_state", "n_observation", "n_action", "n_parameters", "max_steps")


class PeEnv(ctypes.Structure):
    """``pe_env`` of ``pe_env.h``."""

    _fields_ = [(name, ctypes.c_uint32) for name in HEADER] + [(name, ctypes.c_void_p) for name in ("reset_many", "step_many")]


@dataclass(frozen=True, eq=False)
class Compiled:
    """An environment as the native trainer takes it.

    Attributes:
        struct: sizes and pointers.
        columns: places in a row's state of what surrounds the environment: "state" (its own), "last" (observation in fixed point),
            "previous" (applied action in fixed point), "stages" (bits of the last step), "interventions" (steps with any, counted).
        kept: what the pointers need to stay alive.
    """

    struct: PeEnv
    columns: dict[str, slice]
    kept: tuple[Any, ...]

    @property
    def address(self) -> int:
        """Of the structure."""
        return ctypes.addressof(self.struct)


OPTIONS: dict[str, Any] = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Of everything compiled here: nothing of it is called from Python, and division by zero gives infinity."""
RESET = """
def reset_many(n, first, key, step, mask, parameters, state, observation):
    S, O = carray(state, (n, {size})), carray(observation, (n, {n_obs}))
    M, T, K = carray(mask, (n,)), carray(step, (n,)), carray(key, (2,))
    random = np.zeros(6, np.int64)
    for i in range(n):
        if M[i]:
            random[0], random[1], random[2], random[3] = K[0], K[1], 0, first + i
            random[4], random[5] = T[i] & 0xFFFFFFFF, T[i] >> 32
            s = reset(random)
{put_state}
            o = observe(s)
{put_observation}
"""
STEP = """
def step_many(n, first, key, step_, parameters, action, state, observation, reward, cost, terminated, alive):
    S, O, A = carray(state, (n, {size})), carray(observation, (n, {n_obs})), carray(action, (n, {n_act}))
    R, C, E, L = carray(reward, (n,)), carray(cost, (n,)), carray(terminated, (n,)), carray(alive, (n,))
    v, out = np.zeros({n_shield}, np.int64), np.zeros({n_out}, np.int64)
    for i in range(n):
{act}
        s, r, c, e = step(({state_in}), ({action_in}))
        R[i], C[i], E[i], L[i] = r, c, e, 1
{put_state}
        o = observe(s)
{put_observation}
"""


def jit(function: Callable[..., Any]) -> Any:
    """A scalar function compiled, with the plain functions that it calls; words of ``scalar.py`` take their numba form."""
    import numba

    known = _words()

    def replaced(value: Any) -> Any:
        if isinstance(value, types.FunctionType):
            return known.get(value) or jit(value)
        return value

    names = set(function.__code__.co_names)
    scope = {name: replaced(value) for name, value in function.__globals__.items() if name in names}
    closure = tuple(types.CellType(replaced(cell.cell_contents)) for cell in function.__closure__ or ())
    copy = types.FunctionType(function.__code__, {**scope, "__builtins__": __builtins__}, function.__name__, function.__defaults__, closure)
    return numba.njit(**OPTIONS)(copy)


def _words() -> dict[Any, Any]:
    """The words of ``scalar.py`` for numba, once."""
    import numba

    if not _COMPILED_WORDS:

        @numba.njit(**OPTIONS)
        def uniform(random: Any, low: Any, high: Any) -> Any:
            c0, c1, c2, c3, k0, k1 = random[2], random[3], random[4], random[5], random[0], random[1]
            for _ in range(10):  # Philox4x32-10; products wrap at 64 bits, of which the masks take the right ones
                a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
                c0, c1, c2, c3 = ((b >> 32) & 0xFFFFFFFF) ^ c1 ^ k0, b & 0xFFFFFFFF, ((a >> 32) & 0xFFFFFFFF) ^ c3 ^ k1, a & 0xFFFFFFFF
                k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
            random[2] += 1
            return low + (high - low) * (((c0 >> 5) * 67108864.0 + (c1 >> 6)) / 9007199254740992.0)

        @numba.njit(**OPTIONS)
        def where(condition: Any, a: Any, b: Any) -> Any:
            return a if condition else b

        @numba.njit(**OPTIONS)
        def single(x: Any) -> Any:
            return np.float32(x)

        @numba.njit(**OPTIONS)
        def limited(x: Any, low: Any, high: Any) -> Any:
            return min(max(x, low), high) if x == x else x

        _COMPILED_WORDS.update({words.uniform: uniform, words.where: where, words.single: single, words.limited: limited})
    return _COMPILED_WORDS


_COMPILED_WORDS: dict[Any, Any] = {}


def bare(environment: Environment) -> Compiled:
    """The environment by itself: physical action in, physical observation out.

    Raises:
        MissingExtra: numba is not installed.
        Unsupported: it was written for numpy, not as scalar functions.
    """
    size, c = environment.state_size, environment.contract
    texts = {
        "act": "        pass",
        "state_in": _tuple("S[i, {k}]", size),
        "action_in": _tuple("A[i, {k}]", c.n_actions),
        "put_state": _lines("S[i, {k}] = s[{k}]", size),
        "put_observation": _lines("O[i, {k}] = o[{k}]", c.n_observations),
    }
    return _compile(environment, texts, {"state": slice(0, size)}, size, {})


_GUARDED: dict[Any, Compiled] = {}


def guarded(environment: Environment, shield: Shield) -> Compiled:
    """The environment as a board meets it: proposals become fixed point, pass the shield and act; observations come in fixed point.

    The same bits as ``puffer_edge.envs.plant.Plant``.

    Args:
        environment: the task.
        shield: of its contract.

    Raises:
        MissingExtra: numba is not installed.
        Unsupported: it was written for numpy, not as scalar functions.
    """
    key = (environment.scalar, environment.contract.digest, shield.digest, environment.state_size, environment.max_steps)
    if key not in _GUARDED:  # compiling takes seconds
        _GUARDED[key] = _guarded(environment, shield)
    return _GUARDED[key]


def _guarded(environment: Environment, shield: Shield) -> Compiled:
    size, c = environment.state_size, environment.contract
    n, m = c.n_observations, c.n_actions
    last, previous, stages = size, size + n, size + n + m
    act = []
    for k in range(n):
        act.append(f"x = np.int64(S[i, {last + k}]) >> {int(c.shield_shift[k])}")
        act.append(f"v[{k}] = -32768 if x < -32768 else 32767 if x > 32767 else x")
    for k in range(m):
        low, high = float(c.action_low[k]), float(c.action_high[k])
        act.append(f"f = np.rint(A[i, {k}] * {2.0 ** int(c.action_bits[k])!r})")
        act.append(f"v[{n + k}] = np.int64({low!r} if f < {low!r} else {high!r} if f > {high!r} else f)")
        act.append(f"v[{n + m + k}] = np.int64(S[i, {previous + k}])")
    act.append("shield(v, out)")
    acted = [f"S[i, {previous + k}] = out[{k}]" for k in range(m)]
    acted += [f"S[i, {stages}] = out[{m}]", f"S[i, {stages + 1}] += 1.0 if out[{m}] else 0.0"]
    seen = []
    for k in range(n):
        low, high, step = float(c.observation_low[k]), float(c.observation_high[k]), 2.0 ** int(c.observation_bits[k])
        seen.append(f"f = np.rint(o[{k}] * {step!r})")
        seen.append(f"S[i, {last + k}] = f if not np.isfinite(o[{k}]) else {low!r} if f < {low!r} else {high!r} if f > {high!r} else f")
        seen.append(f"O[i, {k}] = S[i, {last + k}] * {1 / step!r}")
    begun = [f"S[i, {previous + k}] = {float(c.action_initial[k])!r}" for k in range(m)] + [f"S[i, {stages}] = 0.0"]
    indent = " " * 8
    texts = {
        "act": "\n".join(indent + line for line in act + acted),
        "state_in": _tuple("S[i, {k}]", size),
        "action_in": "".join(f"out[{k}] * {2.0 ** -int(c.action_bits[k])!r}, " for k in range(m)),
        "put_state": _lines("S[i, {k}] = s[{k}]", size),
        "put_observation": "\n".join(indent + line for line in seen),
        "begin": "\n".join(indent + line for line in begun),
    }
    columns = {
        "state": slice(0, size),
        "last": slice(last, previous),
        "previous": slice(previous, stages),
        "stages": slice(stages, stages + 1),
        "interventions": slice(stages + 1, stages + 2),
    }
    scope: dict[str, Any] = {}
    exec(compile(shield.to_micropython(), f"<shield of {environment.name}>", "exec"), scope)
    return _compile(environment, texts, columns, stages + 2, {"shield": scope["shield"]})


def _tuple(text: str, count: int) -> str:
    return "".join(text.format(k=k) + ", " for k in range(count))


def _lines(text: str, count: int) -> str:
    return "\n".join(" " * 8 + text.format(k=k) for k in range(count))


def _compile(environment: Environment, texts: dict[str, str], columns: dict[str, slice], size: int, more: dict[str, Any]) -> Compiled:
    """Both pointers."""
    try:
        import numba
        from numba import types as nt
    except ImportError:
        raise MissingExtra("train", "compiling environments (numba)") from None
    scalar, c = environment.scalar, environment.contract
    if scalar is None:
        raise Unsupported(f"{environment.name} is not written as scalar functions (Environment.of): the torch engine runs it")
    texts = {"size": str(size), "n_obs": str(c.n_observations), "n_act": str(c.n_actions), "begin": "", **texts}
    texts |= {"n_shield": str(c.n_observations + 2 * c.n_actions + 1), "n_out": str(c.n_actions + 1)}
    deeper = {key: "\n".join("    " + line for line in texts[key].splitlines()) for key in ("put_state", "put_observation", "begin")}
    reset_text = RESET.format(**texts | deeper | {"put_state": "\n".join(filter(None, (deeper["put_state"], deeper["begin"])))})
    functions = {name: jit(getattr(scalar, name)) for name in ("reset", "observe", "step")} | {name: jit(f) for name, f in more.items()}
    scope: dict[str, Any] = {"np": np, "carray": numba.carray, **functions}
    exec(compile(reset_text + STEP.format(**texts), f"<pointers of {environment.name}>", "exec"), scope)
    pointer: Any = nt.CPointer
    f8, u1, u4, u8 = (pointer(kind) for kind in (nt.float64, nt.uint8, nt.uint32, nt.uint64))
    signatures = {
        "reset_many": nt.void(nt.int64, nt.int64, u4, u8, u1, f8, f8, f8),
        "step_many": nt.void(nt.int64, nt.int64, u4, u8, f8, f8, f8, f8, f8, f8, u1, u1),
    }
    try:
        made = {name: numba.cfunc(signature, error_model="numpy")(scope[name]) for name, signature in signatures.items()}
    except numba.core.errors.NumbaError as error:
        raise Unsupported(f"numba does not compile {environment.name}: {str(error).strip()[:600]}") from None
    struct = PeEnv(VERSION, ctypes.sizeof(PeEnv), 1, size, c.n_observations, c.n_actions, 0, environment.max_steps)
    struct.reset_many, struct.step_many = made["reset_many"].address, made["step_many"].address
    return Compiled(struct, columns, (made, functions))
