"""Expressions as bounded bytecode for firmware that is already on a board: no jumps, registers reused (``docs/image.md``)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from puffer_edge.errors import BundleError, DoesNotFit, RangeError
from puffer_edge.integer.expression import Int, children, differs, least, lift, merge, most, variable, where

OPS = ("const", "in", "+", "-", "*", ">>", "<", "min", "max", "where", "!=")
MAX_INSTRUCTIONS = 1024
MAX_REGISTERS = 96
MAX_CONSTANTS = 512
_HEADER = struct.Struct("<HBBHH")


def pack(outputs: Sequence[Int], n_stages: int) -> bytes:
    """Expressions as a shield section.

    Args:
        outputs: the applied actions, then the stage bits.
        n_stages: number of stages that the bits name.

    Raises:
        DoesNotFit: more instructions, registers or constants than firmware accepts.
    """
    order, roots = merge(outputs)
    last_use = {id(child): k for k, node in enumerate(order) for child in children(node)}
    last_use |= {id(root): len(order) for root in roots}
    free: list[int] = []
    register: dict[int, int] = {}
    constants: list[int] = []
    code = bytearray()
    used = 0
    for k, node in enumerate(order):
        args = [register[id(child)] for child in children(node)]
        free += sorted({register[id(c)] for c in children(node) if last_use[id(c)] == k}, reverse=True)
        if not free:
            free.append(used)
            used += 1
        register[id(node)] = free.pop()
        if node.op == "const":
            if node.args[0] not in constants:
                constants.append(node.args[0])
            index = constants.index(node.args[0])
            args = [index & 255, index >> 8]
        elif node.op == "in":
            args = [node.args[0]]
        elif node.op == ">>":
            args = [*args, node.args[1]]
        if min(used, 256) == 256:
            break
        code += bytes([OPS.index(node.op), register[id(node)], *args, 0, 0, 0][:5])
    for what, needs, has in (
        ("instructions", len(order), MAX_INSTRUCTIONS),
        ("registers", used, MAX_REGISTERS),
        ("constants", len(constants), MAX_CONSTANTS),
    ):
        if needs > has:
            raise DoesNotFit(f"{what} of shield bytecode", needs, has, "the firmware", "use fewer stages or bound fewer channels")
    result = _HEADER.pack(len(order), used, n_stages, len(constants), len(roots))
    result += struct.pack(f"<{len(constants)}i", *constants)
    result += bytes(register[id(root)] for root in roots) + bytes(code)
    return result + bytes(-len(result) % 4)


def unpack(data: bytes, inputs: Sequence[tuple[str, int, int]]) -> tuple[list[Int], int]:
    """A shield section back to expressions, with every bound proved anew.

    Args:
        data: the section.
        inputs: name, lowest and highest value of every input.

    Returns:
        the outputs, and the number of stages.

    Raises:
        BundleError: the section is damaged or breaks a rule of ``docs/image.md``.
        RangeError: a value may leave ±2^30.
    """
    try:
        n_code, n_registers, n_stages, n_constants, n_outputs = _HEADER.unpack_from(data)
        constants = struct.unpack_from(f"<{n_constants}i", data, _HEADER.size)
    except struct.error:
        raise BundleError(f"the shield section of {len(data)} bytes is cut short") from None
    start = _HEADER.size + 4 * n_constants
    end = start + n_outputs + 5 * n_code
    if n_code > MAX_INSTRUCTIONS or n_registers > MAX_REGISTERS or n_constants > MAX_CONSTANTS or n_stages > 8:
        raise BundleError("the shield section exceeds the limits of the firmware")
    if len(data) != end + (-end % 4) or any(data[end:]):
        raise BundleError(f"the shield section has {len(data)} bytes, its header says {end}")
    registers: list[Int | None] = [None] * n_registers
    for k in range(n_code):
        at = start + n_outputs + 5 * k
        try:
            registers[data[at + 1]] = _decode(data[at : at + 5], registers, constants, inputs)
        except (IndexError, KeyError):
            raise BundleError(f"instruction {k} of the shield is not valid: {data[at : at + 5].hex(' ')}") from None
    outputs = [registers[r] if r < n_registers else None for r in data[start : start + n_outputs]]
    if any(o is None for o in outputs):
        raise BundleError("an output of the shield is never written")
    return [o for o in outputs if o is not None], n_stages


def _decode(code: bytes, registers: list[Int | None], constants: Sequence[int], inputs: Sequence[tuple[str, int, int]]) -> Int:
    def read(index: int) -> Int:
        value = registers[index]
        if value is None:
            raise IndexError(index)
        return value

    op = OPS[code[0]]
    a, b, c = code[2:]
    if op == "const":
        return lift(constants[a + 256 * b])
    if op == "in":
        return variable(a, *inputs[a])
    if op == ">>":
        try:
            return read(a) >> b
        except RangeError:
            raise IndexError(b) from None
    if op == "where":
        return where(read(a), read(b), read(c))
    x, y = read(a), read(b)
    if op == "+":
        return x + y
    if op == "-":
        return x - y
    if op == "*":
        return x * y
    if op == "<":
        return x < y
    return {"min": least, "max": most, "!=": differs}[op](x, y)
