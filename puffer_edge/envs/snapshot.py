"""What a living thing is, as bytes: the attributes of it and of all that it holds, taken as plain values and put back into another of its kind.

Of what was saved nothing is made but numbers, texts, arrays, containers of them and numpy's generators. Objects are those that the other one
has made itself, and of the same class; what is neither is refused with its path. That two of a kind then go on alike is for
``puffer_edge.train.vector.saving`` to see: a class attribute, a global or a clock is in no object's attributes.
"""

from __future__ import annotations

import base64
import json
import sys
import types
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import Unsupported

MOST_BYTES = 2**26
"""Of one environment."""
GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
METHODS = (("get_state", "set_state"), ("getstate", "setstate"))
"""Whoever has a pair of them says itself what its state is: the first gives plain values, the second takes them back."""
CONSTANT = (
    "gymnasium.envs.registration.EnvSpec", "mujoco._structs.MjModel", "numpy.dtype",
    "pygame.font.Font", "pygame.freetype.Font", "pygame.surface.Surface", "pygame.time.Clock",
)  # fmt: skip
"""Classes of objects that are alike in all environments of a kind, or are drawn upon anew."""
ARENA = ("efc_", "iefc_", "map_")
"""Beginnings of names in MuJoCo's data whose length is that of the contacts; the next step computes them anew."""


class _Bare:
    pass


def take(root: Any) -> bytes:
    """The state of a living thing.

    Raises:
        Unsupported: it holds what is no plain value, named with its path, or its ``get_state`` raised.
    """
    try:
        data = json.dumps(_Taker().node(root, ""), separators=(",", ":")).encode()
    except Unsupported:
        raise
    except Exception as error:  # whatever an environment's own code raises when it is looked at
        raise Unsupported(f"its state cannot be taken: {type(error).__name__}: {error}") from None
    if len(data) > MOST_BYTES:
        raise Unsupported(f"its state has {len(data):,} bytes, more than {MOST_BYTES:,}")
    return data


def put(root: Any, data: bytes) -> None:
    """Let a living thing be what ``take`` gave of another one; where that fails it is in between.

    Raises:
        Unsupported: it lacks an object that the other one had, or the bytes are not of ``take``.
    """
    try:
        _Putter().value(json.loads(data), root, "")
    except Unsupported:
        raise
    except Exception as error:
        raise Unsupported(f"its saved state does not fit: {type(error).__name__}: {error}") from None


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _own(value: Any) -> tuple[Callable[[], Any], Callable[[Any], None]] | None:
    """The pair of methods by which it says its state itself."""
    for names in METHODS:
        if all(callable(getattr(type(value), name, None)) for name in names):
            get, put_back = (getattr(value, name) for name in names)
            return get, put_back
    return None


def _constant(value: Any) -> bool:
    """Whether it is code, or alike in all environments of a kind."""
    if isinstance(value, types.FunctionType):
        return value.__closure__ is None
    return isinstance(value, (type, types.ModuleType, np.ufunc)) or type(value) is types.BuiltinFunctionType or _kind(value) in CONSTANT


def _attributes(value: Any, path: str) -> dict[str, Any] | None:
    """Of an object of a class in Python what may change; None of what keeps something elsewhere.

    A living environment may say it in ``changing``: the outermost, and the one around which it lies, its ``inner``.
    """
    cls = type(value)
    if not hasattr(value, "__dict__") or cls.__basicsize__ > _Bare.__basicsize__ or cls.__itemsize__:
        return None
    kept = getattr(cls, "changing", None) if path in ("", ".inner") else None
    if "gymnasium" in sys.modules and isinstance(value, sys.modules["gymnasium"].Space):
        kept = ("_np_random", "spaces")
    return {name: held for name, held in vars(value).items() if kept is None or name in kept}


def _is_mujoco(value: Any) -> bool:
    return _kind(value) == "mujoco._structs.MjData"


class _Taker:
    """Values to JSON. What may change in place and is met again is told as the number of its first meeting."""

    def __init__(self) -> None:
        self._met: dict[int, int] = {}
        self._alive: list[Any] = []  # so that no two have one identity

    def node(self, value: Any, path: str) -> Any:
        """JSON of a value that was found at a path."""
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, np.generic) and not value.dtype.hasobject:
            return ["scalar", value.dtype.str, _text(value.tobytes())]
        if type(value) is tuple:
            return ["tuple", [self.node(part, f"{path}[{k}]") for k, part in enumerate(value)]]
        if type(value) is bytes:
            return ["bytes", _text(value)]
        if _constant(value):
            return ["constant", _kind(value)]
        if id(value) in self._met:
            return ["same", self._met[id(value)]]
        self._met[id(value)] = len(self._met)
        self._alive.append(value)
        return self._changing(value, path)

    def _changing(self, value: Any, path: str) -> Any:
        if type(value) is np.ndarray and not value.dtype.hasobject and value.dtype.names is None:
            order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
            return ["array", value.dtype.str, list(value.shape), order, _text(value.tobytes(order))]  # type: ignore[arg-type]
        if type(value) in (list, deque, set):
            about = value.maxlen if type(value) is deque else None
            return [type(value).__name__, about, [self.node(part, f"{path}[{k}]") for k, part in enumerate(value)]]
        if type(value) is dict:
            return ["dict", [[self.node(key, f"{path}[…]"), self.node(part, f"{path}[{key!r}]")] for key, part in value.items()]]
        if type(value) is np.random.Generator and type(value.bit_generator).__name__ in GENERATORS:
            return ["generator", type(value.bit_generator).__name__, _Taker().node(value.bit_generator.state, path)]
        if _is_mujoco(value):
            return ["mujoco", _Taker().node(_mujoco(value), path)]
        own, attributes = _own(value), _attributes(value, path)
        if own is not None:
            found = {name: x for name, x in (attributes or {}).items() if type(x) is np.random.Generator}
            return ["own", _kind(value), self.node(own[0](), f"{path}.get_state()"), self._all(found, path)]
        if attributes is None:
            raise Unsupported(f"{path or 'it'} is of type {_kind(value)}, which no plain values make")
        return ["object", _kind(value), self._all(attributes, path)]

    def _all(self, attributes: dict[str, Any], path: str) -> list[Any]:
        return [[name, self.node(held, f"{path}.{name}")] for name, held in attributes.items()]


