"""TVM: the program compiled to machine code, as a shared library for 64-bit Arm Linux (Raspberry Pi, the CPU of a Jetson) or x86-64.

It is compiled from the integer ONNX model, whose operators ONNX fixes to the bit, so it gives the program's own bits, memory and
every profile included. (TVM's importer has no LSTM operator; the integer model spells its cells out in plain arithmetic.)
Whoever loads it needs TVM's runtime, from the package apache-tvm, which is 450 MB. TVM has no way to a microcontroller any more:
``tvm.micro`` is gone, its code needs TVM's virtual machine, and there is no back end for Xtensa. Boards get C and MicroPython.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from puffer_edge import find
from puffer_edge.errors import MissingExtra, Unsupported
from puffer_edge.export.onnx_integer import integer_model
from puffer_edge.export.source import Source
from puffer_edge.integer.program import Program

VERSION = "0.27.0.post1"
"""Of apache-tvm: compiled modules are read by the runtime of the same version."""
ARCHITECTURES = {"aarch64": "aarch64-linux-gnu", "x86_64": "x86_64-linux-gnu"}
"""What a module can be compiled for, and LLVM's name of it. No more of a processor is assumed than every such one has."""
INDEX_WARNING = "Fast mode segfaults when there are out-of-bounds indices"
"""TVM says so of every Gather. The integer models index with what was clamped to the table before, or with an arg max."""


def files(source: Source) -> dict[str, bytes]:
    """``tvm/``: a library for each architecture, ``module.json`` with its inputs and outputs, a program that runs it, a page.

    A target with the Linux runner gets aarch64, and x86-64 to try it on a desk; the host gets its own architecture.

    Raises:
        MissingExtra: TVM, or the package onnx, is not installed.
        Unsupported: there is no linker for the architecture.
    """
    linux = source.target.firmware == "linux"
    needed = "aarch64" if linux else platform.machine()
    if needed not in ARCHITECTURES:
        raise Unsupported(f"TVM modules are for {' and '.join(ARCHITECTURES)}, not for {needed}")
    program, optional = source.image.program, [name for name in ARCHITECTURES if linux and name != needed and _linker(name)]
    held = {library(name): compiled(program, name) for name in (needed, *optional)}
    held["module.json"] = (json.dumps(facts(program), indent=1) + "\n").encode()
    held |= {path.name: path.read_bytes() for path in (find.folder("puffer_edge.firmware") / "tvm").iterdir() if path.is_file()}
    held["README.md"] = page(source).encode()
    return {f"tvm/{name}": data for name, data in held.items()}


def library(architecture: str) -> str:
    """The name of a module's file."""
    return f"policy-{architecture}.so"


def compiled(program: Program, architecture: str) -> bytes:
    """A program as a shared library: the function "main" of a TVM virtual machine, one row at a time.

    Args:
        program: the policy in integers.
        architecture: one of ``ARCHITECTURES``.

    Raises:
        MissingExtra: TVM, or the package onnx, is not installed.
        Unsupported: TVM refuses the model, or there is no linker.
    """
    try:
        import tvm
        from tvm.relax.frontend.onnx import from_onnx
    except ImportError:
        raise MissingExtra("tvm", "compiling with TVM") from None
    linker = _linker(architecture)
    if linker is None:
        triple = ARCHITECTURES[architecture]
        raise Unsupported(f"a TVM module for {architecture} is linked with {triple}-ld or ld.lld: apt-get install binutils-{architecture}-linux-gnu")
    import onnx

    model = onnx.load_from_string(integer_model(program))
    shapes = {one["name"]: one["shape"] for one in facts(program)["inputs"]}
    try:
        with _without(INDEX_WARNING):
            module = from_onnx(model, shape_dict=shapes, keep_params_in_input=False)
            built = tvm.compile(module, target=tvm.target.Target({"kind": "llvm", "mtriple": ARCHITECTURES[architecture]}))
    except (tvm.error.OpError, RuntimeError, ValueError) as error:
        raise Unsupported(f"TVM does not compile the integer model: {error}") from None
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "policy.so"
        built.export_library(str(out), fcompile=_link_with(linker))
        return out.read_bytes()


def facts(program: Program) -> dict[str, Any]:
    """``module.json``: version, program, and the tensors of "main" in their order."""
    c = program.contract
    memory = [{"name": "memory", "shape": [1, program.memory], "type": "int16"}] if program.memory else []
    outputs = ["action", *(["choice"] if c.head in ("discrete", "multi_discrete") else []), *(["memory_out"] if program.memory else [])]
    return {
        "tvm": VERSION,
        "program": program.digest.hex(),
        "inputs": [{"name": "observation", "shape": [1, c.n_observations], "type": "int32"}, *memory],
        "outputs": outputs,
        "actions": c.n_actions,
    }


@contextlib.contextmanager
def _without(words: str) -> Iterator[None]:
    """Keep lines with these words from standard error, where TVM's C++ writes past Python; all others come through at the end."""
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile("w+", errors="replace") as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            caught.seek(0)
            sys.stderr.writelines(line for line in caught if words not in line)


def _linker(architecture: str) -> str | None:
    names = [f"{ARCHITECTURES[architecture]}-ld", "ld.lld", *(["ld"] if platform.machine() == architecture else [])]
    return next((path for name in names if (path := shutil.which(name))), None)


def _link_with(linker: str) -> Callable[..., None]:
    """What TVM calls with its object files. They need no C library but the one of whoever loads them; equal inputs give equal bytes."""

    def link(output: str, objects: list[str], **_: Any) -> None:
        command = [linker, "-shared", "-s", "--build-id=none", "-z", "noexecstack", "-o", output, *objects]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unsupported(f"{linker} cannot link the TVM module: {done.stderr.strip()}")

    link.object_format = "o"  # type: ignore[attr-defined]  # how TVM asks for object files
    return link


def page(source: Source) -> str:
    """``README.md`` of the folder."""
    about = facts(source.image.program)
    numbers = " ".join(str(v) for v in (source.policy.contract.n_observations, about["actions"], source.image.program.memory, len(about["outputs"])))
    linux = "Behind the shield, on the link: `python3 linux/run.py --engine tvm`." if source.target.firmware == "linux" else ""
    return f"""# TVM

The policy's integer program as machine code: one library for each architecture. It takes fixed-point integers of the contract and gives
the program's own bits, which both programs here show by replaying the bundle's vectors. In Python:

    pip install apache-tvm=={VERSION}
    python3 run.py

Without it, on TVM's runtime alone (`libtvm_runtime.so` and `libtvm_ffi.so` of that package, a few MB), where `SITE` is its `site-packages`:

    c++ -std=c++17 -ISITE/tvm_ffi/include replay.cc -o replay -LSITE/tvm/lib -LSITE/tvm_ffi/lib -Wl,--no-as-needed -ltvm_runtime -ltvm_ffi
    LD_LIBRARY_PATH=SITE/tvm/lib:SITE/tvm_ffi/lib ./replay ./policy-$(uname -m).so ../vectors.bin {numbers}

The shield is not in it. {linux}

TVM serves computers. It has no way to a microcontroller: boards get `c/` and `micropython/`.
"""
