"""Nested action spaces as one head of a policy: choices become a discrete or multi-discrete head, boxes a continuous one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.contract import ActionChannel
from puffer_edge.envs.emulation import Layout, distinct
from puffer_edge.envs.leaf import Leaf, Path
from puffer_edge.errors import Unsupported
from puffer_edge.spaces import ACTION_LIMIT, Bools, Floats

MOST_BITS = 16


@dataclass(frozen=True, eq=False)
class Actions:
    """The head that drives an action space.

    Attributes:
        layout: of the space.
        channels: one for every choice, or for every number of a Box, in the layout's order.
        levels: as the contract's: for "discrete" one row a choice, for "multi_discrete" one row a channel, else ().
        head: "discrete", "multi_discrete" or "clip".
        sizes: choices of every channel; () for "clip".
    """

    layout: Layout
    channels: tuple[ActionChannel, ...]
    levels: tuple[tuple[float, ...], ...]
    head: str
    sizes: tuple[int, ...]

    @staticmethod
    def of(space: Any) -> Actions:
        """The head of a Gymnasium space.

        Raises:
            Unsupported: it mixes choices and boxes, a Box has no bounds, a choice has one value, or a space in it has no fixed size.
        """
        layout = Layout.of(space)
        boxes = [leaf for leaf in layout.leaves if leaf.kind == "box"]
        choices = [leaf for leaf in layout.leaves if leaf.kind != "box"]
        if boxes and choices:
            raise Unsupported(
                f"the actions mix choices ({', '.join(leaf.where for leaf in choices)}) and boxes ({', '.join(leaf.where for leaf in boxes)}): "
                "a policy has one head. Make them all Discrete, or all Box"
            )
        names = distinct(name for leaf in layout.leaves for name in leaf.element_names("a"))
        if boxes:
            return Actions(layout, _continuous(boxes, names), (), "clip", ())
        sizes = [n for leaf in choices for n in leaf.sizes or (2,) * leaf.width]
        first = np.concatenate([leaf.start if leaf.sizes else np.zeros(leaf.width) for leaf in choices]).astype(float).tolist()
        for name, n in zip(names, sizes):
            if n < 2:
                raise Unsupported(f"the action {name} has one value only: there is nothing to choose. Leave it out of the space")
        channels = tuple(ActionChannel(name, "1", f, f + n - 1, f, f) for name, n, f in zip(names, sizes, first))
        levels = tuple(tuple(f + k for k in range(n)) for n, f in zip(sizes, first))
        if len(choices) == 1 and choices[0].kind == "discrete":
            return Actions(layout, channels, tuple((level,) for level in levels[0]), "discrete", tuple(sizes))
        return Actions(layout, channels, levels, "multi_discrete", tuple(sizes))

    @property
    def n_outputs(self) -> int:
        """Width of the network's last layer."""
        return sum(self.sizes) or len(self.channels)

    def value(self, action: Floats) -> Any:
        """What the environment's ``step`` takes, of (m,) physical numbers; choices are nearest whole numbers, boxes inside their bounds."""
        if self.head == "discrete":
            path, choice = self.layout.leaves[0].path, round(action.item(0))
            return self.layout.nest({path: choice}) if path else choice
        leaves = self._leaves(action)
        return self.layout.nest({leaf.path: int(leaves[leaf.path]) if leaf.kind == "discrete" else leaves[leaf.path] for leaf in self.layout.leaves})

    def values(self, action: Floats) -> Any:
        """What a vector environment's ``step`` takes, of (N, m) physical numbers: nested as the space, every leaf (N, *shape)."""
        return self.layout.nest(self._leaves(action))

    def _leaves(self, action: Floats) -> dict[Path, npt.NDArray[Any]]:
        leaves = {}
        at = 0
        for leaf in self.layout.leaves:
            count = len(leaf.sizes) or leaf.width
            leaves[leaf.path] = _value(leaf, action[..., at : at + count])
            at += count
        return leaves

    def mask(self, given: Any, allowed: Bools, where: str) -> None:
        """Write an environment's action mask: one array, or a nest of them, of as many numbers as there are choices.

        Raises:
            Unsupported: the head is continuous, or the mask has another size.
        """
        parts = given if isinstance(given, (tuple, list)) else list(given.values()) if isinstance(given, dict) else [given]
        flat = np.concatenate([np.ravel(part) for part in parts]) != 0
        if not self.sizes or len(flat) != len(allowed):
            raise Unsupported(f"{where}: an action mask of {len(flat)} numbers does not belong to {self.n_outputs} outputs of a {self.head} head")
        allowed[...] = flat


def _value(leaf: Leaf, numbers: Floats) -> npt.NDArray[Any]:
    shaped = numbers.reshape(numbers.shape[:-1] + leaf.shape)
    if leaf.kind == "box":
        shaped = np.clip(shaped, leaf.space.low, leaf.space.high)  # fixed point rounds a bound, by half a step at most
    return np.asarray(shaped if leaf.dtype.kind == "f" else np.rint(shaped)).astype(leaf.dtype)


def _continuous(boxes: list[Leaf], names: tuple[str, ...]) -> tuple[ActionChannel, ...]:
    for leaf in boxes:
        if not leaf.space.is_bounded():
            raise Unsupported(f"{leaf.where} is {leaf.space}, without bounds: a contract needs them")
    low, high = (np.concatenate(x).tolist() for x in zip(*(leaf.bounds() for leaf in boxes)))
    still = np.clip(0.0, low, high).tolist()
    return tuple(ActionChannel(n, "1", a, b, s, s, bits(a, b, ACTION_LIMIT)) for n, a, b, s in zip(names, low, high, still))


def bits(low: float, high: float, limit: int) -> int:
    """Fraction bits of a channel: 16, fewer where its range would not fit ``limit``, more where it is narrower than 2⁻⁶."""
    most = max(abs(low), abs(high), 2.0**-24)
    fits = int(np.floor(np.log2(limit / most)))
    return min(fits, MOST_BITS + max(0, -6 - int(np.floor(np.log2(high - low)))) if high > low else MOST_BITS)
