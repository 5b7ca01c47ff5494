"""The shield of an image: its bytecode, checked once, or a printed module ``shield.py`` that says it is the same."""

import struct
from array import array

# op -> how many of a, b, c are registers that it reads: const, in, add, sub, mul, shr, lt, min, max, where, ne
READS = (0, 0, 2, 2, 2, 1, 2, 2, 2, 3, 2)


def check(data, n, m):
    """Check a shield section (docs/image.md); None if it breaks a rule, else what ``Bytecode`` takes."""
    if len(data) < 8:
        return None
    count, registers, stages, constants, outputs = struct.unpack_from("<HBBHH", data)
    if count > 1024 or registers > 96 or stages > 8 or constants > 512 or outputs != m + 1:
        return None
    start = 8 + 4 * constants + outputs
    end = start + 5 * count
    if len(data) != (end + 3) & ~3:
        return None
    written = bytearray(256)
    for at in range(start, end, 5):
        if not _valid(data, at, registers, constants, n + 2 * m + 1, written):
            return None
        written[data[at + 1]] = 1
    for k in range(start - outputs, start):
        if not written[data[k]]:
            return None
    q = array("i", (struct.unpack_from("<i", data, 8 + 4 * k)[0] for k in range(constants)))
    return array("i", (count,)), q, data[start:end], data[start - outputs : start], registers


def _valid(data, at, registers, constants, inputs, written):
    op, target, a, b = data[at], data[at + 1], data[at + 2], data[at + 3]
    if op >= len(READS) or target >= registers:
        return False
    for k in range(READS[op]):
        if not written[data[at + 2 + k]]:
            return False
    if op == 0:
        return a | b << 8 < constants
    if op == 1:
        return a < inputs
    return op != 5 or b <= 30


class Bytecode:
    """Runs checked bytecode: ``run(v, out)`` like a printed shield."""

    def __init__(self, checked, kernel):
        self.p, self.q, self.code, self.outputs, registers = checked
        self.registers = array("i", bytes(4 * registers))
        self.kernel = kernel

    def run(self, v, out):
        registers = self.registers
        self.kernel(v, registers, self.p, self.q, self.code)
        outputs = self.outputs
        for k in range(len(outputs)):
            out[k] = registers[outputs[k]]


def printed(digest):
    """The function of the board's ``shield.py``, if that was printed from the bytecode with this digest."""
    try:
        module = __import__("shield")
    except ImportError:
        return None
    return module.shield if module.DIGEST == digest else None
