"""ONNX: graphs of torch and of this package give ONNX Runtime's outputs, and what has no counterpart is named with its place."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.errors import InvalidInput, PufferEdgeError, Unsupported
from puffer_edge.intake import onnx as intake
from puffer_edge.intake.adopt import read_draft
from puffer_edge.intake.draft import assemble
from puffer_edge.intake.sources import Sources
from puffer_edge.policy import Policy

ROWS = 300


def contract(n: int, m: int, head: str, low: float = -9.0, high: float = 9.0, levels: Any = ()) -> Contract:
    channels = tuple(ActionChannel(f"a{j}", "1", low, high, low, low) for j in range(m))
    return Contract("task", tuple(ObservationChannel(f"o{i}", "1", -4.0, 4.0) for i in range(n)), channels, head, 50.0, levels)


def exported(model: nn.Module, *inputs: Any, **names: Any) -> bytes:
    """The file that torch's TorchScript exporter writes: it needs no further package."""
    stream = io.BytesIO()
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()  # type: ignore[union-attr, operator]
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr, operator]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it is the older one
        torch.onnx.export(model.eval(), inputs, stream, dynamo=False, **names)
    return stream.getvalue()


def runtime(data: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def uniform(*shape: int) -> Any:
    return np.random.default_rng(4).uniform(-4, 4, (ROWS, *shape)).astype(np.float32)


def same_actions(data: bytes, shape: tuple[int, ...], c: Contract) -> Policy:
    """The imported policy, after comparing it with ONNX Runtime row by row."""
    session, seen = runtime(data), uniform(*shape)
    name = session.get_inputs()[0].name
    wanted = np.concatenate([session.run(None, {name: row[None]})[0] for row in seen])
    policy, _ = assemble(intake.read(data, "model.onnx"), c)
    assert np.abs(policy.act(seen.reshape(ROWS, -1)) - wanted).max() < 1e-5
    return policy


def mlp(activation: Any) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), activation(), nn.Linear(8, 8), activation(), nn.Linear(8, 2))


class Behind(nn.Module):
    """A network behind a normaliser and before a squash, as policies are exported."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(nn.Tanh)
        self.register_buffer("mean", torch.tensor([0.1, -0.2, 0.3]))
        self.register_buffer("var", torch.tensor([1.0, 0.5, 2.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = torch.clamp((x - self.mean) / torch.sqrt(self.var + 1e-8), -2, 2)  # type: ignore[operator]
        return torch.tanh(self.net(z)) * 2.0 + 0.5


class Then(nn.Module):
    """A network and a function after it."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.net, self.function = mlp(nn.ReLU), function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.net(x))


@pytest.mark.parametrize("name", ["ReLU", "Tanh", "Sigmoid", "ELU", "SiLU", "LeakyReLU", "GELU", "ReLU6", "Hardtanh", "PReLU"])
def test_activations_of_torch(name: str) -> None:
    policy = same_actions(exported(mlp(getattr(nn, name)), torch.zeros(1, 3)), (3,), contract(3, 2, "clip"))
    own = {"SiLU": "silu", "GELU": "gelu", "LeakyReLU": "leaky_relu", "ReLU6": "relu", "Hardtanh": "relu", "PReLU": "relu"}
    assert [layer.activation for layer in policy.layers] == [own.get(name, name.lower())] * 2 + ["none"]  # type: ignore[union-attr]


def test_a_leaky_relu_of_another_slope() -> None:
    same_actions(exported(mlp(lambda: nn.LeakyReLU(0.2)), torch.zeros(1, 3)), (3,), contract(3, 2, "clip"))


def test_normaliser_and_squash_become_what_they_are() -> None:
    policy = same_actions(exported(Behind(), torch.zeros(1, 3)), (3,), contract(3, 2, "tanh"))
    assert (
        np.allclose(policy.normalizer.mean, [0.1, -0.2, 0.3])
        and np.allclose(policy.normalizer.std**2, [1.0, 0.5, 2.0])
        and policy.normalizer.clip == 2
    )
    assert (
        policy.head.kind == "tanh" and policy.head.scale.tolist() == [2, 2] and policy.head.offset.tolist() == [0.5, 0.5] and len(policy.layers) == 3
    )


