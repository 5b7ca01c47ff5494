"""The bundle's ``.tflite`` file in TFLite-Micro and LiteRT, and its folder ``tflm``: the C there around TFLite-Micro's own interpreter."""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.engines import Case, Row
from puffer_edge.errors import BundleError, MissingExtra, PufferEdgeError, Unsupported
from puffer_edge.export.tflite_compare import factors, litert, micro, program_steps
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer.ops import Array

FILE, FOLDER = "policy.tflite", "tflm/src/"
FLAGS = ("-std=c99", "-O2", "-fno-strict-aliasing", "-fPIC", "-shared")
MOST_WHOLE = 100_000
"""Vectors for what is called from Python and calls back, tick by tick."""
XNNPACK_BOUND = 4096
"""Steps of the head's 65,536 by which LiteRT's default kernels may differ: twice the most that ``benchmarks/tflite_parity.py`` met."""
STATE_BYTES = 1024
"""More than the C code's state has: 16 actions twice, 64 observations, and a few words."""


def rows(case: Case) -> Iterator[Row]:
    """A row for each interpreter, and one for the folder."""
    if not case.holds(FILE):
        return
    model = case.read(FILE)
    try:
        engine = f"TFLite-Micro {metadata.version('tflite-micro')}"
    except metadata.PackageNotFoundError:
        raise MissingExtra("tflm", "verifying the .tflite file") from None
    try:
        micro(model, 1)
    except (struct.error, IndexError, ValueError, RuntimeError) as error:
        raise BundleError(f"{FILE} does not load: {error}") from None
    yield _micro(case, model, engine)
    yield from _litert(case, model)
    sources = [name for name in case.bundle.manifest["files"] if name.startswith(FOLDER) and name.endswith(".c")]
    if sources:
        yield _whole(case, model, sources, engine)


@dataclass(frozen=True, eq=False)
class Flow:
    """What goes into the network, sequence by sequence, and what comes out of it.

    Attributes:
        x: (sequences, length, n) integers behind the input step.
        clear: (sequences, length) whether memory is cleared before a step.
        head: (sequences, length, outputs) int16.
    """

    x: Array
    clear: npt.NDArray[np.bool_]
    head: Array


def _flow(case: Case, most: int, model: bytes = b"") -> Flow:
    """Steps of the case, all with an observation; with a model, under LiteRT's single rounding."""
    steps, _ = case.few(most)
    c, program = case.image.contract, case.image.program
    seen = np.clip(steps.observation, c.observation_low, c.observation_high)
    count, length, _ = seen.shape
    clear = (steps.flags & protocol.STEP_RESET) != 0 if program.memory else np.zeros((count, length), bool)
    x = program.ops[0].run(seen.reshape(count * length, -1)).reshape(count, length, -1)
    once = factors(model) if model else None
    if not program.memory:
        head = program_steps(program, count * length, once)(x.reshape(count * length, -1)).reshape(count, length, -1)
        return Flow(x, clear, head)
    clear[:, 1:] = False  # all sequences side by side, each from cleared memory
    step = program_steps(program, count, once)
    return Flow(x, clear, np.stack([step(x[:, t]) for t in range(length)], 1))


def _micro(case: Case, model: bytes, engine: str) -> Row:
    """TFLite-Micro, step by step: a file for a device takes one row."""
    flow, different, largest = _flow(case, case.count), 0, 0
    step = micro(model, 1)
    for x, clear, head in zip(flow.x, flow.clear, flow.head):
        if clear[0]:
            step = micro(model, 1)
        apart = np.abs(np.concatenate([step(row[None]) for row in x]).astype(np.int64) - head)
        different, largest = different + int(apart.any(1).sum()), max(largest, int(apart.max()))
    return Row(FILE, engine, case.profile, flow.x.shape[0] * flow.x.shape[1], different, largest, 0, "steps of the head", "input to head")


