"""The float and QDQ models of every kind of policy in ONNX Runtime, against the policy in float64, step by step with its memory."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from puffer_edge.errors import InvalidInput, MissingExtra, RangeError
from puffer_edge.export.onnx_float import float_model
from puffer_edge.export.onnx_qdq import qdq_model
from puffer_edge.layers import ACTIVATIONS, Conv, Layer, Pool
from puffer_edge.policy import Policy
from puffer_edge.spaces import Floats
from tests.export import nets

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
HEADS = ("clip", "tanh", "discrete", "multi_discrete")
FLOAT_TOLERANCE = 5e-6
"""Of an action's range, for float32 against float64; measured: 4e-7."""
STEPS, ROWS = 20, 16


def seen(policy: Policy) -> Floats:
    """(rows, steps, n) sequences of observations."""
    return nets.observations(policy.contract, ROWS * STEPS).reshape(ROWS, STEPS, -1)


def wanted(policy: Policy, x: Floats) -> tuple[Floats, Floats]:
    """(rows, steps, m) actions of the policy, and its last memory."""
    memory, actions = policy.cleared(x[:, 0]), []
    for t in range(x.shape[1]):
        action, memory = policy.act_step(x[:, t], memory)
        actions.append(action)
    return np.stack(actions, 1), memory


def got(model: bytes, policy: Policy, x: Floats) -> tuple[Floats, Floats]:
    """The same of a model, its memory fed back."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["observation", "memory"][: 2 if policy.memory else 1]
    memory, actions = np.zeros((len(x), policy.memory), np.float32), []
    for t in range(x.shape[1]):
        feeds = {"observation": x[:, t].astype(np.float32)} | ({"memory": memory} if policy.memory else {})
        result = dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds)))
        actions.append(result["action"])
        memory = result.get("memory_out", memory)
    return np.stack(actions, 1), memory


def differences(policy: Policy, actions: Floats, others: Floats) -> Floats:
    """Of an action's range."""
    return np.abs(actions - others) / np.array([ch.high - ch.low for ch in policy.contract.actions])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", nets.KINDS)
def test_float_model_is_the_policy(kind: str, head: str) -> None:
    policy = nets.policy(kind, head)
    x = seen(policy)
    (actions, memory), (others, other_memory) = wanted(policy, x), got(float_model(policy), policy, x)
    if head in ("clip", "tanh"):
        assert differences(policy, actions, others).max() <= FLOAT_TOLERANCE
        assert len(np.unique(actions)) > ROWS * STEPS // 2
    else:
        assert (actions == others).mean() >= 0.999  # two logits within float32 of each other may change places
    assert np.abs(memory - other_memory).max(initial=0) < 1e-5


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation: str) -> None:
    policy = nets.policy("dense", "clip", activation)
    x = seen(policy)
    assert differences(policy, wanted(policy, x)[0], got(float_model(policy), policy, x)[0]).max() <= FLOAT_TOLERANCE


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", nets.KINDS)
def test_qdq_model_follows_the_policy(kind: str, head: str) -> None:
    """int8 everywhere; measured on these random nets: medians up to 0.3 %, at most 3.3 % of a range, 98.8 % of the choices."""
    policy = nets.policy(kind, head)
    x = seen(policy)
    model = qdq_model(policy, x.reshape(ROWS * STEPS, -1))
    error = differences(policy, wanted(policy, x)[0], got(model, policy, x)[0])
    if head in ("clip", "tanh"):
        assert np.median(error) <= 0.005 and error.max() <= 0.05
    else:
        assert (error == 0).mean() >= 0.98


@pytest.mark.parametrize("kind", nets.KINDS)
def test_qdq_is_symmetric_int8_with_float_bias(kind: str) -> None:
    """What TensorRT asks for, and: every product reads int8 on both sides."""
    policy = nets.policy(kind)
    graph = onnx.load_from_string(qdq_model(policy, nets.observations(policy.contract, 200))).graph
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    pairs = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert all(constants[n.input[2]].dtype == np.int8 and not constants[n.input[2]].any() and (constants[n.input[1]] > 0).all() for n in pairs)
    products = [n for n in graph.node if n.op_type in ("MatMul", "Conv")]
    assert products and all(made[name].op_type == "DequantizeLinear" for n in products for name in n.input[:2])
    assert all(constants[n.input[2]].dtype == np.float32 for n in products if n.op_type == "Conv")
    assert not {"GRU", "LSTM"} & {n.op_type for n in graph.node}