def test_ends_of_continuous_policies() -> None:
    clipped = same_actions(exported(Then(lambda y: y.clamp(-0.5, 0.25)), torch.zeros(1, 3)), (3,), contract(3, 2, "clip", -0.5, 0.25))
    assert clipped.head.kind == "clip" and len(clipped.layers) == 3
    scaled = same_actions(exported(Then(lambda y: y.clamp(-1, 1) * 3 + 1), torch.zeros(1, 3)), (3,), contract(3, 2, "clip", -2, 4))
    assert scaled.head.scale.tolist() == [3, 3] and scaled.head.offset.tolist() == [1, 1]
    squashed = same_actions(exported(Then(torch.sigmoid), torch.zeros(1, 3)), (3,), contract(3, 2, "tanh", 0, 1))
    assert squashed.head.scale.tolist() == [0.5, 0.5]
    with pytest.raises(InvalidInput, match=r"may reach -1 … 1 by the contract, but .* clipped to -0\.5 … 0\.25"):
        assemble(intake.read(exported(Then(lambda y: y.clamp(-0.5, 0.25)), torch.zeros(1, 3)), "m"), contract(3, 2, "clip", -1, 1))


@pytest.mark.parametrize("end", [lambda y: y, lambda y: y.softmax(-1), lambda y: y.argmax(-1), lambda y: y.log_softmax(-1).argmax(-1)])
def test_ends_of_discrete_policies(end: Any) -> None:
    data = exported(Then(end), torch.zeros(1, 3))
    c = contract(3, 1, "discrete", levels=((-1.0,), (1.0,)))
    policy, _ = assemble(intake.read(data, "m"), c)
    session = runtime(data)
    wanted = np.array([session.run(None, {session.get_inputs()[0].name: row[None]})[0] for row in uniform(3)]).reshape(ROWS, -1)
    wanted = wanted.argmax(-1) if wanted.shape[1] > 1 else wanted[:, 0]
    assert (policy.choose(uniform(3)) == wanted).all() and len(set(wanted.tolist())) == 2


class Cell(nn.Module):
    """A recurrent actor, one step a call, its memory outside."""

    def __init__(self, kind: str, layers: int, batch_first: bool) -> None:
        super().__init__()
        self.pre, self.head, self.first = nn.Linear(3, 5), nn.Linear(6, 2), batch_first
        self.cell = (nn.GRU if kind == "gru" else nn.LSTM)(5, 6, layers, batch_first=batch_first)

    def forward(self, x: torch.Tensor, *memory: torch.Tensor) -> Any:
        axis = 1 if self.first else 0
        y, after = self.cell(torch.tanh(self.pre(x)).unsqueeze(axis), memory if len(memory) > 1 else memory[0])
        return (self.head(y.squeeze(axis)), *(after if isinstance(after, tuple) else (after,)))


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize(("layers", "batch_first"), [(1, True), (2, False)])
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_recurrent_actors_step_by_step(kind: str, layers: int, batch_first: bool, free: bool) -> None:
    names = ["h"] if kind == "gru" else ["h", "c"]
    memory = [torch.zeros(layers, 1, 6) for _ in names]
    axes = {"dynamic_axes": {"obs": {0: "batch"}, **{n: {1: "batch"} for n in names}}} if free else {}
    outputs = ["action", *(n + "_next" for n in names)]
    data = exported(Cell(kind, layers, batch_first), torch.zeros(1, 3), *memory, input_names=["obs", *names], output_names=outputs, **axes)
    policy, _ = assemble(intake.read(data, "m"), contract(3, 2, "clip"))
    session, kept, own = runtime(data), [m.numpy() for m in memory], np.zeros(policy.memory)
    assert policy.memory == 6 * layers * len(names)
    for row in uniform(3):
        wanted, *kept = session.run(None, {"obs": row[None], **dict(zip(names, kept))})
        got, own = policy.act_step(row, own)
        assert np.abs(got - wanted).max() < 1e-5