_MISSING = object()


class _Putter:
    """JSON to values, in the order in which they were taken, beside what is there already."""

    def __init__(self) -> None:
        self._met: list[Any] = []
        self._filled: set[int] = set()

    def value(self, node: Any, there: Any, path: str) -> Any:
        """What belongs where ``there`` is now, or ``_MISSING`` where nothing is."""
        if node is None or isinstance(node, (bool, int, float, str)):
            return node
        tag, *rest = node
        if tag == "scalar":
            return np.frombuffer(_bytes(rest[1]), _dtype(rest[0]))[0]
        if tag == "bytes":
            return _bytes(rest[0])
        if tag == "tuple":
            return tuple(self._parts(rest[0], there, path))
        if tag == "same":
            return self._met[rest[0]]
        if tag == "constant":
            if there is _MISSING or _kind(there) != rest[0]:
                raise Unsupported(f"{path}, a {rest[0]}, is not there")
            return there
        self._met.append(None)
        return self._changing(len(self._met) - 1, tag, rest, there, path)

    def _changing(self, number: int, tag: str, rest: list[Any], there: Any, path: str) -> Any:
        met = self._met
        if tag == "array":
            dtype, shape, order, text = rest
            met[number] = np.frombuffer(_bytes(text), _dtype(dtype)).reshape(shape, order=order).copy(order)
        elif tag in ("list", "deque", "set"):
            made: Any = [] if tag == "list" else set() if tag == "set" else deque(maxlen=rest[0])
            met[number] = made  # before its parts, which may hold it
            for part in self._parts(rest[1], there, path):
                made.add(part) if tag == "set" else made.append(part)
        elif tag == "dict":
            met[number] = {}
            for key, part in rest[0]:
                name = self.value(key, _MISSING, path)
                met[number][name] = self.value(part, there.get(name, _MISSING) if isinstance(there, dict) else _MISSING, f"{path}[{name!r}]")
        elif tag == "generator":
            if rest[0] not in GENERATORS:
                raise Unsupported(f"{path} is a generator of the unknown kind {rest[0]!r}")
            met[number] = np.random.Generator(getattr(np.random, rest[0])())
            met[number].bit_generator.state = _Putter().value(rest[1], _MISSING, path)
        elif tag == "mujoco" and _is_mujoco(there):
            met[number] = there
            _put_mujoco(there, _Putter().value(rest[0], _MISSING, path))
        elif tag in ("own", "object"):
            met[number] = self._object(number, tag, rest, there, path)
        else:
            raise Unsupported(f"{path}, {tag!r}, is not there")
        return met[number]

    def _object(self, number: int, tag: str, rest: list[Any], there: Any, path: str) -> Any:
        if there is _MISSING or _kind(there) != rest[0]:
            raise Unsupported(f"{path or 'it'}, an object of the class {rest[0]}, has not been made by a new environment")
        if id(there) in self._filled:
            raise Unsupported(f"{path or 'it'}, an object of the class {rest[0]}, is also found elsewhere in a new environment")
        self._filled.add(id(there))
        self._met[number] = there
        attributes, own = _attributes(there, path), _own(there)
        if tag == "own" and own is not None:
            own[1](self.value(rest[1], _MISSING, path))
        elif tag == "object" and attributes is not None:
            for name in attributes.keys() - {name for name, _ in rest[1]}:
                del vars(there)[name]
        else:
            raise Unsupported(f"{path or 'it'} no longer keeps its state as it did")
        for name, node in rest[-1]:
            vars(there)[name] = self.value(node, (attributes or {}).get(name, _MISSING), f"{path}.{name}")
        return there

    def _parts(self, nodes: list[Any], there: Any, path: str) -> list[Any]:
        found = list(there) if isinstance(there, (list, tuple, deque)) else []
        found += [_MISSING] * (len(nodes) - len(found))
        return [self.value(node, part, f"{path}[{k}]") for k, (node, part) in enumerate(zip(nodes, found))]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _dtype(name: str) -> np.dtype[Any]:
    dtype = np.dtype(name)
    if dtype.hasobject or dtype.names is not None:
        raise Unsupported(f"{name!r} is no type of numbers")
    return dtype


def _mujoco(data: Any) -> dict[str, npt.NDArray[Any]]:
    """MuJoCo's integration state, and what its last step computed beside it, which an environment may read before the next one."""
    import mujoco

    spec = mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.empty(mujoco.mj_stateSize(data.model, spec))
    mujoco.mj_getState(data.model, data, state, spec)
    names = [name for name in dir(data) if not name.startswith(("_", *ARENA))]
    arrays = {name: held for name in names if isinstance(held := getattr(data, name, None), np.ndarray)}
    return {"": state, **arrays}


def _put_mujoco(data: Any, saved: dict[str, npt.NDArray[Any]]) -> None:
    import mujoco

    mujoco.mj_setState(data.model, data, saved.pop(""), mujoco.mjtState.mjSTATE_INTEGRATION)
    mujoco.mj_forward(data.model, data)  # contacts are found anew
    for name, held in saved.items():
        getattr(data, name)[...] = held
