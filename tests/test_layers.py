"""The imports of the real files, read with ast, run one way: cli → hil, export → train → envs → device → integer → … → errors."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# One line is one floor. A floor may use the lines below it; two names on one line are siblings and never use each other.
FLOORS = (
    ("cli",),
    ("commands",),
    ("engines",),
    ("hil", "export"),
    ("bridges", "train"),
    ("intake",),
    ("envs",),
    ("device",),
    ("integer",),
    ("policy", "trace"),
    ("contract", "layers"),
    ("spaces", "files", "find"),
    ("errors",),
)
LEVEL = {name: len(FLOORS) - level for level, names in enumerate(FLOORS) for name in names}
DATA = ("firmware", "targets")  # folders of files; whoever opens them as package data names the package alone

# What may be imported at the top of a module, beyond the standard library, numpy and this package, and where.
AT_TOP = {
    "torch": ("puffer_edge.train",),
    "gymnasium": ("puffer_edge.bridges",),
    "pettingzoo": ("puffer_edge.bridges",),
    "rich": ("puffer_edge.commands",),
    "tyro": ("puffer_edge.cli", "puffer_edge.commands"),
}
VAGUE = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}


def sources() -> Iterator[tuple[str, Path]]:
    """Module name and file of all code that runs on the host; links are not followed."""
    for folder in ("puffer_edge", "export", "hil", "targets", "firmware/shared"):
        prefix = folder.replace("/", ".") if folder == "puffer_edge" else f"puffer_edge.{folder.replace('/', '.')}"
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            if not (folder == "puffer_edge" and (ROOT / folder / parts[0]).is_symlink()):
                yield ".".join([prefix, *parts]).removesuffix(".__init__"), path


MODULES = dict(sources())


def imports(path: Path, module: str = "") -> Iterator[tuple[str, bool, int]]:
    """Every (imported name, whether it runs on import, line) of a file; ``from a import b`` gives ``a.b``."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]

    def walk(node: ast.AST, at_top: bool) -> Iterator[tuple[str, bool, int]]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, at_top, node.lineno
        elif isinstance(node, ast.ImportFrom):
            parent = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            origin = ".".join(part for part in (parent, node.module) if part)
            for alias in node.names:
                yield f"{origin}.{alias.name}", at_top, node.lineno
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.body:
                yield from walk(child, False)
            for child in node.orelse:
                yield from walk(child, at_top)
        else:
            inside = at_top and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            for child in ast.iter_child_nodes(node):
                yield from walk(child, inside)

    yield from walk(ast.parse(path.read_text(), str(path)), True)


def wrong(module: str, imported: str) -> str | None:
    """Why an arrow from one module of this package to a name is wrong, or None."""
    own = module.partition(".")[2].partition(".")[0]
    parts = imported.split(".")
    if imported == "puffer_edge.__version__":
        return None
    if len(parts) < 2 or parts[1] not in {*LEVEL, *DATA}:
        return "name the module it is in (or: from puffer_edge import __version__)"
    other = parts[1]
    if other in DATA:
        if parts[2:3] not in ([], ["shared"]):
            return "the host imports only firmware.shared"
        return None if own in DATA or LEVEL.get(own, 0) >= LEVEL["integer"] else f"{other} is for integer and above"
    if own in DATA:
        return "imports nothing of the host"
    if own == "":
        return None if LEVEL[other] <= LEVEL["policy"] else "the package itself costs numpy alone"
    if own == other or own == "__main__":
        return None
    if own not in LEVEL:
        return f"puffer_edge.{own} has no floor yet: give it one in tests/test_layers.py"
    return None if LEVEL[own] > LEVEL[other] else f"{own} may not use {other}"


def test_every_arrow_runs_one_way() -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{line}: {imported}: {reason}"
        for module, path in MODULES.items()
        for imported, _, line in imports(path, module)
        if imported.split(".")[0] == "puffer_edge" and (reason := wrong(module, imported))
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("puffer_edge.integer.program", "puffer_edge.device.target"),
        ("puffer_edge.export.c", "puffer_edge.hil.check"),
        ("puffer_edge.policy", "puffer_edge.trace.Trace"),
        ("puffer_edge.trace", "puffer_edge.firmware.shared.frames"),
        ("puffer_edge.device.link", "puffer_edge.firmware.micropython"),
        ("puffer_edge.firmware.shared.frames", "puffer_edge.errors"),
        ("puffer_edge.device.board", "puffer_edge.Policy"),
        ("puffer_edge", "puffer_edge.train.loop"),
        ("puffer_edge.attic", "puffer_edge.errors"),
    ],
)
def test_a_wrong_arrow_is_seen(module: str, imported: str) -> None:
    assert wrong(module, imported)


def test_heavy_packages_are_imported_where_they_are_used() -> None:
    light = {*sys.stdlib_module_names, "numpy", "puffer_edge", "tomli", "tomllib"}
    faults = [
        f"{path.relative_to(ROOT)}:{line}: {imported}"
        for module, path in MODULES.items()
        for imported, at_top, line in imports(path, module)
        if at_top and (name := imported.split(".")[0]) not in light and not module.startswith(AT_TOP.get(name, ("-",)))
        if not module.startswith("puffer_edge.firmware.shared")  # MicroPython's own names, behind a try
    ]
    assert not faults, "import these inside the function that needs them:\n" + "\n".join(faults)


def test_import_puffer_edge_costs_numpy_alone() -> None:
    script = "import json, sys; before = set(sys.modules); import puffer_edge; print(json.dumps(sorted(set(sys.modules) - before)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
    third_party = {name.split(".")[0] for name in loaded} - set(sys.stdlib_module_names) - {"numpy", "puffer_edge"}
    assert not third_party


def test_device_code_imports_nothing_of_the_host() -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{line}: {imported}"
        for path in sorted((ROOT / "firmware").glob("[!s]*/**/*.py"))
        for imported, _, line in imports(path)
        if imported.split(".")[0] == "puffer_edge"
    ]
    assert not faults, "\n".join(faults)


def test_files_are_named_after_what_they_hold() -> None:
    vague = [str(path.relative_to(ROOT)) for path in MODULES.values() if path.stem in VAGUE or path.parent.name in VAGUE]
    assert not vague


def test_every_package_says_what_it_is() -> None:
    packages = {path.parent for path in MODULES.values()} | {ROOT / "firmware"}
    silent = [
        str(folder.relative_to(ROOT))
        for folder in sorted(packages)
        if not (folder / "__init__.py").is_file() or not ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    ]
    assert not silent, f"a docstring in __init__.py is missing in {silent}: without the file an editable install may not find the folder"