def test_a_graph_that_would_forget_is_refused() -> None:
    class Forgets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRU(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.cell(x)[0]
            return y

    with pytest.raises(Unsupported, match="starts from zeros at every call; export it with its memory"):
        intake.read(exported(Forgets(), torch.zeros(1, 1, 3)), "m")

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTM(3, 4)

        def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.cell(x, (h, h))[0]
            return y

    with pytest.raises(Unsupported, match="two memories start from the same input"):
        intake.read(exported(Shared(), torch.zeros(1, 1, 3), torch.zeros(1, 1, 4)), "m")


def test_convolutions() -> None:
    one = nn.Sequential(
        nn.Conv1d(3, 6, 3, padding=1), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 6, 3, stride=2, groups=6), nn.SiLU(), nn.Flatten(), nn.Linear(24, 2)
    )
    assert [type(layer).__name__ for layer in same_actions(exported(one, torch.zeros(1, 3, 10)), (3, 10), contract(30, 2, "clip")).layers] == [
        "Conv",
        "Conv",
        "Layer",
    ]
    for pool in (nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)):
        two = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=(1, 0)), nn.Tanh(), nn.AvgPool2d(2, 1), nn.Conv2d(4, 5, 2), nn.ReLU(), pool, nn.Flatten(), nn.Linear(5, 2)
        )
        same_actions(exported(two, torch.zeros(1, 2, 5, 6)), (2, 5, 6), contract(60, 2, "clip"))


def test_channels_last_are_reordered() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(2, 4, 3), nn.Linear(48, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.head(torch.relu(self.conv(x.permute(0, 3, 1, 2))).flatten(1))
            return y

    same_actions(exported(Last(), torch.zeros(1, 5, 6, 2)), (5, 6, 2), contract(60, 2, "clip"))


def test_a_part_of_the_observation() -> None:
    class Some(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.net(torch.tanh(x[:, [4, 0, 2]] * 2 - 1))
            return y

    same_actions(exported(Some(), torch.zeros(1, 5)), (5,), contract(5, 2, "clip"))


@pytest.mark.parametrize("head", ["clip", "tanh", "discrete"])
def test_our_own_float_model_comes_back(head: str) -> None:
    from puffer_edge.export.onnx_float import float_model
    from tests.samples import policy as sample

    c = contract(4, 2, head, levels=((0.0, 1.0), (2.0, 3.0), (-1.0, 0.0)) if head == "discrete" else ())
    actor = sample(c, activation="silu")
    data = float_model(actor)
    seen = uniform(4)
    if head == "discrete":
        with pytest.raises(Unsupported, match="give the choice itself as --output"):
            intake.read(data, "m")
    draft = intake.read(data, "m", "choice" if head == "discrete" else None)
    assert draft.head == head
    back = assemble(draft, c)[0]
    if head == "discrete":
        assert (back.choose(seen) == actor.choose(seen)).all()
    else:
        assert np.abs(back.act(seen) - actor.act(seen)).max() < 1e-4


def graph(
    nodes: list[Any], n: int = 3, m: int = 2, weights: dict[str, Any] | None = None, shape: Any = None, outputs: tuple[str, ...] = ("y",)
) -> bytes:
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape or ["batch", n])]
    outs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", m]) for name in outputs]
    given = {"w": np.ones((n, m), np.float32)} | (weights or {})
    model = helper.make_model(helper.make_graph(nodes, "g", ends, outs, [numpy_helper.from_array(v, k) for k, v in given.items()]))
    return bytes(model.SerializeToString())


MATMUL = helper.make_node("MatMul", ["x", "w"], ["h"])


