"""The ONNX models: what ONNX Runtime computes from them, and what the files say of themselves."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import puffer_edge
from puffer_edge.contract import Contract
from puffer_edge.device.bundle import Bundle
from puffer_edge.envs import load
from puffer_edge.errors import MissingExtra, RangeError
from puffer_edge.export.onnx import OPSET, float_model, integer_model, qdq_model
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer.program import Program
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import Policy
from tests import samples

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
NETS = tuple(itertools.product(("2x16",), ("relu", "tanh"), ("discrete", "clip", "tanh")))
FLOAT_TOLERANCE = 5e-5
"""Of an action's range: float32 against float64, through a head of gain 10."""


@pytest.fixture
def parity(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(puffer_edge.__file__).parents[1] / "benchmarks"))
    return importlib.import_module("onnx_parity")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return samples.bundle(tmp_path_factory.mktemp("host") / "bundle", "cartpole", "host")


def seen(policy: Policy) -> np.ndarray:
    """Observations to calibrate on."""
    c = policy.contract
    low, high = c.physical_observation(c.observation_low), c.physical_observation(c.observation_high)
    return np.random.default_rng(1).uniform(low, high, (500, c.n_observations))


def quantized(policy: Policy) -> Program:
    return quantize(policy, seen(policy))


def many(head: str = "tanh", activation: str = "relu") -> Policy:
    """A policy with channels of different fraction bits and ranges."""
    contract = samples.many_channels()
    levels = ((1000.0, 1500.0, 2000.0), (2000.0, 1250.0, 1000.0)) if head == "discrete" else ()
    return samples.policy(dataclasses.replace(contract, head=head, levels=levels), (16,), activation)


def run(model: bytes, **feeds: Any) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds)))


def properties(model: bytes) -> dict[str, str]:
    return {p.key: p.value for p in onnx.load_from_string(model).metadata_props}


@pytest.mark.parametrize("net", NETS, ids="-".join)
def test_runtime_computes_what_the_program_and_the_policy_compute(parity: ModuleType, net: tuple[str, str, str]) -> None:
    row = parity.row(net, {"vectors": 20_000, "seed": 7})
    assert (row["integer_different"], row["shielded_different"]) == (0, 0)
    assert 0.05 < row["shield_acted"] < 0.95
    if net[2] == "discrete":
        assert row["float_within_1_percent"] >= 0.9999
        assert row["qdq_within_1_percent"] >= 0.98
    else:
        assert row["float_worst_error"] <= FLOAT_TOLERANCE
        assert row["qdq_median_error"] <= 0.01


@pytest.mark.parametrize("activation", ["relu", "tanh", "none"])
@pytest.mark.parametrize("head", ["discrete", "clip", "tanh"])
def test_integers_are_exact_over_other_fixed_points(parity: ModuleType, head: str, activation: str) -> None:
    """Fraction bits from 8 to 14, seven observations, three actions, no stages and one."""
    program = quantized(many(head, activation))
    for stages in ([], [{"stage": "slew", "per_second": {"servo1": 700.0}}]):
        assert parity.integers_different(program, Shield.build(program.contract, stages), 5000, 3)[:2] == (0, 0)


def test_observation_beyond_the_range_saturates_first() -> None:
    program = quantized(many())
    c = program.contract
    x = np.array([[-(2**31)] * 7, [2**31 - 1] * 7], np.int32)
    assert (run(integer_model(program), observation=x)["action"] == program.run(np.stack([c.observation_low, c.observation_high]))).all()


def test_discrete_choice_is_the_policys() -> None:
    policy = many("discrete")
    x = np.random.default_rng(2).uniform(-1, 2, (500, 7)).astype(np.float32)
    for model in (float_model(policy), qdq_model(policy, seen(policy))):
        got = run(model, observation=x)
        assert got["choice"].dtype == np.int64 and got["choice"].shape == (500,)
        assert (got["choice"] == policy.choose(x)).mean() > 0.98
        assert (got["action"] == np.float32(policy.contract.levels)[got["choice"]]).all()


def test_physical_numbers_become_the_integers_of_the_contract() -> None:
    """Halves, both ends of float64, NaN and infinity among them."""
    program = quantized(many())
    c, rng = program.contract, np.random.default_rng(4)
    steps = rng.integers(c.observation_low, c.observation_high, (2000, 7)) + rng.choice([0.0, 0.5, -0.5, 0.25], (2000, 7))
    x = steps * np.exp2(-c.observation_bits)
    special = np.array([np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, -0.0])
    x = np.where(rng.random(x.shape) < 0.05, rng.choice(special, x.shape), x)
    ints, _, invalid = c.observe(x)
    assert 0.05 < invalid.mean() < 0.95
    shield = Shield.build(c, [{"stage": "slew", "per_second": {"servo1": 700.0}}])
    previous, asked = rng.integers(c.action_low, c.action_high, (2000, 3), np.int32), rng.choice([0, 0, 1, -(2**31)], 2000).astype(np.int32)
    got = run(integer_model(program, shield, physical=True), observation=x, previous=previous, fallback=asked)
    assert (got["invalid"] == invalid).all()
    assert (got["action_fixed"][~invalid] == program.run(ints[~invalid])).all()
    fallback = ((asked != 0) | invalid).astype(np.int32)
    raw = np.where(fallback[:, None] != 0, c.action_safe, program.run(ints)).astype(np.int32)
    applied, stages = shield.apply(ints, raw, previous, fallback)
    assert (got["applied_fixed"] == np.clip(applied, c.action_low, c.action_high)).all() and (got["stages"] == stages).all()
    assert (got["applied_fixed"][fallback != 0] == c.action_safe).all()


