"""What git tracks is what ships: sdist and wheel, built from a clean copy, compared name by name, installed and read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from puffer_edge.train import native
from puffer_edge.train.native import build

ROOT = Path(__file__).parents[1]
TOP = ("export", "firmware", "hil", "targets")  # folders at the top of the repository that ship inside the package

STALE = "puffer_edge/train/native/libpe_native_stale.so"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tracked: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], Path, Path]:
    """The names in the tree, the sdist, and the wheel that was built from the sdist."""
    names = set(tracked)
    tree = tmp_path_factory.mktemp("tree")
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name, follow_symlinks=False)
    for litter in ("firmware/build/a.o", "firmware/c/build/a.o", "firmware/__pycache__/a.pyc", "puffer_edge/__pycache__/a.pyc", STALE):
        (tree / litter).parent.mkdir(parents=True, exist_ok=True)
        (tree / litter).write_bytes(b"must not ship")
    command = [sys.executable, "-m", "build", "--no-isolation", str(tree)]
    result = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return names, next((tree / "dist").glob("*.tar.gz")), next((tree / "dist").glob("*.whl"))


def test_sdist_holds_every_tracked_file_but_the_links(built: tuple[set[str], Path, Path]) -> None:
    names, sdist, _ = built
    with tarfile.open(sdist) as archive:
        inside = {str(PurePosixPath(*PurePosixPath(member.name).parts[1:])) for member in archive if not member.isdir()}
    generated = {name for name in inside if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    assert inside - generated == names - {f"puffer_edge/{top}" for top in TOP}


def test_wheel_holds_every_tracked_file_of_the_package(built: tuple[set[str], Path, Path]) -> None:
    names, _, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert inside == of_the_package(names) | libraries()
    platform = "any" if not libraries() else "linux_x86_64" if sys.platform == "linux" else ""
    assert wheel.name.endswith(f"-py3-none-{platform}.whl" if platform else ".whl")


def of_the_package(names: set[str]) -> set[str]:
    """Of the names in the tree, what a wheel holds and where."""
    package = {name for name in names if name.startswith("puffer_edge/") and not (ROOT / name).is_symlink()}
    return package | {f"puffer_edge/{name}" for name in names if name.startswith(tuple(f"{top}/" for top in TOP))}


def libraries() -> set[str]:
    """The native trainer's, which a C compiler adds to a wheel."""
    return {f"puffer_edge/train/native/libpe_native_{variant}.so" for variant in build.variants()} if build.compiler() else set()


@pytest.mark.parametrize("compiler", ["/none/cc", "false"])
def test_without_a_working_compiler_a_wheel_is_for_any_platform(built: tuple[set[str], Path, Path], compiler: str, tmp_path: Path) -> None:
    names, sdist, _ = built
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    tree = next(tmp_path.iterdir())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", str(tree)]
    result = subprocess.run(command, cwd=tree, capture_output=True, text=True, env=os.environ | {"CC": compiler})
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert "no native trainer for portable, torch will train there" in result.stdout + result.stderr
    wheel = next((tree / "dist").glob("*.whl"))
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == of_the_package(names)


def test_an_editable_install_builds_the_libraries_in_the_tree(built: tuple[set[str], Path, Path], tmp_path: Path) -> None:
    if build.compiler() is None:
        pytest.skip("needs cc, a host compiler")
    with tarfile.open(built[1]) as archive:
        archive.extractall(tmp_path, filter="data")
    tree, home = next(tmp_path.iterdir()), tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--quiet", "--no-deps", "--no-index"]
    site = next(home.glob("lib/python*/site-packages"))
    (site / "outer.pth").write_text(f"{Path(np.__file__).parents[1]}\n")
    subprocess.run([*pip, "--no-build-isolation", "--editable", str(tree)], check=True, capture_output=True)
    script = "from puffer_edge.train import native; print(native.why_not(), native.load().pe_native_version(), native.HERE)"
    answer = subprocess.run([str(home / "bin" / "python"), "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == [str(native.VERSION), str(tree / "puffer_edge" / "train" / "native")]


def test_installed_wheel_finds_its_data(built: tuple[set[str], Path, Path], tmp_path: Path) -> None:
    home = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(built[2])]
    subprocess.run(pip, check=True, capture_output=True)
    site = next(home.glob("lib/python*/site-packages"))
    (site / "outer.pth").write_text(f"{Path(np.__file__).parents[1]}\n")  # the dependencies, but not this editable checkout

    script = """
import json, pkgutil
from importlib.resources import files
import puffer_edge
modules = [m.name for m in pkgutil.walk_packages(puffer_edge.__path__, "puffer_edge.") if ".firmware.micropython" not in m.name]
data = {name: sorted(p.name for p in files(f"puffer_edge.{name}").iterdir()) for name in ("targets", "firmware")}
print(json.dumps({"home": puffer_edge.__file__, "modules": modules, "data": data}))
"""
    answer = subprocess.run([str(python), "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert found["home"].startswith(str(home))
    assert {f"puffer_edge.{name}" for name in TOP} <= set(found["modules"])
    assert {path.name for path in (ROOT / "targets").glob("*.toml")} <= set(found["data"]["targets"])

    command = [str(home / "bin" / "puffer-edge"), "targets", "--json"]
    listed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    assert all(path.stem in listed.stdout for path in (ROOT / "targets").glob("*.toml"))
