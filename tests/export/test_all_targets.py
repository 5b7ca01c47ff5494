"""One policy to every target: each gets its bundle or a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from puffer_edge.device import target
from puffer_edge.device.bundle import Bundle
from puffer_edge.envs import load
from puffer_edge.errors import DoesNotFit
from puffer_edge.export.all_targets import Outcome, export_all
from puffer_edge.export.bundle import export
from tests import samples

ENV = load("pendulum")
POLICY = samples.policy(ENV.contract, (8, 8))
SEEN = samples.rollout(ENV, POLICY, 2)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    out = tmp_path_factory.mktemp("all")
    told: list[tuple[int, int, str]] = []
    found = export_all(POLICY, out, SEEN, ENV.shield, {"environment": ENV.name}, rate_hz=2000, progress=lambda *row: told.append(row))
    assert [name for _, _, name in told] == [*target.names(), ""]
    return found


def test_every_target_has_its_row(outcomes: list[Outcome]) -> None:
    assert [one.target for one in outcomes] == list(target.names())
    for one in outcomes:
        row = one.summary()
        assert row["fits"] == (one.bundle is not None) == (not one.refused)
        if one.bundle:
            board = target.load(one.target)
            assert Bundle.load(one.bundle.path).target == one.target
            assert row["flash_bytes"] > 0 and row["ram_bytes"] > 0
            assert (row["label"] in ("emulated", "modelled")) == (row["us"] is not None) == bool(board.core)
            assert set(one.bundle.manifest["formats"]) | set(one.bundle.manifest["left_out"]) == set(board.formats)
            page = (one.bundle.path / "report.html").read_text("utf-8")
            assert ("modelled" in page or "emulated" in page) == bool(board.core)


def test_who_cannot_hold_the_rate_is_refused_with_a_reason(outcomes: list[Outcome]) -> None:
    refused = {one.target: one.refused for one in outcomes if one.refused}
    assert "rp2040" not in refused and "host" not in refused
    assert "engine micropython" in refused["esp32"] and "at 2000 Hz" in refused["esp32"]


def test_a_demand_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFit, match="rp2040 at 50000 Hz"):
        export(POLICY, target.load("rp2040"), tmp_path / "b", SEEN, ENV.shield, rate_hz=50_000)
    assert not list(tmp_path.iterdir())
