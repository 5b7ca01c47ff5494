"""Inputs for the kernels of the MicroPython runtime: runs alike on CPython and on MicroPython, so that outputs can be compared."""

from array import array

TOP = 2**31 - 1
EDGES = (0, 1, -1, 2, -2, 127, -128, 2**15, -(2**15), 2**29, -(2**29), 2**30 - 1, -(2**30 - 1), 2**30, -(2**30), TOP, -TOP - 1)
MULTIPLIERS = (0, 2**30, 2**30 + 1, 2**31 - 1, 0x5A82799A, 0x40008000, 0x7FFF0000)


class Random:
    def __init__(self, seed):
        self.state = seed

    def bits(self, count):
        """Upper bits of a linear congruential generator."""
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return self.state >> (64 - count)

    def below(self, n):
        return self.bits(40) % n

    def between(self, low, high):
        return low + self.below(high - low + 1)

    def pick(self, values):
        return values[self.below(len(values))]

    def int32(self, size=31):
        """Of any magnitude, edges among them."""
        if self.below(8) == 0:
            return self.pick(EDGES)
        return self.between(-TOP - 1, TOP) >> self.below(size)

    def scale(self, lowest):
        m = self.pick(MULTIPLIERS) if self.below(4) == 0 else self.between(2**30, 2**31 - 1)
        return [m >> 16, m & 65535, self.between(lowest, 31)]


def ints(values):
    return array("i", values)


def cases(kernels, put, scale=1):
    """Call every kernel with random arguments and ``put`` the name and the output. ``scale`` 1 is about 10,000 outputs."""
    _requantise(kernels, put, Random(1), 10000 * scale)
    _input(kernels, put, Random(2), 200 * scale)
    _dense(kernels, put, Random(3), 200 * scale)
    _lookup(kernels, put, Random(4))
    _argmax(kernels, put, Random(5), 300 * scale)
    _affine(kernels, put, Random(6), 300 * scale)
    _bytecode(kernels, put, Random(7), 400 * scale)


def _requantise(kernels, put, random, count):
    """Through the affine kernel, wide open: x is what is requantised."""
    for _ in range(count // 20):
        x = ints(random.int32() for _ in range(20))
        q = []
        for _ in range(20):
            q += random.scale(0) + [0, -TOP - 1, TOP]
        y = ints([0] * 20)
        kernels.affine(x, y, ints([20, 20]), ints(q), b"")
        put("requantise", y)


def _input(kernels, put, random, count):
    for _ in range(count):
        n = random.between(1, 9)
        limit = 2**30 - 1
        x = ints(max(-limit, min(limit, random.int32())) for _ in range(n))
        q = []
        for k in range(n):
            mean = max(-limit, min(limit, random.int32()))
            mh, ml, s = random.scale(-30)
            wide = max(1, min(limit, abs(x[k] - mean)))
            while wide << max(0, -s) > TOP:  # the packer proves that it fits
                s += 1
            q += [mean, mh, ml, s, k]
        zero = random.between(-128, 127)
        y = ints([0] * n)
        kernels.input(x, y, ints([n, n, 0, zero, -128 - zero, 127 - zero, 0, 0]), ints(q), b"")
        put("input", y)


def _dense(kernels, put, random, count):
    for _ in range(count):
        i, o, wide = random.between(1, 40), random.between(1, 12), random.below(2)
        stride = (i + 3) & ~3
        edge = random.below(10) == 0
        x = ints([random.pick((-128, 127)) if edge else random.between(-128, 127) for _ in range(i)] + [77] * (stride - i))
        w = bytearray()
        for _ in range(o):
            w += bytes([random.pick((0, 255)) if edge else random.below(256) for _ in range(i)] + [128] * (stride - i))
        q = []
        for _ in range(o):
            q += [random.between(-(2**22), 2**22)] + random.scale(0)
        zero, limit = random.between(-128, 127), 32767 if wide else 127
        y = ints([0] * o)
        kernels.dense(x, y, ints([i, o, stride, zero, -limit - 1 - zero, limit - zero, 7 * wide, 0]), ints(q), bytes(w))
        put("dense", y)


def _lookup(kernels, put, random):
    x, y = ints(range(-128, 128)), ints([0] * 256)
    kernels.lookup(x, y, ints([256, 256]), ints([]), bytes(random.below(256) for _ in range(256)))
    put("lookup", y)
    table = ints(random.pick((-32768, 32767)) if random.below(4) == 0 else random.between(-32768, 32767) for _ in range(513))
    y = ints([0] * 512)
    for start in range(-32768, 32768, 512):
        kernels.lookup16(ints(range(start, start + 512)), y, ints([512, 512]), table, b"")
        put("lookup16", y)


def _argmax(kernels, put, random, count):
    for _ in range(count):
        n, m = random.between(1, 9), random.between(1, 3)
        x = ints(random.pick((-32768, -1, 0, 1, 32767)) if n % 2 else random.between(-32768, 32767) for _ in range(n))
        y = ints([0] * m)
        kernels.argmax(x, y, ints([n, m]), ints(random.int32() for _ in range(n * m)), b"")
        put("argmax", y)


def _affine(kernels, put, random, count):
    for _ in range(count):
        m = random.between(1, 5)
        x, q = ints(random.between(-32768, 32767) for _ in range(m)), []
        for _ in range(m):
            low = random.between(-(2**28), 2**28 - 2)
            high = random.between(low, 2**28 - 1)
            offset = random.between(-(2**28), 2**28)
            q += random.scale(-15) + [offset, low - offset, high - offset]
        y = ints([0] * m)
        kernels.affine(x, y, ints([m, m]), ints(q), b"")
        put("affine", y)


def _bytecode(kernels, put, random, count):
    """Valid programs on any int32: also where a proved shield never gets."""
    for _ in range(count):
        registers, constants, inputs = random.between(2, 12), random.between(1, 300), random.between(1, 7)
        q, x = ints(random.int32() for _ in range(constants)), ints(random.int32() for _ in range(inputs))
        code, written = bytearray(), []
        n = random.between(2, 40)
        for _ in range(n):
            op = random.below(11) if written else random.below(2)
            index = random.below(constants)
            a, b, c = index & 255, index >> 8, 0
            if op == 1:
                a = random.below(inputs)
            elif op:
                a, b, c = random.pick(written), random.below(31) if op == 5 else random.pick(written), random.pick(written)
            target = random.below(registers)
            if target not in written:
                written.append(target)
            code += bytes((op, target, a, b, c))
        y = ints([0] * registers)
        kernels.bytecode(x, y, ints([n]), q, bytes(code))
        put("bytecode", y)
