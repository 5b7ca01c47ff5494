"""The bundle's C, compiled for this computer: engine, image and printed shield."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from puffer_edge import find
from puffer_edge.engines import Case, Row
from puffer_edge.engines._steps import Steps, difference
from puffer_edge.errors import PufferEdgeError, Unsupported
from puffer_edge.integer.reference import Tick

FLAGS = ("-std=c99", "-O2", "-fno-strict-aliasing", "-fPIC", "-shared")


def rows(case: Case) -> Iterator[Row]:
    """One row: whole ticks, with shield and state."""
    engine = sorted(name for name in case.bundle.manifest["files"] if name.startswith("c/") and name.endswith(".c") and "/pe_" in name)
    if not engine:
        return
    compiler = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        raise Unsupported("the C files need a C compiler to be verified, and there is no cc, gcc or clang on the path")
    version = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, check=False).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        library = _compiled(case, compiler, engine, Path(folder))
        found = difference(batch(library, case.image.data, case.steps, case.image.contract.n_actions), case.wanted)
    yield Row("c", f"{compiler} {version}".strip(), case.profile, case.steps.count, found.steps, found.largest, 0)


def _compiled(case: Case, compiler: str, engine: list[str], folder: Path) -> ctypes.CDLL:
    """The engine's sources as they lie in the bundle, with a loop around them."""
    loop = find.folder("puffer_edge.firmware") / "boards" / "host" / "pe_batch.c"
    out = folder / "engine.so"
    sources = [case.bundle.path / name for name in engine]
    includes = {f"-I{source.parent}" for source in sources}
    command = [compiler, *FLAGS, *sorted(includes), *map(str, sources), str(loop), "-o", str(out)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise PufferEdgeError(f"the bundle's C does not compile: {finished.stderr.strip()[-500:]}")
    return ctypes.CDLL(str(out))


def batch(library: ctypes.CDLL, image: bytes, steps: Steps, m: int) -> Tick:
    """Ticks of an image in the library that ``firmware/boards/host/pe_batch.c`` makes.

    Args:
        library: the engine.
        image: the packed policy image.
        steps: what comes in.
        m: actions.
    """
    count = steps.count
    data = np.frombuffer(image.ljust(-(-len(image) // 8) * 8, b"\0"), np.uint64).copy()
    result = Tick(np.zeros((count, m), np.int32), np.zeros((count, m), np.int32), np.zeros(count, np.uint32), np.zeros(count, np.uint32))
    flags, observation = np.ascontiguousarray(steps.flags), np.ascontiguousarray(steps.observation)
    pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (data, flags, observation, result.raw, result.applied, result.outcome, result.state)]
    check = library.pe_batch(pointers[0], len(image), count, *pointers[1:])
    if check:
        raise PufferEdgeError(f"the C engine refuses the image by check {check}")
    return result
