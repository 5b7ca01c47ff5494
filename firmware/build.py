"""Builds the C firmware: protocol header, the RP2040's image, the WebAssembly engine, the host's board and library. ``make firmware`` runs it.

What comes out depends on the sources and the compiler's version alone: no time, no path, no order of a directory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from puffer_edge.errors import PufferEdgeError, Unsupported
from puffer_edge.firmware.shared import protocol

HERE = Path(__file__).resolve().parent
C, HOST, RP2040, PREBUILT = HERE / "c", HERE / "boards" / "host", HERE / "boards" / "rp2040", HERE / "prebuilt"
WASM = HERE / "boards" / "wasm"
USER_IO = C / "user_io.c"
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-pedantic", "-fno-strict-aliasing"]
SANITIZE = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
REPRODUCIBLE = [f"-ffile-prefix-map={HERE}=.", "-fno-ident", "-Wl,--build-id=none"]
CORTEX_M0PLUS = ["-mcpu=cortex-m0plus", "-mthumb", "-ffreestanding", "-fno-tree-loop-distribute-patterns", "-ffunction-sections", "-fdata-sections"]
WASM32 = ["--target=wasm32", "-ffreestanding", "-nostdlib", "-O2", "-fno-strict-aliasing"]
WASM_LINK = ["-Wl,--no-entry", "-Wl,--stack-first", "-Wl,-z,stack-size=16384", "-Wl,--gc-sections", "-Wl,--strip-all"]
ARM = "arm-none-eabi-"
BOOT2_BYTES = 252
LINK_ONLY = ("pe_device.c", "pe_link.c", "pe_store.c")


@dataclass(frozen=True)
class HostBuild:
    """What ``build_host`` makes.

    Attributes:
        board: program ``pe_host PORT FOLDER``: a board on a TCP port of this computer.
        library: the engine for ctypes (``firmware/boards/host/pe_batch.h``).
        fuzz: program ``pe_fuzz IMAGE SEED ROUNDS``.
    """

    board: Path
    library: Path
    fuzz: Path


def protocol_header() -> str:
    """The text of ``firmware/c/pe_protocol.h``: every number of the protocol table, as C."""
    plain = ["MAX_PAYLOAD", "INSTALL_CHUNK", "REPLY", "ERROR", "ARM_LOCK_STEP", "ARM_FREE_RUN"]
    plain += ["STEP_RESET", "STEP_MISSED", "STEP_INVALID", "SATURATED", "MISSED", "INVALID", "STALE", "POLICY_RAN"]
    plain += ["REASON_SHIFT", "MAX_STAGES", "REASON_INVALID", "REASON_STALE"]
    lines = ["/* Generated from firmware/shared/protocol.py by firmware/build.py. */", "#ifndef PE_PROTOCOL_H", "#define PE_PROTOCOL_H", ""]
    lines += _enum("PE_", {"PROTOCOL_VERSION": protocol.VERSION} | {name: getattr(protocol, name) for name in plain})
    lines.append("/* Requests, and the bytes of their payloads: at least, where more may follow. */")
    requests: dict[str, int] = {}
    for name, (kind, request, _) in protocol.MESSAGES.items():
        requests |= {name: kind, f"{name}_bytes": struct.calcsize(request.rstrip("*") or "<")}
    lines += _enum("PE_", requests)
    for prefix, table in (("ERROR", protocol.ERRORS), ("KIND", protocol.KINDS), ("STATE", protocol.STATES), ("SHIELD", protocol.SHIELDS)):
        lines += _enum(f"PE_{prefix}_", table)
    return "\n".join([*lines, "#endif", ""])


def squash_table() -> str:
    """The text of ``firmware/c/pe_squash_table.c``: the table of the logistic function, as C."""
    from puffer_edge.integer.squash import TABLE

    rows = ["    " + " ".join(f"{int(v)}," for v in TABLE[k : k + 16]) for k in range(0, len(TABLE), 16)]
    head = ["/* Generated from puffer_edge/integer/squash.py by firmware/build.py. */", '#include "pe_squash.h"', ""]
    return "\n".join([*head, "const uint16_t pe_squash_table[256] = {", *rows, "};", ""])


def _enum(prefix: str, table: dict[str, int]) -> list[str]:
    rows = [f"    {prefix}{name.upper()} = {value}," for name, value in table.items()]
    return ["enum {", *rows[:-1], rows[-1].rstrip(","), "};", ""]


def _run(command: list[str | Path]) -> str:
    """Run a tool and return what it printed.

    Raises:
        Unsupported: it is not installed.
        PufferEdgeError: it failed; the message is its own.
    """
    if shutil.which(command[0]) is None:
        raise Unsupported(f"{command[0]} is not installed: 'make toolchains' installs the compilers that firmware needs")
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PufferEdgeError(f"{command[0]} failed:\n{done.stderr}")
    return done.stdout


def _sources(folder: Path, *leave_out: str) -> list[Path]:
    return sorted(path for path in folder.glob("*.c") if path.name not in (USER_IO.name, *leave_out))


def build_host(out_dir: Path, sanitize: bool = False, user_io: Path = USER_IO) -> HostBuild:
    """Compile the firmware for this computer.

    Args:
        out_dir: where the files go; made if it does not exist.
        sanitize: with the address and undefined-behaviour sanitizers (the library is always without).
        user_io: the sensors and actuators.

    Raises:
        Unsupported: there is no C compiler.
        PufferEdgeError: it failed.
    """
    compiler = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        raise Unsupported("the host board needs a C compiler, and there is no cc, gcc or clang on the path: install one, or use target rp2040")
    out_dir.mkdir(parents=True, exist_ok=True)
    built = HostBuild(out_dir / "pe_host", out_dir / "pe_engine.so", out_dir / "pe_fuzz")
    flags = [compiler, *STRICT, f"-I{C}"]
    level = SANITIZE if sanitize else ["-O2"]
    link = [*_sources(C), user_io, HOST / "board.c"]
    _run([*flags, *level, *link, HOST / "main.c", "-o", built.board])
    _run([*flags, *level, *link, HOST / "fuzz.c", "-o", built.fuzz])
    _run([*flags, "-O2", "-fPIC", "-shared", *_sources(C, *LINK_ONLY), HOST / "pe_batch.c", "-o", built.library])
    return built


def boot2_checksum(code: bytes) -> bytes:
    """The CRC-32 by which the RP2040's ROM knows a second stage: polynomial 0x04c11db7, not reflected, no final xor."""
    crc = 0xFFFFFFFF
    for byte in code:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc >> 31 else crc << 1) & 0xFFFFFFFF
    return struct.pack("<I", crc)


