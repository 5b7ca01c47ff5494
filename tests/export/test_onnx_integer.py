"""Whole programs of every kind and profile in ONNX Runtime: the program's bits, with its memory, on and off the range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from puffer_edge.export.onnx_integer import integer_model
from puffer_edge.integer.program import Program
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.scales import PROFILES
from puffer_edge.integer.shield import Shield
from puffer_edge.spaces import Ints
from tests.export import nets

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
ROWS, STEPS = 100, 12
STAGES: tuple[dict[str, Any], ...] = ({"stage": "slew", "per_second": {"servo1": 7000.0}},)


def made(kind: str, head: str, profile: str) -> Program:
    policy = nets.policy(kind, head)
    return quantize(policy, nets.observations(policy.contract, 600), profile=profile)


def seen(program: Program) -> Ints:
    """(rows, steps, n): walks of a plant, and one number in eight at or beyond the range."""
    c, rng = program.contract, np.random.default_rng(6)
    walk, _, _ = c.observe(nets.observations(c, ROWS * STEPS, 7))
    low, high = c.observation_low.astype(np.int64), c.observation_high.astype(np.int64)
    edges = np.stack([low, high, low - 1, high + 1, 0 * low - 2**31, 0 * low + 2**31 - 1])
    picked = np.take_along_axis(edges[:, None], rng.integers(0, len(edges), (1, *walk.shape)), 0)[0]
    return np.where(rng.random(walk.shape) < 0.125, picked, walk).astype(np.int32).reshape(ROWS, STEPS, -1)


def choices(program: Program, action: Ints) -> Ints:
    """(rows, m) index of the level of each action of a multi-discrete head."""
    steps = np.exp2(program.contract.action_bits)
    return np.stack([np.searchsorted(np.asarray(row) * steps[j], action[:, j]) for j, row in enumerate(program.contract.levels)], 1)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("kind", nets.KINDS)
def test_every_bit_of_every_step(kind: str, profile: str) -> None:
    head = nets.HEADS.get(kind, "clip")
    program = made(kind, head, profile)
    session = onnxruntime.InferenceSession(integer_model(program), providers=["CPUExecutionProvider"])
    names, x, c = [o.name for o in session.get_outputs()], seen(program), program.contract
    assert names == ["action"] + ["choice"] * (head in ("discrete", "multi_discrete")) + ["memory_out"] * (program.memory > 0)
    memory, actions = program.start(ROWS), []
    for t in range(STEPS):
        feeds = {"observation": x[:, t]} | ({"memory": memory} if program.memory else {})
        got = dict(zip(names, session.run(None, feeds)))
        wanted, memory = program.step(np.clip(x[:, t], c.observation_low, c.observation_high), memory)
        assert (got["action"] == wanted).all() and got["action"].dtype == np.int32
        if program.memory:
            assert (got["memory_out"] == memory).all() and got["memory_out"].dtype == np.int16
        if head == "multi_discrete":
            assert (got["choice"] == choices(program, wanted)).all()
        actions.append(wanted)
    assert len(np.unique(np.concatenate(actions), axis=0)) > (2 if "discrete" in head else 100)


@pytest.mark.parametrize("kind", ["dense", "conv_gru"])
def test_physical_and_shielded_with_memory(kind: str) -> None:
    """The physical model runs the same integers; with the shield it also applies them."""
    program = made(kind, "clip", "int8")
    c, shield = program.contract, Shield.build(program.contract, STAGES)
    session = onnxruntime.InferenceSession(integer_model(program, shield, physical=True), providers=["CPUExecutionProvider"])
    names, memory, acted = [o.name for o in session.get_outputs()], program.start(1), 0
    previous = c.action_initial[None]
    for x in nets.observations(c, 100, 9)[:, None]:
        feeds = {"observation": x, "previous": previous, "fallback": np.zeros(1, np.int32)} | ({"memory": memory} if program.memory else {})
        got = dict(zip(names, session.run(None, feeds)))
        ints, _, _ = c.observe(x)
        action, memory = program.step(ints, memory)
        applied, stages = shield.apply(ints, action, previous, np.zeros(1, np.int32))
        assert (got["action_fixed"] == action).all() and (got["action"] == c.physical_action(action)).all() and not got["invalid"].any()
        assert (got["applied_fixed"] == applied).all() and (got["applied"] == c.physical_action(applied)).all() and (got["stages"] == stages).all()
        assert not program.memory or (got["memory_out"] == memory).all()
        previous, acted = applied, acted + int(stages[0] != 0)
    assert 5 < acted < 95


def test_nothing_but_integers_computes() -> None:
    """Of the fixed-point form, every type of every tensor; the operators are standard ones."""
    for kind in ("depthwise", "average", "gru_lstm"):
        proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(integer_model(made(kind, "clip", "int8"))))
        kinds = {i.data_type for i in proto.graph.initializer} | {v.type.tensor_type.elem_type for v in proto.graph.value_info}
        assert kinds <= {onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.BOOL}
        assert {n.domain for n in proto.graph.node} == {""}


def test_shapes_are_inferred_with_an_open_batch() -> None:
    for kind in nets.KINDS:
        program = made(kind, "multi_discrete", "int8")
        for model in (integer_model(program), integer_model(program, Shield.build(program.contract, STAGES), physical=True)):
            proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(model), check_type=True, strict_mode=True, data_prop=True)
            onnx.checker.check_model(proto, full_check=True)
            shapes = {o.name: [d.dim_param or d.dim_value for d in o.type.tensor_type.shape.dim] for o in proto.graph.output}
            assert shapes["action"] == ["batch", 3] == shapes["choice"]
            assert not program.memory or shapes["memory_out"] == ["batch", program.memory]
