"""ONNX: the policy in float, as the program's own integers (with or without the shield), and as symmetric int8 QDQ.

Every model takes observations and gives actions, for any number of rows, in standard operators of opset 18; a memory goes in and
comes out. The float and QDQ models take float32 and the integer ones float64 in physical units; ``policy.fixed.onnx`` alone speaks
the contract's fixed point, for those who have it already. The integer models keep to operators whose result ONNX fixes to the bit.
No model knows of time: who runs the shielded one keeps ``previous``, counts stale ticks and decides on ``fallback`` as
``docs/tick.md`` says.
"""

from __future__ import annotations

from puffer_edge.export.onnx_float import float_model
from puffer_edge.export.onnx_graph import OPSET
from puffer_edge.export.onnx_integer import integer_model
from puffer_edge.export.onnx_qdq import qdq_model
from puffer_edge.export.source import Source

__all__ = ["OPSET", "files", "float_model", "integer_model", "qdq_model"]


def files(source: Source) -> dict[str, bytes]:
    """The models of a policy.

    - ``policy.onnx``: float32.
    - ``policy.qdq.onnx``: int8 QDQ, for TensorRT.
    - ``policy.integer.onnx``: the program's bits, physical units in and out.
    - ``policy.shielded.onnx``: the same with the shield behind it.
    - ``policy.fixed.onnx``: the program's bits, int32 fixed point in and out.

    Raises:
        MissingExtra: the package onnx is not installed.
    """
    policy, program, shield = source.policy, source.image.program, source.image.shield
    return {
        "policy.onnx": float_model(policy),
        "policy.qdq.onnx": qdq_model(policy, source.observations, source.starts),
        "policy.integer.onnx": integer_model(program, physical=True),
        "policy.shielded.onnx": integer_model(program, shield, physical=True),
        "policy.fixed.onnx": integer_model(program),
    }
