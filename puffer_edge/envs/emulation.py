"""Nested spaces and flat rows: Dict, Tuple, Box, Discrete, MultiDiscrete and MultiBinary become one row of bytes, or one of numbers, and back.

A row of bytes holds every leaf of a space in its own type, so that what comes back are views, with nothing copied and nothing lost. A row of
numbers is what a policy sees: a Box as it is, every choice one-hot. Gymnasium is looked at only through the spaces that are given.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.spaces import Floats

ALIGNED = 8
"""Every leaf begins at a multiple of so many bytes, and a row is one: torch views a type only where it is aligned."""

Path = tuple["str | int", ...]


@dataclass(frozen=True, eq=False)
class Leaf:
    """One space without parts.

    Attributes:
        path: keys and positions that lead to it; () where it is the whole.
        space: the Gymnasium space.
        kind: "box", "discrete", "multi_discrete" or "multi_binary".
        dtype: of its values.
        shape: of its values.
        offset: of its first byte in a row.
        sizes: number of choices of every element that is a choice, else ().
        start: (choices,) the first value of every choice.
        width: how many numbers it is to a policy.
    """

    path: Path
    space: Any
    kind: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    sizes: tuple[int, ...]
    start: npt.NDArray[np.int64]
    width: int

    @property
    def where(self) -> str:
        """The path in words, for messages."""
        return spelled(self.path)

    @cached_property
    def size(self) -> int:
        """Numbers of a value."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def bytes(self) -> int:
        """Of a value in a row."""
        return self.size * self.dtype.itemsize

    @cached_property
    def piece(self) -> np.dtype[Any]:
        """A whole value as one thing to copy."""
        return np.dtype((np.void, self.bytes))

    def write(self, values: Any, out: Floats) -> None:
        """Values (*batch, *shape) as numbers (*batch, width).

        Raises:
            InvalidInput: a choice is out of range.
        """
        if not self.sizes:
            out[...] = values if np.shape(values) == out.shape else np.reshape(values, out.shape)
            return
        flat = np.reshape(values, (*out.shape[:-1], -1))
        chosen = flat - self.start
        sizes = np.array(self.sizes)
        if ((chosen < 0) | (chosen >= sizes)).any():
            at = tuple(np.argwhere((chosen < 0) | (chosen >= sizes))[0])
            raise InvalidInput(f"{self.where} is {flat[at]}: it must lie in {self.start[at[-1]]} … {self.start[at[-1]] + sizes[at[-1]] - 1}")
        first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        out[...] = 0.0
        np.put_along_axis(out, (first + chosen).astype(np.int64), 1.0, -1)

    def names(self, root: str) -> list[str]:
        """Channel names of its numbers, from its path: ``arm_joints_0``; ``root`` stands where a path has no name to begin with."""
        if not self.path or len(self.sizes) < 2:
            return self._numbered(root, self.width)
        return [f"{name}_{k}" for name, n in zip(self._numbered(root, len(self.sizes)), self.sizes) for k in range(n)]

    def element_names(self, root: str) -> list[str]:
        """Names of its elements as actuators: one for every choice, or for every number of a Box."""
        return self._numbered(root, len(self.sizes) or self.width)

    def _numbered(self, root: str, count: int) -> list[str]:
        if not self.path:
            return [f"{root}{k}" for k in range(count)]
        words = "_".join("".join(c if c.isascii() and c.isalnum() else "_" for c in str(part)) for part in self.path)
        stem = words if words[:1].isalpha() or words[:1] == "_" else f"{root}{words}"
        return [stem] if count == 1 else [f"{stem}_{k}" for k in range(count)]

    def bounds(self) -> tuple[Floats, Floats]:
        """(width,) lowest and highest of its numbers; infinite where the space has none."""
        if self.kind != "box":
            return np.zeros(self.width), np.ones(self.width)
        low, high = (np.asarray(x, np.float64).ravel() for x in (self.space.low, self.space.high))
        return low, high

    def check(self, value: Any, step: int) -> None:
        """See that a value lies in the space: its type, its shape and all its numbers.

        Raises:
            InvalidInput: it does not; the message names the path, the index and the step.
        """
        found = np.asarray(value)
        if found.dtype.kind not in ("fiub" if self.dtype.kind == "f" else "iub"):
            raise InvalidInput(f"{self.where} is of type {found.dtype} in step {step}: its space {self.space} holds {self.dtype}")
        self.check_shape(found, step)
        low, high = self._range()
        wrong = ~((found >= low) & (found <= high))
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            place = f"{self.where}{list(at) if at else ''}"
            bounds = f"{np.broadcast_to(low, self.shape)[at]:g} … {np.broadcast_to(high, self.shape)[at]:g}"
            raise InvalidInput(f"{place} is {found[at]} in step {step}: its space allows {bounds}")

    def check_shape(self, found: Any, step: int) -> None:
        """See that an array has the space's shape; a wrong one could be stretched unseen.

        Raises:
            InvalidInput: it has another.
        """
        if np.shape(found) != self.shape:
            raise InvalidInput(f"{self.where} has shape {np.shape(found)} in step {step}: its space {self.space} has {self.shape}")

    def _range(self) -> tuple[Any, Any]:
        if self.kind == "box":
            return self.space.low, self.space.high
        if self.kind == "multi_binary":
            return 0, 1
        first = self.start.reshape(self.shape)
        return first, first + np.array(self.sizes, np.int64).reshape(self.shape) - 1


