"""A target is data: one TOML file that says what a board has and how to reach it."""

from __future__ import annotations

import sys
from dataclasses import MISSING, dataclass, fields
from typing import Any

from puffer_edge import find
from puffer_edge.errors import InvalidInput, Unsupported

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = "puffer_edge.targets"
FIRMWARES = ("c", "micropython", "host", "linux", "wasm", "sources")
SIMULATORS = ("rp2040js", "micropython", "process", "linux")


@dataclass(frozen=True)
class Serial:
    """How the serial port of a board wants to be opened.

    Attributes:
        baud: rate of the line; a USB port ignores it.
        dtr: level of DTR from the first moment on; on many boards it is wired to reset.
        rts: level of RTS.
        boot_ms: time after opening until the board listens.
    """

    baud: int
    dtr: bool
    rts: bool
    boot_ms: int


@dataclass(frozen=True)
class Simulator:
    """What stands in for the board when there is none.

    Attributes:
        kind: "rp2040js", "micropython", "process" or "linux".
        says: what is simulated and what is not, in one sentence that is shown with every result.
    """

    kind: str
    says: str


@dataclass(frozen=True)
class FlashCache:
    """The cache through which the C engine reads its code and weights, where a build leaves both in flash.

    Attributes:
        kib: its size in KiB.
        line_bytes: bytes that one miss brings.
        miss_cycles: cycles of the processor that one miss costs.
    """

    kib: int
    line_bytes: int
    miss_cycles: int


@dataclass(frozen=True)
class Target:
    """A kind of board.

    Attributes:
        name: name of its file, and on the command line.
        title: name for people.
        chip: the microcontroller.
        cpu: its core, for people.
        clock_mhz: clock that the firmware sets; 0 where it sets none.
        flash_kib: flash of the smallest such board; 0 where there is no limit.
        ram_kib: RAM of the chip; 0 where there is no limit.
        firmware: what answers on the board: "c" (ours), "micropython" (the official one with our runtime), "host" (the C engine as a
            process), "linux" (the Python runner), "wasm" (the C engine in a browser) or "sources" (the C engine in a firmware of the
            user's, where nothing of ours answers on a line).
        image_max_bytes: largest policy image that its slot holds.
        ram_for_policy_bytes: RAM for the image and its activations together.
        formats: what ``export`` writes, beside the policy image.
        sources: where the facts of this file come from, one document a line.
        core: the core's file in ``targets/cores``, with the cost of each kind of work; empty where nothing is predicted.
        serial: how its port is opened; None where it has no serial line.
        simulator: what stands in for it; None where nothing here does.
        flash_cache: the cache in front of its flash; None where weights and code are read without waiting.
        notes: what a person must know before the first use.
    """

    name: str
    title: str
    chip: str
    cpu: str
    clock_mhz: int
    flash_kib: int
    ram_kib: int
    firmware: str
    image_max_bytes: int
    ram_for_policy_bytes: int
    formats: tuple[str, ...]
    sources: tuple[str, ...]
    core: str = ""
    serial: Serial | None = None
    simulator: Simulator | None = None
    flash_cache: FlashCache | None = None
    notes: str = ""


def names() -> tuple[str, ...]:
    """Every target there is."""
    return find.names(PACKAGE, ".toml")


def simulator_of(target: Target) -> Simulator:
    """What stands in for a target.

    Raises:
        Unsupported: nothing does; the message says what can be done instead.
    """
    if target.simulator is None:
        ways = "'--board loopback' runs the reference behind the link, '--target host' the C engine as a process"
        line = " or connect the board" if target.firmware != "sources" else ""
        raise Unsupported(f"nothing here simulates a {target.name}: {ways};{line or ' the bundle holds the vectors that your firmware can replay'}")
    return target.simulator


def load(name: str) -> Target:
    """Read a target.

    Raises:
        InvalidInput: there is no such target, or its file has a missing, unknown or wrong field.
    """
    path = find.folder(PACKAGE) / f"{find.choose('target', name, names())}.toml"
    return parse(name, path.read_text("utf-8"))


def parse(name: str, text: str) -> Target:
    """Build a target from the text of its file.

    Raises:
        InvalidInput: the text is no TOML, or a field is missing, unknown or wrong.
    """
    where = f"the target file {name}.toml"
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{where} is no TOML: {error}") from None
    parts: dict[str, Any] = {**table, "name": name}
    for key, kind in (("serial", Serial), ("simulator", Simulator), ("flash_cache", FlashCache)):
        if key in parts:
            if not isinstance(parts[key], dict):
                raise InvalidInput(f"{where}: {key} is a table, [{key}], not {parts[key]!r}")
            parts[key] = _build(kind, parts[key], f"[{key}] of {where}")
    for key in ("formats", "sources"):
        if isinstance(parts.get(key), list):
            parts[key] = tuple(parts[key])
    target: Target = _build(Target, parts, where)
    if target.firmware not in FIRMWARES or (target.simulator and target.simulator.kind not in SIMULATORS):
        raise InvalidInput(f"{where}: firmware is one of {', '.join(FIRMWARES)}, simulator.kind one of {', '.join(SIMULATORS)}")
    if not target.sources:
        raise InvalidInput(f"{where}: sources is empty: say where its facts come from")
    return target


def _build(kind: Any, values: dict[str, Any], where: str) -> Any:
    """An instance of a dataclass, every field checked against its annotation."""
    known = {f.name: f for f in fields(kind)}
    unknown = sorted(set(values) - set(known))
    missing = sorted(k for k, f in known.items() if k not in values and f.default is MISSING)
    if unknown or missing:
        raise InvalidInput(f"{where}: " + "; ".join([f"unknown field {k}" for k in unknown] + [f"missing field {k}" for k in missing]))
    for key, value in values.items():
        annotation = str(known[key].type)
        kinds = {"int": int, "str": str, "bool": bool, "tuple[str, ...]": tuple}
        expected = kinds.get(annotation)
        if expected and type(value) is not expected:
            raise InvalidInput(f"{where}: {key} must be {annotation}, not {value!r}")
    return kind(**values)
