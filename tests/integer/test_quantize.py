"""Quantisation: how close the integers stay to the float policy, and what it refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.errors import InvalidInput, RangeError, Unsupported
from puffer_edge.integer.ops.dense import Dense
from puffer_edge.integer.program import Program
from puffer_edge.integer.quantize import measure, quantize
from puffer_edge.integer.scales import PROFILES
from puffer_edge.policy import Head, Layer, Normalizer, Policy
from tests import samples
from tests.integer import cart


def quantized(policy: Policy, rows: int = 2000) -> tuple[Program, np.ndarray]:
    seen = cart.observations(policy.contract, rows)
    return quantize(policy, seen), seen


def relative_error(policy: Policy) -> float:
    """Largest action error on the calibration observations, as a share of the range."""
    program, seen = quantized(policy)
    return measure(policy, program, seen).worst_action_error


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("activation", ["relu", "tanh", "none"])
@pytest.mark.parametrize("head", ["clip", "tanh"])
def test_actions_stay_close_to_the_float_policy(head: str, activation: str, seed: int) -> None:
    assert relative_error(samples.policy(cart.contract(head), (16, 16), activation, seed)) < (0.1 if activation == "none" else 0.06)


@pytest.mark.parametrize("seed", range(5))
def test_discrete_choices_agree_but_near_ties(seed: int) -> None:
    policy = samples.policy(cart.contract("discrete"), (16, 16), "relu", seed)
    program, seen = quantized(policy)
    assert measure(policy, program, seen).agreement > 0.97
    logits = policy.outputs(policy.contract.physical_observation(policy.contract.observe(seen)[0]))
    clear = np.abs(np.diff(logits, axis=1))[:, 0] > 0.1 * np.abs(logits).max()
    got = policy.contract.physical_action(program.run(policy.contract.observe(seen)[0]))
    assert (got[clear] == policy.act(seen)[clear]).all()


def test_the_equilibrium_is_nearly_exact() -> None:
    """Where a policy spends most of its time the input is on its grid and the biases are corrected: no standing error."""
    policy = samples.policy(cart.contract("clip"), (32, 32))
    rng = np.random.default_rng(5)
    rest = np.array([0.31, -0.17, 0.021, 0.4])
    seen = np.concatenate([cart.observations(policy.contract, 300), rest + 1e-4 * rng.standard_normal((1200, 4))])
    assert measure(policy, quantize(policy, seen), seen).median_action_error < 0.005


def test_biases_take_up_the_mean_error_of_the_weights() -> None:
    """Rounded weights shift a layer's mean; the corrected bias takes that back, on the calibration as a whole."""
    errors = []
    for seed in range(8):
        policy = samples.policy(cart.contract("clip"), (64, 64), seed=seed)
        program, seen = quantized(policy)
        got = policy.contract.physical_action(program.run(policy.contract.observe(seen)[0]))
        wanted = policy.act(seen)
        free = np.abs(wanted) < 9.9  # where the action is not clamped
        errors.append(abs((got - wanted)[free].mean()) / 20)
    assert max(errors) < 0.002  # 0.0056 without the correction


def test_a_linear_policy_is_exact_to_its_input() -> None:
    """No hidden layer: what is lost is the rounding of inputs and weights to eight bits."""
    assert relative_error(samples.policy(cart.contract("clip"), ())) < 0.015


def test_measure_says_what_it_says() -> None:
    policy = samples.policy(cart.contract("clip"), (8,))
    program, seen = quantized(policy)
    m = measure(policy, program, seen)
    error = np.abs(policy.contract.physical_action(program.run(policy.contract.observe(seen)[0])) - policy.act(seen))
    assert m.worst_action_error == pytest.approx(error.max() / 20, abs=1e-4)
    assert m.median_action_error == pytest.approx(np.median(error) / 20, abs=1e-4)
    assert m.agreement == pytest.approx((error <= 0.2).mean(), abs=0.01)
    assert 0 <= m.saturated < 0.3 and m.program is program


@pytest.mark.parametrize("bad", [np.zeros((0, 4)), np.zeros(4), np.full((3, 4), np.nan), np.full((3, 4), np.inf), np.zeros((3, 5))])
def test_calibration_must_be_finite_rows(bad: np.ndarray) -> None:
    with pytest.raises(InvalidInput):
        quantize(samples.policy(cart.contract()), bad)


