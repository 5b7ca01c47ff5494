"""``pe_env.h`` from Python: scalar functions compiled by numba into the pointers, and the struct that holds them.

Compiled functions are cached on disk, in numba's cache, under a digest of all that they are made of: the bytecode and constants of every
function that they reach. What changes is compiled anew; a stale function is never found.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import itertools
import os
import pickle
import re
import types
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from puffer_edge.envs import entries, rows, scalar
from puffer_edge.envs.rewire import Foreign, reached, rewired
from puffer_edge.errors import InvalidInput, MissingExtra

if TYPE_CHECKING:
    from puffer_edge.envs.dynamics import Dynamics

VERSION = 2
"""PE_ENV_VERSION."""

_I64, _U32, _POINTER = ctypes.c_int64, ctypes.c_uint32, ctypes.c_void_p
RESET_MANY = ctypes.CFUNCTYPE(None, _I64, _I64, *[_POINTER] * 6)
STEP_MANY = ctypes.CFUNCTYPE(None, _I64, _I64, *[_POINTER] * 10)
OBSERVE_MANY = ctypes.CFUNCTYPE(None, _I64, _POINTER, _POINTER)
ALLOW_MANY = OBSERVE_MANY


class PeEnv(ctypes.Structure):
    """``struct pe_env``."""

    _fields_ = (
        ("version", _U32),
        ("size", _U32),
        ("agents", _U32),
        ("n_state", _U32),
        ("n_observation", _U32),
        ("n_action", _U32),
        ("n_parameters", _U32),
        ("max_steps", _U32),
        ("reset_many", _POINTER),
        ("step_many", _POINTER),
        ("allow_many", _POINTER),
        ("n_choices", _U32),
        ("unused", _U32),
    )


@dataclass(frozen=True, eq=False)
class Pointer:
    """A ``pe_env`` for whoever calls it from C; it keeps alive what it points to.

    Attributes:
        struct: the struct itself.
        owner: what must live as long.
    """

    struct: PeEnv
    owner: object

    @property
    def address(self) -> int:
        """Address of the struct: the ``const pe_env *`` of C."""
        return ctypes.addressof(self.struct)

    @staticmethod
    def at(address: int, owner: object) -> Pointer:
        """The ``pe_env`` that a C, C++ or Rust library holds at an address; ``owner`` is the loaded library.

        Raises:
            InvalidInput: null, or an ABI of another version.
        """
        if not address:
            raise InvalidInput("the library gave a null pointer in the place of a pe_env")
        struct = PeEnv.from_address(address)
        if (struct.version, struct.size) != (VERSION, ctypes.sizeof(PeEnv)):
            raise InvalidInput(
                f"the environment was built for version {struct.version} of pe_env.h with {struct.size} bytes, this is version {VERSION} "
                f"with {ctypes.sizeof(PeEnv)}: compile it again with puffer_edge/envs/pe_env.h"
            )
        if not (struct.reset_many and struct.step_many and struct.agents and struct.n_observation and struct.n_action):
            raise InvalidInput("the environment's pe_env lacks a function, or has no agent, no observation or no action")
        if struct.allow_many and not struct.n_choices:
            raise InvalidInput("the environment's pe_env has allow_many, but says of no choices that it would allow: set n_choices")
        return Pointer(struct, owner)

    def reset(self, first: int, key: Any, step: Any, mask: Any, state: Any, observation: Any, parameters: Any = None) -> None:
        """``reset_many`` on arrays, in place; shapes as in ``pe_env.h``."""
        RESET_MANY(self.struct.reset_many)(len(state), first, *map(_data, (key, step, mask, parameters, state, observation)))

    def step(self, first: int, key: Any, step: Any, action: Any, state: Any, observation: Any, *out: Any, parameters: Any = None) -> None:
        """``step_many`` on arrays, in place; ``out`` is reward, cost, terminated and alive."""
        STEP_MANY(self.struct.step_many)(len(state), first, *map(_data, (key, step, parameters, action, state, observation, *out)))

    def allow(self, state: Any, allowed: Any) -> None:
        """``allow_many`` on arrays, in place; only where the struct has it."""
        ALLOW_MANY(self.struct.allow_many)(len(state), *map(_data, (state, allowed)))


@dataclass(frozen=True, eq=False)
class Native:
    """Compiled dynamics.

    Attributes:
        dynamics: what was compiled.
        functions: numba's functions, which own the machine code: reset, step, observe, and allow where there is one.
        cached: all of them came from the disk.
    """

    dynamics: Dynamics
    functions: tuple[Any, ...]
    cached: bool
    _pointers: dict[int, Pointer] = field(default_factory=dict)

    def pointer(self, max_steps: int) -> Pointer:
        """The ``pe_env`` with an episode's length; it lives as long as the dynamics.

        Args:
            max_steps: the clock ends an episode after so many steps; 0 never does.
        """
        if max_steps not in self._pointers:
            d = self.dynamics
            reset, step, _, allow = (*(f.address for f in self.functions), None)[:4]
            sizes = (d.agents, d.n_state, d.n_observation, d.n_action, 0, max_steps)
            self._pointers[max_steps] = Pointer(PeEnv(VERSION, ctypes.sizeof(PeEnv), *sizes, reset, step, allow, d.n_choices if allow else 0), self)
        return self._pointers[max_steps]

    def reset(self, first: int, key: Any, step: Any, mask: Any, state: Any, observation: Any) -> None:
        self._call[0](len(state), first, *map(_data, (key, step, mask, None, state, observation)))

    def step(self, first: int, key: Any, step: Any, action: Any, state: Any, observation: Any, *out: Any) -> None:
        self._call[1](len(state), first, *map(_data, (key, step, None, action, state, observation, *out)))

    def observe(self, state: Any, observation: Any) -> None:
        self._call[2](len(state), _data(state), _data(observation))

    def allow(self, state: Any, allowed: Any) -> None:
        self._call[3](len(state), _data(state), _data(allowed))

    @property
    def _call(self) -> tuple[Any, ...]:
        kinds = (RESET_MANY, STEP_MANY, OBSERVE_MANY, ALLOW_MANY)
        return tuple(kind(f.address) for kind, f in zip(kinds, self.functions))


def _data(array: npt.NDArray[Any] | None) -> int | None:
    if array is None:
        return None
    if not array.flags.c_contiguous:
        raise InvalidInput(f"an array of shape {array.shape} is not contiguous: a pointer would read other numbers")
    return int(array.ctypes.data)


def available() -> bool:
    """Whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


