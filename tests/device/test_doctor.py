"""The doctor looks, changes nothing, and always says how to get what is missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from puffer_edge.device import doctor, simulators


def test_it_finds_what_must_be_there() -> None:
    found = {check.name: check for check in doctor.checks()}
    assert found["Python"].ok
    assert found["numpy (everything)"].ok
    assert all(check.found and (check.ok or check.fix) for check in found.values())


def test_on_a_bare_computer_everything_missing_has_a_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(simulators.find, "folder", lambda package: tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    missing = [check for check in doctor.checks() if not check.ok]
    assert len(missing) >= 14
    assert all(check.fix for check in missing)


@pytest.mark.parametrize(("running", "ok"), [("ModemManager", False), ("python3", True)])
def test_modem_manager_is_seen(running: str, ok: bool, tmp_path: Path) -> None:
    (tmp_path / "17").mkdir()
    (tmp_path / "17" / "comm").write_text(f"{running}\n")
    assert doctor.modem_manager(tmp_path).ok is ok


def test_the_serial_group(monkeypatch: pytest.MonkeyPatch) -> None:
    grp = pytest.importorskip("grp")
    entry = grp.struct_group(("dialout", "x", 12345, []))
    monkeypatch.setattr(grp, "getgrall", lambda: [entry])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getgroups", lambda: [7])
    assert "usermod -aG dialout" in doctor.serial_group().fix
    assert not doctor.serial_group().ok
    monkeypatch.setattr(os, "getgroups", lambda: [7, 12345])
    assert doctor.serial_group().ok
