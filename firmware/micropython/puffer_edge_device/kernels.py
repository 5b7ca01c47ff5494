"""The operations of docs/image.md in plain Python: for ports without native code, and the form to read first.

Every kernel takes ``x`` and ``y`` (array "i" to read and to write), ``p`` (array "i": n_in, n_out, stride, zero, low, high,
left shift; low and high are less zero), ``q`` (array "i", rows that ``image.py`` lays out) and ``w`` (bytes: weights, table or
code). Multipliers come as two limbs, so that every value is a small integer of 31 bits and nothing is allocated.
"""

NATIVE = False


def requantise(a, mh, ml, s):
    """``h = (a·m + 2^30) >> 31``, then the rounding shift by ``s``, with m = mh·2^16 + ml. Exact for every ``a``."""
    a0 = a & 1023
    a1 = (a >> 10) & 1023
    t = (((a0 * ml) >> 10) + a1 * ml) >> 6  # in units of 2^16, from here on the rest of the product is added from below
    t = (t + a0 * mh) >> 4  # 2^20
    t = (t + (a >> 20) * ml) >> 6  # 2^26
    h = ((t + a1 * mh + 16) >> 5) + (((a >> 20) * mh) << 5)  # 2^31
    if s == 0:
        return h
    return (((h + (h >> 31)) >> (s - 1)) + 1) >> 1


def input(x, y, p, q, w):
    """Rows of q: mean, mh, ml, shift."""
    k = 0
    for i in range(p[0]):
        v = x[i]
        mean = q[k]
        if mean < 0 and v > mean + 0x3FFFFFFF:
            c = 0x3FFFFFFF
        elif mean > 0 and v < mean - 0x3FFFFFFF:
            c = -0x3FFFFFFF
        else:
            c = v - mean
        s = q[k + 3]
        if s < 0:
            c <<= -s
            s = 0
        v = requantise(c, q[k + 1], q[k + 2], s)
        v = p[4] if v < p[4] else p[5] if v > p[5] else v
        y[i] = v + p[3]
        k += 4


def dense(x, y, p, q, w):
    """Rows of q: bias, mh, ml, shift. Weights are stored + 128 as unsigned bytes; 128·Σx is taken off again."""
    stride = p[2]
    j = p[0]
    while j < stride:
        x[j] = 0
        j += 1
    offset = 0
    for j in range(stride):
        offset += x[j]
    offset <<= 7
    k = at = 0
    for i in range(p[1]):
        a = q[k] - offset
        j = 0
        while j < stride:
            a += w[at] * x[j] + w[at + 1] * x[j + 1] + w[at + 2] * x[j + 2] + w[at + 3] * x[j + 3]
            at += 4
            j += 4
        v = requantise(a << p[6], q[k + 1], q[k + 2], q[k + 3])
        v = p[4] if v < p[4] else p[5] if v > p[5] else v
        y[i] = v + p[3]
        k += 4


def lookup(x, y, p, q, w):
    for i in range(p[0]):
        y[i] = (w[x[i] + 128] ^ 128) - 128


def lookup16(x, y, p, q, w):
    """q: the table."""
    for i in range(p[0]):
        v = x[i]
        k = (v >> 7) + 256
        b = q[k]
        y[i] = b + (((q[k + 1] - b) * (v & 127) + 64) >> 7)


def argmax(x, y, p, q, w):
    """Rows of q: the levels of each choice."""
    best = 0
    for i in range(1, p[0]):
        if x[i] > x[best]:
            best = i
    k = best * p[1]
    for j in range(p[1]):
        y[j] = q[k + j]


def affine(x, y, p, q, w):
    """Rows of q: mh, ml, shift, offset, low, high; low and high are less offset."""
    k = 0
    for j in range(p[0]):
        v = x[j]
        s = q[k + 2]
        if s < 0:
            v <<= -s
            s = 0
        v = requantise(v, q[k], q[k + 1], s)
        v = q[k + 4] if v < q[k + 4] else q[k + 5] if v > q[k + 5] else v
        y[j] = v + q[k + 3]
        k += 6


def bytecode(x, y, p, q, w):
    """The shield: inputs x, registers y, p[0] instructions w, constants q. ``shield.check`` has been through the code."""
    at = 0
    for _ in range(p[0]):
        op = w[at]
        a = w[at + 2]
        b = w[at + 3]
        if op == 0:
            v = q[a | b << 8]
        elif op == 1:
            v = x[a]
        elif op == 5:
            v = y[a] >> b
        elif op == 9:
            v = y[b] if y[a] else y[w[at + 4]]
        else:
            a = y[a]
            b = y[b]
            if op == 2:
                v = a + b
            elif op == 3:
                v = a - b
            elif op == 4:
                v = a * b
            elif op == 6:
                v = 1 if a < b else 0
            elif op == 7:
                v = a if a < b else b
            elif op == 8:
                v = a if a > b else b
            else:
                v = 1 if a != b else 0
            if v > 0x3FFFFFFF or v < -0x40000000:  # never with a proved shield: only then is a long integer made
                v = ((v + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        y[w[at + 1]] = v
        at += 5