def test_nan_weights_never_reach_quantisation() -> None:
    policy = samples.policy(cart.contract())
    weight = policy.layers[0].weight.copy()
    weight[0, 0] = np.nan
    with pytest.raises(InvalidInput, match="1 NaN"):
        dataclasses.replace(policy, layers=(Layer(weight, policy.layers[0].bias, "relu"), *policy.layers[1:]))


def changed(policy: Policy, k: int, weight: float = 1.0, bias: float = 1.0, rows: slice = slice(None)) -> Policy:
    """A policy with one layer's weights and biases multiplied, in all rows or some."""
    layer = policy.layers[k]
    w, b = layer.weight.copy(), layer.bias.copy()
    w[rows] *= weight
    b[rows] *= bias
    return dataclasses.replace(policy, layers=(*policy.layers[:k], Layer(w, b, layer.activation), *policy.layers[k + 1 :]))


@pytest.mark.parametrize("head", ["discrete", "clip", "tanh"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "none"])
@pytest.mark.parametrize("k", [0, 1, 2])
@pytest.mark.parametrize("factor", [0.0, 1e-12])
def test_dead_and_tiny_layers_give_the_constant_of_the_float_policy(factor: float, k: int, activation: str, head: str) -> None:
    policy = changed(samples.policy(cart.contract(head), (8, 8), activation), k, factor, factor)
    program, seen = quantized(policy, 200)
    assert measure(policy, program, seen).agreement > 0.97


def test_a_network_of_zeros_is_a_constant() -> None:
    policy = samples.policy(cart.contract("clip"), (8, 8, 8, 8), "relu")
    policy = dataclasses.replace(policy, layers=tuple(Layer(layer.weight * 1e-300, layer.bias * 0, layer.activation) for layer in policy.layers))
    program, seen = quantized(policy, 200)
    assert (program.run(policy.contract.observe(seen)[0]) == 0).all()


def test_dead_rows_cost_the_others_nothing() -> None:
    policy = changed(samples.policy(cart.contract("clip"), (16, 16), "relu"), 1, 0.0, 0.0, slice(0, 8))
    small = changed(changed(policy, 0, 0.01, 0.01), 1, 0.01, 0.01)
    assert relative_error(policy) < 0.04
    assert relative_error(changed(small, 2, 1e4, 1.0)) < 0.04


@pytest.mark.parametrize("k", [0, 1, 2])
def test_huge_biases_are_kept(k: int) -> None:
    """A bias a thousand times the usual saturates what follows; the program saturates with it."""
    policy = changed(samples.policy(cart.contract("clip"), (8, 8), "relu"), k, 1.0, 1e4)
    program, seen = quantized(policy)
    assert measure(policy, program, seen).worst_action_error <= 0.06


@pytest.mark.parametrize(("weight", "bias"), [(1e30, 1.0), (1.0, 1e30), (1e300, 1.0), (1e30, 1e30)])
@pytest.mark.parametrize("k", [0, 1, 2])
def test_a_training_that_diverged_is_refused(k: int, weight: float, bias: float) -> None:
    with pytest.raises(RangeError):
        quantized(changed(samples.policy(cart.contract("clip"), (8, 8), "relu"), k, weight, bias))


def test_layers_that_grow_beyond_float32_are_refused() -> None:
    policy = samples.policy(cart.contract("discrete"), (8, 8, 8), "relu")
    grown = dataclasses.replace(policy, layers=tuple(Layer(layer.weight * 1e17, layer.bias, layer.activation) for layer in policy.layers))
    with pytest.raises(RangeError, match="outputs reach"):
        quantized(grown)


def test_a_tanh_head_with_too_large_weights_is_refused() -> None:
    with pytest.raises(RangeError, match="too large for a tanh head"):
        quantized(changed(samples.policy(cart.contract("tanh"), (8,)), 1, 1e5))


def test_one_neuron_one_observation() -> None:
    c = Contract("tiny", (ObservationChannel("x", "1", -1, 1),), (ActionChannel("u", "1", -1, 1, 0, 0),), "clip", 10.0)
    policy = Policy(c, (Layer(np.array([[2.0]]), np.zeros(1), "none"),), Normalizer(np.zeros(1), np.ones(1)), Head("clip", np.ones(1), np.zeros(1)))
    program, seen = quantized(policy)
    assert measure(policy, program, seen).worst_action_error < 0.01
    edges = np.array([[0], [1 << 16], [-(1 << 16)]], np.int32)
    assert np.abs(program.run(edges)[:, 0] - [0, 65536, -65536]).max() < 0.02 * 65536


