"""How long does a policy take on a GPU, through ONNX Runtime's CUDA and TensorRT providers? One row at a time, and in batches.

Needs a machine with an NVIDIA GPU and the package onnxruntime-gpu in place of onnxruntime. Every time is of a whole call from numpy to
numpy, copies to the GPU and back included, as a control loop sees it; beside it, from the same run, the CPU provider on one core.

python benchmarks/tensorrt_latency.py [--calls 2000] [--seed 0]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.errors import Unsupported
from puffer_edge.export.onnx_float import float_model
from puffer_edge.export.onnx_qdq import qdq_model
from puffer_edge.layers import AnyLayer, Layer, Recurrent
from puffer_edge.policy import Head, Normalizer, Policy

ON_A_GPU = ("TensorrtExecutionProvider", "CUDAExecutionProvider")
CPU = "CPUExecutionProvider"
INPUTS, ACTIONS, WARM_UP = 24, 4, 50
BATCHES = (1, 64)


def gpu_providers(available: Sequence[str]) -> list[str]:
    """The providers to measure.

    Raises:
        Unsupported: this ONNX Runtime has none for a GPU.
    """
    found = [name for name in ON_A_GPU if name in available]
    if not found:
        raise Unsupported(
            f"this ONNX Runtime has no provider for a GPU (it has {', '.join(available)}): "
            "on a machine with an NVIDIA GPU, pip uninstall onnxruntime && pip install onnxruntime-gpu"
        )
    return found


def make_policy(kind: str, seed: int) -> Policy:
    """A policy of 24 observations and four actions: "2x64", "gru64" or "lstm64"."""
    rng = np.random.default_rng(seed)
    c = Contract(
        "latency",
        tuple(ObservationChannel(f"s{i}", "1", -1, 1) for i in range(INPUTS)),
        tuple(ActionChannel(f"a{j}", "1", -1, 1, 0, 0) for j in range(ACTIONS)),
        "tanh",
        100.0,
    )

    def dense(inputs: int, outputs: int, activation: str) -> Layer:
        return Layer(rng.standard_normal((outputs, inputs)) / np.sqrt(inputs), np.zeros(outputs), activation)

    hidden: AnyLayer = dense(64, 64, "tanh")
    if kind != "2x64":
        rows = 64 * (3 if kind == "gru64" else 4)
        given, kept = rng.standard_normal((2, rows, 64)) / 8
        hidden = Recurrent(kind.removesuffix("64"), given, kept, np.zeros(rows), np.zeros(rows))
    layers = (dense(INPUTS, 64, "tanh"), hidden, dense(64, ACTIONS, "none"))
    return Policy(c, layers, Normalizer(np.zeros(INPUTS), np.ones(INPUTS)), Head("tanh", np.ones(ACTIONS), np.zeros(ACTIONS)))


def session(model: bytes, provider: str) -> Any:
    """A model on one provider; what it does not take falls to the CPU, as ONNX Runtime does it.

    Raises:
        Unsupported: ONNX Runtime gave up the provider: no driver, no GPU, or a library that is missing.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    made = onnxruntime.InferenceSession(model, options, providers=[provider] if provider == CPU else [provider, CPU])
    if made.get_providers()[0] != provider:
        raise Unsupported(f"ONNX Runtime could not start {provider}: its warning above says what is missing")
    return made


def latencies_us(made: Any, policy: Policy, batch: int, calls: int, seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(calls,) microseconds a call, the memory fed back."""
    x = np.random.default_rng(seed).uniform(-1, 1, (calls + WARM_UP, batch, INPUTS)).astype(np.float32)
    memory = np.zeros((batch, policy.memory), np.float32)
    names, taken = [o.name for o in made.get_outputs()], []
    for observation in x:
        feeds = {"observation": observation} | ({"memory": memory} if policy.memory else {})
        start = time.perf_counter()
        result = made.run(None, feeds)
        taken.append((time.perf_counter() - start) * 1e6)
        memory = dict(zip(names, result)).get("memory_out", memory)
    return np.array(taken[WARM_UP:])


def rows(kind: str, providers: Sequence[str], calls: int, seed: int) -> list[dict[str, Any]]:
    """Every model, batch and provider of one policy."""
    policy, found = make_policy(kind, seed), []
    seen = np.random.default_rng(seed).uniform(-1, 1, (2000, INPUTS))
    for form, model in (("float", float_model(policy)), ("qdq", qdq_model(policy, seen))):
        for batch in BATCHES:
            cpu = 0.0
            for provider in (CPU, *providers):
                taken = latencies_us(session(model, provider), policy, batch, calls, seed)
                cpu = cpu or float(np.median(taken))
                row = {"net": kind, "model": form, "batch": batch, "provider": provider.removesuffix("ExecutionProvider")}
                row |= {"median_us": round(float(np.median(taken)), 1), "p99_us": round(float(np.quantile(taken, 0.99)), 1)}
                found.append(row | {"times_cpu": round(float(np.median(taken)) / cpu, 2)})
    return found


def main() -> None:
    """Run every net, print and save the table."""
    import onnxruntime
    from record import save, show

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    settings = vars(parser.parse_args())
    try:
        providers = gpu_providers(onnxruntime.get_available_providers())
        measured = [row for kind in ("2x64", "gru64", "lstm64") for row in rows(kind, providers, settings["calls"], settings["seed"])]
    except Unsupported as error:
        sys.exit(f"tensorrt_latency: {error}")
    show("A call of ONNX Runtime, from numpy to numpy", measured)
    save("tensorrt_latency", settings=settings | {"onnxruntime": onnxruntime.__version__}, rows=measured)


if __name__ == "__main__":
    main()
