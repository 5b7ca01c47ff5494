"""The program in ONNX, bit for bit: in physical units or in the contract's fixed point, with its memory, with or without the shield."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from puffer_edge.contract import Contract
from puffer_edge.export import onnx_ops
from puffer_edge.export.onnx_graph import Graph
from puffer_edge.integer.expression import to_onnx
from puffer_edge.integer.ops.argmax import Argmax
from puffer_edge.integer.ops.choices import Choices
from puffer_edge.integer.program import Program
from puffer_edge.integer.shield import Shield


def integer_model(program: Program, shield: Shield | None = None, physical: bool = False) -> bytes:
    """A program, bit for bit.

    In fixed point: input ``observation`` [batch, n] int32, in the contract's fixed point; beyond its range it saturates. Output
    ``action`` [batch, m] int32, what the program proposes.

    ``physical``: input ``observation`` [batch, n] float64 in physical units, made fixed point inside, as ``Contract.observe`` does;
    float64 holds every value of the fixed point, which float32 does not. Output ``action`` [batch, m] float64 in physical units; the
    integers are ``action_fixed`` [batch, m] int32. Output ``invalid`` [batch] int32 is 1 where a number of the row is NaN or infinite:
    then the action means nothing, and the safe output must act.

    A discrete head: further output ``choice`` [batch] int64 (multi-discrete: [batch, m]). A program with memory: further input
    ``memory`` [batch, k] int16, zeros at the start, and output ``memory_out``, the next one.

    With a shield: further inputs ``previous`` [batch, m] int32, the last applied action (clamped to the contract's range), and
    ``fallback`` [batch] int32, not 0 where the safe output must act; an invalid row falls back by itself. Further outputs
    ``applied`` [batch, m] (physical: float64, with ``applied_fixed`` int32) and ``stages`` [batch] int32, bit k for stage k: steps 4
    to 6 of ``docs/tick.md``.

    Raises:
        MissingExtra: the package onnx is not installed.
        Unsupported: the program has an operation that ONNX has not.
    """
    g, c = Graph(), program.contract
    invalid = ""
    if physical:
        seen, invalid = _observed(g, c, g.input("observation", np.float64, c.n_observations))
        g.output("invalid", invalid, np.int32)
    else:
        seen = g.clamp(g.input("observation", np.int32, c.n_observations), c.observation_low, c.observation_high)
    proposal = _program(g, program, seen, physical)
    about = {"program_digest": program.digest.hex()}
    if shield is None:
        return g.model("program", c, about)
    applied = _shield(g, c, shield, seen, proposal, invalid)
    _action(g, c, "applied", applied, physical)
    return g.model("shielded_program", c, about | {"shield_digest": shield.digest.hex(), "stages": json.dumps(shield.stages)})


def _observed(g: Graph, c: Contract, x: str) -> tuple[str, str]:
    """``Contract.observe`` on [batch, n] float64: int32 [batch, n], zeros in an invalid row, and int32 [batch], 1 for such a row."""
    difference = g.emit("Sub", x, x)  # 0, but NaN for NaN and for the infinite
    finite = g.cast(g.emit("Equal", difference, g.constant(0.0, np.float64)), np.int32)
    valid = g.emit("ReduceMin", finite, g.constant([1], np.int64), keepdims=1)
    clean = g.emit("Where", g.cast(valid, np.bool_), x, g.constant(0.0, np.float64))
    scaled = g.emit("Round", g.emit("Mul", clean, g.constant(np.exp2(c.observation_bits), np.float64)))
    ints = g.cast(g.clamp(scaled, c.observation_low, c.observation_high, np.float64), np.int32)
    flag = g.emit("Squeeze", g.emit("Sub", g.constant(1), valid), g.constant([1], np.int64))
    return g.emit("Mul", ints, valid), flag


def _program(g: Graph, program: Program, x: str, physical: bool) -> str:
    """The operations, with memory, actions and choices declared; the name of the proposed integers."""
    c = program.contract
    memories = [op.memory for op in program.ops if op.memory]
    cells = iter(g.split(g.cast(g.input("memory", np.int16, program.memory), np.int32), *memories) if memories else [])
    kept = []
    for op in program.ops[:-1]:
        x, after = onnx_ops.step(g, op, x, next(cells) if op.memory else "")
        kept += [after] if op.memory else []
    last, choice = program.ops[-1], ""
    if isinstance(last, (Argmax, Choices)):
        x, choice = onnx_ops.choose(g, last, x)
    else:
        x, _ = onnx_ops.step(g, last, x, "")
    _action(g, c, "action", x, physical)
    if choice:
        g.output("choice", choice, np.int64, *((c.n_actions,) if isinstance(last, Choices) else ()))
    if kept:
        g.output("memory_out", g.cast(g.join(*kept), np.int16), np.int16, program.memory)
    return x


def _action(g: Graph, c: Contract, name: str, x: str, physical: bool) -> None:
    """Declare int32 actions as an output, in physical units too where asked for."""
    if physical:
        steps = g.constant(np.exp2(-c.action_bits.astype(np.float64)), np.float64)
        g.output(name, g.emit("Mul", g.cast(x, np.float64), steps), np.float64, c.n_actions)
    g.output(f"{name}_fixed" if physical else name, x, np.int32, c.n_actions)


def _shield(g: Graph, c: Contract, shield: Shield, seen: str, action: str, invalid: str) -> str:
    """What the shield makes of a proposal; its inputs and ``stages`` are declared here."""
    previous = g.clamp(g.input("previous", np.int32, c.n_actions), c.action_low, c.action_high)
    asked = g.cast(g.input("fallback", np.int32), np.bool_)
    asked = g.emit("Or", asked, g.cast(invalid, np.bool_)) if invalid else asked
    acts = g.emit("Unsqueeze", asked, g.constant([1], np.int64))
    fallback = g.cast(acts, np.int32)
    raw = g.emit("Where", acts, g.constant(c.action_safe), action)
    x = g.clamp(g.floor_divide(seen, np.left_shift(1, c.shield_shift)), -32768, 32767)
    inputs = [*_columns(g, x, c.n_observations), *_columns(g, raw, c.n_actions), *_columns(g, previous, c.n_actions), fallback]
    shape = g.emit("Shape", fallback)
    results = [g.emit("Expand", y, shape) for y in to_onnx(shield.outputs, inputs, g.emit, g.constant)]
    g.output("stages", g.emit("Squeeze", results[-1], g.constant([1], np.int64)), np.int32)
    return g.clamp(g.emit("Concat", *results[:-1], axis=1), c.action_low, c.action_high)


def _columns(g: Graph, x: str, count: int) -> Sequence[str]:
    """Every column of [batch, count], as [batch, 1]."""
    return [g.emit("Gather", x, g.constant([k]), axis=1) for k in range(count)]
