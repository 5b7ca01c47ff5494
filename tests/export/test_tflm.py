"""The TFLite-Micro bundle: its C around TFLite-Micro's own interpreter computes the program's bits; its C++ compiles as far as it can here."""

from __future__ import annotations

import ctypes
import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puffer_edge.device import target
from puffer_edge.errors import MissingExtra, Unsupported
from puffer_edge.export import tflm
from puffer_edge.export.source import Source
from puffer_edge.export.tflite import graph, tflite
from puffer_edge.export.tflite_compare import inputs, micro
from puffer_edge.export.tflm_arena import arena_bytes
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer import vectors
from puffer_edge.integer.image import Image
from puffer_edge.integer.program import Program
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.shield import Shield
from tests import samples
from tests.export.tflm_interfaces import INTERFACES

pytest.importorskip("tflite")
pytest.importorskip("tflite_micro")

STRICT = ["-std=c99", "-fno-strict-aliasing", "-O2", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-pedantic"]
CASES = {
    "dense": ("mlp", "int8", "clip"),
    "squashed": ("mlp", "int8", "tanh"),
    "sixteen": ("mlp", "int16x8", "tanh"),
    "image": ("conv", "int4", "discrete"),
    "recurrent": ("lstm", "int8", "multi_discrete"),
}


def source(case: str, seed: int = 0) -> Source:
    network, profile, head = CASES[case]
    policy = samples.network(network, head, seed)
    seen, starts = samples.episodes(policy.contract, 600)
    program = quantize(policy, seen, starts, profile)
    shield = Shield.build(policy.contract, ({"stage": "slew", "per_second": {"force": 120.0}},))
    steps = vectors.make(program, shield, policy.contract.observe(seen)[0])
    return Source(policy, Image(policy.contract, program, shield, steps.head(16)), steps, target.load("host"), seen, starts)


def write(held: Source, folder: Path) -> Path:
    for name, data in tflm.files(held).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder / "tflm"


class Built:
    """The C files as a library, beside what they were printed from."""

    def __init__(self, case: str, folder: Path) -> None:
        held = source(case)
        self.case, self.source, self.name, self.folder = case, held, held.name, write(held, folder)
        src = self.folder / "src"
        subprocess.run(["cc", *STRICT, "-fPIC", "-shared", *sorted(p.name for p in src.glob("*.c")), "-o", "policy.so"], cwd=src, check=True)
        self.library = ctypes.CDLL(str(src / "policy.so"))
        self.program = held.image.program
        n, m = held.image.contract.n_observations, held.image.contract.n_actions
        words = 4 * (2 * m + n + 3)
        self.state = (ctypes.c_uint8 * (words + 64))()
        self.model = tflite(self.program)

    def call(self, function: str, *arguments: Any) -> int:
        """A function of the library, its name without the policy's."""
        made = getattr(self.library, f"{self.name}_{function}")
        made.restype = ctypes.c_uint32
        return int(made(*(ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in arguments)))

    def network(self, model: bytes) -> Any:
        """TFLite-Micro's interpreter as the C code's network; to be kept while it is in use."""
        from tflite_micro.python.tflite_micro import runtime

        ops = self.program.ops
        interpreter = runtime.Interpreter.from_bytes(model, arena_size=1 << 20)
        shape, dtype = interpreter.get_input_details(0)["shape"], np.int16 if ops[1].in_bytes == 2 else np.int8

        def run(_: Any, fresh: int, x: int, head: int) -> int:
            if fresh:
                interpreter.reset()
            data = np.frombuffer(ctypes.string_at(x, ops[1].n_in * np.dtype(dtype).itemsize), dtype)
            interpreter.set_input(data.reshape(shape), 0)
            interpreter.invoke()
            out = np.ascontiguousarray(interpreter.get_output(0)).tobytes()
            ctypes.memmove(head, out, len(out))
            return 0

        return ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(run)

    def reset(self, network: Any) -> None:
        self.call("reset", self.state, network, None)


@pytest.fixture(scope="module", params=CASES)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(request.param, tmp_path_factory.mktemp(request.param))


def test_input_step_and_action_map_are_the_programs(built: Built) -> None:
    """Random observations, their bounds and beyond; the head's whole range."""
    c, program, rng = built.source.image.contract, built.program, np.random.default_rng(1)
    low, high = c.observation_low.astype(np.int64), c.observation_high.astype(np.int64)
    x = rng.integers(low, high, (2000, c.n_observations), endpoint=True)
    x[:400] = np.where(rng.random((400, c.n_observations)) < 0.5, low, high)
    x[400:450] = rng.choice([-(2**31), 2**31 - 1, 0], (50, c.n_observations))
    wanted = program.ops[0].run(x[:400]), program.ops[0].run(x[450:])  # the program's own domain: the tick clamps before
    got = np.zeros((len(x), program.ops[0].n_out), wanted[0].dtype)
    for row, out in zip(x.astype(np.int32), got):
        built.call("input", row.copy(), out)
    assert (got[:400] == wanted[0]).all() and (got[450:] == wanted[1]).all()
    tail = tflm.after(program)
    head = rng.integers(-32768, 32767, (2000, tail[0].n_in), endpoint=True).astype(np.int16)
    head[:200] = rng.choice([-32768, 32767, 0, -1], (200, tail[0].n_in))
    raw = np.zeros((len(head), c.n_actions), np.int32)
    for row, out in zip(head, raw):
        built.call("action", row.copy(), out)
    for op in tail:
        head = op.run(head)
    assert (raw == head).all()


def test_every_vector_comes_out_of_the_tick(built: Built) -> None:
    """Resets, missed and invalid observations, divider, shield: the same actions and outcomes, with TFLite-Micro as the network."""
    v, c = built.source.vectors, built.source.image.contract
    network = built.network(built.model)
    built.reset(network)
    raw, applied = np.zeros(c.n_actions, np.int32), np.zeros(c.n_actions, np.int32)
    for k in range(len(v)):
        outcome = built.call("tick", built.state, int(v.flags[k]), np.ascontiguousarray(v.observation[k], np.int32), raw, applied)
        assert (raw == v.raw[k]).all() and (applied == v.applied[k]).all() and outcome == v.outcome[k], f"step {k}"
    assert len(v) > 200 and (v.outcome & protocol.POLICY_RAN).any()


def test_self_test_passes_and_finds_another_network(built: Built) -> None:
    right = built.network(built.model)
    built.reset(right)
    assert built.call("self_test", built.state) == 0
    other = built.network(tflite(source(built.case, seed=1).image.program))
    built.reset(other)
    assert 0 < built.call("self_test", built.state) <= 16


def test_a_network_that_fails_leads_to_the_safe_output(built: Built) -> None:
    c = built.source.image.contract
    failing = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda *_: 1)
    built.reset(failing)
    raw, applied = np.zeros(c.n_actions, np.int32), np.zeros(c.n_actions, np.int32)
    outcome = built.call("tick", built.state, protocol.STEP_RESET, np.zeros(c.n_observations, np.int32), raw, applied)
    assert (raw == c.action_safe).all() and not outcome & protocol.POLICY_RAN