@pytest.mark.parametrize("bits", [0, 1, 8, 24, 30])
def test_any_fraction_bits(bits: int) -> None:
    observations = tuple(ObservationChannel(f"o{i}", "1", -x, x, bits) for i, x in enumerate([min(1000.0, (2**30 - 1) / 2**bits)] * 3))
    action = ActionChannel("u", "1", -min(100.0, (2**28 - 1) / 2**bits), 0.0, 0, 0, bits)
    assert relative_error(samples.policy(Contract("bits", observations, (action,), "clip", 10.0), (8,))) < 0.06


def test_too_many_fraction_bits_for_the_head_say_so() -> None:
    c = dataclasses.replace(cart.contract(), actions=(ActionChannel("u", "1", -1e-9, 1e-9, 0, 0, 57),))
    policy = dataclasses.replace(samples.policy(c, (8,)), head=Head("clip", np.array([1.0]), np.zeros(1)))
    with pytest.raises(RangeError, match="fraction bits"):
        quantized(policy)


def test_channels_in_tesla_and_pascal() -> None:
    observations = (ObservationChannel("field", "T", -8e-5, 8e-5, 40), ObservationChannel("pressure", "Pa", 30_000, 110_000, 4))
    c = Contract("air", observations, (ActionChannel("fan", "1", 0, 1, 0, 0, 20),), "clip", 10.0)
    assert relative_error(samples.policy(c, (16,))) < 0.05


def test_too_few_fraction_bits_for_the_input_say_so() -> None:
    c = Contract("coarse", (ObservationChannel("x", "1", -1, 1, 0),), (ActionChannel("u", "1", -1, 1, 0, 0),), "clip", 10.0)
    policy = dataclasses.replace(samples.policy(c, (4,)), normalizer=Normalizer(np.zeros(1), np.full(1, 1e-9)))
    with pytest.raises(RangeError, match="fraction bits"):
        quantized(policy)


def test_ranges_that_exclude_zero() -> None:
    c = samples.many_channels(3, 2, "clip")
    moved = tuple(dataclasses.replace(ch, low=100.0, high=120.0 + i) for i, ch in enumerate(c.observations))
    policy = samples.policy(dataclasses.replace(c, observations=moved), (16,))
    assert relative_error(policy) < 0.05


@pytest.mark.parametrize("head", ["clip", "tanh"])
def test_negative_and_zero_head_scales(head: str) -> None:
    c = dataclasses.replace(cart.contract(head), actions=tuple(ActionChannel(f"a{j}", "1", -2.0, 3.0, 0, 0) for j in range(3)))
    policy = dataclasses.replace(samples.policy(c, (16,)), head=Head(head, np.array([-1.5, 0.0, 2.0]), np.array([0.25, 1.0, 0.0])))
    program, seen = quantized(policy)
    assert measure(policy, program, seen).worst_action_error < 0.06
    assert (program.run(c.observe(seen)[0])[:, 1] == 65536).all()


def test_an_offset_beyond_the_actions_form_is_refused() -> None:
    policy = samples.policy(cart.contract(), (4,))
    with pytest.raises(RangeError, match="offset of force"):
        quantized(dataclasses.replace(policy, head=Head("clip", np.ones(1), np.array([1e6]))))


def test_constant_features_are_harmless() -> None:
    """A channel that never moved in calibration has a range of its own: it may move later."""
    policy = samples.policy(cart.contract("clip"), (16,))
    seen = cart.observations(policy.contract)
    seen[:, 1] = 0.0
    program = quantize(policy, seen)
    assert measure(policy, program, seen).worst_action_error < 0.06
    seen[:, 1] = 9.0
    assert measure(policy, program, seen).worst_action_error < 0.2


def test_one_observation_is_enough_to_calibrate() -> None:
    policy = samples.policy(cart.contract("clip"), (8,))
    seen = cart.observations(policy.contract, 1)
    assert measure(policy, quantize(policy, seen), seen).worst_action_error < 0.1 * 20


