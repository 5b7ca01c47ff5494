"""The operations of docs/image.md in plain Python: for ports without native code, and the form to read first.

Every kernel takes ``x`` and ``y`` (array "i" to read and to write), ``p`` (array "i": n_in, n_out, stride, zero, low, high,
left shift, whether there are no multipliers; low and high are less zero), ``q`` (array "i", rows that ``image.py`` lays out) and
``w`` (bytes: weights, table or code). Multipliers come as two limbs, so that every value is a small integer of 31 bits and nothing
is allocated; sums of more than some 96 int16 values alone may need more.
"""

from .squash import TABLE

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


def shifted(a, s):
    """The rounding shift alone."""
    return a if s == 0 else (((a + (a >> 31)) >> (s - 1)) + 1) >> 1


def input(x, y, p, q, w):
    """Rows of q: mean, mh, ml, shift, index of the observation."""
    k = 0
    for i in range(p[0]):
        v = x[q[k + 4]]
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
        k += 5


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
        s = q[k + 3]
        if p[7]:
            v = shifted(a << p[6], s)
        elif s < 0:
            v = requantise(a << -s, q[k + 1], q[k + 2], 0)
        else:
            v = requantise(a << p[6], q[k + 1], q[k + 2], s)
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


def conv(x, y, p, q, w):
    """p: height, width, channels, filters, out height, out width, kernel height and width, stride down and right, padding top and
    left, zero_in, zero, low, high, no multipliers, stride of a row of weights, filters a channel (0: all channels). q as of dense."""
    height, width, channels, filters = p[0], p[1], p[2], p[3]
    to = 0
    for i in range(p[4]):
        for j in range(p[5]):
            k = 0
            for f in range(filters):
                a = q[k]
                at = f * p[17]
                first = f // p[18] if p[18] else 0
                last = first + 1 if p[18] else channels
                for u in range(p[6]):
                    row = i * p[8] - p[10] + u
                    for v in range(p[7]):
                        column = j * p[9] - p[11] + v
                        if 0 <= row < height and 0 <= column < width:
                            base = (row * width + column) * channels
                            for c in range(first, last):
                                a += (w[at] - 128) * x[base + c]
                                at += 1
                        else:
                            for c in range(first, last):
                                a += (w[at] - 128) * p[12]
                                at += 1
                s = q[k + 3]
                r = shifted(a, s) if p[16] else requantise(a, q[k + 1], q[k + 2], s)
                r = p[14] if r < p[14] else p[15] if r > p[15] else r
                y[to] = r + p[13]
                to += 1
                k += 4


def pool(x, y, p, q, w):
    """p: n_in, channels, positions, whether it is the largest."""
    channels, positions = p[1], p[2]
    for c in range(channels):
        total = x[c]
        for k in range(1, positions):
            v = x[k * channels + c]
            if not p[3]:
                total += v
            elif v > total:
                total = v
        if not p[3]:
            half = positions >> 1
            total = (total + half) // positions if total >= 0 else -((half - total) // positions)
        y[c] = total


def logistic(a):
    """Q3.12 to Q0.15."""
    v = 3 * a
    n = v if v >= 0 else -v
    u = n >> 9
    r = 32767 << 10
    if u < 255:
        r = (TABLE[u] << 9) + (n & 511) * (TABLE[u + 1] - TABLE[u])
    return (r + 512 if v >= 0 else (1 << 25) - r + 511) >> 10


def tanh(a, up):
    """Q(3 + up).(12 - up) to Q0.15."""
    v = a * (3 << up)
    n = v if v >= 0 else -v
    u = n >> 8
    r = 65535 << 8
    if u < 255:
        r = (TABLE[u] << 8) + (n & 255) * (TABLE[u + 1] - TABLE[u])
    return (r - 8388480 if v >= 0 else 8388735 - r) >> 8


def sat16(v):
    return -32768 if v < -32768 else 32767 if v > 32767 else v


def tanh16(x, y, p, q, w):
    for i in range(p[0]):
        y[i] = tanh(x[i], 0)


def gru(x, y, p, q, w):
    """x: the input's gates r, z, n, then the hidden state's; q: the hidden state; p: hidden, whether y is int16."""
    h = p[0]
    for j in range(h):
        reset = logistic(sat16(x[j] + x[3 * h + j]))
        update = logistic(sat16(x[h + j] + x[4 * h + j]))
        new = tanh(sat16(x[2 * h + j] + ((reset * x[5 * h + j] + 16384) >> 15)), 0)
        v = (update * q[j] + (32768 - update) * new + 16384) >> 15
        q[j] = v
        if not p[1]:
            v = (v + 128) >> 8
            v = 127 if v > 127 else v
        y[j] = v


def lstm(x, y, p, q, w):
    """x: the input's gates i, f, g, o, then the hidden state's; q: hidden state, from p[3] on the cell; p: hidden, whether y is int16,
    cell bits, offset of the cell."""
    h = p[0]
    bits = p[2]
    for j in range(h):
        opened = logistic(sat16(x[j] + x[4 * h + j]))
        kept = logistic(sat16(x[h + j] + x[5 * h + j]))
        new = tanh(sat16(x[2 * h + j] + x[6 * h + j]), 0)
        shown = logistic(sat16(x[3 * h + j] + x[7 * h + j]))
        cell = sat16(requantise(kept * q[p[3] + j], 16384, 0, 14)) + sat16(requantise(opened * new, 16384, 0, 29 - bits))
        cell = sat16(cell)
        q[p[3] + j] = cell
        v = shown * tanh(cell, 12 - bits)
        if p[1]:
            v = sat16(requantise(v, 16384, 0, 14))
        else:
            v = requantise(v, 16384, 0, 22)
            v = -128 if v < -128 else 127 if v > 127 else v
        q[j] = v
        y[j] = v


def choices(x, y, p, q, w):
    """q: the number of logits of each action, then the levels."""
    m = p[1]
    at = 0
    for j in range(m):
        best = at
        for i in range(at + 1, at + q[j]):
            if x[i] > x[best]:
                best = i
        y[j] = q[m + best]
        at += q[j]


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
