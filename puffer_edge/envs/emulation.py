"""Nested spaces and flat rows: Dict, Tuple, Box, Discrete, MultiDiscrete and MultiBinary become one row of bytes, or one of numbers, and back.

A row of bytes holds every leaf of a space in its own type, so that what comes back are views, with nothing copied and nothing lost. A row of
numbers is what a policy sees: a Box as it is, every choice one-hot. Gymnasium is looked at only through the spaces that are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.envs.leaf import Leaf, Path, spelled
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.spaces import Floats

ALIGNED = 8
"""Every leaf begins at a multiple of so many bytes, and a row is one: torch views a type only where it is aligned."""


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
            leaf = Leaf.of(path, part, offset)
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
        try:
            return self._gather(value)
        except (KeyError, IndexError, TypeError):
            return [_at(value, leaf.path) for leaf in self.leaves]  # says which is missing

    @cached_property
    def _gather(self) -> Callable[[Any], list[Any]]:
        return _gatherer([leaf.path for leaf in self.leaves])

    def __getstate__(self) -> dict[str, Any]:
        """Without what cannot be pickled, and is made again."""
        return {name: held for name, held in vars(self).items() if name != "_gather"}

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
        return self.nest({leaf.path: leaf.view(rows) for leaf in self.leaves})

    def nest(self, leaves: Mapping[Path, Any]) -> Any:
        """Values by path, nested as the space is."""
        return _nested(self.space, (), leaves)

    def numbers(self, rows: npt.NDArray[np.uint8]) -> Floats:
        """(*batch, n) float64 of rows (*batch, bytes): leaf after leaf, a Box as it is, every choice one-hot, a MultiBinary 0 or 1."""
        out = np.empty((*rows.shape[:-1], self.n))
        self._write([leaf.view(rows) for leaf in self.leaves], out)
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

    Whoever writes into ``nested`` has written into the rows: ``write(rows.nested)`` finds nothing to copy.

    Args:
        layout: of the space.
        data: (*batch, bytes) uint8; it is kept, not copied.

    Attributes:
        data: the rows.
        nested: what lies in them, nested as the space is; views that stay.
    """

    def __init__(self, layout: Layout, data: npt.NDArray[np.uint8]) -> None:
        self.layout, self.data = layout, data
        self._places = [leaf.view(data) for leaf in layout.leaves]
        self._pieces = [leaf.pieces(data) for leaf in layout.leaves]
        self._sources: list[tuple[Any, Any, Any]] = [(place, place, None) for place in self._places]
        self._batch = data.shape[:-1]
        self.nested = layout.nest({leaf.path: place for leaf, place in zip(layout.leaves, self._places)})

    def write(self, value: Any) -> None:
        """Write a value, nested as the space is, every leaf (*batch, *shape).

        Raises:
            InvalidInput: a key is missing, a leaf has another shape, or numbers that its type does not hold.
        """
        sources = self._sources
        for k, part in enumerate(self.layout.parts(value)):
            known, target, source = sources[k]
            if part is not known:
                target, source = self._source(k, part)
            if source is not None:
                target[...] = source
                if target is self._places[k]:
                    self.layout.leaves[k].check_held(source, target)

    def _source(self, k: int, part: Any) -> tuple[Any, Any]:
        """Where a part goes, and as what, None if it is there; an array that comes again, since its owner writes in place, is looked at once."""
        leaf, place = self.layout.leaves[k], self._places[k]
        if part is place:
            return place, None
        if np.shape(part) != place.shape:
            raise InvalidInput(f"{leaf.where} has shape {np.shape(part)}: {place.shape} belongs into rows {self.data.shape}")
        if type(part) is not np.ndarray or part.dtype != leaf.dtype or not part.flags.c_contiguous or not leaf.bytes:
            return place, part
        target, source = self._pieces[k], np.ndarray(self._batch, leaf.piece, part)  # two to three times as fast as number by number
        self._sources[k] = part, target, source
        return target, source


def _parts(space: Any, path: Path, leave_out: frozenset[str] = frozenset()) -> list[tuple[Path, Any]]:
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        return [leaf for key, part in space.spaces.items() if key not in leave_out for leaf in _parts(part, (*path, key))]
    if isinstance(space, spaces.Tuple):
        return [leaf for k, part in enumerate(space.spaces) for leaf in _parts(part, (*path, k))]
    return [(path, space)]


def _at(value: Any, path: Path) -> Any:
    for depth, part in enumerate(path):
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            found = f"has {sorted(map(str, value))}" if isinstance(value, dict) else f"is of type {type(value).__name__}"
            raise InvalidInput(f"{spelled(path[: depth + 1])} is missing: {spelled(path[:depth])} {found}") from None
    return value


def _gatherer(paths: list[Path]) -> Callable[[Any], list[Any]]:
    """What gives the parts of a nested value at these paths, those with a common beginning one behind the other, with one look at each level."""
    if paths == [()]:
        return lambda value: [value]
    keys = list(dict.fromkeys(path[0] for path in paths))
    below = [[path[1:] for path in paths if path[0] == key] for key in keys]
    if all(rest == [()] for rest in below):
        if len(keys) == 1:
            return lambda value, key=keys[0]: [value[key]]  # type: ignore[misc]
        return lambda value, get=itemgetter(*keys): list(get(value))  # type: ignore[misc]
    deeper = [(key, _gatherer(rest)) for key, rest in zip(keys, below)]
    return lambda value: [part for key, gather in deeper for part in gather(value[key])]


def _nested(space: Any, path: Path, leaves: Mapping[Path, Any]) -> Any:
    from gymnasium import spaces

    if path in leaves:
        return leaves[path]
    if isinstance(space, spaces.Dict):
        return {key: part for key, inner in space.spaces.items() if (part := _nested(inner, (*path, key), leaves)) is not None}
    if isinstance(space, spaces.Tuple):
        return tuple(_nested(inner, (*path, k), leaves) for k, inner in enumerate(space.spaces))
    return None  # left out
