"""One source a policy: the engine's files, those that the policy needs, in front of it, under names that no other policy has."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from puffer_edge.export.source import Source
from puffer_edge.integer.program import KINDS

ROOTS = ("pe_engine.c", "pe_image.c", "pe_input.c", "pe_dense.c")
"""What every policy runs; what these include, and the kernels of the policy's operations, is found from the sources."""
_LOCAL = re.compile(r'^#include "(pe_\w+\.h)"\n', re.MULTILINE)
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
    kinds = {type(op).__name__.lower() for op in held.image.program.ops}
    parts = _sources(engine, kinds)
    heads = _headers(engine, parts)
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
        *(f"#define PE_WITH_{kind.upper()}" for kind in sorted(kinds) if f"pe_{kind}.c" not in ROOTS),
        "",
        *(_bare(engine[name]) for name in heads),
        *(_renamed(name, engine[name], parts, engine) for name in parts),
        _bare(body).replace(f'#include "policy_{held.name}.h"\n', ""),
    ]
    return "\n".join(text)


def _sources(engine: Mapping[str, str], kinds: set[str]) -> list[str]:
    """The engine's sources that a program with these operations calls: for a header that one of them includes, pe_x.h, what begins with
    pe_x is needed too; but a kernel only if an operation asks for it."""
    others = {f"pe_{op.__name__.lower()}.c" for op in KINDS.values()} - {f"pe_{kind}.c" for kind in kinds} - set(ROOTS)
    needed = [*ROOTS, *sorted({f"pe_{kind}.c" for kind in kinds} - set(ROOTS))]
    for name in needed:  # grows while it is walked
        stems = {head[:-2] for head in _LOCAL.findall(engine[name])}
        offered = (other for other in engine if other.endswith(".c") and any(re.match(rf"{stem}[._]", other) for stem in stems))
        needed += [other for other in sorted(offered) if other not in needed and other not in others]
    return needed


def _headers(engine: Mapping[str, str], parts: Sequence[str]) -> list[str]:
    """The headers of these sources, each after those that it includes."""
    ordered: list[str] = []

    def visit(name: str) -> None:
        for head in _LOCAL.findall(engine[name]):
            visit(head)
        if name.endswith(".h") and name not in ordered:
            ordered.append(name)

    for part in parts:
        visit(part)
    return ordered


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