@pytest.mark.parametrize(
    ("node", "match"),
    [
        (
            helper.make_node("Mish", ["h"], ["y"], name="act_1"),
            r"node 1 'act_1' \(Mish, reading h\): .* nearest that is: Sigmoid times",
        ),
        (helper.make_node("Sin", ["h"], ["y"]), r"node 1 \(Sin, reading h\).*a channel of the observation that is the sine already"),
        (helper.make_node("Mul", ["h", "h"], ["y"]), r"node 1 \(Mul, .*two values that both depend on the observation"),
        (helper.make_node("Gelu", ["h"], ["y"], domain="com.microsoft"), r"the operator com\.microsoft\.Gelu is not supported"),
        (helper.make_node("Elu", ["h"], ["y"], alpha=0.5), "ELU with α = 0.5"),
        (helper.make_node("Div", ["w", "h"], ["y"]), "makes more of|a division by the observation"),
        (helper.make_node("Gelu", ["h"], ["y"], approximate="tanh"), "approximated by tanh"),
        (helper.make_node("Reshape", ["h", "s"], ["y"]), r"makes \[7\] of \[1, 2\]"),
        (helper.make_node("Clip", ["h", "two", "one"], ["y"]), "bounds cross"),
    ],
)
def test_what_has_no_counterpart_is_named_with_its_place(node: Any, match: str) -> None:
    more = {"s": np.array([7]), "one": np.float32(1), "two": np.float32(2)}
    with pytest.raises(Unsupported, match=re.compile(match)):
        intake.read(graph([MATMUL, node], weights=more), "m")


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(("op", "kernel"), [("AveragePool", 3), ("MaxPool", 6)])
def test_a_pool_that_pads_by_itself_is_refused(op: str, kernel: int, auto_pad: str) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "s"], ["image"]),
        helper.make_node(op, ["image"], ["pooled"], kernel_shape=[1, kernel], auto_pad=auto_pad),
        helper.make_node("Flatten", ["pooled"], ["y"]),
    ]
    with pytest.raises(Unsupported, match=rf"node 1 \({op}, reading image\)"):
        intake.read(graph(nodes, n=6, m=6, weights={"s": np.array([-1, 1, 1, 6])}, shape=[1, 6]), "m")


def test_shapes_weights_and_outputs_that_are_refused() -> None:
    for shape in (["batch", "n"], ["a", "b", 3], None):
        if shape is not None:
            with pytest.raises(Unsupported, match="all but the batch must be fixed"):
                intake.read(graph([helper.make_node("MatMul", ["x", "w"], ["y"])], shape=shape), "m")
    with pytest.raises(Unsupported, match="observes 513 numbers"):
        intake.read(graph([helper.make_node("MatMul", ["x", "w"], ["y"])], n=513), "m")
    model = onnx.load_model_from_string(graph([helper.make_node("MatMul", ["x", "w"], ["y"])]))
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(Unsupported, match="lies in another file"):
        intake.read(model.SerializeToString(), "m")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["u"]), helper.make_node("Tanh", ["u"], ["v"])]
    with pytest.raises(InvalidInput, match="several outputs: say which drives, with --output NAME: u, v"):
        intake.read(graph(nodes, outputs=("u", "v")), "m")
    assert intake.read(graph(nodes, outputs=("u", "v")), "m", "v").head == "tanh"
    with pytest.raises(InvalidInput, match="has no output 'w'"):
        intake.read(graph(nodes, outputs=("u", "v")), "m", "w")


def test_graphs_that_want_memory_or_never_end() -> None:
    circle = [helper.make_node("Identity", ["a"], ["b"]), helper.make_node("Identity", ["b"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    with pytest.raises(PufferEdgeError):
        intake.read(graph(circle), "m")
    huge = helper.make_node("ConstantOfShape", ["s"], ["c"])
    for size in ([2**40], [2**23, 2]):
        nodes = [huge, *(helper.make_node("Add", ["c" if k == 0 else f"c{k}", "c"], [f"c{k + 1}"]) for k in range(5))]
        nodes += [MATMUL, helper.make_node("Add", ["h", "c5"], ["y"])]
        with pytest.raises(Unsupported, match=r"at most|grow beyond"):
            intake.read(graph(nodes, weights={"s": np.array(size)}), "m")
    twice = [helper.make_node("Concat", ["w"] * 5_000_000, ["c"], axis=0), MATMUL, helper.make_node("Add", ["h", "c"], ["y"])]
    with pytest.raises(Unsupported, match="at most"):
        intake.read(graph(twice), "m")


def test_through_import(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(exported(Behind(), torch.zeros(1, 3)))
    draft = read_draft(Sources(tmp_path / "m.onnx"), tmp_path)
    assert draft.origin["format"] == "onnx" and draft.origin["producer"].startswith("pytorch") and len(draft.origin["sha256"]) == 64
    with pytest.raises(InvalidInput, match="has a normaliser of its own"):
        np.savez(tmp_path / "n.npz", mean=np.zeros(3), var=np.ones(3))
        read_draft(Sources(tmp_path / "m.onnx", str(tmp_path / "n.npz")), tmp_path)
