"""TVM modules: the program's bits on this computer for every operation, libraries for both architectures, and the programs that replay."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from puffer_edge import engines
from puffer_edge.device import target
from puffer_edge.device.board import Board
from puffer_edge.device.bundle import Bundle
from puffer_edge.device.ports import SocketLink
from puffer_edge.errors import MissingExtra, Unsupported
from puffer_edge.export import tvm as export_tvm
from puffer_edge.export.bundle import export
from puffer_edge.hil import check
from puffer_edge.integer.quantize import quantize
from tests import samples

tvm = pytest.importorskip("tvm")
pytest.importorskip("onnx")

# One network of each kind of layer; between them every profile and head.
CASES = (
    ("mlp", "clip", "int8"),
    ("elu", "multi_discrete", "int16x8"),
    ("conv", "discrete", "int4"),
    ("average", "tanh", "shift"),
    ("two_cells", "clip", "int8"),
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A recurrent policy that chooses, for a board with the Linux runner: memory, choice and action come out."""
    policy = samples.network("two_cells", "discrete")
    seen, starts = samples.episodes(policy.contract, 600)
    board = dataclasses.replace(target.load("rpi-aarch64"), formats=("linux", "tvm"))
    return export(policy, board, tmp_path_factory.mktemp("tvm") / "bundle", seen, [{"stage": "limit"}], starts=starts)


@pytest.mark.parametrize(("name", "head", "profile"), CASES, ids=lambda v: v)
def test_every_operation_has_the_programs_bits(name: str, head: str, profile: str, tmp_path: Path) -> None:
    policy = samples.network(name, head)
    seen, starts = samples.episodes(policy.contract, 400)
    program = quantize(policy, seen, starts=starts, profile=profile)
    (tmp_path / "policy.so").write_bytes(export_tvm.compiled(program, platform.machine()))
    machine = tvm.relax.VirtualMachine(tvm.runtime.load_module(str(tmp_path / "policy.so")), tvm.cpu())
    fixed, outputs = policy.contract.observe(seen)[0], export_tvm.facts(program)["outputs"]
    memory = program.start(1)
    for k in range(200):
        memory = program.start(1) if starts[k] else memory
        feeds = [fixed[k : k + 1], *([memory] if program.memory else [])]
        result = machine["main"](*(tvm.runtime.tensor(feed) for feed in feeds))
        got = dict(zip(outputs, (one.numpy() for one in ([result] if len(outputs) == 1 else result))))
        wanted, memory = program.step(fixed[k : k + 1], memory)
        assert np.array_equal(got["action"], wanted) and np.array_equal(got.get("memory_out", memory), memory), f"step {k}"


def test_equal_programs_give_equal_bytes(bundle: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    name = f"tvm/policy-{platform.machine()}.so"
    assert export_tvm.compiled(bundle.image.program, platform.machine()) == (bundle.path / name).read_bytes()
    assert capfd.readouterr().err == "", "nothing of TVM's own on standard error"


@pytest.mark.toolchain("ld.lld")
def test_both_architectures_are_linked(bundle: Bundle) -> None:
    machines = {"aarch64": 183, "x86_64": 62}  # e_machine of an ELF file
    for name, number in machines.items():
        library = (bundle.path / "tvm" / f"policy-{name}.so").read_bytes()
        assert library[:4] == b"\x7fELF" and int.from_bytes(library[18:20], "little") == number
    assert bundle.manifest["formats"] == ["linux", "tvm"]


def test_the_python_replay(bundle: Bundle) -> None:
    done = subprocess.run([sys.executable, str(bundle.path / "tvm" / "run.py")], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["mismatches"] == 0 and found["steps"] > len(bundle.vectors) / 2
    broken = bundle.path.parent / "broken"
    shutil.copytree(bundle.path, broken)
    rows = np.fromfile(broken / "vectors.bin", "<i4").reshape(len(bundle.vectors), -1)
    rows[:, 1 + bundle.image.contract.n_observations] += 1
    rows.tofile(broken / "vectors.bin")
    done = subprocess.run([sys.executable, str(broken / "tvm" / "run.py")], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and json.loads(done.stdout)["mismatches"] == found["steps"]


@pytest.mark.toolchain("c++")
def test_the_replay_without_python(bundle: Bundle, tmp_path: Path) -> None:
    import tvm_ffi

    runtime, ffi = Path(tvm.__file__).parent / "lib", Path(tvm_ffi.__file__).parent
    source, out = bundle.path / "tvm" / "replay.cc", tmp_path / "replay"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-isystem", str(ffi / "include")]
    libraries = [f"-L{runtime}", f"-L{ffi / 'lib'}", "-Wl,--no-as-needed", "-ltvm_runtime", "-ltvm_ffi"]
    subprocess.run(["c++", *flags, str(source), "-o", str(out), *libraries], check=True)
    [line] = [line for line in (bundle.path / "tvm" / "README.md").read_text().splitlines() if "./replay" in line]
    numbers = line.split("vectors.bin")[1].split()
    command = [str(out), str(bundle.path / "tvm" / f"policy-{platform.machine()}.so"), str(bundle.path / "vectors.bin"), *numbers]
    environment = os.environ | {"LD_LIBRARY_PATH": f"{runtime}:{ffi / 'lib'}"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout)["mismatches"] == 0 and json.loads(done.stdout)["steps"] > len(bundle.vectors) / 2


def test_the_linux_runner_computes_with_it(bundle: Bundle, tmp_path: Path) -> None:
    command = [sys.executable, str(bundle.path / "linux" / "run.py"), "--folder", str(tmp_path), "--port", "0", "--engine", "tvm"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None and process.stderr is not None
        port = json.loads(process.stdout.readline())["port"]
        with Board(SocketLink(f"socket://127.0.0.1:{port}")) as board:
            assert board.identity.kind == "linux"
            assert check.replay(bundle.vectors.head(200), bundle.image.contract, board, lambda *_: None) == (0, "")
        process.stdin.close()
        assert "TVM" in process.stderr.read()


def test_verify_runs_it(bundle: Bundle) -> None:
    [row] = engines.verify(bundle, 1000, only=("tvm",))
    assert row.mismatches == 0 and row.vectors > 500 and row.engine == f"TVM {tvm.__version__}"


def test_a_missing_linker_or_package_is_said(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as here:
        here.setenv("PATH", "")
        with pytest.raises(Unsupported, match="linked with aarch64-linux-gnu-ld"):
            export_tvm.compiled(bundle.image.program, "aarch64")
    monkeypatch.setitem(sys.modules, "tvm", None)
    with pytest.raises(MissingExtra, match="extra 'tvm'"):
        export_tvm.compiled(bundle.image.program, "aarch64")
