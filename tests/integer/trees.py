"""Random integer expressions, and a second, independent interpreter of the shield's bytecode."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import RangeError
from puffer_edge.integer.expression import Int, clamp, differs, least, lift, most, variable, where

RANGES = [("a", -32768, 32767), ("b", 0, 1), ("c", -100, 3000), ("d", -(2**28), 2**28), ("e", 5, 5)]


def inputs() -> list[Int]:
    """One variable an entry of RANGES."""
    return [variable(k, *about) for k, about in enumerate(RANGES)]


def tree(seed: int, size: int = 25, outputs: int = 3) -> list[Int]:
    """Random expressions that share subexpressions; operations that could overflow are left out."""
    rng = np.random.default_rng(seed)
    nodes = [*inputs(), *(lift(int(v)) for v in rng.integers(-300, 300, 3)), lift(0), lift(1)]
    while len(nodes) < size + 10:
        x, y, z = (nodes[min(int(k), len(nodes) - 1)] for k in len(nodes) - 1 - rng.geometric(0.15, 3).clip(1, len(nodes)))
        try:
            nodes.append(_combine(int(rng.integers(13)), x, y, z, int(rng.integers(31))))
        except RangeError:
            nodes.append(x >> int(rng.integers(1, 31)))
    return nodes[-outputs:]


def _combine(kind: int, x: Int, y: Int, z: Int, amount: int) -> Int:
    choices = (
        lambda: x + y, lambda: x - y, lambda: x * y, lambda: x >> amount, lambda: x < y, lambda: x > y, lambda: least(x, y), lambda: most(x, y),
        lambda: where(x, y, z), lambda: differs(x, y), lambda: clamp(x, y, z), lambda: -x, lambda: 3 - (2 + x) * 5,
    )  # fmt: skip
    return choices[kind]()


def samples(seed: int, rows: int = 64, ranges: Sequence[tuple[str, int, int]] = RANGES) -> list[npt.NDArray[np.int32]]:
    """Inputs by column, with the bounds among them."""
    rng = np.random.default_rng(seed)
    columns = [rng.integers(lo, hi, rows, endpoint=True) for _, lo, hi in ranges]
    for column, (_, lo, hi) in zip(columns, ranges):
        column[: rows // 4] = rng.choice([lo, hi, min(max(0, lo), hi)], rows // 4)
    return [column.astype(np.int32) for column in columns]


def interpret(code: bytes, values: Sequence[int]) -> list[int]:
    """Run a shield section on plain Python integers, from ``docs/image.md`` alone."""
    instructions, registers, _, constants, outputs = struct.unpack_from("<HBBHH", code)
    constant = struct.unpack_from(f"<{constants}i", code, 8)
    start = 8 + 4 * constants
    r = [0] * registers
    for k in range(instructions):
        op, dst, a, b, c = code[start + outputs + 5 * k : start + outputs + 5 * k + 5]
        if op == 0:
            result = constant[a + 256 * b]
        elif op == 1:
            result = int(values[a])
        elif op == 5:
            result = r[a] >> b
        elif op == 9:
            result = r[b] if r[a] else r[c]
        else:
            x, y = r[a], r[b]
            result = {2: x + y, 3: x - y, 4: x * y, 6: int(x < y), 7: min(x, y), 8: max(x, y), 10: int(x != y)}[op]
        r[dst] = (result + 2**31) % 2**32 - 2**31
    return [r[index] for index in code[start : start + outputs]]
