"""Stages of a shield: what each is for, what it refuses, and the text it prints."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.errors import BundleError, InvalidInput, RangeError
from puffer_edge.integer import bytecode
from puffer_edge.integer.expression import lift, variable
from puffer_edge.integer.shield import Shield, input_ranges, stage_names
from tests.integer import cart, trees

GOLDEN = Path(__file__).parents[1] / "golden"
ONE = 1 << 16


def apply(shield: Shield, raw: float, previous: float = 0.0, fallback: int = 0, **observation: float) -> tuple[float, tuple[str, ...]]:
    """One row in physical units: the applied force, and the names of the stages that acted."""
    c = shield.contract
    last = c.observe([[observation.get(ch.name, 0.0) for ch in c.observations]])[0]
    raw_ints, previous_ints = (np.full((1, c.n_actions), round(v * ONE), np.int32) for v in (raw, previous))
    applied, bits = shield.apply(last, raw_ints, previous_ints, np.array([fallback], np.int32))
    return float(applied[0, 0]) / ONE, shield.names(int(bits[0]))


def build(*stages: dict[str, Any]) -> Shield:
    return Shield.build(cart.contract(), stages)


def test_limit_clamps_to_the_contract_by_default() -> None:
    shield = build({"stage": "limit"})
    assert apply(shield, 12.0) == (10.0, ("limit",))
    assert apply(shield, -12.0) == (-10.0, ("limit",))
    assert apply(shield, 9.5) == (9.5, ())


def test_limit_takes_a_narrower_range() -> None:
    shield = build({"stage": "limit", "low": {"force": -2.0}, "high": {"force": 3.0}})
    assert apply(shield, -5.0) == (-2.0, ("limit",))
    assert apply(shield, 5.0) == (3.0, ("limit",))


def test_slew_limits_the_change_from_the_last_applied_action() -> None:
    shield = build({"stage": "slew", "per_second": {"force": 50.0}})  # 1 N a tick at 50 Hz
    assert apply(shield, 5.0, previous=0.0) == (1.0, ("slew",))
    assert apply(shield, 5.0, previous=3.0) == (4.0, ("slew",))
    assert apply(shield, -5.0, previous=3.0) == (2.0, ("slew",))
    assert apply(shield, 3.5, previous=3.0) == (3.5, ())


def test_slew_is_floored_to_whole_steps_a_tick() -> None:
    step = 2.0**-16
    shield = build({"stage": "slew", "per_second": {"force": 50 * 7.99 * step}})
    assert apply(shield, 5.0) == (7 * step, ("slew",))


def test_envelope_passes_inside_its_bounds() -> None:
    shield = build(cart.STAGES[0])
    assert apply(shield, 9.0, angle=0.169, position=1.99) == (9.0, ())


@pytest.mark.parametrize("outside", [{"angle": 0.18}, {"angle": -0.18}, {"position": 2.1}, {"position": -2.1}])
def test_envelope_replaces_the_proposal_by_its_law(outside: dict[str, float]) -> None:
    state = {"position": 0.0, "velocity": 0.0, "angle": 0.0, "angular_velocity": 0.0} | outside
    wanted = np.clip(state["position"] + 40.0 * state["angle"], -10.0, 10.0)
    for proposal in (-10.0, 0.0, 10.0):
        force, names = apply(build(cart.STAGES[0]), proposal, **outside)
        assert names == ("envelope",)
        assert force == pytest.approx(wanted, abs=0.01)


def test_envelope_law_follows_its_gains_to_fixed_point() -> None:
    """The law in integers stays within a hundredth of the range of the law in float, over random states."""
    rng = np.random.default_rng(0)
    shield = build({"stage": "envelope", "bounds": {"position": (-4.8, -4.7)}, "law": cart.STAGES[0]["law"], "bias": {"force": 0.75}})
    gains = cart.STAGES[0]["law"]["force"]
    for _ in range(200):
        state = {c.name: float(rng.uniform(0.2 * c.low, 0.2 * c.high)) for c in shield.contract.observations}
        wanted = np.clip(0.75 + sum(gains[name] * value for name, value in state.items()), -10, 10)
        assert apply(shield, 0.0, **state)[0] == pytest.approx(wanted, abs=0.02)


def test_envelope_without_a_law_goes_to_the_safe_output() -> None:
    shield = build({"stage": "envelope", "bounds": {"angle": (-0.1, 0.1)}})
    assert apply(shield, 9.0, angle=0.2) == (0.5, ("envelope",))


def test_envelope_bounds_outside_the_declared_range_cost_nothing() -> None:
    wide = build({"stage": "envelope", "bounds": {"angle": (-5.0, 5.0), "position": (-2.0, 2.0)}})
    narrow = build({"stage": "envelope", "bounds": {"position": (-2.0, 2.0)}})
    assert wide.instructions == narrow.instructions
    with pytest.raises(InvalidInput, match="never be left"):
        build({"stage": "envelope", "bounds": {"angle": (-5.0, 5.0)}})


@pytest.mark.parametrize("bound", [1e308, float("inf")])
def test_numbers_without_a_fixed_point_are_refused_in_words(bound: float) -> None:
    with pytest.raises(InvalidInput):
        build({"stage": "envelope", "bounds": {"angle": (-bound, bound)}})
    assert build({"stage": "slew", "per_second": {"force": 1e300}}).stages == ("slew",)
    with pytest.raises(RangeError):
        build({"stage": "envelope", "bounds": {"angle": (0, 0.1)}, "law": {"force": {"angle": 1e305}}})
    with pytest.raises(InvalidInput):
        Shield.build(cart.contract(), ["limit"])  # type: ignore[list-item]


def test_stages_act_in_their_order_and_report_their_bits() -> None:
    shield = Shield.build(cart.contract(), cart.STAGES)
    force, names = apply(shield, 0.0, previous=-10.0, angle=0.25)
    assert (force, names) == (0.0, ("envelope", "slew"))
    assert apply(shield, 12.0, previous=10.0) == (10.0, ("limit",))


def test_fallback_passes_through_and_reports_nothing() -> None:
    shield = Shield.build(cart.contract(), cart.STAGES)
    assert apply(shield, 9.0, previous=-10.0, fallback=1, angle=0.3) == (9.0, ())


def test_no_stages_pass_through() -> None:
    shield = Shield.none(cart.contract())
    assert apply(shield, 9.0, previous=-9.0) == (9.0, ())
    assert (shield.bytecode, shield.instructions) == (b"", 0)


@pytest.mark.parametrize(
    ("stage", "error", "match"),
    [
        ({"stage": "warp"}, InvalidInput, "envelope, limit, slew"),
        ({}, InvalidInput, "unknown shield stage None"),
        ({"stage": "limit", "hihg": {}}, InvalidInput, "has no field hihg: it takes low, high"),
        ({"stage": "limit", "low": {"torque": 1}}, InvalidInput, "names torque; the contract has force"),
        ({"stage": "limit", "low": 3}, InvalidInput, "must map channel names"),
        ({"stage": "limit", "high": {"force": 11}}, InvalidInput, "within the contract's"),
        ({"stage": "limit", "low": {"force": 2}, "high": {"force": 1}}, InvalidInput, "within the contract's"),
        ({"stage": "limit", "low": {"force": float("nan")}}, InvalidInput, "finite number"),
        ({"stage": "limit", "low": {"force": "2"}}, InvalidInput, "number"),
        ({"stage": "slew", "per_second": {"force": 0}}, InvalidInput, "positive"),
        ({"stage": "slew", "per_second": {"force": float("inf")}}, InvalidInput, "finite number"),
        ({"stage": "slew", "per_second": {"force": 1e-9}}, RangeError, "less than one step"),
        ({"stage": "envelope"}, InvalidInput, "needs bounds"),
        ({"stage": "envelope", "bounds": {"angle": (0.1, -0.1)}}, InvalidInput, "below high"),
        ({"stage": "envelope", "bounds": {"angle": 0.1}}, InvalidInput, "pair"),
        ({"stage": "envelope", "bounds": {"angle": (-0.1, float("nan"))}}, InvalidInput, "below high"),
        ({"stage": "envelope", "bounds": {"angel": (0, 1)}}, InvalidInput, "names angel"),
        ({"stage": "envelope", "bounds": {"angle": (0, 1)}, "law": {"force": {"angel": 1}}}, InvalidInput, "names angel"),
        ({"stage": "envelope", "bounds": {"angle": (0, 1)}, "law": {"force": {"angle": float("nan")}}}, InvalidInput, "finite"),
        ({"stage": "envelope", "bounds": {"angle": (0, 1)}, "law": {"force": {"angle": 1e9}}}, RangeError, "leaves the action's fixed point"),
        ({"stage": "envelope", "bounds": {"angle": (0, 1)}, "bias": {"force": 1e9}}, RangeError, "bias of force"),
        ({"stage": "envelope", "bounds": {"angle": (0, 1)}, "bias": {"force": "x"}}, InvalidInput, "number"),
    ],
)
def test_a_wrong_stage_says_what_is_wrong(stage: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        build(stage)


def test_more_than_eight_stages_are_refused() -> None:
    assert len(build(*[{"stage": "limit"}] * 8).stages) == 8
    with pytest.raises(InvalidInput, match="at most 8"):
        build(*[{"stage": "limit"}] * 9)


def test_every_stage_of_the_folder_is_tested_here() -> None:
    assert stage_names() == ["envelope", "limit", "slew"]


def test_applied_stays_in_the_contract_for_any_proposal() -> None:
    """With a limit last, the proved interval of the output is the contract's range, fallback aside."""
    c = cart.contract()
    shield = Shield.build(c, cart.STAGES)
    rng = np.random.default_rng(5)
    last = rng.integers(c.observation_low, c.observation_high, (5000, 4), endpoint=True).astype(np.int32)
    raw = rng.integers(-(2**28) + 1, 2**28, (5000, 1)).astype(np.int32)
    previous = rng.integers(c.action_low, c.action_high, (5000, 1), endpoint=True).astype(np.int32)
    applied, _ = shield.apply(last, raw, previous, np.zeros(5000, np.int32))
    assert (applied >= c.action_low).all() and (applied <= c.action_high).all()


