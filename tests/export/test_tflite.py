"""The .tflite file: what TFLite-Micro computes from it, and how it is laid out."""

from __future__ import annotations

import dataclasses
import json
import sys
from fractions import Fraction

import numpy as np
import pytest

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.errors import Mismatch, MissingExtra, Unsupported
from puffer_edge.export.tflite import TABLES, graph, tflite
from puffer_edge.export.tflite_compare import factors, inputs, litert, micro, program_steps
from puffer_edge.export.tflite_file import METADATA, Graph
from puffer_edge.integer.ops.dense import Dense
from puffer_edge.integer.ops.lookup import Lookup
from puffer_edge.integer.program import Program
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.rounding import requantise_once
from puffer_edge.policy import Conv, Layer, Policy
from tests import samples

schema = pytest.importorskip("tflite")
BATCH = 1024


def contract(head: str, n: int = 4, m: int = 2, choices: int = 3) -> Contract:
    observations = tuple(ObservationChannel(f"o{i}", "1", -1.0 - i, 2.0) for i in range(n))
    actions = tuple(ActionChannel(f"a{j}", "1", -1.0, 1.0 + j, 0.0, 0.0) for j in range(m))
    levels = tuple(tuple(k / choices for _ in actions) for k in range(choices)) if head == "discrete" else ()
    return Contract("net", observations, actions, head, 50.0, levels)


def quantized(policy: Policy, seed: int = 1) -> Program:
    c = policy.contract
    seen = np.random.default_rng(seed).uniform(
        c.physical_observation(c.observation_low), c.physical_observation(c.observation_high), (500, c.n_observations)
    )
    return quantize(policy, seen)


def assert_equal(program: Program, rows: int = BATCH, steps: int = 1) -> None:
    """TFLite-Micro and the program, step by step with memory."""
    ours, theirs, rng = program_steps(program, rows), micro(tflite(program, rows), rows), np.random.default_rng(2)
    for k in range(steps):
        x = inputs(program, rows, rng)
        got, wanted = theirs(x), ours(x)
        assert got.dtype == wanted.dtype == np.int16
        assert (got == wanted).all(), f"{(got != wanted).sum()} of {wanted.size} values differ in step {k}"


def network(name: str, profile: str, head: str = "clip") -> Program:
    policy = samples.network(name, head)
    seen, starts = samples.episodes(policy.contract, 500)
    return quantize(policy, seen, starts, profile)


def kinds(g: Graph) -> list[str]:
    return [o.kind for o in g.operators]


@pytest.mark.parametrize("hidden", [(), (1,), (8,), (5, 3, 7), (64, 64)])
@pytest.mark.parametrize("activation", ["relu", "tanh", "none"])
@pytest.mark.parametrize("head", ["discrete", "clip", "tanh"])
def test_tflm_computes_what_the_program_computes(head: str, activation: str, hidden: tuple[int, ...]) -> None:
    assert_equal(quantized(samples.policy(contract(head), hidden, activation)))


@pytest.mark.parametrize("seed", range(12))
def test_tflm_agrees_over_many_scales(seed: int) -> None:
    """Weights from 2^-8 to 2^3 times the usual give many scales and shifts, one action gives the per-tensor rule."""
    rng = np.random.default_rng(seed)
    policy = samples.policy(
        contract("clip", n=int(rng.integers(1, 9)), m=1 + seed % 2), (int(rng.integers(1, 20)),), ["relu", "tanh", "none"][seed % 3], seed
    )
    factors = 2.0 ** rng.uniform(-8, 3, len(policy.layers))
    layers = tuple(Layer(layer.weight * f, layer.bias * rng.choice([0, 1, 30]), layer.activation) for layer, f in zip(policy.layers, factors))
    assert_equal(quantized(dataclasses.replace(policy, layers=layers)))


def test_tflm_tanh_is_the_lookup_table() -> None:
    """TFLite-Micro computes tanh in fixed point, the table is float64: the same 256 entries for every scale that quantisation uses."""
    policy = samples.policy(contract("clip", n=1, m=1), (1,), "tanh")
    x = np.zeros((BATCH, 1), np.int8)
    x[:256, 0] = np.arange(-128, 128)
    for weight in np.geomspace(1e-3, 4.0, 60):
        layer = Layer(np.array([[weight]]), np.zeros(1), "tanh")
        program = quantized(dataclasses.replace(policy, layers=(layer, policy.layers[1])))
        assert (micro(tflite(program, BATCH), BATCH)(x) == program_steps(program, BATCH)(x)).all(), f"weight {weight}"


