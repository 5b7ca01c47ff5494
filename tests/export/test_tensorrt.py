"""TensorRT: engines build from every kind of model, without a GPU; the script runs the lines that the page shows."""

from __future__ import annotations

import importlib
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import puffer_edge
from puffer_edge.device import target
from puffer_edge.errors import MissingExtra, Unsupported
from puffer_edge.export import tensorrt
from puffer_edge.export.bundle import export
from puffer_edge.export.onnx_float import float_model
from puffer_edge.export.onnx_graph import Graph
from puffer_edge.export.onnx_qdq import qdq_model
from puffer_edge.layers import Conv, Layer, Recurrent
from puffer_edge.policy import Policy
from tests import samples
from tests.export import nets

pytest.importorskip("onnx")


def quantised(policy: Policy) -> bytes:
    return qdq_model(policy, nets.observations(policy.contract, 640))


def check(engine: tensorrt.Engine, policy: Policy) -> None:
    """A whole engine (TensorRT's mark, and the length that its header states), with the tensors that the contract asks for."""
    c = policy.contract
    assert engine.data[1:4] == b"trt" and struct.unpack_from("<Q", engine.data, 16) == (len(engine.data),)
    memory = {"memory": ((-1, policy.memory), "float")} if policy.memory else {}
    assert engine.inputs == {"observation": ((-1, c.n_observations), "float")} | memory
    after = {"memory_out": ((-1, policy.memory), "float")} if policy.memory else {}
    choice = {"discrete": {"choice": ((-1,), "int64")}, "multi_discrete": {"choice": ((-1, c.n_actions), "int64")}}.get(c.head, {})
    assert engine.outputs == {"action": ((-1, c.n_actions), "float")} | after | choice
    assert all(name.encode() in engine.data for name in (*engine.inputs, *engine.outputs))


@pytest.mark.parametrize("kind", nets.KINDS)
def test_engines_build_without_a_gpu(kind: str) -> None:
    """Float and QDQ: MLP, convolutions, pools, GRU, LSTM."""
    pytest.importorskip("tensorrt_rtx_bindings")
    policy = nets.policy(kind)
    plain, coded = tensorrt.build(float_model(policy)), tensorrt.build(quantised(policy))
    for engine in (plain, coded):
        check(engine, policy)
    products = 2 * sum(isinstance(layer, (Layer, Conv)) for layer in policy.layers) + 4 * sum(isinstance(layer, Recurrent) for layer in policy.layers)
    assert (plain.layers.count("dequantize"), coded.layers.count("dequantize")) == (0, products)


@pytest.mark.parametrize("head", ["discrete", "multi_discrete", "tanh"])
def test_engines_of_other_heads_and_batches_build(head: str) -> None:
    pytest.importorskip("tensorrt_rtx_bindings")
    policy = nets.policy("gru", head)
    for model in (float_model(policy), quantised(policy)):
        check(tensorrt.build(model, 16), policy)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "elu", "silu", "leaky_relu", "gelu"])
def test_engines_of_other_activations_build(activation: str) -> None:
    pytest.importorskip("tensorrt_rtx_bindings")
    policy = nets.policy("conv2d", activation=activation)
    check(tensorrt.build(quantised(policy)), policy)


def test_a_zero_point_is_refused_with_the_parsers_words() -> None:
    """What makes the check worth something: TensorRT does refuse a form of QDQ that others take."""
    pytest.importorskip("tensorrt_rtx_bindings")
    g = Graph()
    step, zero = g.floats("a scale", 0.1), g.constant(3, np.int8)
    x = g.emit("DequantizeLinear", g.emit("QuantizeLinear", g.input("observation", np.float32, 4), step, zero), step, zero)
    g.output("action", x, np.float32, 4)
    with pytest.raises(Unsupported, match=r"TensorRT refuses the model: .*zero"):
        tensorrt.build(g.model("asymmetric", samples.many_channels(), {}))


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    with pytest.raises(MissingExtra, match=r"puffer-edge\[tensorrt\]"):
        tensorrt.build(b"")


RECORDER = '#!/bin/sh\nfor word in "$@"; do case "$word" in --saveEngine=*) echo "$@" > "${word#*=}" ;; esac; done\n'


def ran(folder: Path, policy: Policy, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The script with a ``trtexec`` that writes its arguments where the engine goes."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin/trtexec").write_text(RECORDER)
    (folder / "bin/trtexec").chmod(0o755)
    (folder / "build_engine.sh").write_text(tensorrt.script(policy))
    command = ["sh", str(folder / "build_engine.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"})


@pytest.mark.parametrize("kind", ["dense", "lstm"])
def test_the_script_runs_the_lines_of_the_page(kind: str, tmp_path: Path) -> None:
    policy = nets.policy(kind)
    shown = re.findall(r"^    (trtexec .*)$", tensorrt.page(policy), re.MULTILINE)
    assert len(shown) == 3 and all("observation:1x24" in line for line in shown) and ("memory:1x16" in shown[0]) == (kind == "lstm")
    for line, arguments in zip(shown, ([], ["float"], ["qdq", "64"])):
        assert ran(tmp_path, policy, *arguments).returncode == 0
        engine = (tmp_path / "policy.engine").read_text()
        assert "trtexec " + engine.replace("policy.engine.new", "policy.engine").strip() == line


@pytest.mark.parametrize(("arguments", "match"), [(["int4"], "qdq or float"), (["qdq", "many"], "whole number"), (["qdq", "0"], "whole number")])
def test_the_script_refuses_what_it_does_not_know(arguments: list[str], match: str, tmp_path: Path) -> None:
    result = ran(tmp_path, nets.policy("dense"), *arguments)
    assert result.returncode == 2 and match in result.stderr and not (tmp_path / "policy.engine").exists()


def test_latencies_are_of_a_gpu_or_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark: what it measures with the CPU provider, which every machine has, and that it asks for more than that."""
    pytest.importorskip("onnxruntime")
    monkeypatch.syspath_prepend(str(Path(puffer_edge.__file__).parents[1] / "benchmarks"))
    benchmark = importlib.import_module("tensorrt_latency")
    with pytest.raises(Unsupported, match=r"no provider for a GPU .* onnxruntime-gpu"):
        benchmark.gpu_providers([benchmark.CPU])
    assert benchmark.gpu_providers([benchmark.CPU, "CUDAExecutionProvider"]) == ["CUDAExecutionProvider"]
    measured = benchmark.rows("gru64", [], 5, 0)
    assert [(row["model"], row["batch"], row["provider"]) for row in measured] == [(m, b, "CPU") for m in ("float", "qdq") for b in (1, 64)]
    assert all(row["p99_us"] >= row["median_us"] > 0 for row in measured)


def test_a_jetson_bundle_holds_models_that_build(tmp_path: Path) -> None:
    """Of a policy with memory: everything for TensorRT is in the folder, and formats that have no such layer are left out by name."""
    pytest.importorskip("tensorrt_rtx_bindings")
    policy = nets.policy("lstm", "discrete")
    held = export(policy, target.load("jetson"), tmp_path / "bundle", nets.observations(policy.contract, 640), [])
    assert {"onnx", "tensorrt"} <= set(held.manifest["formats"])
    assert held.manifest["left_out"]["vnnlib"].startswith("layer 1 is a recurrent")
    folder = held.path / "tensorrt"
    assert {path.name for path in folder.iterdir()} == {*tensorrt.MODELS.values(), "build_engine.sh", "README.md"}
    for name in tensorrt.MODELS.values():
        model = (folder / name).read_bytes()
        assert model == (held.path / name).read_bytes()
        check(tensorrt.build(model), policy)
