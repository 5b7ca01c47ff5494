"""TensorFlow's converter: what it needs, and its file behind the policy's normaliser and head. The converter itself runs in the benchmark."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from puffer_edge.errors import MissingExtra, Unsupported
from puffer_edge.export.tflite_converter import Converted, convert
from puffer_edge.export.tflite_file import Graph, Writer
from puffer_edge.integer.reference import InFloat
from puffer_edge.layers import Layer
from puffer_edge.policy import Policy
from tests import samples

schema = pytest.importorskip("tflite")
flatbuffers = pytest.importorskip("flatbuffers")
pytest.importorskip("tflite_micro")


def int8_to_int8(policy: Policy) -> bytes:
    """One dense layer as the converter writes it: int8 in, int8 out, scales in the tensors."""
    layer, g = policy.layers[0], Graph()
    assert isinstance(layer, Layer)
    step, out = float(np.float32(4 / 127)), float(np.float32(12 / 127))
    weight_step = np.abs(layer.weight).max(1) / 127
    x = g.add("x", (1, layer.n_in), "int8", step, 3)
    w = g.add("w", layer.weight.shape, "int8", weight_step, 0, np.rint(layer.weight / weight_step[:, None]).astype(np.int8).tobytes())
    b = g.add("b", layer.bias.shape, "int32", step * weight_step, 0, np.rint(layer.bias / (step * weight_step)).astype("<i4").tobytes())
    g.apply("FULLY_CONNECTED", 4, (x, w, b), g.add("y", (1, layer.n_out), "int8", out, -5), "FullyConnected", {"FusedActivationFunction": 0})
    return Writer(flatbuffers.Builder(1024), schema).file(g, "as converted", {})


@pytest.mark.parametrize("head", ["clip", "tanh", "discrete", "multi_discrete"])
def test_a_converted_file_proposes_what_the_policy_does(head: str) -> None:
    policy = samples.policy(samples.image_contract(head), ())
    c, converted, floats = policy.contract, Converted(policy, int8_to_int8(policy)), InFloat(policy)
    ints, _, _ = c.observe(samples.episodes(c, 300)[0])
    got, wanted = c.physical_action(converted.run(ints)), c.physical_action(floats.run(ints))
    span = np.array([ch.high - ch.low for ch in c.actions])
    assert (np.abs(got - wanted) / span < 0.06).all(1).mean() > 0.8
    assert converted.contract is c and converted.start(3).shape == (3, 0)


def test_without_tensorflow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = samples.network("mlp")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingExtra, match=r"puffer-edge\[tensorflow\]"):
        convert(policy, samples.episodes(policy.contract, 50)[0])


def test_a_policy_with_memory_goes_our_way() -> None:
    policy = samples.network("lstm")
    with pytest.raises(Unsupported, match="leave --converter away"):
        convert(policy, samples.episodes(policy.contract, 50)[0])