def compile_dynamics(dynamics: Dynamics) -> Native:
    """Compile scalar functions, or read them from numba's cache.

    Raises:
        MissingExtra: numba is not installed.
        InvalidInput: numba cannot compile a function; the message has its reason and line, the cause its whole text.
    """
    if not available():
        raise MissingExtra("train", "an environment for the native engine")
    import numba
    from numba.core.errors import NumbaError, UnsupportedBytecodeError

    d, values = dynamics, dynamics.values
    loops = (
        ("reset_many", rows.reset_rows(d.reset, d.observe, values, d.agents, d.scratch)),
        ("step_many", rows.step_rows(d.step, d.observe, values, d.agents, d.scratch)),
        ("observe_many", rows.observe_rows(d.observe, d.agents)),
        *([("allow_many", rows.allow_rows(d.allow, d.agents))] if d.allow is not None else []),
    )
    translate = _Translator()
    sizes = {"STATE": d.n_state, "OBSERVATION": d.n_observation, "ACTION": d.n_action, "AGENTS": d.agents}
    sizes |= {"CHOICES": d.n_choices} if d.allow else {}
    functions = []
    for name, loop in loops:
        given = {name.replace("_many", "_rows"): translate(loop), "carray": numba.carray, **sizes}
        digest = hashlib.sha256(repr((sorted(sizes.items()), translate.text(loop), numba.__version__)).encode()).hexdigest()[:24]
        try:
            functions.append(_entry(name, given, digest))
        except (NumbaError, UnsupportedBytecodeError) as error:
            raise InvalidInput(f"numba cannot compile the environment's {name.removesuffix('_many')}: {_reason(error)}") from error
    return Native(d, tuple(functions), all(f.cache_hits for f in functions))


