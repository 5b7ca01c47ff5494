"""The MicroPython runtime on real MicroPython VMs: as a simulated board, or running one script."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tty
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

import puffer_edge
from puffer_edge.device import simulators
from puffer_edge.device.board import Board
from puffer_edge.device.link import Link
from puffer_edge.device.ports import SocketLink
from puffer_edge.errors import Unsupported

REPOSITORY = Path(puffer_edge.__file__).parent.parent
RUNTIME = REPOSITORY / "firmware" / "micropython"
SIMULATOR = REPOSITORY / "puffer_edge" / "device" / "simulators" / "micropython.mjs"
PACKAGE = "@micropython/micropython-webassembly-pyscript"
UNIX = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "puffer-edge" / "micropython"
END = b"-- end of script --"

MACHINES = ("wasm", "unix-64", "unix-32")


def modules() -> Path:
    """The node_modules folder with the VM in it; skips the test if there is none."""
    try:
        simulators.node()
        return simulators.node_modules(PACKAGE)
    except Unsupported as missing:
        pytest.skip(f"needs node and npm: {missing}")


def deploy(root: Path) -> None:
    """The runtime's files as they lie on a board."""
    for target, source in json.loads((RUNTIME / "package.json").read_text())["urls"]:
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(RUNTIME / source, root / target)


@contextmanager
def simulator(root: Path, files: Mapping[str, str | bytes] | None = None, runtime: Path = RUNTIME) -> Iterator[int]:
    """A simulated board whose own files are in ``root``, and its runtime what a package.json in ``runtime`` lists; yields its TCP port."""
    node_modules = modules()
    for name, content in (files or {}).items():
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
    command = ["node", str(SIMULATOR), "--modules", str(node_modules), "--root", str(root), "--runtime", str(runtime)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["port"]
        finally:
            process.kill()


@contextmanager
def board(root: Path, files: Mapping[str, str | bytes] | None = None) -> Iterator[Board]:
    """A simulated board, spoken to over the link."""
    with simulator(root, files) as port, Board(SocketLink(f"socket://127.0.0.1:{port}")) as one:
        yield one


def run(machine: str, script: str, root: Path, files: Mapping[str, bytes] | None = None) -> list[str]:
    """The lines that a script prints on one of ``MACHINES``, or on "cpython"; it runs beside the runtime's files."""
    for name, content in (files or {}).items():
        (root / name).write_bytes(content)
    if machine == "wasm":
        return _run_wasm(script, root)
    program = sys.executable if machine == "cpython" else str(UNIX / f"micropython-{machine[5:]}")
    if not Path(program).exists():
        pytest.skip(f"needs MicroPython's unix port ({machine})")
    deploy(root)
    (root / "script.py").write_text(script)
    done = subprocess.run([program, "script.py"], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout.splitlines()


def _run_wasm(script: str, root: Path) -> list[str]:
    """As the board's user.py: what it prints comes over the line."""
    guarded = "".join(f"    {line}\n" for line in script.splitlines())
    text = f"import sys\ntry:\n{guarded}\nexcept Exception as e:\n    sys.print_exception(e, sys.stdout)\nprint({END.decode()!r})\n"
    with simulator(root, {"user.py": text}) as port, socket.create_connection(("127.0.0.1", port), timeout=300) as line:
        received = b""
        while END not in received:
            data = line.recv(65536)
            assert data, received[-2000:]
            received += data
    output = received.split(END)[0].decode()
    assert "Traceback" not in output, output[-2000:]
    return output.splitlines()


MACHINE = """
import sys
def unique_id():
    return b'unix'
def reset():
    sys.exit(3)
class WDT:
    def __init__(self, timeout):
        pass
    def feed(self):
        pass
"""


class Terminal(Link):
    """The line to a process on a pseudo-terminal."""

    def __init__(self, descriptor: int) -> None:
        super().__init__("terminal")
        self.descriptor = descriptor

    def send(self, data: bytes) -> None:
        os.write(self.descriptor, data)

    def receive(self, timeout_s: float) -> bytes:
        return os.read(self.descriptor, 4096) if select.select([self.descriptor], [], [], timeout_s)[0] else b""

    def close(self) -> None:
        pass


@contextmanager
def terminal(machine: str, root: Path, files: Mapping[str, bytes]) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    """A unix port that runs the board's own ``main.py`` on a pseudo-terminal."""
    program = UNIX / f"micropython-{machine[5:]}"
    if not program.exists():
        pytest.skip(f"needs MicroPython's unix port ({machine})")
    deploy(root)
    shutil.copyfile(RUNTIME / "main.py", root / "main.py")
    for name, content in {"machine.py": MACHINE.encode(), **files}.items():
        (root / name).write_bytes(content)
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    with subprocess.Popen([program, "main.py"], cwd=root, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE) as process:
        try:
            yield Terminal(ours), process
        finally:
            process.kill()
            os.close(ours)
            os.close(theirs)
