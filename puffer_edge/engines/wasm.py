"""The bundle's WebAssembly engine and JavaScript module, under node."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from puffer_edge import find
from puffer_edge.engines import Case, Row
from puffer_edge.engines._steps import Steps, difference
from puffer_edge.errors import PufferEdgeError, Unsupported
from puffer_edge.integer.reference import Tick

FILES = ("wasm/pe_engine.wasm", "wasm/policy.bin", "wasm/puffer_edge.mjs")


@dataclass(frozen=True, eq=False)
class Run:
    """What node made of a list of steps.

    Attributes:
        tick: the results.
        seconds: that the steps took on this computer, calls from JavaScript included.
        node: its version.
    """

    tick: Tick
    seconds: float
    node: str


def rows(case: Case) -> Iterator[Row]:
    """One row: whole ticks, with shield and state."""
    if not case.holds(*FILES):
        return
    ran = batch(case.bundle.path / "wasm", case.steps, case.image.contract.n_actions)
    found = difference(ran.tick, case.wanted)
    yield Row("wasm", f"node {ran.node}", case.profile, case.steps.count, found.steps, found.largest, 0)


def batch(folder: Path, steps: Steps, m: int) -> Run:
    """Run steps through the files in a bundle's folder ``wasm``.

    Args:
        folder: with the engine, the image and the module.
        steps: what is run.
        m: actions of the policy.

    Raises:
        Unsupported: there is no node.
        PufferEdgeError: node failed; the message is its own.
    """
    node = shutil.which("node")
    if node is None:
        raise Unsupported("the WebAssembly files need node 18 or newer to be verified, and there is none on the path")
    script = find.folder("puffer_edge.firmware") / "wasm" / "batch.mjs"
    with tempfile.TemporaryDirectory() as name:
        flags, observations, out = (Path(name) / file for file in ("flags.bin", "observations.bin", "out.bin"))
        flags.write_bytes(steps.flags.astype("<u4").tobytes())
        observations.write_bytes(steps.observation.astype("<i4").tobytes())
        command = [node, script, folder.resolve(), flags, observations, out]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise PufferEdgeError(f"node failed: {done.stderr.strip()[-800:]}")
        table = np.fromfile(out, "<i4").reshape(steps.count, 2 * m + 2)
    words = table[:, 2 * m :].astype(np.uint32)
    said = json.loads(done.stdout)
    return Run(Tick(table[:, :m], table[:, m : 2 * m], words[:, 0], words[:, 1]), said["seconds"], said["node"])
