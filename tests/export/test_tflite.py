"""The .tflite file: what TFLite-Micro computes from it, and how it is laid out."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import pytest

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.errors import Mismatch, MissingExtra, Unsupported
from puffer_edge.export.tflite import METADATA, tflite
from puffer_edge.integer.ops.dense import Dense
from puffer_edge.integer.ops.lookup import Lookup
from puffer_edge.integer.program import Program
from puffer_edge.integer.quantize import quantize
from puffer_edge.policy import Layer, Policy
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


def int8_inputs(n: int, rows: int = BATCH, seed: int = 2) -> np.ndarray:
    """Random rows, and rows of edges."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-128, 128, (rows, n))
    x[: rows // 4] = rng.choice([-128, -127, -1, 0, 1, 126, 127], (rows // 4, n))
    x[:3] = [[-128], [127], [0]]
    return x.astype(np.int8)


def head_of(program: Program, x: np.ndarray) -> np.ndarray:
    """What the program computes between its input step and its head."""
    for op in program.ops[1:]:
        x = op.run(x)
        if isinstance(op, Dense) and op.wide:
            return x
    raise AssertionError("no int16 layer")


def tflm(model: bytes, x: np.ndarray) -> np.ndarray:
    """What TFLite-Micro computes."""
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    interpreter = runtime.Interpreter.from_bytes(model, arena_size=2**21)
    interpreter.set_input(x, 0)
    interpreter.invoke()
    return interpreter.get_output(0)


def assert_equal(program: Program) -> None:
    x = int8_inputs(program.ops[1].n_in)
    got, wanted = tflm(tflite(program, BATCH), x), head_of(program, x)
    assert got.dtype == np.int16
    assert (got == wanted).all(), f"{(got != wanted).sum()} of {wanted.size} values differ"


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
        assert (tflm(tflite(program, BATCH), x) == head_of(program, x)).all(), f"weight {weight}"


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
    assert b"int8 input to int16 head" in model.Description()
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
