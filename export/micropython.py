"""MicroPython: the runtime, the policy image and the printed shield, as the files that go onto the board's file system."""

from __future__ import annotations

from pathlib import Path

import puffer_edge.firmware
from puffer_edge.export.source import Source

FIRMWARE = Path(puffer_edge.firmware.__file__).parent
RUNTIME = "puffer_edge_device"
FIRST_INSTALL = "policy-1.bin"


def runtime_files() -> dict[str, bytes]:
    """The runtime by path on the board: its package, the two modules that it shares with the host, and ``main.py``."""
    package = FIRMWARE / "micropython" / RUNTIME
    files = {f"{RUNTIME}/{p.name}": p.read_bytes() for p in sorted(package.glob("*.py"))}
    files |= {f"{RUNTIME}/{name}.py": (FIRMWARE / "shared" / f"{name}.py").read_bytes() for name in ("protocol", "frames")}
    return files | {"main.py": (FIRMWARE / "micropython" / "main.py").read_bytes()}


def shield_module(source: Source) -> str:
    """``shield.py``: the shield as one function, bound by its digest to the bytecode in the image."""
    shield = source.image.shield
    about = f"{source.policy.name}: the shield, printed by puffer-edge; do not edit."
    return f'"""{about}"""\n\nDIGEST = {shield.digest!r}\n\n\n{shield.to_micropython()}'


def files(source: Source) -> dict[str, bytes]:
    """``micropython/``: everything to copy with ``mpremote fs cp -r micropython/. :``, the policy as its first install."""
    held = runtime_files() | {FIRST_INSTALL: source.image.data, "user_example.py": user_example(source).encode()}
    if source.image.shield.stages:
        held["shield.py"] = shield_module(source).encode()
    return {f"micropython/{name}": data for name, data in held.items()}


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