def test_a_cleared_memory_is_zeros() -> None:
    policy = nets.policy("gru_lstm")
    x = seen(policy)[:, :1]
    assert policy.memory == 6 + 2 * 5
    assert differences(policy, policy.act(x[:, 0]), got(float_model(policy), policy, x)[0][:, 0]).max() <= FLOAT_TOLERANCE


def test_the_file_says_what_a_memory_is() -> None:
    for kind in ("dense", "lstm"):
        about = {p.key: p.value for p in onnx.load_from_string(float_model(nets.policy(kind))).metadata_props}
        assert about.get("memory", "").startswith("memory_out of a step") == (kind == "lstm")
        assert about["contract_digest"] == nets.contract("clip").digest.hex()


def test_batch_is_open_and_shapes_are_inferred() -> None:
    for kind in nets.KINDS:
        policy = nets.policy(kind, "multi_discrete")
        for model in (float_model(policy), qdq_model(policy, nets.observations(policy.contract, 100))):
            proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(model), check_type=True, strict_mode=True, data_prop=True)
            onnx.checker.check_model(proto, full_check=True)
            outputs = {o.name: [d.dim_param or d.dim_value for d in o.type.tensor_type.shape.dim] for o in proto.graph.output}
            memory = {"memory_out": ["batch", policy.memory]} if policy.memory else {}
            assert outputs == {"action": ["batch", 3], "choice": ["batch", 3]} | memory
            one = got(model, policy, nets.observations(policy.contract, 1)[None])
            assert one[0].shape == (1, 1, 3)


@pytest.mark.parametrize(
    ("observations", "match"),
    [(np.zeros((0, nets.WIDTH)), r"\(0, 24\)"), (np.zeros(nets.WIDTH), r"\(24,\)"), (np.full((5, nets.WIDTH), np.nan), "finite")],
    ids=["none", "flat", "nan"],
)
def test_calibration_must_be_observations(observations: Floats, match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        qdq_model(nets.policy("dense"), observations)


def test_a_pool_may_come_first() -> None:
    policy = nets.policy("dense", "clip")
    pooled = Policy(policy.contract, (Pool("max", (2, 3, 4)), Layer(np.ones((3, 2)), np.zeros(3), "none")), policy.normalizer, policy.head)
    x = seen(pooled)
    for model, bound in ((float_model(pooled), FLOAT_TOLERANCE), (qdq_model(pooled, x.reshape(-1, nets.WIDTH)), 0.02)):
        assert differences(pooled, wanted(pooled, x)[0], got(model, pooled, x)[0]).max() <= bound


def test_an_observation_that_never_changed_keeps_the_contracts_range() -> None:
    policy = nets.policy("dense", "clip")
    x = seen(policy)
    still = x.copy()
    still[..., 3] = 0.5
    error = differences(policy, wanted(policy, x)[0], got(qdq_model(policy, still.reshape(-1, nets.WIDTH)), policy, x)[0])
    assert np.median(error) <= 0.01 and error.max() <= 0.1


def test_the_normaliser_clips() -> None:
    """Beyond its reach an observation counts as one at its edge, in both models."""
    policy = nets.policy("dense", "clip")
    x, norm = seen(policy), policy.normalizer
    edge, beyond = (norm.mean + np.sign(x - norm.mean) * norm.std * norm.clip * far for far in (1.0, 3.0))
    for model in (float_model(policy), qdq_model(policy, x.reshape(-1, nets.WIDTH))):
        assert differences(policy, got(model, policy, edge)[0], got(model, policy, beyond)[0]).max() <= FLOAT_TOLERANCE


def test_a_number_beyond_float32_is_refused() -> None:
    policy = nets.policy("conv2d")
    first = policy.layers[0]
    assert isinstance(first, Conv)
    huge = Conv(first.weight * 1e60, first.bias, first.activation, first.shape, first.stride, first.padding)
    with pytest.raises(RangeError, match="a weight of layer 0 does not fit float32"):
        float_model(Policy(policy.contract, (huge, *policy.layers[1:]), policy.normalizer, policy.head))


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtra, match=r"puffer-edge\[onnx\]"):
        float_model(nets.policy("dense"))
