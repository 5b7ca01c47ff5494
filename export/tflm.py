"""TensorFlow Lite Micro: the network as a C array with its operators and measured memory; all around it as plain C, with board programs.

The C is printed from ``templates/tflm``: input step and action map are the operations as the image packs them, run by the engine's own
kernels; the shield is printed; a tick is that of ``docs/tick.md`` with the network as a function that is given to it.
"""

from __future__ import annotations

from importlib import metadata

import numpy as np

from puffer_edge import __version__
from puffer_edge.errors import MissingExtra, Unsupported
from puffer_edge.export.c import engine_files
from puffer_edge.export.source import Source, fill, templates
from puffer_edge.export.tflite import covered, graph, tflite
from puffer_edge.export.tflm_arena import arena_bytes
from puffer_edge.integer.ops import Array, Op
from puffer_edge.integer.ops.affine import Affine
from puffer_edge.integer.ops.argmax import Argmax
from puffer_edge.integer.ops.choices import Choices
from puffer_edge.integer.ops.input import Input
from puffer_edge.integer.ops.lookup16 import Lookup16
from puffer_edge.integer.program import Program

OPERATORS = {
    "AVERAGE_POOL_2D": "AveragePool2D",
    "CONV_2D": "Conv2D",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
    "ELU": "Elu",
    "FULLY_CONNECTED": "FullyConnected",
    "LOGISTIC": "Logistic",
    "MAX_POOL_2D": "MaxPool2D",
    "PAD": "Pad",
    "QUANTIZE": "Quantize",
    "RESHAPE": "Reshape",
    "TANH": "Tanh",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
}
"""What MicroMutableOpResolver calls an operator: its method is Add and this."""
KERNELS = {Input: "pe_input", Lookup16: "pe_lookup16", Affine: "pe_affine", Argmax: "pe_argmax", Choices: "pe_choices"}
"""The engine's function for an operation outside the network."""
HEADERS = ("pe_engine.h", "pe_ops.h", "pe_protocol.h")


def files(source: Source) -> dict[str, bytes]:
    """``tflm/``: the sources, three board programs and a page.

    Raises:
        Unsupported: as of ``tflite``; or TFLite-Micro's interpreter, which measures the memory, is not installed.
    """
    values = _values(source)
    found = {}
    for path, text in templates("tflm"):
        named = path.replace("src/", f"src/{source.name}_", 1) if path.startswith("src/") else path
        found[f"tflm/{named}"] = fill(text, values).encode()
    engine = engine_files()
    kernels = {f"{KERNELS[type(op)]}.c" for op in (source.image.program.ops[0], *after(source.image.program))}
    return found | {f"tflm/src/{name}": engine[name] for name in (*HEADERS, *sorted(kernels))}


def after(program: Program) -> tuple[Op, ...]:
    """The operations that follow the network: the head, and the table before it where there is one."""
    return program.ops[1 + len(covered(program)) :]


def _values(source: Source) -> dict[str, str]:
    """What the templates ask for."""
    program, c = source.image.program, source.image.contract
    model = tflite(program)
    try:
        arena = arena_bytes(model)
    except MissingExtra as error:
        raise Unsupported(f"the size of TFLite-Micro's memory is measured with its own interpreter: {error}") from None
    kinds = sorted({o.kind for o in graph(program).operators})
    adds = [f"    if (resolver.Add{OPERATORS[kind]}() != kTfLiteOk)\n        return {source.name.upper()}_NO_OPERATORS;" for kind in kinds]
    first, last = covered(program)[0], covered(program)[-1]
    sizes = {"n": c.n_observations, "m": c.n_actions, "inputs": first.n_in, "bits": 8 * first.in_bytes, "outputs": last.n_out}
    ticks = {"period_us": c.period_us, "divider": c.policy_divider, "stale_limit": c.staleness_limit, "steps": len(source.image.vectors)}
    bytes_of = {"model_bytes": len(model), "arena": arena, "operator_count": len(kinds)}
    return {
        "name": source.name,
        "NAME": source.name.upper(),
        "title": source.title,
        "version": __version__,
        "tflm": metadata.version("tflite-micro"),
        "channels": source.channels,
        "rate": f"{c.rate_hz:g}",
        "stages": ", ".join(source.image.shield.stages) or "none",
        "contract": c.digest.hex(),
        "operators": ", ".join(kinds),
        "add_operators": "\n".join(adds),
        "model": _rows(np.frombuffer(model, np.uint8), 24),
        "shield": source.image.shield.to_c(f"{source.name}_shield"),
        **{key: str(value) for key, value in (sizes | ticks | bytes_of).items()},
        **_channels(source),
        **_ends(program),
    }


def _channels(source: Source) -> dict[str, str]:
    """Ranges and vectors as C initialisers."""
    c, v = source.image.contract, source.image.vectors
    values = {
        "observation_low": c.observation_low,
        "observation_high": c.observation_high,
        "observation_shift": c.shield_shift,
        "action_low": c.action_low,
        "action_high": c.action_high,
        "action_safe": c.action_safe,
        "action_initial": c.action_initial,
    }
    steps = np.concatenate([a.astype(np.int64) for a in (v.flags[:, None], v.observation, v.raw, v.applied, v.outcome[:, None])], 1) & 0xFFFFFFFF
    lines = "\n".join("    {" + ", ".join(f"{n}u" for n in row) + "}," for row in steps.tolist())
    return {key: ", ".join(str(int(n)) for n in value) for key, value in values.items()} | {"vectors": lines}


def _ends(program: Program) -> dict[str, str]:
    """The packed operations at both ends as words, and the calls that lead from the network's output to the action."""
    tail = after(program)
    arrays, calls, held = [], [], "head"
    for k, op in enumerate((program.ops[0], *tail)):
        words = np.frombuffer(op.pack(), "<u4")
        arrays.append(f"static const uint32_t operation_{k}[] = {{ /* {type(op).__name__.lower()} */\n{_rows(words, 8, 'u')}\n}};")
    for k, op in enumerate(tail, 1):
        to = "raw" if k == len(tail) else f"table_{k}"
        if to != "raw":
            calls.append(f"    int16_t {to}[{op.n_out}];")
        calls.append(f"    {KERNELS[type(op)]}((const void *)operation_{k}, {held}, {to}, NULL);")
        held = to
    return {"operations": "\n".join(arrays), "action_map": "\n".join(calls)}


def _rows(values: Array, a_row: int, suffix: str = "") -> str:
    """Numbers as the inside of a C initialiser."""
    numbers = [f"{n}{suffix}" for n in values.tolist()]
    return "\n".join("    " + ", ".join(numbers[k : k + a_row]) + "," for k in range(0, len(numbers), a_row))
