"""The text of what is exported for computers, reviewed as a diff: graphs without their numbers, the script, a property."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from puffer_edge.export import tensorrt, vnnlib
from puffer_edge.export.onnx_float import float_model
from puffer_edge.export.onnx_integer import integer_model
from puffer_edge.export.onnx_qdq import qdq_model
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import Policy
from tests.export import nets

onnx = pytest.importorskip("onnx")
GOLDEN = Path(__file__).parents[1] / "golden"


def listing(model: bytes) -> str:
    """A graph as one line a tensor or node; constants by type and shape."""
    graph = onnx.load_from_string(model).graph
    kind = onnx.TensorProto.DataType.Name

    def declared(tensor: onnx.ValueInfoProto) -> str:
        shape = ", ".join(d.dim_param or str(d.dim_value) for d in tensor.type.tensor_type.shape.dim)
        return f"{tensor.name}: {kind(tensor.type.tensor_type.elem_type).lower()}[{shape}]"

    constants = {c.name: f"{kind(c.data_type).lower()}{list(c.dims)}" for c in graph.initializer}
    lines = [f"in  {declared(tensor)}" for tensor in graph.input]
    for node in graph.node:
        attributes = "".join(f" {a.name}={onnx.helper.get_attribute_value(a)}" for a in sorted(node.attribute, key=lambda a: str(a.name)))
        lines.append(f"{', '.join(node.output)} = {node.op_type}({', '.join(constants.get(name, name) for name in node.input)}){attributes}")
    return "\n".join([*lines, *(f"out {declared(tensor)}" for tensor in graph.output)]) + "\n"


def integers(policy: Policy) -> bytes:
    program = quantize(policy, nets.observations(policy.contract, 600))
    return integer_model(program, Shield.build(policy.contract, [{"stage": "limit"}]), physical=True)


TEXTS: dict[str, Callable[[], str]] = {
    "lstm.onnx.txt": lambda: listing(float_model(nets.policy("lstm", "discrete"))),
    "conv_gru.qdq.onnx.txt": lambda: listing(qdq_model(nets.policy("conv_gru"), nets.observations(nets.contract(), 600))),
    "depthwise.shielded.onnx.txt": lambda: listing(integers(nets.policy("depthwise"))),
    "network.onnx.txt": lambda: listing(vnnlib.network(nets.policy("dense", "tanh"))),
    "servo0_inside.vnnlib": lambda: vnnlib.properties(nets.policy("dense"))[0].text(),
    "build_engine.sh": lambda: tensorrt.script(nets.policy("gru")),
}


@pytest.mark.parametrize("name", TEXTS)
def test_exported_text_is_the_reviewed_one(name: str) -> None:
    """Renew the golden files with: PUFFER_EDGE_RENEW_GOLDEN=1 pytest tests/export/test_onnx_golden.py"""
    text = TEXTS[name]()
    if os.environ.get("PUFFER_EDGE_RENEW_GOLDEN"):
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text()
