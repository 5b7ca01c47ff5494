"""One source a policy: the engine's files, those that the policy needs, in front of it, under names that no other policy has."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from puffer_edge.export.source import Source

CORE = ("pe_engine.c", "pe_image.c", "pe_shield.c", "pe_crc32.c", "pe_sha256.c")
HEADS = ("pe_protocol.h", "pe_engine.h", "pe_ops.h", "pe_squash.h", "pe_dot.h", "pe_gates.h", "pe_conv.h", "pe_crc32.h", "pe_sha256.h", "pe_shield.h")
"""Headers in an order in which each finds what it needs."""
SQUASH = {"gru", "lstm", "tanh16"}
ALWAYS = {"input", "dense"}
_LOCAL = re.compile(r'^#include "pe_\w+\.h"\n', re.MULTILINE)
_OWN = re.compile(r"^static (?:inline )?(?:const )?[\w \*]*?\b(\w+)(?:\[\w*\])*(?:\(| =)|^\} (\w+);|^typedef enum \{[^}]*\} (\w+);", re.MULTILINE)
_ENUM = re.compile(r"^enum \{([^}]*)\}", re.MULTILINE)
_SHARED = re.compile(r"^(?:extern )?(?:const )?(?:u?int\d+_t|int|void|pe_kernel)\b[\w \*]*?\b(pe_\w+)(?=[\(\[,;])", re.MULTILINE)


def source(held: Source, body: str, engine: Mapping[str, str]) -> str:
    """The text of ``single/policy_NAME.c``.

    Args:
        held: the policy.
        body: ``src/policy_NAME.c``, which ends it.
        engine: texts of the engine's files by name.
    """
    kinds = sorted({type(op).__name__.lower() for op in held.image.program.ops} | ALWAYS)
    parts = [*CORE, *(f"pe_{kind}.c" for kind in kinds)] + (["pe_squash.c", "pe_squash_table.c"] if SQUASH & set(kinds) else [])
    heads = [name for name in HEADS if name in engine]
    missing = {name for name in engine if name.endswith(".h")} - set(heads)
    if missing:
        raise KeyError(f"export/c_single.py does not say where {sorted(missing)} belong")
    shared = sorted({name for head in heads for line in _SHARED.findall(engine[head]) for name in _listed(engine[head], line)})
    system = sorted({line for name in [*heads, *parts] for line in re.findall(r"^#include <\w+\.h>", engine[name], re.MULTILINE)})
    text = [
        f"/* {held.title} in one file: engine, data and shield, printed by puffer-edge; do not edit. */",
        f'#include "policy_{held.name}.h"',
        "",
        *system,
        "",
        "#if defined(__GNUC__) && !defined(__clang__)",
        '#pragma GCC optimize("no-strict-aliasing") /* the image is read in place; give Clang -fno-strict-aliasing */',
        "#endif",
        "",
        "/* Every name of the engine that a linker sees is this policy's own. */",
        *(f"#define {name} {held.name}_{name}" for name in shared),
        "",
        "#define PE_ONLY",
        *(f"#define PE_WITH_{kind.upper()}" for kind in kinds if kind not in ALWAYS),
        "",
        *(_bare(engine[name]) for name in heads),
        *(_renamed(name, engine[name], parts, engine) for name in parts),
        _bare(body).replace(f'#include "policy_{held.name}.h"\n', ""),
    ]
    return "\n".join(text)


def _bare(text: str) -> str:
    """Without the includes that are in the file already."""
    return re.sub(r"^#include <\w+\.h>\n", "", _LOCAL.sub("", text), flags=re.MULTILINE)


def _listed(text: str, first: str) -> list[str]:
    """Every name of a declaration such as ``pe_kernel pe_input, pe_dense;``."""
    found = re.search(rf"^pe_kernel ({first}[\w, \n]*);", text, re.MULTILINE)
    return re.findall(r"pe_\w+", found[1]) if found else [first]


def _own(text: str) -> set[str]:
    """Names that a source keeps to itself: functions, tables, types."""
    named = {name for groups in _OWN.findall(text) for name in groups if name}
    return named | {name for body in _ENUM.findall(text) for name in re.findall(r"\b([A-Z]\w*)\b(?=\s*[=,}])", body + "}")}


def _renamed(name: str, text: str, parts: Sequence[str], engine: Mapping[str, str]) -> str:
    """A source, where a name that another one keeps too gets its file's name in front."""
    twice = sorted(own for own in _own(text) if any(own in _own(engine[other]) for other in parts if other != name))
    before = [f"#define {own} {name[:-2]}_{own}" for own in twice]
    after = [f"#undef {own}" for own in twice]
    return "\n".join([*before, _bare(text), *after])
