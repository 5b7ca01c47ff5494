"""Pickles as data: a stack machine that knows the opcodes and calls nothing.

Where a pickle says "import this and call it with that", the result here is a record of these words (``Global``, ``Made``). Whoever wants
a number out of it asks ``array`` or ``plain``, which know numpy's few forms. So a hostile pickle can lie, but it cannot act.
"""

from __future__ import annotations

import math
import pickletools
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import InvalidInput

MAX_PICKLE = 4 * 2**20
"""Largest pickle that is read; tensors lie beside it, not in it."""
MAX_OPCODES = 1_000_000
_MARK = object()
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")


@dataclass(frozen=True, eq=False)
class Global:
    """The name of something importable that is not imported.

    Attributes:
        module: its module.
        name: its name there.
    """

    module: str
    name: str

    @property
    def dotted(self) -> str:
        """Both, with a dot."""
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False)  # a repr of what refers to itself has no end
class Made:
    """What a pickle wanted to be called, and with what.

    Attributes:
        function: usually a ``Global``.
        arguments: of the call.
        state: what it wanted to be set afterwards.
        items: what it wanted to be appended.
        pairs: keys and values it wanted to be set.
    """

    function: Any
    arguments: tuple[Any, ...]
    state: Any = None
    items: list[Any] = field(default_factory=list)
    pairs: dict[Any, Any] = field(default_factory=dict)

    def is_(self, *names: str) -> bool:
        """Whether it is a call of one of these dotted names."""
        return isinstance(self.function, Global) and self.function.dotted in names


@dataclass(frozen=True, eq=False)
class Persistent:
    """A reference to something that lies beside the pickle; torch's storages are."""

    key: Any


def read(data: bytes, what: str) -> Any:
    """The value of a pickle, with records in place of everything that is not a plain value.

    Args:
        data: the pickle.
        what: its name, for messages.

    Raises:
        InvalidInput: it is damaged, too large, or uses an opcode that these files do not.
    """
    if len(data) > MAX_PICKLE:
        raise InvalidInput(f"the pickle in {what} has {len(data):,} bytes, at most {MAX_PICKLE:,} are read")
    machine = _Machine(what)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if opcode.name == "STOP":
                return machine.pop()
            if count >= MAX_OPCODES:
                raise InvalidInput(f"the pickle in {what} has more than {MAX_OPCODES:,} operations")
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, EOFError, OverflowError, UnicodeError) as error:
        raise InvalidInput(f"the pickle in {what} is damaged: {reprlib.repr(str(error))}") from None
    raise InvalidInput(f"the pickle in {what} ends in the middle")


