"""C99: the shared engine with the policy as data and its shield printed, and one header and one source for a policy by itself.

No malloc, no libm, no float. The folder ``c/`` of a bundle is at the same time a CMake project, a component of ESP-IDF, an Arduino
library and a Zephyr module: one ``src`` with the files beside it that each of them looks for (``templates/c``).
"""

from __future__ import annotations

import puffer_edge.firmware
from puffer_edge import __version__, find
from puffer_edge.export import c_single
from puffer_edge.export.source import Source, fill, templates
from puffer_edge.firmware.shared import protocol

ENGINE = find.folder(puffer_edge.firmware.__name__) / "c"
FIRMWARE_ONLY = ("pe_board", "pe_device", "pe_link", "pe_store")
"""Link, the device behind it, flash slots and board hooks: a board's firmware needs them, an exported policy does not."""
ARDUINO = """#if defined(ARDUINO) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-strict-aliasing") /* no library of Arduino can ask for a flag */
#endif
"""
"""In front of every exported source: the image is read in place through the types of its fields."""


def engine_files() -> dict[str, bytes]:
    """The engine's sources and headers, by file name; what only a board's firmware needs is not among them."""
    names = sorted(p.name for p in ENGINE.glob("pe_*.[ch]") if p.stem not in FIRMWARE_ONLY)
    return {name: (ARDUINO.encode() if name.endswith(".c") else b"") + (ENGINE / name).read_bytes() for name in names}


def files(source: Source) -> dict[str, bytes]:
    """``c/``: engine and policy under ``src``, one-file form under ``single``, build files and examples."""
    values = _values(source)
    texts = {}
    for path, text in templates("c"):
        named = path.replace("src/policy.", f"src/policy_{source.name}.")
        texts[named] = fill(text, values)
    header, body = (texts[f"src/policy_{source.name}.{end}"] for end in "hc")
    engine = engine_files()
    single = c_single.source(source, body, {name: data.decode().removeprefix(ARDUINO) for name, data in engine.items()})
    texts |= {f"single/policy_{source.name}.h": header, f"single/policy_{source.name}.c": single}
    return {f"c/{path}": text.encode() for path, text in texts.items()} | {f"c/src/{name}": data for name, data in engine.items()}


def _values(source: Source) -> dict[str, str]:
    """What the templates ask for."""
    c, image = source.image.contract, source.image.data
    numbers = {
        "n": c.n_observations,
        "m": c.n_actions,
        "observations": c.n_observations,
        "actions": c.n_actions,
        "period_us": c.period_us,
        "divider": c.policy_divider,
        "stale_limit": c.staleness_limit,
        "image_bytes": len(image),
        "scratch_bytes": source.image.program.scratch_bytes,
    }
    names = ("STEP_RESET", "STEP_MISSED", "STEP_INVALID", "SATURATED", "MISSED", "INVALID", "STALE", "POLICY_RAN", "REASON_SHIFT")
    numbers |= {name.lower(): getattr(protocol, name) for name in names}
    return {
        "name": source.name,
        "NAME": source.name.upper(),
        "title": source.title,
        "version": __version__,
        "channels": source.channels,
        "rate": f"{c.rate_hz:g}",
        "stages": ", ".join(source.image.shield.stages) or "none",
        "contract": c.digest.hex(),
        "image": "\n".join("    " + ",".join(str(b) for b in image[i : i + 32]) + "," for i in range(0, len(image), 32)),
        "shield": source.image.shield.to_c(f"{source.name}_shield"),
        "action_safe": ", ".join(str(int(v)) for v in c.action_safe),
        **{key: str(value) for key, value in numbers.items()},
    }