@pytest.mark.toolchain("arm-none-eabi-gcc")
def test_the_c_files_compile_for_a_microcontroller(built: Built) -> None:
    src = built.folder / "src"
    flags = [*STRICT, "-mcpu=cortex-m0plus", "-mthumb", "-c"]
    files = sorted(p.name for p in src.glob("*.c"))
    subprocess.run(["arm-none-eabi-gcc", *flags, *files], cwd=src, check=True)
    objects = [f.replace(".c", ".o") for f in files]
    symbols = subprocess.run(["arm-none-eabi-nm", "-u", *objects], cwd=src, check=True, capture_output=True, text=True).stdout
    assert not re.search(r" U (__aeabi_[fd]|malloc|tanh)", symbols)


def test_the_model_is_the_file_and_the_operators_are_those_it_has(built: Built) -> None:
    text = (built.folder / "src" / f"{built.name}_model.c").read_text()
    numbers = [int(n) for n in re.findall(r"\d+", text[text.index("= {") :])]
    assert bytes(numbers) == built.model and "aligned(16)" in text
    network = (built.folder / "src" / f"{built.name}_network.cpp").read_text()
    kinds = {o.kind for o in graph(built.program).operators}
    assert sorted(re.findall(r"resolver\.Add(\w+)\(\)", network)) == sorted(tflm.OPERATORS[kind] for kind in kinds)
    assert f"MicroMutableOpResolver<{len(kinds)}>" in network


def test_the_arena_is_the_smallest_that_works(built: Built) -> None:
    """The interpreter runs in it, to the same output; 16 bytes less are too few, in a process of its own, which may crash."""
    size = arena_bytes(built.model)
    header = (built.folder / "src" / f"{built.name}_network.h").read_text()
    assert f"_ARENA_BYTES {size}u" in header
    x = inputs(built.program, 1, np.random.default_rng(6))
    assert (micro(built.model, 1, size)(x) == micro(built.model, 1)(x)).all()
    tried = "import sys; from puffer_edge.export.tflm_arena import _runs; sys.exit(not _runs(sys.stdin.buffer.read(), int(sys.argv[1])))"
    assert subprocess.run([sys.executable, "-c", tried, str(size - 16)], input=built.model, capture_output=True, check=False).returncode == 1


def test_nothing_is_left_to_fill_in(built: Built) -> None:
    for name, data in tflm.files(built.source).items():
        assert not re.search(rb"@\w+@", data), name


def test_without_the_interpreter_the_format_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: bytes) -> int:
        raise MissingExtra("tflm", "measuring TFLite-Micro's memory")

    monkeypatch.setattr(tflm, "arena_bytes", missing)
    with pytest.raises(Unsupported, match=r"measured with its own interpreter.*puffer-edge\[tflm\]"):
        tflm.files(source("dense"))


def test_the_cpp_files_compile_against_the_interfaces_they_use(built: Built, tmp_path: Path) -> None:
    for name, text in INTERFACES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    flags = ["-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-I{tmp_path}", f"-I{built.folder / 'src'}"]
    sketch = ["-x", "c++", "-include", "Arduino.h", str(built.folder / "examples/arduino/arduino.ino")]
    for what in (*itertools.chain(built.folder.rglob("*.cpp")), sketch):
        subprocess.run(["c++", *flags, *(what if isinstance(what, list) else [str(what)])], check=True)


def test_program_kinds_are_all_known() -> None:
    """Every operation that may stand outside a network has its kernel, every operator of a graph its name."""
    for case in CASES:
        program: Program = source(case).image.program
        assert all(type(op) in tflm.KERNELS for op in (program.ops[0], *tflm.after(program)))