def test_torch_and_numpy_agree() -> None:
    torch = pytest.importorskip("torch")
    c = cart.contract()
    shield = Shield.build(c, cart.STAGES)
    rng = np.random.default_rng(6)
    arrays = [rng.integers(c.observation_low, c.observation_high, (500, 4)), rng.integers(-(2**21), 2**21, (500, 1))]
    arrays += [rng.integers(c.action_low, c.action_high, (500, 1)), rng.integers(0, 2, 500)]
    ints = [a.astype(np.int32) for a in arrays]
    applied, bits = shield.apply(*ints)
    by_torch = shield.apply(*(torch.from_numpy(a) for a in ints), torch)
    assert (by_torch[0].numpy() == applied).all() and (by_torch[1].numpy() == bits).all()


def test_bytecode_round_trip_keeps_every_bit() -> None:
    c = cart.contract()
    shield = Shield.build(c, cart.STAGES)
    again = Shield.from_bytecode(c, shield.bytecode, shield.stages)
    assert (again.bytecode, again.digest, again.stages) == (shield.bytecode, shield.digest, shield.stages)
    ranges = input_ranges(c)
    columns = trees.samples(7, 300, ranges)
    for row in np.stack(columns, -1):
        wanted = trees.interpret(shield.bytecode, row)
        last = row[None, :4] << c.shield_shift  # what the shield shifts away is zero here
        applied, bits = again.apply(last.astype(np.int32), row[None, 4:5], row[None, 5:6], row[6:7])
        assert [int(applied[0, 0]), int(bits[0])] == wanted


