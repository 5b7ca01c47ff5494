"""The native trainer, built for the tests: every variant that this processor runs, and one in double."""

from __future__ import annotations

from pathlib import Path

import pytest

from puffer_edge.errors import Unsupported
from puffer_edge.train import native
from puffer_edge.train.native import build


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Libraries built from the sources as they are."""
    if build.compiler() is None:
        pytest.skip("no C compiler (toolchain)")
    found = tmp_path_factory.mktemp("native")
    for variant in build.variants():
        build.build(variant, found)
    return found


@pytest.fixture(scope="session")
def double(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The portable variant in double."""
    if build.compiler() is None:
        pytest.skip("no C compiler (toolchain)")
    found = tmp_path_factory.mktemp("double")
    build.build("portable", found, ("-DPE_DOUBLE",))
    return found


@pytest.fixture(scope="session")
def runs(folder: Path) -> list[str]:
    """The variants that this processor runs."""
    found = []
    for variant in build.variants():
        try:
            native.load(variant, folder)
        except Unsupported:
            continue
        found.append(variant)
    return found