def _litert(case: Case, model: bytes) -> Iterator[Row]:
    """LiteRT's reference kernels, and its default ones."""
    try:
        engine = f"LiteRT {metadata.version('ai-edge-litert')}"
    except metadata.PackageNotFoundError:
        yield Row(FILE, "LiteRT", case.profile, 0, 0, 0.0, 0.0, note=str(MissingExtra("litert", "running LiteRT")))
        return
    for name, bound in (("reference", 0), ("default", XNNPACK_BOUND)):
        kind = f"{engine}, {name} kernels"
        if case.image.program.memory:
            yield Row(FILE, kind, case.profile, 0, 0, 0.0, 0.0, note="its LSTM is another kernel than TFLite-Micro's: not compared")
            continue
        try:
            step = litert(model, 1, reference=name == "reference")
        except (ValueError, RuntimeError) as error:
            yield Row(FILE, kind, case.profile, 0, 0, 0.0, 0.0, note=f"has no kernel for it: {str(error)[:120]}")
            continue
        flow = _flow(case, case.count, model if name == "reference" else b"")
        x, head = flow.x.reshape(-1, flow.x.shape[-1]), flow.head.reshape(-1, flow.head.shape[-1])
        apart = np.abs(np.concatenate([step(row[None]) for row in x]).astype(np.int64) - head)
        beyond = int((apart > bound).any(1).sum())
        note = "single rounding in dense layers" if name == "reference" else f"{(apart > 0).mean():.2%} of the values differ"
        yield Row(FILE, kind, case.profile, len(x), beyond, float(apart.max()), bound, "steps of the head", note)


def _whole(case: Case, model: bytes, sources: list[str], engine: str) -> Row:
    """Whole ticks: actions and outcomes, with TFLite-Micro as the C code's network; its memory is not in a digest."""
    compiler = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        raise Unsupported("the C files need a C compiler to be verified, and there is no cc, gcc or clang on the path")
    steps, wanted = case.few(MOST_WHOLE)
    name = next(Path(source).name.removesuffix("_policy.c") for source in sources if source.endswith("_policy.c"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "policy.so"
        command = [compiler, *FLAGS, *(str(case.bundle.path / source) for source in sources), "-o", str(out)]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode:
            raise PufferEdgeError(f"the C of tflm does not compile: {finished.stderr.strip()[-500:]}")
        library = ctypes.CDLL(str(out))
        raw, applied, outcome = _ticks(case, library, name, model)
    differs = (raw != wanted.raw).any(1) | (applied != wanted.applied).any(1) | (outcome != wanted.outcome)
    largest = max(int(np.abs(a.astype(np.int64) - b).max()) for a, b in ((raw, wanted.raw), (applied, wanted.applied)))
    return Row("tflm", f"{compiler}, {engine}", case.profile, steps.count, int(differs.sum()), largest, 0, note="actions and outcomes")


def _ticks(case: Case, library: ctypes.CDLL, name: str, model: bytes) -> tuple[Array, Array, Array]:
    """(steps, m) proposals, (steps, m) actions and (steps,) outcomes of the C code."""
    steps, _ = case.few(MOST_WHOLE)
    tick, m = getattr(library, f"{name}_tick"), case.image.contract.n_actions
    tick.restype = ctypes.c_uint32
    network, state = _network(case, model), (ctypes.c_uint8 * STATE_BYTES)()
    getattr(library, f"{name}_reset")(state, network, None)
    flags, observation = steps.flags.reshape(-1).tolist(), np.ascontiguousarray(steps.observation.reshape(steps.count, -1))
    raw, applied = np.zeros((steps.count, m), np.int32), np.zeros((steps.count, m), np.int32)
    outcome = np.zeros(steps.count, np.uint32)
    for k in range(steps.count):
        places = (ctypes.c_void_p(a.ctypes.data + k * a.strides[0]) for a in (observation, raw, applied))
        outcome[k] = tick(state, flags[k], *places)
    return raw, applied, outcome


def _network(case: Case, model: bytes) -> Any:
    """TFLite-Micro's interpreter as the function that the C code calls; it must outlive the calls."""
    from tflite_micro.python.tflite_micro import runtime

    first = case.image.program.ops[1]
    dtype = np.dtype(np.int16 if first.in_bytes == 2 else np.int8)
    interpreter = runtime.Interpreter.from_bytes(model, arena_size=1 << 24)
    shape = interpreter.get_input_details(0)["shape"]

    def run(_: object, fresh: int, x: int, head: int) -> int:
        if fresh:
            interpreter.reset()
        interpreter.set_input(np.frombuffer(ctypes.string_at(x, first.n_in * dtype.itemsize), dtype).reshape(shape), 0)
        interpreter.invoke()
        out = np.ascontiguousarray(interpreter.get_output(0)).tobytes()
        ctypes.memmove(head, out, len(out))
        return 0

    return ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(run)