def test_scales_are_kept_for_export_and_give_the_multipliers() -> None:
    program, _ = quantized(samples.policy(cart.contract("tanh"), (8, 1), "tanh"))
    layers = [op for op in program.ops if isinstance(op, Dense)]
    for layer in layers:
        assert layer.scales is not None
        multiplier, shift = layer.scales.multipliers(layer.wide)
        assert (multiplier == layer.multiplier).all() and (shift == layer.shift).all()
        steps = [layer.scales.input, layer.scales.output, *layer.scales.weight]
        assert all(float(np.float32(s)) == s for s in steps)


def test_the_widest_contract() -> None:
    observations = tuple(ObservationChannel(f"o{i}", "1", -1, 1 + i) for i in range(64))
    actions = tuple(ActionChannel(f"a{i}", "1", -1, 1 + i, 0, 0) for i in range(16))
    program, seen = quantized(samples.policy(Contract("wide", observations, actions, "clip", 10.0), (64, 64)), 100)
    assert program.run(program.contract.observe(seen)[0]).shape == (100, 16)


@pytest.mark.parametrize("name", samples.NETWORKS)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_kind_of_layer_stays_close_to_float(name: str, profile: str) -> None:
    policy = samples.network(name)
    x, starts = samples.episodes(policy.contract)
    program = quantize(policy, x, starts, profile)
    found = measure(policy, program, x, starts)
    assert found.median_action_error < {"int8": 0.01, "int16x8": 0.004, "int4": 0.06, "shift": 0.02}[profile]
    assert found.worst_action_error < {"int8": 0.1, "int16x8": 0.04, "int4": 0.6, "shift": 0.15}[profile]
    again = Program.unpack(policy.contract, program.packed, len(program.ops))
    ints = policy.contract.observe(x[:100])[0]
    memory, kept = program.start(1), again.start(1)
    for row in ints:
        y, memory = program.step(row[None], memory)
        z, kept = again.step(row[None], kept)
        assert (y == z).all() and (memory == kept).all()


@pytest.mark.parametrize("name", samples.NETWORKS)
def test_choices_of_every_kind_of_network_agree(name: str) -> None:
    policy = samples.network(name, "multi_discrete")
    x, starts = samples.episodes(policy.contract)
    assert measure(policy, quantize(policy, x, starts), x, starts).agreement > 0.95


def test_memory_needs_the_order_of_time() -> None:
    """The same rows without their episodes are another calibration, and another measure."""
    policy = samples.network("gru")
    x, starts = samples.episodes(policy.contract)
    program = quantize(policy, x, starts)
    shuffled = np.random.default_rng(0).permutation(len(x))
    assert program.digest != quantize(policy, x[shuffled]).digest
    assert measure(policy, program, x, starts).worst_action_error < 0.05


def test_saturation_is_counted_where_values_clamp() -> None:
    policy = samples.network("mlp")
    x, starts = samples.episodes(policy.contract)
    found = measure(policy, quantize(policy, x, ranges="tight"), x * 1.5, starts)
    assert list(found.saturation) == ["0 input", "1 dense", "3 dense", "4 dense"]
    assert found.saturation["0 input"][0] > 0 and found.saturation["0 input"][1] == x.size
    calm = measure(policy, quantize(policy, x, ranges="minmax"), x, starts)
    assert calm.saturation["0 input"][0] < found.saturation["0 input"][0] / 20


@pytest.mark.parametrize(
    ("about", "match"),
    [
        ({"profile": "int2"}, "unknown profile 'int2': one of int8, int16x8, int4, shift"),
        ({"ranges": "widest"}, "unknown ranges 'widest': one of minmax, percentile, tight"),
        ({"ranges": ["minmax"] * 3}, "4 of minmax, percentile, tight"),
        ({"starts": np.zeros(3, bool)}, "whether it begins an episode"),
    ],
)
def test_wrong_requests_say_what_there_is(about: dict, match: str) -> None:
    policy = samples.network("mlp")
    with pytest.raises(InvalidInput, match=match):
        quantize(policy, samples.episodes(policy.contract, 100)[0], **about)


def test_an_image_out_of_reordered_values_is_refused() -> None:
    policy = samples.network("conv")
    first, second, *rest = policy.layers
    other = dataclasses.replace(second, shape=(10, 2, 3), weight=np.ones((4, 10, 2, 2)))
    layers = (first, other, Layer(np.ones((8, other.n_out)), np.zeros(8), "relu"), *rest[1:])
    changed = dataclasses.replace(policy, layers=layers)
    with pytest.raises(Unsupported, match="in another order"):
        quantize(changed, samples.episodes(policy.contract, 100)[0])