def _boot2(work: Path) -> bytes:
    elf, binary = work / "boot2.elf", work / "boot2.bin"
    _run([f"{ARM}gcc", "-nostdlib", "-Wl,--build-id=none", "-Wl,-Ttext=0", "-Wl,-e,boot2", RP2040 / "boot2.S", "-o", elf])
    _run([f"{ARM}objcopy", "-O", "binary", "-j", ".boot2", elf, binary])
    code = binary.read_bytes().ljust(BOOT2_BYTES, b"\0")
    if len(code) > BOOT2_BYTES:
        raise PufferEdgeError(f"boot2 has {len(code)} bytes, the ROM loads {BOOT2_BYTES}")
    return code + boot2_checksum(code)


def build_rp2040(user_io: Path = USER_IO) -> tuple[bytes, dict[str, Any]]:
    """Cross-compile the RP2040's firmware.

    Args:
        user_io: the sensors and actuators.

    Returns:
        the image from the first byte of flash, and what there is to know about it (sizes in bytes).

    Raises:
        Unsupported: there is no cross compiler.
        PufferEdgeError: it failed.
    """
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        elf, binary = work / "rp2040.elf", work / "rp2040.bin"
        flags = [*STRICT, *CORTEX_M0PLUS, *REPRODUCIBLE, "-O2", f"-I{C}"]
        link = ["-nostdlib", "-Wl,--gc-sections", f"-T{RP2040 / 'link.ld'}", f"-Wl,-Map={work / 'map'}"]
        _run([f"{ARM}gcc", *flags, *link, *_sources(C), user_io, *_sources(RP2040), "-lgcc", "-o", elf])
        _run([f"{ARM}objcopy", "-O", "binary", elf, binary])
        image = _boot2(work) + binary.read_bytes()
        return image, _report(image, (work / "map").read_text())


