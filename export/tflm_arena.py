"""Measures how much memory TFLite-Micro needs for a model: the smallest arena in which its own interpreter plans and runs it.

In a process of its own, and every try in a copy of that: where an arena is too small, the interpreter's destructor crashes. What its
recording allocator counts at the end is no answer, since planning needs more than what is left in use.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from functools import lru_cache

from puffer_edge.errors import MissingExtra, Unsupported

STEP = 16
LARGEST = 1 << 24


@lru_cache(maxsize=8)
def arena_bytes(model: bytes) -> int:
    """The smallest arena, a multiple of 16 bytes, in which a model opens and runs on this computer with the reference kernels.

    Args:
        model: a ``.tflite`` file of batch 1.

    Raises:
        MissingExtra: the package tflite-micro is not installed.
        Unsupported: TFLite-Micro does not run the model in 16 MiB.
    """
    if importlib.util.find_spec("tflite_micro") is None:
        raise MissingExtra("tflm", "measuring TFLite-Micro's memory")
    found = subprocess.run([sys.executable, "-m", __name__], input=model, capture_output=True, check=False)
    if found.returncode:
        raise Unsupported(f"TFLite-Micro does not run this model: {found.stderr.decode(errors='replace')[-300:].strip()}")
    return int(found.stdout)


def _runs(model: bytes, size: int) -> bool:
    """Whether a model opens and runs in an arena of this size: tried in a copy of the process, which ends without clearing up."""
    from tflite_micro.python.tflite_micro import runtime

    child = os.fork()
    if child == 0:
        code = 1
        try:
            runtime.Interpreter.from_bytes(model, arena_size=size).invoke()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return status == 0


def _main() -> None:
    """Reads a model, prints the size; halves the interval between what fails and what runs."""
    model = sys.stdin.buffer.read()
    fails, runs = 0, LARGEST // STEP
    if not _runs(model, runs * STEP):
        sys.exit(f"not in {LARGEST} bytes")
    while runs - fails > 1:
        middle = (fails + runs) // 2
        if _runs(model, middle * STEP):
            runs = middle
        else:
            fails = middle
    print(runs * STEP)


if __name__ == "__main__":
    _main()
