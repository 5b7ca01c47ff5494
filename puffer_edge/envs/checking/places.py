"""Where in an environment's own text something is wrong: the line to change, found by what the source says."""

from __future__ import annotations

import ast
import linecache
import os
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

_LIBRARY = str(Path(__file__).parents[2])
_NUMBA = re.compile(r'File "([^"]+)", line (\d+)')


@dataclass(frozen=True)
class Place:
    """A line of a file.

    Attributes:
        file: its path, relative to the working folder where it lies in it.
        line: number, from 1.
        text: what stands there.
    """

    file: str
    line: int
    text: str = ""

    @staticmethod
    def at(file: str, line: int) -> Place:
        """The line, with its text."""
        here = os.path.abspath(file)
        inside = here.startswith(os.getcwd() + os.sep)
        return Place(os.path.relpath(here) if inside else here, line, linecache.getline(here, line).strip())


def of_error(error: BaseException) -> Place | None:
    """The innermost line outside this library and Python's own import machinery that led to an error; numba's, where it names one."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return Place.at(error.filename, error.lineno)
    named = [(file, int(line)) for file, line in _NUMBA.findall(str(error)) if os.path.isfile(file) and not _ours(file)]
    if named:
        return Place.at(*named[0])
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _ours(frame.filename) and os.path.isfile(frame.filename)]
    if frames and frames[-1].lineno:
        return Place.at(frames[-1].filename, frames[-1].lineno)
    return of_error(error.__cause__) if error.__cause__ is not None else None


def _ours(file: str) -> bool:
    return os.path.abspath(file).startswith(_LIBRARY + os.sep) or "importlib" in file or f"{os.sep}numba{os.sep}" in file


def of_function(function: Any) -> Place | None:
    """Where a function begins, None where its text is not at hand."""
    code = getattr(function, "__code__", None)
    return None if code is None or not os.path.isfile(code.co_filename) else Place.at(code.co_filename, code.co_firstlineno)


class Source:
    """The text of an environment's functions, ``reset``, ``observe`` and ``step``, and of the files in which they stand.

    Every question is answered with the best line there is: the function's first where nothing nearer is found, None without any source.
    """

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        self._functions = functions

    def function(self, part: str) -> Place | None:
        """Where ``reset``, ``observe`` or ``step`` begins."""
        return of_function(self._functions[part])

    def written(self, part: str, argument: int, index: int) -> Place | None:
        """The last line of a function that writes this index of one of its arguments."""

        def writes(node: ast.AST) -> Iterator[tuple[bool, int]]:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Subscript) and isinstance(inner.ctx, ast.Store) and isinstance(inner.value, ast.Name):
                    last = inner.slice.elts[-1] if isinstance(inner.slice, ast.Tuple) else inner.slice
                    if inner.value.id == name and (not isinstance(last, ast.Constant) or last.value == index):
                        yield isinstance(last, ast.Constant), inner.lineno

        node = self._node(part)
        if node is None or len(node.args.args) <= argument:
            return self.function(part)
        name = node.args.args[argument].arg
        return self._best(part, [line for _, line in sorted(writes(node))])

    def returned(self, part: str) -> Place | None:
        """The last line of a function that gives something back."""
        node = self._node(part)
        return self._best(part, sorted(n.lineno for n in ast.walk(node) if isinstance(n, ast.Return)) if node else [])

    def named(self, part: str, names: tuple[str, ...]) -> Place | None:
        """The last line of a function that uses one of these names, or declares a global."""
        node = self._node(part)
        found = [
            n.lineno
            for n in (ast.walk(node) if node else ())
            if isinstance(n, (ast.Global, ast.Nonlocal))
            or (isinstance(n, ast.Name) and n.id in names)
            or (isinstance(n, ast.Attribute) and n.attr in names)
        ]
        return self._best(part, sorted(found))

    def channel(self, name: str) -> Place | None:
        """The line on which a channel of this name is made."""
        return self._in_files(
            lambda n: isinstance(n, ast.Call) and _called(n).endswith("Channel") and bool(n.args) and getattr(n.args[0], "value", None) == name
        )

    def call(self, function: str, keyword: str = "") -> Place | None:
        """The line on which a function is called, or of one keyword in such a call where it has it."""
        if keyword:
            nearest = self._in_files(lambda n: isinstance(n, ast.keyword) and n.arg == keyword)
            if nearest is not None:
                return nearest
        return self._in_files(lambda n: isinstance(n, ast.Call) and _called(n).split(".")[-1] == function)

    def _best(self, part: str, lines: list[int]) -> Place | None:
        code = getattr(self._functions[part], "__code__", None)
        return Place.at(code.co_filename, lines[-1]) if lines and code else self.function(part)

    def _in_files(self, wanted: Callable[[Any], bool]) -> Place | None:
        for file, tree in self._trees.items():
            for node in ast.walk(tree):
                if wanted(node):
                    return Place.at(file, node.lineno)  # type: ignore[attr-defined]
        return None

    def _node(self, part: str) -> Any:
        """The function's own node, None where there is no text, or it is no ``def``."""
        code: Any = getattr(self._functions[part], "__code__", None)
        for node in ast.walk(self._trees[code.co_filename]) if code and code.co_filename in self._trees else ():
            if isinstance(node, ast.FunctionDef) and min([node.lineno, *(d.lineno for d in node.decorator_list)]) == code.co_firstlineno:
                return node
        return None

    @cached_property
    def _trees(self) -> dict[str, ast.Module]:
        trees = {}
        for function in self._functions.values():
            file = getattr(getattr(function, "__code__", None), "co_filename", "")
            if file not in trees and os.path.isfile(file):
                trees[file] = ast.parse(Path(file).read_text())
        return trees


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func)