def _report(image: bytes, link_map: str) -> dict[str, Any]:
    section = {name: int(size, 16) for name, size in re.findall(r"^\.(\w+)\s+0x[0-9a-f]+\s+(0x[0-9a-f]+)", link_map, re.MULTILINE)}
    store, board = (C / "pe_store.h").read_text(), (RP2040 / "board.c").read_text()
    slots, step, sector = (_constant(store, name) for name in ("PE_SLOTS", "PE_SLOT_STEP", "PE_SECTOR"))
    return {
        "target": "rp2040",
        "bytes": len(image),
        "sha256": hashlib.sha256(image).hexdigest(),
        "compiler": _run([f"{ARM}gcc", "--version"]).splitlines()[0],
        "data_ram_bytes": section["data"] + section["bss"],
        "code_ram_bytes": section["code"],
        "policy_ram_bytes": section["arena"],
        "max_image_bytes": _constant(store, "PE_MAX_IMAGE"),
        "slots": [0x10000000 + slots, 0x10000000 + slots + step],
        "image_offset": sector,
        "baud": _constant(board, "BAUD"),
    }


def build_wasm() -> tuple[bytes, dict[str, Any]]:
    """Compile the engine for WebAssembly: a module without imports, one policy an instance.

    Returns:
        the module, and what there is to know about it.

    Raises:
        Unsupported: there is no clang, or no linker for it.
        PufferEdgeError: it failed.
    """
    if shutil.which("wasm-ld") is None:
        raise Unsupported("wasm-ld is not installed: 'make toolchains' installs lld, the linker that clang needs for WebAssembly")
    warnings = [flag for flag in STRICT if flag != "-pedantic"]  # addresses are integers here, and an export has a name of its own
    with tempfile.TemporaryDirectory() as name:
        module = Path(name) / "pe_engine.wasm"
        flags = [*warnings, *WASM32, f"-ffile-prefix-map={HERE}=.", "-fno-ident", f"-I{WASM / 'include'}", f"-I{C}"]
        sources = [*_sources(C, *LINK_ONLY), RP2040 / "memory.c", WASM / "module.c"]
        _run(["clang", *flags, *WASM_LINK, *sources, "-o", module])
        data = module.read_bytes()
    compiler = _run(["clang", "--version"]).splitlines()[0]
    linker = _run(["wasm-ld", "--version"]).strip()
    return data, {
        "target": "wasm",
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "compiler": compiler,
        "linker": linker,
        "max_image_bytes": _constant((WASM / "module.c").read_text(), "MAX_IMAGE"),
    }


def _constant(text: str, name: str) -> int:
    """The value of an enumerator that is a number or a product of two."""
    found = re.search(rf"\b{name} = (\w+)(?: \* (\w+))?", text)
    if found is None:
        raise PufferEdgeError(f"there is no constant {name} where firmware/build.py looks for it")
    return int(found[1], 0) * int(found[2] or "1", 0)


def main() -> None:
    """Write the protocol header and the prebuilt images, and print the sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print the reports as JSON")
    parser.add_argument("--user-io", type=Path, default=USER_IO, help="C file with your sensors and actuators")
    parser.add_argument("--out", type=Path, default=PREBUILT, help="folder of the images and their reports")
    parser.add_argument("--only", choices=("rp2040", "pe_engine"), help="build this one alone: the RP2040's image, or the WebAssembly engine")
    options = parser.parse_args()
    builds = {"rp2040.bin": lambda: build_rp2040(options.user_io), "pe_engine.wasm": build_wasm}
    reports = {}
    try:
        (C / "pe_protocol.h").write_text(protocol_header())
        (C / "pe_squash_table.c").write_text(squash_table())
        for name, build in builds.items():
            if options.only in (None, Path(name).stem):
                reports[name] = _write(options.out / name, *build())
    except PufferEdgeError as error:
        raise SystemExit(str(error)) from None
    if options.json:
        print(json.dumps(reports, indent=2))
        return
    for name, report in reports.items():
        print("\n".join([name, *(f"  {key:17} {value}" for key, value in report.items())]))


def _write(path: Path, image: bytes, report: dict[str, Any]) -> dict[str, Any]:
    """Write an image and, beside it, its report; returns the report."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image)
    path.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    return report


if __name__ == "__main__":
    main()