def test_bytecode_of_another_contract_is_refused() -> None:
    shield = Shield.build(cart.contract(), cart.STAGES)
    c = cart.contract()
    two = Contract("two", c.observations, (*c.actions, ActionChannel("brake", "N", 0, 1, 0, 0)), "clip", 50.0)
    with pytest.raises(BundleError, match="drives 1 actions, the contract has 2"):
        Shield.from_bytecode(two, shield.bytecode)


def test_bytecode_that_reports_beyond_its_stages_is_refused() -> None:
    """A stage word with other bits would forge the fallback's reasons."""
    code = bytecode.pack([variable(4, "raw_force", -10, 10), lift(256)], 3)
    with pytest.raises(BundleError, match="stage bits"):
        Shield.from_bytecode(cart.contract(), code)


def test_channels_with_any_fraction_bits_have_16_bit_inputs() -> None:
    observations = (ObservationChannel("field", "T", -8e-5, 8e-5, 40), ObservationChannel("pressure", "Pa", 30_000, 110_000, 4))
    c = Contract("air", observations, (ActionChannel("fan", "1", 0, 1, 0, 0),), "clip", 10.0)
    for (_, low, high), bits in zip(input_ranges(c)[:2], c.shield_shift):
        assert -32768 <= low <= 0 <= high <= 32767 and bits > 0
    bounds = {"field": (-5e-5, 5e-5), "pressure": (50_000, 100_000)}
    shield = Shield.build(c, [{"stage": "envelope", "bounds": bounds, "law": {"fan": {"field": 1000.0}}}])
    assert apply(shield, 0.25, field=0.0, pressure=60_000) == (0.25, ())
    assert apply(shield, 0.25, field=0.0, pressure=40_000) == (0.0, ("envelope",))
    assert apply(shield, 0.25, field=7e-5, pressure=60_000)[0] == pytest.approx(0.07, abs=1e-4)


@pytest.mark.parametrize("name", ["shield.c", "shield.py.txt"])
def test_printed_text_is_the_reviewed_one(name: str) -> None:
    """Renew the golden files with: PUFFER_EDGE_RENEW_GOLDEN=1 pytest tests/integer/test_shield.py"""
    shield = Shield.build(cart.contract(), cart.STAGES)
    text = shield.to_c("cart_shield") if name.endswith(".c") else shield.to_micropython()
    if os.environ.get("PUFFER_EDGE_RENEW_GOLDEN"):
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text()
