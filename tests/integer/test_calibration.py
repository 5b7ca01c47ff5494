"""What calibration observations do to biases and ranges: freaks, large biases, ranges that cannot be."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.errors import RangeError, ReturnLost
from puffer_edge.integer.quantize import measure, quantize
from puffer_edge.integer.scales import PROFILES, whole_bias
from puffer_edge.integer.search import keep_return, search
from puffer_edge.layers import AnyLayer
from puffer_edge.policy import Conv, Head, Layer, Normalizer, Policy, Recurrent
from tests import samples
from tests.integer import cart

FIRST = {
    "dense": Layer(np.ones((8, 4)), np.zeros(8), "relu"),
    "conv": Conv(np.ones((8, 1, 1, 1)), np.zeros(8), "relu", (1, 2, 2)),
    "gru": Recurrent("gru", np.ones((6, 4)), np.full((6, 2), 0.1), np.zeros(6), np.zeros(6)),
    "lstm": Recurrent("lstm", np.ones((8, 4)), np.full((8, 2), 0.1), np.zeros(8), np.zeros(8)),
}


def with_freaks(first: AnyLayer, noise: float, weight: float = 1.0) -> tuple[Policy, np.ndarray]:
    """A policy, and observations near 0 but for 12 of 3000 at the end of their range: fewer than "tight" lets saturate."""
    observations = tuple(ObservationChannel(f"o{i}", "1", -10, 10, 26) for i in range(4))
    contract = Contract("freaks", observations, (ActionChannel("a", "1", -1, 1, 0, 0, 16),), "clip", 100.0)
    last = Layer(np.full((1, first.n_out), weight), np.zeros(1), "none")
    policy = Policy(contract, (first, last), Normalizer(np.zeros(4), np.ones(4)), Head("clip", np.ones(1), np.zeros(1)))
    seen = np.random.default_rng(0).normal(0, noise, (3000, 4))
    seen[:12] = 9.9
    return policy, seen


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("kind", FIRST)
def test_freaks_move_no_bias(kind: str, profile: str) -> None:
    """Biases take up the mean error of what the integers can hold: with the freaks, hundreds of times beyond the range, it would be theirs."""
    policy, seen = with_freaks(FIRST[kind], 0.01)
    assert measure(policy, quantize(policy, seen, None, profile, "tight"), seen).median_action_error < 0.002


def test_a_bias_beyond_int32_is_refused() -> None:
    """It does not wrap around in silence."""
    assert whole_bias(np.array([-3.0]), np.array([2.0**-20]), np.array([5])).tolist() == [-3 * 2**20 - 5]
    for bias in (2.0**11, -(2.0**11), np.inf, np.nan):
        with pytest.raises(RangeError, match="beyond int32"):
            whole_bias(np.array([bias, 1.0]), np.array([2.0**-20, 1.0]), np.zeros(2, np.int64))


@pytest.mark.parametrize("size", [10, 100])
@pytest.mark.parametrize("name", ["mlp", "conv", "gru"])
def test_a_bias_beyond_its_weights_costs_int16_no_precision(name: str, size: float) -> None:
    """Sixteen bits are never worse than eight: a bias of many small steps must not make the weights beside it coarse."""
    policy = samples.network(name)
    last = policy.layers[-1]
    assert isinstance(last, Layer)
    large = Layer(last.weight, size * np.sign(last.bias) * np.abs(last.weight).max(1), "none")
    policy = dataclasses.replace(policy, layers=(*policy.layers[:-1], large), head=Head("clip", np.array([5.0, 0.25]) / size, np.array([0, 0.5])))
    seen, starts = samples.episodes(policy.contract, 500)
    errors = [measure(policy, quantize(policy, seen, starts, profile), seen, starts).median_action_error for profile in ("int16x8", "int8")]
    assert errors[0] < errors[1]


def test_a_search_passes_over_ranges_that_cannot_be() -> None:
    """So tight that the observations' own steps are larger than the input's: refused, and named among what was tried."""
    policy, seen = with_freaks(FIRST["dense"], 1e-5)
    with pytest.raises(RangeError, match=r"observation [0-3] after the input step's left shift"):
        quantize(policy, seen, None, "int16x8", "tight")
    choice = search(policy, seen, lambda program: -measure(policy, program, seen).worst_action_error, profile="int16x8")
    assert choice.ranges[0] != "tight"
    assert sum("tight everywhere: observation" in line for line in choice.tried) == 1


def test_a_profile_that_cannot_be_makes_room_for_the_next() -> None:
    """A tanh head whose weights are too large for int8, and not for int16x8."""
    policy = samples.policy(cart.contract("tanh"), (8,), "tanh")
    seen = cart.observations(policy.contract, 300)

    def grown(weight: float) -> Policy:
        last = policy.layers[-1]
        assert isinstance(last, Layer)
        large = Layer(last.weight * (weight / np.abs(last.weight).max()), last.bias, "none")
        return dataclasses.replace(policy, layers=(*policy.layers[:-1], large))

    choice = keep_return(grown(700.0), seen, lambda _: 1.0, 1.0, 0.99)
    assert choice.profile == "int16x8" and "too large for a tanh head" in choice.tried[0]
    with pytest.raises(ReturnLost, match="too large for a tanh head"):
        keep_return(grown(7000.0), seen, lambda _: 1.0, 1.0, 0.99)