LAYERS = {
    ("conv", "int8"): ["CONV_2D", "CONV_2D", "TANH", "FULLY_CONNECTED", "QUANTIZE", "FULLY_CONNECTED"],
    ("depthwise", "int8"): ["PAD", "DEPTHWISE_CONV_2D", "CONV_2D", "ELU", "QUANTIZE", "FULLY_CONNECTED"],
    ("signal", "int8"): ["PAD", "CONV_2D", "CONV_2D", "QUANTIZE", "FULLY_CONNECTED"],
    ("average", "int8"): ["CONV_2D", "RESHAPE", "AVERAGE_POOL_2D", "QUANTIZE", "FULLY_CONNECTED"],
    ("largest", "int8"): ["MAX_POOL_2D", "FULLY_CONNECTED", "TANH", "QUANTIZE", "FULLY_CONNECTED"],
    ("lstm", "int8"): [
        "FULLY_CONNECTED",
        "TANH",
        "RESHAPE",
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        "FULLY_CONNECTED",
        "TANH",
        "QUANTIZE",
        "FULLY_CONNECTED",
    ],
    ("mlp", "int16x8"): ["FULLY_CONNECTED", "TANH", "FULLY_CONNECTED", "FULLY_CONNECTED"],
    ("conv", "int16x8"): ["CONV_2D", "CONV_2D", "TANH", "FULLY_CONNECTED", "FULLY_CONNECTED"],
    ("average", "int16x8"): ["CONV_2D", "RESHAPE", "AVERAGE_POOL_2D", "FULLY_CONNECTED"],
    ("largest", "int16x8"): ["MAX_POOL_2D", "FULLY_CONNECTED", "TANH", "FULLY_CONNECTED"],
    ("mlp", "int4"): ["CONV_2D", "TANH", "CONV_2D", "QUANTIZE", "FULLY_CONNECTED"],
    ("depthwise", "int4"): ["PAD", "DEPTHWISE_CONV_2D", "CONV_2D", "ELU", "QUANTIZE", "FULLY_CONNECTED"],
    ("lstm", "int4"): [
        *("CONV_2D", "TANH", "RESHAPE", "UNIDIRECTIONAL_SEQUENCE_LSTM", "RESHAPE", "CONV_2D", "TANH", "QUANTIZE", "FULLY_CONNECTED"),
    ],
}


@pytest.mark.parametrize(("name", "profile"), LAYERS)
def test_tflm_computes_every_layer_and_profile(name: str, profile: str) -> None:
    program = network(name, profile)
    assert kinds(graph(program)) == LAYERS[name, profile]
    assert_equal(program, 256, 6)