def test_batch_is_dynamic_and_the_checks_pass() -> None:
    policy = many()
    program = quantized(policy)
    for model in (float_model(policy), qdq_model(policy, seen(policy)), integer_model(program)):
        proto = onnx.load_from_string(model)
        onnx.checker.check_model(proto, full_check=True)
        assert [(o.domain, o.version) for o in proto.opset_import] == [("", OPSET)]
        kind = np.int32 if proto.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.INT32 else np.float32
        for rows in (1, 5):
            assert run(model, observation=np.zeros((rows, 7), kind))["action"].shape == (rows, 3)


def test_integer_model_has_no_float_in_it() -> None:
    program = quantized(many())
    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(integer_model(program, Shield.none(program.contract))))
    kinds = {i.data_type for i in proto.graph.initializer} | {v.type.tensor_type.elem_type for v in proto.graph.value_info}
    assert kinds <= {onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.BOOL}


def test_qdq_is_symmetric_with_float_bias() -> None:
    policy = many()
    proto = onnx.load_from_string(qdq_model(policy, seen(policy)))
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in proto.graph.initializer}
    pairs = [n for n in proto.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) == 3 * len(policy.layers)
    assert all(constants[n.input[2]].dtype == np.int8 and not constants[n.input[2]].any() for n in pairs)
    assert not any(c.dtype == np.int32 for c in constants.values())


def test_files_say_what_they_are() -> None:
    policy = many()
    program, shield = quantized(policy), Shield.build(policy.contract, [{"stage": "limit"}])
    about = properties(integer_model(program, shield))
    assert Contract.from_json(about["contract"]) == policy.contract
    assert about["contract_digest"] == policy.contract.digest.hex()
    assert about["program_digest"] == program.digest.hex()
    assert properties(qdq_model(policy, seen(policy)))["contract_digest"] == about["contract_digest"]
    assert about["shield_digest"] == shield.digest.hex() and json.loads(about["stages"]) == ["limit"]
    assert json.loads(about["observation_names"])[0] == "s0" and json.loads(about["action_units"]) == ["us"] * 3
    assert "shield_digest" not in properties(integer_model(program))


def test_files_are_reproducible() -> None:
    first, second = ([float_model(p), qdq_model(p, seen(p)), integer_model(quantized(p))] for p in (many(), many()))
    assert first == second


def test_bundle_for_a_computer_agrees_with_the_program(bundle: Bundle) -> None:
    """The bundle's own vectors, tick by tick: on a step that ran the policy the proposal, on every good or invalid step what was applied."""
    assert "onnx" in bundle.manifest["formats"]
    image, v = bundle.image, bundle.vectors
    c = image.contract
    fallback = v.outcome >> protocol.REASON_SHIFT & (protocol.REASON_INVALID | protocol.REASON_STALE) != 0
    reset = v.flags & protocol.STEP_RESET != 0
    previous = np.where(reset[:, None], c.action_initial, np.roll(v.applied, 1, 0)).astype(np.int32)
    ran = v.outcome & protocol.POLICY_RAN != 0
    assert ran.sum() > 100
    fixed = run((bundle.path / "policy.fixed.onnx").read_bytes(), observation=v.observation)["action"]
    assert (fixed == image.program.run(np.clip(v.observation, c.observation_low, c.observation_high))).all()
    assert (fixed[ran] == v.raw[ran]).all()
    physical = c.physical_observation(v.observation)
    plain = run((bundle.path / "policy.integer.onnx").read_bytes(), observation=physical)
    assert (plain["action_fixed"] == fixed).all() and (plain["action"] == c.physical_action(fixed)).all() and not plain["invalid"].any()
    got = run((bundle.path / "policy.shielded.onnx").read_bytes(), observation=physical, previous=previous, fallback=fallback.astype(np.int32))
    steps = ran | fallback
    assert (got["applied_fixed"][steps] == v.applied[steps]).all() and (got["applied"] == c.physical_action(got["applied_fixed"])).all()
    assert (got["stages"][ran] == (v.outcome[ran] >> protocol.REASON_SHIFT & 255)).all()


def test_bundle_holds_the_float_policy(bundle: Bundle) -> None:
    """On observations of its own rollouts, which is what scales are calibrated for."""
    x = samples.rollout(load("cartpole"), bundle.policy, 50).astype(np.float32)
    for name, share in (("policy.onnx", 0.999), ("policy.qdq.onnx", 0.98)):
        choice = run((bundle.path / name).read_bytes(), observation=x)["choice"]
        assert (choice == bundle.policy.choose(x)).mean() >= share


def test_a_program_read_back_gives_the_same_file() -> None:
    program = quantized(many())
    again = Program.unpack(program.contract, program.packed, len(program.ops))
    assert integer_model(again) == integer_model(program)


def test_a_number_beyond_float32_is_refused() -> None:
    policy = many()
    normalizer = dataclasses.replace(policy.normalizer, std=np.full(7, 1e-60))
    with pytest.raises(RangeError, match="does not fit float32"):
        float_model(dataclasses.replace(policy, normalizer=normalizer))


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = many()
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtra, match=r"puffer-edge\[onnx\]"):
        float_model(policy)
