"""One space without parts, of those that are nested in each other: where it lies in a row, and what it is to a policy."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.spaces import Floats

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

    @staticmethod
    def of(path: Path, space: Any, offset: int) -> Leaf:
        """A space of Gymnasium at the end of a path, from a byte of a row on.

        Raises:
            Unsupported: it has no fixed size; the message names its path.
        """
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
                f"{place} is {type(space).__name__}, which has no fixed size: "
                "puffer-edge takes Dict, Tuple, Box, Discrete, MultiDiscrete and MultiBinary"
            )
        shape = tuple(int(n) for n in space.shape)
        width = sum(sizes) or int(np.prod(shape, dtype=np.int64))
        return Leaf(path, space, kind, np.dtype(space.dtype), shape, offset, sizes, start, width)

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
        """A whole value as one thing to copy; numpy has loops of their own for the first sizes."""
        return np.dtype({1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "c16"}.get(self.bytes) or (np.void, self.bytes))

    def view(self, rows: Any) -> Any:
        """Its values (*batch, *shape) in rows (*batch, bytes), of numpy or of torch: nothing is copied."""
        here = rows[..., self.offset : self.offset + self.bytes]
        if isinstance(rows, np.ndarray):
            return here.view(self.dtype).reshape(rows.shape[:-1] + self.shape)
        torch: Any = sys.modules["torch"]  # loaded, since ``rows`` is of it
        kind = torch.from_numpy(np.empty(0, self.dtype)).dtype
        return here.view(kind).view(tuple(rows.shape[:-1]) + self.shape)

    def pieces(self, rows: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Its values in rows (*batch, bytes), each as one thing to copy: (*batch,); of a value without numbers there is none."""
        if not self.bytes:
            return rows[..., :0]
        whole: npt.NDArray[Any] = rows[..., self.offset : self.offset + self.bytes].view(self.piece)[..., 0]
        return whole

    def check_held(self, given: Any, held: npt.NDArray[Any]) -> None:
        """See that whole numbers were written as they are: 300 would become 44 in a uint8, and 0.7 would become 0, unseen.

        Raises:
            InvalidInput: one was not; the message names the path and the index.
        """
        if self.dtype.kind == "f":
            return
        found = np.asarray(given)
        wrong = found != held
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise InvalidInput(f"{self.where}{list(at) if at else ''} is {found[at]}, which {self.dtype} does not hold: its space is {self.space}")

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