def spelled(path: Path) -> str:
    """A path as one writes it: ``["arm"]["joints"][0]``; "the value" for the whole."""
    return "".join(f"[{part!r}]" for part in path) or "the value"


@dataclass(frozen=True, eq=False)
class Layout:
    """How the values of a space lie in a row.

    Attributes:
        space: the Gymnasium space.
        leaves: in the order in which they lie.
        bytes: of a row.
        n: numbers of a value to a policy.
    """

    space: Any
    leaves: tuple[Leaf, ...]
    bytes: int
    n: int

    @staticmethod
    def of(space: Any, leave_out: frozenset[str] = frozenset()) -> Layout:
        """The layout of a space.

        Args:
            space: of Gymnasium.
            leave_out: keys of the outermost Dict that get no place.

        Raises:
            Unsupported: a space in it has no fixed size (Graph, Sequence, Text, OneOf, one of your own); the message names its path.
        """
        leaves: list[Leaf] = []
        offset = 0
        for path, part in _parts(space, (), leave_out):
            leaf = _leaf(path, part, offset)
            leaves.append(leaf)
            offset += -(-leaf.bytes // ALIGNED) * ALIGNED
        if not leaves:
            raise Unsupported(f"{space} is empty: there is nothing to observe or to choose")
        return Layout(space, tuple(leaves), offset, sum(leaf.width for leaf in leaves))

    @cached_property
    def is_vector(self) -> bool:
        """Whether the space is a Box of one dimension, whose values are its numbers as they are."""
        return self.leaves[0].path == () and self.leaves[0].kind == "box" and len(self.leaves[0].shape) == 1

    def parts(self, value: Any) -> list[Any]:
        """The values at the leaves of a nested value, in their order.

        Raises:
            InvalidInput: a key is missing, or what should have parts has none.
        """
        return [_at(value, leaf.path) for leaf in self.leaves]

    def check(self, value: Any, step: int = 0) -> None:
        """See that a value lies in the space.

        Raises:
            InvalidInput: it does not; the message names the path, the index and the step.
        """
        for leaf, part in zip(self.leaves, self.parts(value)):
            leaf.check(part, step)

    def flatten(self, value: Any, rows: npt.NDArray[np.uint8]) -> None:
        """Write a value, or a batch of them, in place; ``Rows`` does it many times over without looking for the places again.

        Args:
            value: nested as the space is; every leaf (*batch, *shape).
            rows: (*batch, bytes) uint8.

        Raises:
            InvalidInput: a key is missing, or a leaf has another shape.
        """
        Rows(self, rows).write(value)

    def views(self, rows: Any) -> Any:
        """What lies in rows, nested as the space is, every leaf (*batch, *shape) a view: nothing is copied.

        Args:
            rows: (*batch, bytes) uint8, of numpy or of torch.
        """
        see: Callable[[Leaf, Any], Any] = _view if isinstance(rows, np.ndarray) else _torch_view
        return self.nest({leaf.path: see(leaf, rows) for leaf in self.leaves})

    def nest(self, leaves: Mapping[Path, Any]) -> Any:
        """Values by path, nested as the space is."""
        return _nested(self.space, (), leaves)

    def numbers(self, rows: npt.NDArray[np.uint8]) -> Floats:
        """(*batch, n) float64 of rows (*batch, bytes): leaf after leaf, a Box as it is, every choice one-hot, a MultiBinary 0 or 1."""
        out = np.empty((*rows.shape[:-1], self.n))
        self._write([_view(leaf, rows) for leaf in self.leaves], out)
        return out

    def numbers_of(self, value: Any, batch: int) -> Floats:
        """(batch, n) float64 of a batched nested value, every leaf (batch, *shape), without rows in between.

        Raises:
            InvalidInput: a key is missing, a shape or a choice is not of the space.
        """
        parts, out = self.parts(value), np.empty((batch, self.n))
        for leaf, part in zip(self.leaves, parts):
            if np.shape(part) != (batch, *leaf.shape):
                raise InvalidInput(f"{leaf.where} has shape {np.shape(part)}: {batch} of {leaf.shape} belong there")
        self._write(parts, out)
        return out

    def put(self, value: Any, out: Floats, step: int = 0) -> None:
        """Write the numbers of one value (n,) without a row in between.

        Raises:
            InvalidInput: a key is missing, a shape or a choice is not of the space.
        """
        if self.is_vector and isinstance(value, np.ndarray) and value.shape == out.shape:  # the usual case, in a fifth of the time
            out[...] = value
            return
        parts = self.parts(value)
        for leaf, part in zip(self.leaves, parts):
            leaf.check_shape(part, step)
        if len(parts) == 1:
            self.leaves[0].write(parts[0], out)
        else:
            self._write(parts, out)

    def _write(self, parts: list[Any], out: Floats) -> None:
        at = 0
        for leaf, part in zip(self.leaves, parts):
            leaf.write(part, out[..., at : at + leaf.width])
            at += leaf.width

    def names(self, root: str = "o") -> tuple[str, ...]:
        """(n,) channel names, all different."""
        return distinct(name for leaf in self.leaves for name in leaf.names(root))

    def bounds(self) -> tuple[Floats, Floats]:
        """(n,) lowest and highest numbers; infinite where the space has none."""
        lows, highs = zip(*(leaf.bounds() for leaf in self.leaves))
        return np.concatenate(lows), np.concatenate(highs)


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """The names, with "_" behind one that was there before."""
    taken: dict[str, None] = {}
    for name in names:
        while name in taken:
            name += "_"
        taken[name] = None
    return tuple(taken)


class Rows:
    """Rows of bytes whose views are made once: what is written can be read at the same place, nested, without another call.

    Args:
        layout: of the space.
        data: (*batch, bytes) uint8; it is kept, not copied.

    Attributes:
        data: the rows.
        nested: what lies in them, nested as the space is; views that stay.
    """

    def __init__(self, layout: Layout, data: npt.NDArray[np.uint8]) -> None:
        self.layout, self.data = layout, data
        self._places = [_view(leaf, data) for leaf in layout.leaves]
        self._pieces = [data[..., leaf.offset : leaf.offset + leaf.bytes].view(leaf.piece)[..., 0] for leaf in layout.leaves]
        self.nested = layout.nest({leaf.path: place for leaf, place in zip(layout.leaves, self._places)})

    def write(self, value: Any) -> None:
        """Write a value, nested as the space is, every leaf (*batch, *shape).

        Raises:
            InvalidInput: a key is missing, or a leaf has another shape.
        """
        for leaf, place, piece in zip(self.layout.leaves, self._places, self._pieces):
            part = _at(value, leaf.path)
            if np.shape(part) != place.shape:
                raise InvalidInput(f"{leaf.where} has shape {np.shape(part)}: {place.shape} belongs into rows {self.data.shape}")
            if isinstance(part, np.ndarray) and part.dtype == leaf.dtype and part.flags.c_contiguous:
                piece[...] = part.reshape(*piece.shape, leaf.size).view(leaf.piece)[..., 0]  # two to three times as fast as number by number
            else:
                place[...] = part


def _parts(space: Any, path: Path, leave_out: frozenset[str] = frozenset()) -> list[tuple[Path, Any]]:
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        return [leaf for key, part in space.spaces.items() if key not in leave_out for leaf in _parts(part, (*path, key))]
    if isinstance(space, spaces.Tuple):
        return [leaf for k, part in enumerate(space.spaces) for leaf in _parts(part, (*path, k))]
    return [(path, space)]


def _leaf(path: Path, space: Any, offset: int) -> Leaf:
    from gymnasium import spaces

    sizes: tuple[int, ...] = ()
    start = np.zeros(0, np.int64)
    if isinstance(space, spaces.Box):
        kind = "box"
    elif isinstance(space, spaces.MultiBinary):
        kind = "multi_binary"
    elif isinstance(space, spaces.Discrete):
        kind, sizes, start = "discrete", (int(space.n),), np.array([space.start], np.int64)
    elif isinstance(space, spaces.MultiDiscrete):
        kind, sizes, start = "multi_discrete", tuple(int(n) for n in space.nvec.ravel()), np.asarray(space.start, np.int64).ravel()
    else:
        place = spelled(path) if path else "the space"
        raise Unsupported(
            f"{place} is {type(space).__name__}, which has no fixed size: puffer-edge takes Dict, Tuple, Box, Discrete, MultiDiscrete and MultiBinary"
        )
    shape = tuple(int(n) for n in space.shape)
    width = sum(sizes) or int(np.prod(shape, dtype=np.int64))
    return Leaf(path, space, kind, np.dtype(space.dtype), shape, offset, sizes, start, width)


def _at(value: Any, path: Path) -> Any:
    for depth, part in enumerate(path):
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            found = f"has {sorted(map(str, value))}" if isinstance(value, dict) else f"is of type {type(value).__name__}"
            raise InvalidInput(f"{spelled(path[: depth + 1])} is missing: {spelled(path[:depth])} {found}") from None
    return value


def _view(leaf: Leaf, rows: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    return rows[..., leaf.offset : leaf.offset + leaf.bytes].view(leaf.dtype).reshape(rows.shape[:-1] + leaf.shape)


def _torch_view(leaf: Leaf, rows: Any) -> Any:
    torch: Any = sys.modules["torch"]  # loaded, since ``rows`` is of it
    kind = torch.from_numpy(np.empty(0, leaf.dtype)).dtype
    return rows[..., leaf.offset : leaf.offset + leaf.bytes].view(kind).view(tuple(rows.shape[:-1]) + leaf.shape)


def _nested(space: Any, path: Path, leaves: Mapping[Path, Any]) -> Any:
    from gymnasium import spaces

    if path in leaves:
        return leaves[path]
    if isinstance(space, spaces.Dict):
        return {key: part for key, inner in space.spaces.items() if (part := _nested(inner, (*path, key), leaves)) is not None}
    if isinstance(space, spaces.Tuple):
        return tuple(_nested(inner, (*path, k), leaves) for k, inner in enumerate(space.spaces))
    return None  # left out