def _reason(error: Exception) -> str:
    """Of numba's many lines the one that says why, and the innermost line of the environment's own text."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Failed in nopython")]
    said = itertools.takewhile(lambda line: not line.startswith(("File ", "During:")), lines)
    around = {os.path.abspath(str(module.__file__)) for module in (entries, rows)}
    named = re.finditer(r'File "([^"]+)", line \d+', str(error))
    own = next((found[0] for found in named if os.path.abspath(found[1]) not in around), "")
    return ", ".join(part for part in (" ".join(said).removesuffix(". Raised from None"), own) if part)


def _entry(name: str, given: dict[str, Any], digest: str) -> Any:
    """One function of ``entries`` with its names filled in, compiled to a C function."""
    import numba

    template: types.FunctionType = getattr(entries, name)
    function = types.FunctionType(template.__code__, {**vars(entries), **given}, f"{name}_{digest}")
    function.__qualname__, function.__module__ = function.__name__, entries.__name__
    signature = _signature(name)
    try:
        return numba.cfunc(signature, cache=True, error_model="numpy")(function)
    except (RuntimeError, OSError, EOFError, ImportError, pickle.UnpicklingError):  # no folder to write to, or what lies there is damaged
        return numba.cfunc(signature, error_model="numpy")(function)


def _signature(name: str) -> Any:
    from numba import types as t

    i64, f64 = t.int64, t.CPointer(t.float64)
    u8, u32, u64 = t.CPointer(t.uint8), t.CPointer(t.uint32), t.CPointer(t.uint64)
    return {
        "reset_many": t.void(i64, i64, u32, u64, u8, f64, f64, f64),
        "step_many": t.void(i64, i64, u32, u64, f64, f64, f64, f64, f64, f64, u8, u8),
        "observe_many": t.void(i64, f64, f64),
        "allow_many": t.void(i64, f64, u8),
    }[name]


class _Translator:
    """Plain functions, and all plain functions that they reach by global name or closure, as numba's.

    Each is compiled under a name of its own, made of all that it depends on: machine code that comes from the cache keeps the names of
    its inner functions, and two different ones of one name would call each other's.
    """

    def __init__(self) -> None:
        import numba

        self._compile = numba.njit(error_model="numpy")
        self._forms = _forms()
        self._done: dict[Any, Any] = {}
        self._texts: dict[Any, str] = {}

    def __call__(self, function: Any) -> Any:
        if isinstance(function, Foreign):
            return _external(function)
        if function not in self._done:
            digest = hashlib.sha256(self.text(function).encode()).hexdigest()[:24]
            copy = rewired(self._forms.get(function, function), self)
            copy.__qualname__, copy.__module__ = f"{function.__name__}_{digest}", entries.__name__  # the cache imports the module that it names
            self._done[function] = self._compile(copy)
        return self._done[function]

    def text(self, value: Any) -> str:
        """All that a function's machine code depends on, as text."""
        if isinstance(value, types.FunctionType):
            if value not in self._texts:
                self._texts[value] = ""
                source = self._forms.get(value, value)
                parts = {name: self.text(part) for name, part in reached(source).items()}
                self._texts[value] = repr((_code(source.__code__), parts, [self.text(c.cell_contents) for c in source.__closure__ or ()]))
            if not self._texts[value]:
                raise InvalidInput(f"the scalar function {value.__name__} calls itself: write a loop")
            return self._texts[value]
        if isinstance(value, np.ndarray):
            return repr((value.dtype.str, value.shape, value.tobytes()))
        text = f"module {value.__name__}" if isinstance(value, types.ModuleType) else repr(value)
        return type(value).__qualname__ if " at 0x" in text else text  # numba's own: its version is in the digest


def _external(function: Foreign) -> Any:
    """A library's function for compiled code, which finds it by its name."""
    from llvmlite import binding
    from numba import types as t

    binding.add_symbol(function.name, function.address)
    kinds = {_I64: t.int64, _POINTER: t.voidptr}
    return t.ExternalFunction(function.name, t.void(*(kinds[kind] for kind in function.kind._argtypes_)))


def _code(code: types.CodeType) -> tuple[Any, ...]:
    constants = tuple(_code(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts)
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars


def _forms() -> dict[Any, Any]:
    """Forms of ``scalar``'s functions that compile well; each gives the bits of the plain one."""
    import math

    from numba import types as t
    from numba.extending import intrinsic

    @intrinsic  # type: ignore[untyped-decorator]
    def libm_pow(context: Any, x: Any, y: Any) -> Any:
        return _libm("pow", t.float64)

    @intrinsic  # type: ignore[untyped-decorator]
    def libm_powf(context: Any, x: Any, y: Any) -> Any:
        return _libm("powf", t.float32)

    return {
        scalar.sin: lambda x: math.sin(x),
        scalar.cos: lambda x: math.cos(x),
        scalar.log: lambda x: math.log(x),
        scalar.sqrt: lambda x: math.sqrt(x),
        scalar.power: lambda x, y: libm_pow(x, y),
        scalar.power_single: lambda x, y: np.float64(libm_powf(np.float32(x), np.float32(y))),
        scalar.single: lambda x: np.float64(np.float32(x)),
    }


def _libm(name: str, kind: Any) -> tuple[Any, Any]:
    """A call of a function of libm with two arguments that LLVM leaves alone: it would make a product of a square."""
    from llvmlite import ir

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        real = context.get_value_type(kind)
        function = builder.module.globals.get(name) or ir.Function(builder.module, ir.FunctionType(real, (real, real)), name)
        function.attributes.add("nobuiltin")
        return builder.call(function, arguments)

    return kind(kind, kind), build
