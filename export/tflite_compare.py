"""A ``.tflite`` file in other people's interpreters, and by how much they may differ from the program.

- TFLite-Micro rounds twice, as every device of this package does: not one bit may differ.
- LiteRT (the successor of tflite-runtime, which has no release that works with numpy 2) rounds once in its reference kernel of
  FULLY_CONNECTED, and twice in those of convolutions: with ``factors`` the program must have its bits. Its default kernels, XNNPACK's,
  round in ways of their own, and its LSTM is another; by how much they differ is measured (``benchmarks/tflite_parity.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from puffer_edge.errors import MissingExtra
from puffer_edge.export.tflite import by_position, covered
from puffer_edge.integer.ops import Array, exact_dot
from puffer_edge.integer.ops.dense import LIFT, Dense
from puffer_edge.integer.program import Program
from puffer_edge.integer.rounding import clamp, requantise_once
from puffer_edge.spaces import Floats

Step = Callable[[Array], Array]
"""(rows, n_in) to (rows, n_out); a recurrent network goes on from one call to the next."""


def program_steps(program: Program, rows: int, once: Sequence[Floats] | None = None) -> Step:
    """What the program computes between its input step and its head, memory and all.

    Args:
        program: the policy in integers.
        rows: of every call.
        once: ``factors`` of its file, for single rounding where LiteRT's reference kernels have it; None: the program itself.
    """
    ops = covered(program)
    memories = [np.zeros((rows, op.memory), np.int16) for op in ops]

    def step(x: Array) -> Array:
        left = iter(once or ())
        for k, op in enumerate(ops):
            if once is not None and isinstance(op, Dense) and not by_position(op):
                x = _dense_once(op, x, next(left))
            else:
                x, memories[k] = op.step(x, memories[k])
        return x

    return step


def factors(model: bytes) -> list[Floats]:
    """Of each FULLY_CONNECTED of a ``.tflite`` file, in order: (rows,) or (1,) the real factors from its sums to its output.

    Raises:
        MissingExtra: the schema package is not installed.
    """
    try:
        import tflite as schema
    except ImportError:
        raise MissingExtra("tflite", "reading a .tflite file") from None
    file = schema.Model.GetRootAsModel(model, 0)
    graph, found = file.Subgraphs(0), []
    for k in range(graph.OperatorsLength()):
        op = graph.Operators(k)
        if file.OperatorCodes(op.OpcodeIndex()).BuiltinCode() == schema.BuiltinOperator.FULLY_CONNECTED:
            given, weight, to = (graph.Tensors(t).Quantization().ScaleAsNumpy().astype(np.float64) for t in (*op.InputsAsNumpy()[:2], op.Outputs(0)))
            found.append(given * weight / to)
    return found


def _dense_once(op: Dense, x: Array, factor: Floats) -> Array:
    """``op.run`` with single rounding by the real factor."""
    total = exact_dot(x, op.weight) + op.bias << (LIFT if op.wide else 0)
    result: Array = clamp(requantise_once(total, factor) + op.zero, op.low, op.high).astype(np.int16 if op.out_bytes == 2 else np.int8)
    return result


def inputs(program: Program, rows: int, rng: np.random.Generator) -> Array:
    """(rows, n) random inputs of the covered part, a quarter of the rows from the ends of the range and around zero."""
    first = covered(program)[0]
    dtype = np.dtype(np.int16 if first.in_bytes == 2 else np.int8)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    x = rng.integers(low, high, (rows, first.n_in), endpoint=True)
    x[: rows // 4] = rng.choice([low, low + 1, -1, 0, 1, high - 1, high], (rows // 4, first.n_in))
    return x.astype(dtype)


def micro(model: bytes, rows: int, arena_bytes: int = 1 << 24) -> Step:
    """TFLite-Micro's own interpreter, from cleared memory.

    Args:
        model: a ``.tflite`` file.
        rows: its batch.
        arena_bytes: memory for it.

    Raises:
        MissingExtra: the package tflite-micro is not installed.
    """
    try:
        from tflite_micro.python.tflite_micro import runtime
    except ImportError:
        raise MissingExtra("tflm", "running TFLite-Micro") from None
    interpreter = runtime.Interpreter.from_bytes(model, arena_size=arena_bytes)
    shape = interpreter.get_input_details(0)["shape"]

    def step(x: Array) -> Array:
        interpreter.set_input(np.ascontiguousarray(x).reshape(shape), 0)
        interpreter.invoke()
        result: Array = interpreter.get_output(0).reshape(rows, -1)
        return result

    return step


def litert(model: bytes, rows: int, reference: bool) -> Step:
    """LiteRT's interpreter, from cleared memory.

    Args:
        model: a ``.tflite`` file.
        rows: its batch.
        reference: its reference kernels; False: what it runs by default.

    Raises:
        MissingExtra: the package ai-edge-litert is not installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError:
        raise MissingExtra("litert", "running LiteRT") from None
    kind = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    interpreter = Interpreter(model_content=model, experimental_op_resolver_type=kind, num_threads=1)
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def step(x: Array) -> Array:
        interpreter.set_tensor(taken["index"], np.ascontiguousarray(x).reshape(taken["shape"]))
        interpreter.invoke()
        result: Array = np.array(interpreter.get_tensor(given["index"])).reshape(rows, -1)
        return result

    return step
