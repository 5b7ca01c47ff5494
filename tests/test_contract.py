"""Contracts: what they accept, what they refuse and how, and their canonical text."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.errors import ContractError, InvalidInput, RangeError

OBSERVATION = ObservationChannel("x", "m", -2.0, 3.0)
ACTION = ActionChannel("u", "N", -1.0, 1.0, 0.25, -0.5)


def contract(**changes: Any) -> Contract:
    fields: dict[str, Any] = {"name": "task", "observations": (OBSERVATION,), "actions": (ACTION,), "head": "clip", "rate_hz": 50.0}
    return Contract(**(fields | changes))


def observation(**changes: Any) -> dict[str, Any]:
    return {"observations": (dataclasses.replace(OBSERVATION, **changes),)}


def action(**changes: Any) -> dict[str, Any]:
    return {"actions": (dataclasses.replace(ACTION, **changes),)}


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"name": ""}, InvalidInput, "1 to 15"),
        ({"name": "sixteen-letters-"}, InvalidInput, "1 to 15"),
        ({"name": "../up"}, InvalidInput, "1 to 15"),
        ({"name": 7}, InvalidInput, "1 to 15"),
        ({"head": "softmax"}, InvalidInput, "discrete, clip, tanh"),
        ({"observations": ()}, InvalidInput, "1 to 512 observation"),
        ({"actions": (ACTION,) * 65}, InvalidInput, "1 to 64 action"),
        ({"observations": (OBSERVATION, OBSERVATION)}, InvalidInput, "must differ"),
        ({"rate_hz": 0}, InvalidInput, "rate_hz"),
        ({"rate_hz": float("nan")}, InvalidInput, "rate_hz"),
        ({"rate_hz": "50"}, InvalidInput, "rate_hz must be a number"),
        ({"policy_divider": 0}, InvalidInput, "policy_divider"),
        ({"policy_divider": 1.0}, InvalidInput, "whole number"),
        ({"staleness_limit": -1}, InvalidInput, "staleness_limit"),
        ({"expected_delay_us": 10**8}, InvalidInput, "expected_delay_us"),
        (observation(name="two words"), InvalidInput, "plain identifier"),
        (observation(name="ангел"), InvalidInput, "plain identifier"),
        (observation(unit=""), InvalidInput, "unit"),
        (observation(unit="*/ evil()"), InvalidInput, "unit"),
        (observation(low=float("-inf")), RangeError, "must be finite"),
        (observation(low=float("nan")), RangeError, "must be finite"),
        (observation(low=True), InvalidInput, "must be a number"),
        (observation(high=16384.0), RangeError, "use fewer fraction bits"),
        (observation(high=1.7e308), RangeError, "must be finite"),
        (observation(high=1e299, fraction_bits=62), RangeError, "use fewer fraction bits"),
        (observation(low=3.0), ContractError, "low must be the smaller"),
        (observation(low=0.0, high=1e-9), ContractError, "low must be the smaller"),
        (observation(fraction_bits=63), InvalidInput, "-16 … 62"),
        (observation(fraction_bits=1.5), InvalidInput, "whole number"),
        (action(safe=1.5), ContractError, "safe of u is 1.5, outside"),
        (action(initial=-2.0), ContractError, "initial of u"),
        (action(high=4096.0), RangeError, "use fewer fraction bits"),
        ({"head": "discrete"}, ContractError, "2 to 256 levels, not 0"),
        ({"head": "discrete", "levels": ((0.0,),)}, ContractError, "2 to 256 levels, not 1"),
        ({"head": "discrete", "levels": ((0.0,), (0.0, 1.0))}, ContractError, "level 1 has 2 outputs"),
        ({"head": "discrete", "levels": ((0.0,), (2.0,))}, ContractError, "a level of u is 2.0, outside"),
        ({"head": "discrete", "levels": ((0.0,), ("1",))}, InvalidInput, "number"),
        ({"levels": ((0.0,), (1.0,))}, ContractError, "levels belong to a discrete head"),
    ],
)
def test_a_wrong_contract_says_what_is_wrong(changes: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        contract(**changes)


def test_bounds_become_integers() -> None:
    c = contract()
    assert (c.observation_low.tolist(), c.observation_high.tolist()) == ([-131072], [196608])
    assert [int(v[0]) for v in (c.action_low, c.action_high, c.action_safe, c.action_initial)] == [-65536, 65536, 16384, -32768]
    assert (c.period_us, c.n_outputs) == (20_000, 1)
    assert contract(head="discrete", levels=((-1.0,), (0.0,), (1.0,))).level_ints.tolist() == [[-65536], [0], [65536]]


def test_observe_rounds_half_to_even_saturates_and_flags() -> None:
    c = contract()
    step = 2.0**-16
    ints, saturated, invalid = c.observe([[0.5 * step], [1.5 * step], [-0.5 * step], [3.0], [3.1], [-1e308], [np.nan], [np.inf]])
    assert ints[:, 0].tolist() == [0, 2, 0, 196608, 196608, -131072, 0, 0]
    assert saturated.tolist() == [False, False, False, False, True, True, False, False]
    assert invalid.tolist() == [False] * 6 + [True, True]


def test_observe_names_the_channels_when_the_shape_is_wrong() -> None:
    with pytest.raises(InvalidInput, match=r"1 channels \(x\)"):
        contract().observe([1.0, 2.0])


@given(st.floats(-2.0, 3.0))
def test_physical_values_return_within_half_a_step(value: float) -> None:
    c = contract()
    assert abs(float(c.physical_observation(c.observe([value])[0])[0]) - value) <= 2.0**-17


def test_actions_become_integers_inside_the_contract() -> None:
    c = contract()
    assert c.fixed_action([[0.5], [7.0]])[:, 0].tolist() == [32768, 65536]
    assert c.physical_action(np.array([[32768]], np.int32)).tolist() == [[0.5]]


def test_shield_shift_brings_the_declared_range_into_16_bits() -> None:
    for low, high in ((-2.0, 3.0), (0.0, 0.4), (-0.49, 0.5), (-0.5, 0.1), (-16383.0, 1.0)):
        c = contract(**observation(low=low, high=high))
        bound = max(-int(c.observation_low[0]), int(c.observation_high[0]))
        assert bound >> int(c.shield_shift[0]) <= 32767 and (c.shield_shift[0] == 0 or bound >> int(c.shield_shift[0]) - 1 > 32767)


def test_text_is_canonical_and_round_trips() -> None:
    c = contract(head="discrete", levels=((-1.0,), (1.0,)))
    text = c.to_json()
    assert text.isascii() and " " not in text.replace('"', "") and json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")) == text
    again = Contract.from_json(text)
    assert again == c and again.digest == c.digest and again.to_json() == text


def test_digest_changes_with_every_field() -> None:
    variants = [contract(), contract(rate_hz=51.0), contract(staleness_limit=4), contract(**observation(high=2.5)), contract(**action(safe=0.0))]
    variants += [contract(head="tanh"), contract(**observation(unit="mm")), contract(policy_divider=2), contract(expected_delay_us=1)]
    assert len({c.digest for c in variants}) == len(variants)


def test_differences_name_the_field() -> None:
    other = contract(**observation(high=2.5))
    assert contract().differences(other) == ["observations[0].high: 3.0 here, 2.5 there"]
    assert contract().differences(contract()) == []
    two = contract(observations=(OBSERVATION, dataclasses.replace(OBSERVATION, name="y")))
    assert "observations[1].name: absent here, y there" in contract().differences(two)


@pytest.mark.parametrize("text", ["", "[]", "7", "null", "{", "{}", '{"name":"a"}', "[" * 100_000, '{"unknown":1}'])
def test_text_that_is_no_contract_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Contract.from_json(text)


@given(st.text(max_size=60), st.integers(0, 10**6), st.integers(0, 30))
def test_any_edit_of_the_text_is_read_or_refused(paste: str, at: int, length: int) -> None:
    text = contract(head="discrete", levels=((-1.0,), (1.0,))).to_json()
    at %= len(text)
    try:
        found = Contract.from_json(text[:at] + paste + text[at + length :])
    except (InvalidInput, ContractError, RangeError):
        return
    assert Contract.from_json(found.to_json()).digest == found.digest
    assert (found.action_low <= found.action_safe).all() and (found.action_safe <= found.action_high).all()
