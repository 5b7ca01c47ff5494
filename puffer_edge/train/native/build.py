"""Builds the native trainer: one library an instruction set, from the C beside this file.

Run as ``python -m puffer_edge.train.native``; the package's own build runs it too. Vector width and instruction set belong
together: vectors of 64 bytes on AVX2 ran twenty times slower. Nothing here reorders sums (-ffast-math) or forgets NaN.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent / "src"
HEADERS = Path(__file__).parents[2] / "envs"
FLAGS = (
    "-std=gnu11", "-O3", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden",
    "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-ffp-contract=fast",
)  # fmt: skip
"""What the arithmetic rests on; a multiplication and an addition may become one instruction, within an expression."""
VARIANTS: dict[str, tuple[int, tuple[str, ...]]] = {
    "avx512": (2, ("-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mavx2", "-mfma", "-mprefer-vector-width=512", "-DPE_BYTES=64")),
    "avx2": (1, ("-mavx2", "-mfma", "-DPE_BYTES=32")),
    "portable": (0, ("-DPE_BYTES=16",)),
}
"""By name, best first: the least level of ``pe_native_level`` that runs it, and its flags. On 64-bit Arm the portable one is NEON."""


def compiler() -> list[str] | None:
    """The C compiler on the path: what $CC names, with its own arguments, else cc, gcc or clang. A $CC that is not there is not replaced."""
    if named := shlex.split(os.environ.get("CC", "")):
        return named if shutil.which(named[0]) else None
    return next(([path] for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)


def library(variant: str, folder: Path) -> Path:
    """Where a variant's library lies."""
    return folder / f"libpe_native_{variant}.so"


def variants() -> tuple[str, ...]:
    """Those that this computer's kind of processor can have."""
    return tuple(VARIANTS) if platform.machine().lower() in ("x86_64", "amd64") else ("portable",)


def build(variant: str, folder: Path, extra: tuple[str, ...] = ()) -> Path:
    """Compile one variant.

    Args:
        variant: a key of ``VARIANTS``.
        folder: where the library goes.
        extra: more flags, for tests.

    Raises:
        RuntimeError: there is no compiler, or it failed; the message is its own.
    """
    found = compiler()
    if found is None:
        raise RuntimeError("there is no C compiler: install cc, gcc or clang, or set CC to one")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        made = Path(work) / "library.so"
        command = [*found, *FLAGS, *VARIANTS[variant][1], *extra, f"-I{HEADERS}", str(SOURCES / "pe_native.c"), "-o", str(made), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()[-2000:]}")
        os.replace(made, library(variant, folder))
    return library(variant, folder)


def main() -> None:
    """Build every variant beside this file."""
    for variant in variants():
        print(f"native trainer: {build(variant, Path(__file__).parent).name}")
