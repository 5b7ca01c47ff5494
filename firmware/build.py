"""Builds the C firmware: the protocol header, the host's board and library, the images for microcontrollers.

`make firmware` runs this file. Everything it makes depends on the sources and the compiler's version alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from firmware.shared import protocol  # noqa: E402

C_DIR = HERE / "c"
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-pedantic", "-fno-strict-aliasing"]


def protocol_header() -> str:
    """The text of ``firmware/c/pe_protocol.h``: every name and number of the protocol table, as C."""

    def constants(prefix: str, table: dict[str, int]) -> list[str]:
        return [f"    {prefix}{name.upper()} = {value}," for name, value in table.items()]

    plain = ["MAX_PAYLOAD", "INSTALL_CHUNK", "REPLY", "ERROR", "ARM_LOCK_STEP", "ARM_FREE_RUN"]
    plain += ["STEP_RESET", "STEP_MISSED", "STEP_INVALID", "SATURATED", "MISSED", "INVALID", "STALE", "POLICY_RAN"]
    plain += ["REASON_SHIFT", "MAX_STAGES", "REASON_INVALID", "REASON_STALE"]
    lines = ["/* Generated from firmware/shared/protocol.py by firmware/build.py: edit that one. */", "#ifndef PE_PROTOCOL_H", "#define PE_PROTOCOL_H", ""]
    lines += ["enum {", f"    PE_PROTOCOL_VERSION = {protocol.VERSION},"]
    lines += constants("PE_", {name: getattr(protocol, name) for name in plain})
    lines += ["};", "", "/* Requests, and the bytes of their payloads (at least, where more may follow). */", "enum {"]
    for name, (kind, request, _) in protocol.MESSAGES.items():
        lines += [f"    PE_{name.upper()} = {kind},", f"    PE_{name.upper()}_BYTES = {struct.calcsize(request.rstrip('*') or '<')},"]
    lines += ["};", ""]
    for prefix, table in (("PE_ERROR_", protocol.ERRORS), ("PE_KIND_", protocol.KINDS), ("PE_STATE_", protocol.STATES), ("PE_SHIELD_", protocol.SHIELDS)):
        lines += ["enum {", *constants(prefix, table), "};", ""]
    return "\n".join([*lines, "#endif", ""])
