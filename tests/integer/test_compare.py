"""Comparing two policies: what is counted, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from puffer_edge.errors import ContractError
from puffer_edge.integer.compare import diverge
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.reference import InFloat
from puffer_edge.policy import Head, Layer, Policy
from tests import samples
from tests.integer import cart


@pytest.mark.parametrize("name", ["mlp", "gru"])
def test_a_policy_is_not_apart_from_itself(name: str) -> None:
    policy = samples.network(name, "discrete")
    x, starts = samples.episodes(policy.contract, 400)
    program = quantize(policy, x, starts)
    found = diverge(program, program, policy.contract.observe(x)[0], starts).summary()
    assert found["flips"] == 0 and all(row["identical"] == 1 and row["max"] == 0 for row in found["actions"].values())


def test_a_shifted_action_is_apart_by_its_share_of_the_range() -> None:
    c = cart.contract("clip")
    layer = Layer(np.zeros((1, 4)), np.zeros(1), "none")
    first = Policy(c, (layer,), samples.policy(c).normalizer, Head("clip", np.ones(1), np.array([2.0])))
    second = dataclasses.replace(first, head=Head("clip", np.ones(1), np.array([-3.0])))
    rows = np.zeros((50, 4), np.int32)
    found = diverge(InFloat(first), InFloat(second), rows, np.arange(50) == 0).summary()
    row = found["actions"][c.actions[0].name]
    assert row["max"] == row["median"] == pytest.approx(5 / (c.actions[0].high - c.actions[0].low))
    assert found["flips"] == 1.0


def test_memory_is_each_ones_own_and_cleared_at_starts() -> None:
    policy = samples.network("lstm")
    x, starts = samples.episodes(policy.contract, 300)
    program = quantize(policy, x, starts)
    ints = policy.contract.observe(x)[0]
    apart = diverge(program, InFloat(policy), ints, starts)
    never = diverge(program, InFloat(policy), ints, np.zeros(len(ints), bool))
    assert apart.difference.max() < 0.1 and (apart.difference != never.difference).any()


def test_other_channels_are_refused_by_name() -> None:
    policy = samples.network("mlp")
    c = policy.contract
    actions = (dataclasses.replace(c.actions[0], unit="kN"), c.actions[1])
    other = dataclasses.replace(policy, contract=dataclasses.replace(c, actions=actions))
    with pytest.raises(ContractError, match="N here, kN there"):
        diverge(InFloat(policy), InFloat(other), np.zeros((1, 24), np.int32), np.ones(1, bool))