@pytest.mark.parametrize("seed", range(24))
def test_tflm_pads_strides_and_multiplies_as_the_program(seed: int) -> None:
    """Convolutions of random kernel, stride, padding on all four sides and depth, in every profile that has them."""
    rng = np.random.default_rng(seed)
    base, depthwise = samples.network("largest"), bool(seed % 2)
    profile = ("int8", "int4", "int16x8")[seed // 2 % 3] if not depthwise else ("int8", "int4")[seed // 2 % 2]
    kernel, shape = (int(rng.integers(1, 4)), int(rng.integers(1, 5))), (2, 3, 4)
    padding = tuple(int(rng.integers(0, k)) for k in (*kernel, *kernel))
    filters = int(rng.integers(1, 4)) * (2 if depthwise else 1)
    weight = rng.standard_normal((filters, 1 if depthwise else 2, *kernel))
    stride = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    conv = Conv(weight, rng.standard_normal(filters), ("relu", "none", "tanh")[seed % 3], shape, stride, padding, depthwise)
    layers = (conv, Layer(rng.standard_normal((2, conv.n_out)) * 0.5, np.zeros(2), "none"))
    seen, starts = samples.episodes(base.contract, 300)
    assert_equal(quantize(dataclasses.replace(base, layers=layers), seen, starts, profile), 64, 3)


def test_four_bit_weights_take_half_a_byte() -> None:
    assert {t.dtype for t in graph(network("conv", "int4")).tensors if t.name.startswith("weight")} == {"int4", "int8"}  # the head is int16 × int8
    sizes = {profile: sum(len(t.data) for t in graph(network("mlp", profile)).tensors if t.name == "weight0") for profile in ("int8", "int4")}
    assert sizes == {"int8": 24 * 16, "int4": 24 * 16 // 2}


@pytest.mark.parametrize("head", ["discrete", "multi_discrete", "tanh"])
def test_tflm_computes_every_head_of_a_recurrent_network(head: str) -> None:
    assert_equal(network("lstm", "int8", head), 64, 10)


def test_an_lstm_begins_again_after_a_reset() -> None:
    """TFLite-Micro's own Reset clears hidden state and cell, as the program's memory is cleared."""
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    program = network("lstm", "int8")
    interpreter, x = runtime.Interpreter.from_bytes(tflite(program), arena_size=2**18), inputs(program, 1, np.random.default_rng(3))
    seen = []
    for k in range(6):
        if k == 3:
            interpreter.reset()
        interpreter.set_input(x, 0)
        interpreter.invoke()
        seen.append(interpreter.get_output(0).tolist())
    assert seen[:3] == seen[3:] and seen[0] != seen[1]
    ours = program_steps(program, 1)
    assert [ours(x).tolist() for _ in range(3)] == seen[:3]


@pytest.mark.parametrize("name", TABLES)
def test_tflm_gives_every_entry_of_a_table(name: str) -> None:
    """sigmoid and elu at many scales and zero points: ``quantize`` keeps their entries away from rounding boundaries."""
    policy = samples.policy(contract("clip", n=1, m=1), (1,), name)
    x = np.arange(-128, 128, dtype=np.int8)[:, None]
    for weight, bias in zip(np.geomspace(0.02, 8.0, 40), np.linspace(-2, 2, 40)):
        program = quantized(dataclasses.replace(policy, layers=(Layer(np.array([[weight]]), np.full(1, bias), name), policy.layers[1])))
        assert (micro(tflite(program, 256), 256)(x) == program_steps(program, 256)(x)).all(), f"weight {weight}"


UNSUPPORTED = {
    ("gru", "int8"): "a gru has no form in TFLite: train with an lstm",
    ("two_cells", "int8"): "a gru has no form",
    ("deep", "int8"): "leaky_relu, silu and gelu",
    ("elu", "int16x8"): "an int16 table has no form in TFLite: use tanh",
    ("depthwise", "int16x8"): "depthwise convolution of int16",
    ("lstm", "int16x8"): "int16 LSTM rounds its gates otherwise",
    ("mlp", "shift"): "only shifts",
    ("lstm", "shift"): "only shifts",
}


@pytest.mark.parametrize(("name", "profile"), UNSUPPORTED)
def test_what_has_no_form_names_the_nearest_way(name: str, profile: str) -> None:
    with pytest.raises(Unsupported, match=UNSUPPORTED[name, profile]):
        tflite(network(name, profile))


def test_litert_reference_kernels_round_dense_layers_once() -> None:
    """Bit for bit the program with single rounding there; and single rounding is not the program."""
    pytest.importorskip("ai_edge_litert")
    others = 0
    for name, profile in (("mlp", "int8"), ("conv", "int8"), ("signal", "int16x8"), ("average", "int8"), ("largest", "int16x8"), ("mlp", "int4")):
        program, rng = network(name, profile), np.random.default_rng(4)
        model = tflite(program, BATCH)
        once, twice, theirs = program_steps(program, BATCH, factors(model)), program_steps(program, BATCH), litert(model, BATCH, True)
        for _ in range(3):
            x = inputs(program, BATCH, rng)
            assert (theirs(x) == once(x)).all(), (name, profile)
            others += int((once(x) != twice(x)).sum())
    assert others


def test_single_rounding_is_to_the_nearest_halves_away_from_zero() -> None:
    a = np.array([0, 1, -1, 3, -3, 5, -5, 7, 2**31 - 1, -(2**31)], np.int64)
    assert requantise_once(a, 0.5).tolist() == [0, 1, -1, 2, -2, 3, -3, 4, 2**30, -(2**30)]
    rng = np.random.default_rng(8)
    for factor in 2.0 ** rng.uniform(-31, 3, 50):
        values = rng.integers(-(2**28), 2**28, 40)
        exact = [Fraction(factor) * int(v) for v in values]
        assert requantise_once(values, factor).tolist() == [int(abs(e) + Fraction(1, 2)) * (1 if e > 0 else -1) for e in exact]


def test_litert_default_kernels_stay_near() -> None:
    """XNNPACK rounds its own way: some values of the head differ, by less than 2 % of its range."""
    pytest.importorskip("ai_edge_litert")
    program = quantized(samples.policy(contract("tanh"), (64, 64), "tanh"))
    ours, theirs, x = program_steps(program, BATCH), litert(tflite(program, BATCH), BATCH, False), inputs(program, BATCH, np.random.default_rng(5))
    error = np.abs(theirs(x).astype(int) - ours(x))
    assert (error > 0).mean() < 0.25 and error.max() <= 655, ((error > 0).mean(), error.max())


def test_file_is_a_model_of_aligned_buffers_with_versions() -> None:
    program = quantized(samples.policy(contract("tanh"), (8, 8), "tanh"))
    data = tflite(program)
    assert data[4:8] == b"TFL3"
    model = schema.Model.GetRootAsModel(data, 0)
    assert model.BuffersLength() and not model.Buffers(0).DataLength()
    for k in range(1, model.BuffersLength()):
        vector = model.Buffers(k)._tab
        assert vector.Vector(vector.Offset(4)) % 16 == 0
    codes = {(model.OperatorCodes(k).BuiltinCode(), model.OperatorCodes(k).Version()) for k in range(model.OperatorCodesLength())}
    b = schema.BuiltinOperator
    assert codes == {(b.FULLY_CONNECTED, 4), (b.TANH, 2), (b.QUANTIZE, 2), (b.FULLY_CONNECTED, 11)}
    order = [model.OperatorCodes(model.Subgraphs(0).Operators(k).OpcodeIndex()).BuiltinCode() for k in range(model.Subgraphs(0).OperatorsLength())]
    assert order == [b.FULLY_CONNECTED, b.TANH, b.FULLY_CONNECTED, b.TANH, b.QUANTIZE, b.FULLY_CONNECTED]


def test_file_says_what_it_covers() -> None:
    program = quantized(samples.policy(contract("tanh"), (4,)))
    model = schema.Model.GetRootAsModel(tflite(program), 0)
    assert b"integer input to int16 head" in model.Description()
    entry = model.Metadata(0)
    assert entry.Name() == METADATA.encode()
    about = json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
    assert about["program"] == program.digest.hex() and about["contract"] == program.contract.digest.hex()


def test_file_is_reproducible() -> None:
    first, second = (tflite(quantized(samples.policy(contract("clip"), (8,)))) for _ in range(2))
    assert first == second


def test_weights_are_quantised_per_channel() -> None:
    program = quantized(samples.policy(contract("clip"), (8,)))
    graph = schema.Model.GetRootAsModel(tflite(program), 0).Subgraphs(0)
    weight = graph.Tensors(graph.Operators(0).Inputs(1))
    assert (weight.Quantization().ScaleLength(), weight.Quantization().QuantizedDimension()) == (8, 0)


def test_without_scales_is_unsupported() -> None:
    program = quantized(samples.policy(contract("clip"), (8,)))
    again = Program.unpack(program.contract, program.packed, len(program.ops))
    with pytest.raises(Unsupported, match="no scales"):
        tflite(again)


def test_other_multiplier_is_a_mismatch() -> None:
    program = quantized(samples.policy(contract("clip"), (8,)))
    dense = program.ops[1]
    assert isinstance(dense, Dense)
    multiplier = dense.multiplier.copy()
    multiplier[5] += 1
    changed = dataclasses.replace(program, ops=(program.ops[0], dataclasses.replace(dense, multiplier=multiplier), *program.ops[2:]))
    with pytest.raises(Mismatch, match="row 5"):
        tflite(changed)


def test_other_table_is_unsupported() -> None:
    program = quantized(samples.policy(contract("clip"), (8,), "tanh"))
    table = program.ops[2]
    assert isinstance(table, Lookup)
    ops = (*program.ops[:2], dataclasses.replace(table, table=table.table[::-1].copy()), *program.ops[3:])
    with pytest.raises(Unsupported, match="not tanh"):
        tflite(dataclasses.replace(program, ops=ops))


def test_a_sum_beyond_int32_on_the_way_is_unsupported() -> None:
    """The program's own sum, with the zero point folded in, still fits: +127 and -127 in turn."""
    program = quantized(samples.policy(contract("clip", m=1), (600,)))
    head = program.ops[2]
    assert isinstance(head, Dense) and head.zero_in == -128
    weight = np.where(np.arange(600) % 2, 127, -127).astype(np.int8)[None]
    folded = np.zeros(1, np.int32)
    ops = (*program.ops[:2], dataclasses.replace(head, weight=weight, bias=folded), *program.ops[3:])
    with pytest.raises(Unsupported, match="600 inputs may reach"):
        tflite(dataclasses.replace(program, ops=ops))


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    program = quantized(samples.policy(contract("clip"), (8,)))
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(MissingExtra, match=r"puffer-edge\[tflite\]"):
        tflite(program)
