"""Builds the native trainer into wheels and editable installs; all else about the package stands in pyproject.toml.

Where there is no C compiler, or it fails, the package installs without the native trainer, says so, and trains with torch.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

NATIVE = Path("puffer_edge") / "train" / "native"


def _builder() -> ModuleType:
    """``puffer_edge/train/native/build.py`` by its path: the package itself needs numpy, which a build lacks."""
    spec = importlib.util.spec_from_file_location("native_build", Path(__file__).parent / NATIVE / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildNative(build_py):
    """Packages, then the libraries beside them: in the source tree for an editable install, in what becomes the wheel else."""

    def run(self) -> None:
        super().run()
        builder = _builder()
        folder = Path(__file__).parent / NATIVE if self.editable_mode else Path(self.build_lib) / NATIVE
        for variant in builder.variants():
            try:
                builder.build(variant, folder)
            except RuntimeError as error:
                print(f"warning: no native trainer for {variant}, torch will train there: {error}", file=sys.stderr)


class PlatformWheel(bdist_wheel):
    """Tagged for this platform if libraries are in it, for any Python 3; for any platform if none are."""

    def run(self) -> None:
        if not self.skip_build:
            self.run_command("build")
        folder = Path(self.get_finalized_command("build_py").build_lib) / NATIVE
        self.root_is_pure = not any(folder.glob("*.so"))
        self.distribution.has_ext_modules = lambda: not self.root_is_pure  # one root for all files of the wheel
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        python, abi, platform = super().get_tag()
        return (python, abi, platform) if self.root_is_pure else ("py3", "none", platform)


setup(cmdclass={"build_py": BuildNative, "bdist_wheel": PlatformWheel})