class _Machine:
    """Stack and memo of one pickle."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value should be")
        return value

    def top(self) -> Any:
        if self.stack[-1] is _MARK:
            raise ValueError("a mark where a value should be")
        return self.stack[-1]

    def pop_mark(self) -> list[Any]:
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def step(self, name: str, argument: Any) -> None:
        """One opcode."""
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            self.stack.append(argument)
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.top()
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.top()
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise InvalidInput(f"the pickle in {self.what} uses {name}, which no file of a known trainer does")

    def tuple_of(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.stack.append(tuple(values[::-1]))

    def extend(self, values: list[Any]) -> None:
        target = self.top()
        (target.items if isinstance(target, Made) else _a(list, target)).extend(values)

    def set_items(self, values: list[Any]) -> None:
        target = self.top()
        pairs = target.pairs if isinstance(target, Made) else _a(dict, target)
        if len(values) % 2:
            raise ValueError("a key without a value")
        for key, value in zip(values[::2], values[1::2]):
            # Only flat keys: hashing a tuple that is nested a million deep would end the process.
            if not isinstance(key, (str, int, float, bytes, type(None))):
                raise ValueError(f"a key of type {type(key).__name__}")
            pairs[key] = value

    def made(self, arguments: Any, function: Any) -> None:
        self.stack.append(Made(function, _a(tuple, arguments)))

    def build(self) -> None:
        state, target = self.pop(), self.top()
        _a(Made, target).state = state

    def named(self) -> None:
        name, module = self.pop(), self.pop()
        self.stack.append(Global(_a(str, module), _a(str, name)))

    def made_with_keywords(self, keywords: Any, arguments: Any, function: Any) -> None:
        if keywords:
            raise ValueError("a call with keywords")
        self.made(arguments, function)

    def instance(self, values: list[Any]) -> None:
        self.stack.append(Made(values[0], tuple(values[1:])))

    def dictionary(self, values: list[Any]) -> None:
        self.stack.append({})
        self.set_items(values)


def _a(kind: type[Any], value: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"a {type(value).__name__} where a {kind.__name__} should be")
    return value


def _global(text: str) -> Global:
    module, _, name = text.partition(" ")
    return Global(module, name)


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "MARK": _MARK}
_LITERALS = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": list}
_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    "POP": lambda m, _: m.stack.pop(),
    "POP_MARK": lambda m, _: m.pop_mark(),
    "DUP": lambda m, _: m.stack.append(m.top()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_mark())),
    "TUPLE1": lambda m, _: m.tuple_of(1),
    "TUPLE2": lambda m, _: m.tuple_of(2),
    "TUPLE3": lambda m, _: m.tuple_of(3),
    "LIST": lambda m, _: m.stack.append(m.pop_mark()),
    "FROZENSET": lambda m, _: m.stack.append(m.pop_mark()),
    "DICT": lambda m, _: m.dictionary(m.pop_mark()),
    "APPEND": lambda m, _: m.extend([m.pop()]),
    "APPENDS": lambda m, _: m.extend(m.pop_mark()),
    "ADDITEMS": lambda m, _: m.extend(m.pop_mark()),
    "SETITEM": lambda m, _: m.set_items([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: m.set_items(m.pop_mark()),
    "GLOBAL": lambda m, text: m.stack.append(_global(text)),
    "STACK_GLOBAL": lambda m, _: m.named(),
    "REDUCE": lambda m, _: m.made(m.pop(), m.pop()),
    "NEWOBJ": lambda m, _: m.made(m.pop(), m.pop()),
    "NEWOBJ_EX": lambda m, _: m.made_with_keywords(m.pop(), m.pop(), m.pop()),
    "INST": lambda m, text: m.instance([_global(text), *m.pop_mark()]),
    "OBJ": lambda m, _: m.instance(m.pop_mark()),
    "BUILD": lambda m, _: m.build(),
    "PERSID": lambda m, key: m.stack.append(Persistent(key)),
    "BINPERSID": lambda m, _: m.stack.append(Persistent(m.pop())),
}


def mapping(value: Any) -> Mapping[Any, Any]:
    """A dict, an OrderedDict, or the attributes of an object; empty for anything else."""
    if isinstance(value, Made):
        value = value.pairs or value.state
    return value if isinstance(value, dict) else {}


def class_name(value: Any) -> str:
    """Dotted name of the class that a record stands for, or of the global itself; "" for anything else."""
    made = value.function if isinstance(value, Made) else value
    return made.dotted[:200] if isinstance(made, Global) else ""


def array(value: Any, what: str) -> npt.NDArray[Any]:
    """A numeric array: a numpy array or scalar of a pickle, a number, or a list of numbers.

    Raises:
        InvalidInput: it is none of these, or its size is not what it says.
    """
    try:
        return _array(value)
    except (ValueError, TypeError, IndexError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"{what} is not an array of numbers: {reprlib.repr(str(error))}") from None


def plain(value: Any, what: str) -> float:
    """A single number.

    Raises:
        InvalidInput: it is none.
    """
    numbers = array(value, what)
    if numbers.size != 1:
        raise InvalidInput(f"{what} must be a number, not {numbers.size} of them")
    return float(numbers.reshape(()))


def _array(value: Any) -> npt.NDArray[Any]:
    if isinstance(value, (bool, int, float)):
        return np.asarray(float(value) if isinstance(value, float) else value)
    if isinstance(value, (list, tuple)):
        if not all(isinstance(v, (bool, int, float)) for v in value):
            raise ValueError("a list that holds more than numbers")
        return np.asarray(value)
    if not isinstance(value, Made):
        raise ValueError(f"it is a {type(value).__name__}")
    if value.is_(*(f"{m}._reconstruct" for m in _MULTIARRAY)):
        _, shape, dtype, fortran, data = _a(tuple, value.state)[:5]
        return _from_bytes(data, _dtype(dtype), shape, "F" if fortran else "C")
    if value.is_(*(f"{m}.scalar" for m in _MULTIARRAY)):
        dtype, data = value.arguments
        return _from_bytes(data, _dtype(dtype), (), "C")
    if value.is_(*(f"{m}._frombuffer" for m in _NUMERIC)):
        data, dtype, shape, order = value.arguments
        return _from_bytes(data, _dtype(dtype), shape, "F" if order == "F" else "C")
    raise ValueError(f"it is a call of {class_name(value) or 'something unknown'}")


def _dtype(value: Any) -> np.dtype[Any]:
    if not isinstance(value, Made) or not value.is_("numpy.dtype"):
        raise ValueError("its type is no numpy dtype")
    code, order = value.arguments[0], value.state[1] if isinstance(value.state, tuple) else "|"
    if code not in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8") or order not in ("<", ">", "|", "="):
        raise ValueError(f"its type is {reprlib.repr(code)}, not a plain number")
    dtype: np.dtype[Any] = np.dtype(order.replace("|", "") + code)
    return dtype


def _from_bytes(data: Any, dtype: np.dtype[Any], shape: Any, order: Any) -> npt.NDArray[Any]:
    if isinstance(data, Made) and data.is_("_codecs.encode") and isinstance(data.arguments[0], str):
        data = data.arguments[0].encode("latin-1")  # how protocols 0 to 2 write bytes
    if isinstance(data, Made) and data.is_("builtins.bytearray") and data.arguments:
        data = data.arguments[0]
    if not isinstance(data, (bytes, bytearray)) or not isinstance(shape, tuple) or any(not isinstance(n, int) or n < 0 for n in shape):
        raise ValueError("its bytes or its shape are of another type")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"it says {shape} of {dtype}, and has {len(data)} bytes")
    return np.frombuffer(bytes(data), dtype).reshape(shape, order=order)
