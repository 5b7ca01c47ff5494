"""Plain functions with others in the place of those that they call: compiled ones for numba, symbols for a trace."""

from __future__ import annotations

import dis
import types
from collections.abc import Callable, Mapping
from typing import Any


def reached(function: types.FunctionType) -> dict[str, Any]:
    """The globals that a function's code names, itself left out."""
    names = {i.argval for i in dis.get_instructions(function) if i.opname == "LOAD_GLOBAL"}
    return {name: function.__globals__[name] for name in sorted(names) if name in function.__globals__}


def rewired(function: types.FunctionType, change: Callable[[types.FunctionType], Any]) -> types.FunctionType:
    """A copy of a function in which each plain function that it names, as a global or in its closure, is what ``change`` makes of it."""

    def changed(value: Any) -> Any:
        return change(value) if isinstance(value, types.FunctionType) else value

    names = {name: changed(value) for name, value in reached(function).items()}
    cells = tuple(types.CellType(changed(cell.cell_contents)) for cell in function.__closure__ or ())
    return types.FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__, function.__defaults__, cells)


def replaced(function: Any, instead: Mapping[Any, Any]) -> Any:
    """A function in which, however deep, each function that is a key of ``instead`` is its value."""
    done: dict[Any, Any] = dict(instead)

    def change(f: types.FunctionType) -> Any:
        if f not in done:
            done[f] = rewired(f, change)
        return done[f]

    return change(function)
