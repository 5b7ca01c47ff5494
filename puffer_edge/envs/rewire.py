"""Plain functions with others in the place of those that they call: compiled ones for numba, symbols for a trace."""

from __future__ import annotations

import dis
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from puffer_edge.errors import Unsupported


@dataclass(frozen=True, eq=False)
class Foreign:
    """A function of a loaded library, which plain Python calls by its address, and compiled code by its name, so that a cache may hold that.

    Attributes:
        name: no other function has it: the digest of its library is in it.
        address: where it is in this process.
        kind: its ctypes type.
        owner: what must live as long.
    """

    name: str
    address: int
    kind: Any
    owner: object

    def __call__(self, *arguments: Any) -> None:
        self.kind(self.address)(*arguments)

    def __repr__(self) -> str:
        return f"Foreign({self.name})"


def reached(function: types.FunctionType) -> dict[str, Any]:
    """The globals that a function's code names, itself left out."""
    names = {i.argval for i in dis.get_instructions(function) if i.opname == "LOAD_GLOBAL"}
    return {name: function.__globals__[name] for name in sorted(names) if name in function.__globals__}


def rewired(function: types.FunctionType, change: Callable[[Any], Any]) -> types.FunctionType:
    """A copy of a function; each plain function, or a library's, that it names as a global or in its closure is what ``change`` makes of it."""

    def changed(value: Any) -> Any:
        return change(value) if isinstance(value, (types.FunctionType, Foreign)) else value

    names = {name: changed(value) for name, value in reached(function).items()}
    cells = tuple(types.CellType(changed(cell.cell_contents)) for cell in function.__closure__ or ())
    return types.FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__, function.__defaults__, cells)


def replaced(function: Any, instead: Mapping[Any, Any]) -> Any:
    """A function in which, however deep, each function that is a key of ``instead`` is its value.

    Raises:
        Unsupported: it calls a library's function, which has no text.
    """
    done: dict[Any, Any] = dict(instead)

    def change(f: Any) -> Any:
        if isinstance(f, Foreign):
            raise Unsupported(f"{f.name} is machine code of a library: it cannot be printed in another language")
        if f not in done:
            done[f] = rewired(f, change)
        return done[f]

    return change(function)
