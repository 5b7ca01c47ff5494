"""The bundle's C, compiled for this computer: engine, image and printed shield, as a library and as one file."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from puffer_edge.engines import Case, Row
from puffer_edge.engines._steps import Steps, difference
from puffer_edge.errors import PufferEdgeError, Unsupported
from puffer_edge.integer.reference import Tick

FLAGS = ("-std=c99", "-O2", "-fno-strict-aliasing", "-fPIC", "-shared")
LOOP = """#include "policy_{name}.h"
int32_t run(uint32_t steps, const uint32_t *flags, const int32_t *observation, int32_t *raw, int32_t *applied, uint32_t *outcome, uint32_t *state)
{{
    const int32_t problem = {name}_start();
    for (uint32_t k = 0; k < steps && problem == 0; k++) {{
        outcome[k] = {name}_tick(flags[k], observation + k * {n}u, raw + k * {m}u, applied + k * {m}u);
        state[k] = {name}_state();
    }}
    return problem;
}}
"""
FORMS = {"c": "c/src", "c, one file": "c/single"}


def rows(case: Case) -> Iterator[Row]:
    """A row a form: whole ticks, with the printed shield and the state."""
    held = {
        form: sorted(name for name in case.bundle.manifest["files"] if name.startswith(f"{at}/") and name.endswith(".c"))
        for form, at in FORMS.items()
    }
    if not any(held.values()):
        return
    compiler = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        raise Unsupported("the C files need a C compiler to be verified, and there is no cc, gcc or clang on the path")
    version = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, check=False).stdout.strip()
    for form, sources in held.items():
        with tempfile.TemporaryDirectory() as folder:
            got = _ticks(_compiled(case, compiler, sources, Path(folder)), case.steps, case.image.contract.n_actions)
        found = difference(got, case.wanted)
        yield Row(form, f"{compiler} {version}".strip(), case.profile, case.steps.count, found.steps, found.largest, 0)


def _compiled(case: Case, compiler: str, sources: list[str], folder: Path) -> ctypes.CDLL:
    """The sources as they lie in the bundle, with a loop around them."""
    c = case.image.contract
    name = next(Path(path).stem.removeprefix("policy_") for path in sources if Path(path).stem.startswith("policy_"))
    (folder / "loop.c").write_text(LOOP.format(name=name, n=c.n_observations, m=c.n_actions))
    files = [str(case.bundle.path / path) for path in sources]
    out = folder / "policy.so"
    command = [compiler, *FLAGS, f"-I{Path(files[0]).parent}", *files, str(folder / "loop.c"), "-o", str(out)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise PufferEdgeError(f"the bundle's C does not compile: {finished.stderr.strip()[-500:]}")
    return ctypes.CDLL(str(out))


def _ticks(library: ctypes.CDLL, steps: Steps, m: int) -> Tick:
    count = steps.count
    result = Tick(np.zeros((count, m), np.int32), np.zeros((count, m), np.int32), np.zeros(count, np.uint32), np.zeros(count, np.uint32))
    arrays = (np.ascontiguousarray(steps.flags), np.ascontiguousarray(steps.observation), result.raw, result.applied, result.outcome, result.state)
    problem = library.run(count, *(a.ctypes.data_as(ctypes.c_void_p) for a in arrays))
    if problem:
        raise PufferEdgeError(f"the bundle's C does not start: {problem}")
    return result


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
