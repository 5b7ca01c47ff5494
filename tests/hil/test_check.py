"""A check tells the truth: it passes when all bits agree, and says where when one does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from puffer_edge.device.board import Board, StepReply, open_board
from puffer_edge.device.bundle import Bundle
from puffer_edge.envs import load
from puffer_edge.errors import ContractError, PortUnavailable, Refused
from puffer_edge.firmware.shared import protocol
from puffer_edge.hil import check as checks
from puffer_edge.hil.report import write_report
from puffer_edge.trace import Trace
from tests import samples


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return samples.bundle(tmp_path_factory.mktemp("hil") / "bundle")


@contextmanager
def loopback(held: Bundle) -> Iterator[Board]:
    with open_board("loopback", held) as board:
        board.install(held.image.data)
        yield board


def test_a_board_that_computes_the_reference_passes(bundle: Bundle, tmp_path: Path) -> None:
    with loopback(bundle) as board:
        result = checks.check(bundle, board, load("pendulum"), episodes=2, seed=3)
        assert board.hello().state == "disarmed"
    summary = result.summary()
    assert summary["mismatches"] == 0 and summary["vectors"] == len(bundle.vectors) >= 256
    assert summary["episodes"] == 2 and summary["steps"] == 400
    assert summary["return_device"] == summary["return_integer"]
    assert {"median", "p99"} == set(summary["round_trip_us"])
    page = write_report(result, bundle.image.contract, tmp_path / "report")
    assert "0 mismatches" in page.read_text() and (tmp_path / "report" / "report.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "report" / "check.json").read_text())["mismatches"] == 0
    again = Trace.load(tmp_path / "report" / "trace.npz")
    assert len(again.compare(result.trace)) == 0


class Tampered(Board):
    """A board one of whose answers is wrong in one bit."""

    wrong_message, wrong_step, field = "step", 7, "applied"

    def _tick(self, message: str, observation: object, flags: int) -> StepReply:
        reply = super()._tick(message, observation, flags)  # type: ignore[arg-type]
        if message != self.wrong_message:
            return reply
        self.wrong_step -= 1
        if self.wrong_step != -1:
            return reply
        values = {name: getattr(reply, name) for name in reply.__dataclass_fields__}
        return StepReply(**(values | {self.field: values[self.field] ^ 1}))


@pytest.mark.parametrize("message", ["replay", "step"])
@pytest.mark.parametrize("field", ["raw", "applied", "outcome", "state"])
def test_one_wrong_bit_is_found_and_located(bundle: Bundle, message: str, field: str) -> None:
    with loopback(bundle) as honest:
        board = Tampered(honest.link)
        board.wrong_message, board.field = message, field
        result = checks.check(bundle, board, load("pendulum"), episodes=1)
    assert result.mismatches == 1
    where = "vector 7" if message == "replay" else "episode 0, step 7"
    assert result.first_difference.startswith(f"{where}: {field}")


def test_a_board_with_another_policy_is_refused_before_anything_moves(bundle: Bundle, tmp_path: Path) -> None:
    other = samples.bundle(tmp_path / "other", hidden=(5,))
    with loopback(other) as board, pytest.raises(ContractError, match="program"):
        checks.check(bundle, board, load("pendulum"), episodes=1)


def test_another_contract_is_named_field_by_field(bundle: Bundle, tmp_path: Path) -> None:
    other = samples.bundle(tmp_path / "other", environment="cartpole")
    with loopback(other) as board, pytest.raises(ContractError, match=r"rate_hz: 20\.0 here, 50\.0 there"):
        checks.check(bundle, board, load("pendulum"), episodes=1)
    with loopback(other) as board:
        image = bundle.image
        with pytest.raises(ContractError, match="rate_hz"):
            board.arm(image.contract.digest, image.program.digest, image.shield.digest, expected=image.contract)
        assert board.hello().state == "disarmed"


def test_an_armed_board_refuses_an_install(bundle: Bundle) -> None:
    image = bundle.image
    with loopback(bundle) as board:
        board.arm(image.contract.digest, image.program.digest, image.shield.digest)
        with pytest.raises(Refused):
            board.install(image.data)
        board.disarm()
        board.install(image.data)


def test_a_line_that_breaks_half_way_is_an_error_and_the_board_is_told_to_disarm(bundle: Bundle) -> None:
    class Breaking(Tampered):
        def _tick(self, message: str, observation: object, flags: int) -> StepReply:
            self.wrong_step -= message == "step"
            if self.wrong_step < 0:
                raise PortUnavailable("the cable was pulled")
            return Board._tick(self, message, observation, flags)  # type: ignore[arg-type]

    with loopback(bundle) as honest:
        board = Breaking(honest.link)
        with pytest.raises(PortUnavailable, match="cable"):
            checks.check(bundle, board, load("pendulum"), episodes=1)
        assert honest.hello().state == "disarmed"


def test_reasons_are_counted_by_name() -> None:
    outcome = np.array([0, 1, 2, 3, protocol.REASON_INVALID, protocol.REASON_STALE], np.uint32) << protocol.REASON_SHIFT
    counts = checks.count_reasons(outcome, ("slew", "limit"))
    assert counts == {"slew": 2, "limit": 2, "invalid": 1, "stale": 1}
