"""TensorRT: what a Jetson builds its engine from, models, the trtexec lines and a script; and a check that the models build at all.

An engine belongs to one GPU and one TensorRT version, so it is built on the Jetson and travels nowhere. The check builds with
TensorRT-RTX, which needs no GPU. That is another product than the TensorRT of a Jetson, with the same ONNX parser: strong evidence,
not proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from puffer_edge.errors import MissingExtra, Unsupported
from puffer_edge.export.onnx_float import float_model
from puffer_edge.export.onnx_qdq import qdq_model
from puffer_edge.export.source import Source
from puffer_edge.policy import Policy

FOLDER = "tensorrt"
MODELS = {"qdq": "policy.qdq.onnx", "float": "policy.onnx"}
"""What the script's first argument selects."""
LARGEST_BATCH = 64
"""Of the dynamic profile that the page shows."""


def files(source: Source) -> dict[str, bytes]:
    """``tensorrt/``: both models, ``build_engine.sh`` and a page.

    Raises:
        MissingExtra: the package onnx is not installed.
    """
    held = {
        MODELS["float"]: float_model(source.policy),
        MODELS["qdq"]: qdq_model(source.policy, source.observations, source.starts),
        "build_engine.sh": script(source.policy).encode(),
        "README.md": page(source.policy).encode(),
    }
    return {f"{FOLDER}/{name}": data for name, data in held.items()}


def shapes(policy: Policy, rows: str) -> str:
    """Every input's shape for so many rows, as trtexec reads it."""
    inputs = {"observation": policy.contract.n_observations} | ({"memory": policy.memory} if policy.memory else {})
    return ",".join(f"{name}:{rows}x{width}" for name, width in inputs.items())


def trtexec(policy: Policy, model: str = "qdq", largest: int | None = None) -> str:
    """The line that builds ``policy.engine``.

    Args:
        policy: the policy.
        model: "qdq" or "float".
        largest: rows of the largest batch of a dynamic profile; None for a static one of a single row, which the runner asks for.
    """
    line = f"trtexec --onnx={MODELS[model]} --saveEngine=policy.engine --stronglyTyped"
    if largest is None:
        return f"{line} --shapes={shapes(policy, '1')}"
    rows = {"min": "1", "opt": "1", "max": str(largest)}
    return " ".join([line, *(f"--{end}Shapes={shapes(policy, count)}" for end, count in rows.items())])


def script(policy: Policy) -> str:
    """``build_engine.sh``: those lines, for whoever runs it on the Jetson."""
    return f"""#!/bin/sh
# Builds policy.engine on this computer, for its GPU and its TensorRT (10 or newer).
# usage: sh build_engine.sh [qdq|float] [rows of the largest batch, 1 if not given]
set -eu
cd "$(dirname "$0")"
case "${{1:-qdq}}" in
    qdq) model={MODELS["qdq"]} ;;
    float) model={MODELS["float"]} ;;
    *) echo "the model is qdq or float, not $1" >&2; exit 2 ;;
esac
case "${{2:-1}}" in
    0* | *[!0-9]*) echo "the largest batch is a whole number of rows, not $2" >&2; exit 2 ;;
esac
trtexec=$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)
if [ ! -x "$trtexec" ]; then
    echo "there is no trtexec here: install TensorRT (JetPack: apt-get install tensorrt), or put it on the PATH" >&2
    exit 3
fi
if [ "${{2:-1}}" = 1 ]; then
    set -- --shapes={shapes(policy, "1")}
else
    set -- --minShapes={shapes(policy, "1")} --optShapes={shapes(policy, "1")} "--maxShapes={shapes(policy, "$2")}"
fi
"$trtexec" --onnx="$model" --saveEngine=policy.engine.new --stronglyTyped "$@"
mv policy.engine.new policy.engine
"""


def page(policy: Policy) -> str:
    """``README.md`` of the folder."""
    memory = (
        "\nThe network has a memory: `memory` goes in and `memory_out` comes out. Feed it back, and give zeros at the start of an episode.\n"
        if policy.memory
        else ""
    )
    return f"""# TensorRT

`policy.qdq.onnx` is the policy in int8, symmetric, with float biases; `policy.onnx` is the policy in float32. Both take `observation`
in physical units and give `action` in physical units, inside the contract's range. They are not the program's integers, and nothing
of the shield is in them: run them behind it. The Linux runner of the bundle does (`--engine tensorrt`).
{memory}
Build the engine on the computer that runs it, with TensorRT 10 or newer (JetPack 6.1 or newer):

    sh build_engine.sh               # int8, one row at a time, as the runner asks
    sh build_engine.sh float         # float32
    sh build_engine.sh qdq {LARGEST_BATCH}        # a dynamic batch of 1 to {LARGEST_BATCH} rows

These lines are run by it:

    {trtexec(policy)}
    {trtexec(policy, "float")}
    {trtexec(policy, "qdq", LARGEST_BATCH)}

`--stronglyTyped` makes TensorRT keep the types of the file: int8 where the file quantises, float32 elsewhere. No other precision flag
belongs here. At this size a network does not fill a GPU: expect launch overhead, not arithmetic, and measure with `trtexec
--loadEngine=policy.engine`.

Tested: the project builds engines of such models with TensorRT-RTX, another product with the same parser, without a GPU. No engine of
ours has run on a Jetson.
"""


@dataclass(frozen=True)
class Engine:
    """A serialized engine, as it was built.

    Attributes:
        data: the serialized bytes.
        inputs: shape and type by name; −1 is open.
        outputs: the same of the outputs.
        layers: kind of every layer that the parser made, in order.
    """

    data: bytes
    inputs: dict[str, tuple[tuple[int, ...], str]]
    outputs: dict[str, tuple[tuple[int, ...], str]]
    layers: tuple[str, ...]


def build(model: bytes, largest: int = 1, capability: str = "SM89") -> Engine:
    """Build a serialized engine with TensorRT-RTX, which needs no GPU: does the parser take the model, and the compiler too?

    Args:
        model: an ONNX model whose first dimensions are open, as this package writes it.
        largest: rows of the largest batch; the smallest is 1.
        capability: compute capability to build for, one of TensorRT-RTX's own names.

    Raises:
        MissingExtra: TensorRT-RTX is not installed.
        Unsupported: the parser or the builder refuses the model; the message has its words.
    """
    try:
        from tensorrt_rtx_bindings import tensorrt_rtx as trt
    except ImportError:
        raise MissingExtra("tensorrt", "building an engine without a GPU") from None
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        raise Unsupported("TensorRT refuses the model: " + "; ".join(parser.get_error(k).desc() for k in range(parser.num_errors)))
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    inputs = [network.get_input(k) for k in range(network.num_inputs)]
    for tensor in inputs:
        fixed = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, (1, *fixed), (1, *fixed), (largest, *fixed))
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise Unsupported("TensorRT reads the model, but builds no engine from it; its log on standard error says why")
    outputs = [network.get_output(k) for k in range(network.num_outputs)]
    layers = tuple(_word(network.get_layer(k).type) for k in range(network.num_layers))
    return Engine(bytes(plan), _declared(inputs), _declared(outputs), layers)


def _declared(tensors: list[Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {tensor.name: (tuple(tensor.shape), _word(tensor.dtype)) for tensor in tensors}


def _word(member: Any) -> str:
    """The name of a member of one of TensorRT's enumerations."""
    return str(member).rpartition(".")[2].lower()
