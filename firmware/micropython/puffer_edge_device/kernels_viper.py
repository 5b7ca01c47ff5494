"""The kernels as machine code: same names, same arguments, same bits as ``kernels.py``.

Exact on 32-bit and 64-bit ports: viper's ints are as wide as a register and loads from ptr32 are not sign-extended on 64 bits.
So what is loaded and may be negative goes through ``((v & mask) ^ sign) - sign``, which does nothing on 32 bits. Viper has
no inlined calls: in the kernels that run often the rounding of ``kernels.requantise`` is written out; the cells call.
"""

import micropython

from .squash import TABLE

NATIVE = True


@micropython.viper
def input(x: ptr32, y: ptr32, p: ptr32, q: ptr32, w: ptr8):
    one = 1
    sign = one << 31
    mask = (sign << 1) - 1
    n = p[0]
    zero = ((p[3] & mask) ^ sign) - sign
    low = ((p[4] & mask) ^ sign) - sign
    high = ((p[5] & mask) ^ sign) - sign
    i = 0
    while i < n:
        a = ((x[q[4]] & mask) ^ sign) - sign
        mean = ((q[0] & mask) ^ sign) - sign
        if mean < 0 and a > mean + 0x3FFFFFFF:
            a = 0x3FFFFFFF
        elif mean > 0 and a < mean - 0x3FFFFFFF:
            a = 0 - 0x3FFFFFFF
        else:
            a -= mean
        mh = q[1]
        ml = q[2]
        s = ((q[3] & mask) ^ sign) - sign
        if s < 0:
            a = (((a << (0 - s)) & mask) ^ sign) - sign
            s = 0
        a0 = a & 1023
        a1 = (a >> 10) & 1023
        a >>= 20
        t = (((a0 * ml) >> 10) + a1 * ml) >> 6
        t = (t + a0 * mh) >> 4
        t = (t + a * ml) >> 6
        v = ((t + a1 * mh + 16) >> 5) + ((a * mh) << 5)
        if s:
            v = (((v + (v >> 31)) >> (s - 1)) + 1) >> 1
        if v < low:
            v = low
        elif v > high:
            v = high
        y[i] = v + zero
        q = ptr32(int(q) + 20)
        i += 1


@micropython.viper
def dense(x: ptr32, y: ptr32, p: ptr32, q: ptr32, w: ptr8):
    one = 1
    sign = one << 31
    mask = (sign << 1) - 1
    stride = p[2]
    zero = ((p[3] & mask) ^ sign) - sign
    low = ((p[4] & mask) ^ sign) - sign
    high = ((p[5] & mask) ^ sign) - sign
    up = p[6]
    bare = p[7]
    i = p[0]
    while i < stride:
        x[i] = 0
        i += 1
    offset = 0
    i = 0
    while i < stride:
        offset += x[i]
        i += 1
    offset <<= 7
    at = int(w)
    end = int(x) + 4 * stride
    n = p[1]
    i = 0
    while i < n:
        a = q[0] - offset
        xs = int(x)
        while xs < end:
            w4 = ptr8(at)
            x4 = ptr32(xs)
            a += w4[0] * x4[0] + w4[1] * x4[1] + w4[2] * x4[2] + w4[3] * x4[3]
            at += 4
            xs += 16
        a = (((a << up) & mask) ^ sign) - sign
        mh = q[1]
        ml = q[2]
        s = ((q[3] & mask) ^ sign) - sign
        if s < 0:
            a = (((a << (0 - s)) & mask) ^ sign) - sign
            s = 0
        a0 = a & 1023
        a1 = (a >> 10) & 1023
        a >>= 20
        t = (((a0 * ml) >> 10) + a1 * ml) >> 6
        t = (t + a0 * mh) >> 4
        t = (t + a * ml) >> 6
        v = ((t + a1 * mh + 16) >> 5) + ((a * mh) << 5)
        if bare:
            v = (a << 20) + (a1 << 10) + a0
        if s:
            v = (v + (v >> 31)) >> (s - 1)
            v = (v >> 1) + (v & 1)
        if v < low:
            v = low
        elif v > high:
            v = high
        y[i] = v + zero
        q = ptr32(int(q) + 16)
        i += 1


@micropython.viper
def lookup(x: ptr32, y: ptr32, p: ptr32, q: ptr32, w: ptr8):
    n = p[0]
    i = 0
    while i < n:
        y[i] = (w[(x[i] + 128) & 255] ^ 128) - 128
        i += 1


@micropython.viper
def lookup16(x: ptr32, y: ptr32, p: ptr32, q: ptr32, w: ptr8):
    one = 1
    sign = one << 31
    mask = (sign << 1) - 1
    n = p[0]
    i = 0
    while i < n:
        v = x[i] + 32768 & 65535
        k = v >> 7
        b = ((q[k] & mask) ^ sign) - sign
        d = ((q[k + 1] & mask) ^ sign) - sign - b
        y[i] = b + ((d * (v & 127) + 64) >> 7)
        i += 1


@micropython.viper
def argmax(x: ptr32, y: ptr32, p: ptr32, q: ptr32, w: ptr8):
    n = p[0]
    m = p[1]
    best = 0
    top = x[0] + 32768 & 65535  # int16 in the order of unsigned numbers
    i = 1
    while i < n:
        v = x[i] + 32768 & 65535
        if v > top:
            top = v
            best = i
        i += 1
    k = best * m
    i = 0
    while i < m:
        y[i] = q[k + i]
        i += 1


@micropython.viper
def affine(x: ptr32, y: ptr32, p: ptr32, q: ptr32, w: ptr8):
    one = 1
    sign = one << 31
    mask = (sign << 1) - 1
    n = p[0]
    i = 0
    while i < n:
        a = ((x[i] & mask) ^ sign) - sign
        mh = q[0]
        ml = q[1]
        s = ((q[2] & mask) ^ sign) - sign
        low = ((q[4] & mask) ^ sign) - sign
        high = ((q[5] & mask) ^ sign) - sign
        if s < 0:
            a = (((a << (0 - s)) & mask) ^ sign) - sign
            s = 0
        a0 = a & 1023
        a1 = (a >> 10) & 1023
        a >>= 20
        t = (((a0 * ml) >> 10) + a1 * ml) >> 6
        t = (t + a0 * mh) >> 4
        t = (t + a * ml) >> 6
        v = ((t + a1 * mh + 16) >> 5) + ((a * mh) << 5)
        if s:
            v = (((v + (v >> 31)) >> (s - 1)) + 1) >> 1
        if v < low:
            v = low
        elif v > high:
            v = high
        y[i] = v + q[3]
        q = ptr32(int(q) + 24)
        i += 1


@micropython.viper
def _requantise(a: int, mh: int, ml: int, s: int) -> int:
    a0 = a & 1023
    a1 = (a >> 10) & 1023
    a >>= 20
    t = (((a0 * ml) >> 10) + a1 * ml) >> 6
    t = (t + a0 * mh) >> 4
    t = (t + a * ml) >> 6
    v = ((t + a1 * mh + 16) >> 5) + ((a * mh) << 5)
    if s:
        v = (((v + (v >> 31)) >> (s - 1)) + 1) >> 1
    return v


@micropython.viper
def conv(x: ptr32, y: ptr32, p: ptr32, q: ptr32, w: ptr8):
    one = 1
    sign = one << 31
    mask = (sign << 1) - 1
    height = p[0]
    width = p[1]
    channels = p[2]
    filters = p[3]
    outside = ((p[12] & mask) ^ sign) - sign
    zero = ((p[13] & mask) ^ sign) - sign
    low = ((p[14] & mask) ^ sign) - sign
    high = ((p[15] & mask) ^ sign) - sign
    bare = p[16]
    multiple = p[18]
    wide = p[7]
    rows = p[6]
    to = 0
    top = 0 - p[10]
    i = 0
    while i < p[4]:
        left = 0 - p[11]
        j = 0
        while j < p[5]:
            k = 0
            f = 0
            while f < filters:
                a = q[k]
                at = f * p[17]
                first = 0
                last = channels
                if multiple:
                    first = f // multiple
                    last = first + 1
                row = top
                while row < top + rows:
                    column = left
                    while column < left + wide:
                        base = (row * width + column) * channels
                        inside = 1
                        if row < 0 or row >= height or column < 0 or column >= width:
                            inside = 0
                        c = first
                        while c < last:
                            v = outside
                            if inside:
                                v = x[base + c]
                            a += (w[at] - 128) * v
                            at += 1
                            c += 1
                        column += 1
                    row += 1
                a = ((a & mask) ^ sign) - sign
                mh = q[k + 1]
                ml = q[k + 2]
                s = q[k + 3]
                a0 = a & 1023
                a1 = (a >> 10) & 1023
                r = a
                if not bare:
                    a >>= 20
                    t = (((a0 * ml) >> 10) + a1 * ml) >> 6
                    t = (t + a0 * mh) >> 4
                    t = (t + a * ml) >> 6
                    r = ((t + a1 * mh + 16) >> 5) + ((a * mh) << 5)
                if s:
                    r = (r + (r >> 31)) >> (s - 1)
                    r = (r >> 1) + (r & 1)
                if r < low:
                    r = low
                elif r > high:
                    r = high
                y[to] = r + zero
                to += 1
                k += 4
                f += 1
            left += p[9]
            j += 1
        top += p[8]
        i += 1


@micropython.viper
def pool(x: ptr32, y: ptr32, p: ptr32, q: ptr32, w: ptr8):
    one = 1
    sign = one << 31
    mask = (sign << 1) - 1
    channels = p[1]
    positions = p[2]
    largest = p[3]
    half = positions >> 1
    c = 0
    while c < channels:
        total = ((x[c] & mask) ^ sign) - sign
        k = 1
        at = c + channels
        while k < positions:
            v = ((x[at] & mask) ^ sign) - sign
            if not largest:
                total += v
            elif v > total:
                total = v
            at += channels
            k += 1
        if not largest:
            if total < 0:
                total = 0 - (half - total) // positions
            else:
                total = (total + half) // positions
        y[c] = total
        c += 1


@micropython.viper
def _logistic(a: int) -> int:
    t = ptr16(TABLE)
    if a < -32768:
        a = -32768
    elif a > 32767:
        a = 32767
    n = 3 * a
    if a < 0:
        n = 0 - n
    u = n >> 9
    r = 33553408
    if u < 255:
        r = (t[u] << 9) + (n & 511) * (t[u + 1] - t[u])
    if a < 0:
        r = 33554432 - r - 1
    return (r + 512) >> 10


@micropython.viper
def _tanh(a: int, up: int) -> int:
    t = ptr16(TABLE)
    if a < -32768:
        a = -32768
    elif a > 32767:
        a = 32767
    n = a * (3 << up)
    if a < 0:
        n = 0 - n
    u = n >> 8
    r = 16776960
    if u < 255:
        r = (t[u] << 8) + (n & 255) * (t[u + 1] - t[u])
    if a < 0:
        return (8388735 - r) >> 8
    return (r - 8388480) >> 8


@micropython.viper
def tanh16(x: ptr32, y: ptr32, p: ptr32, q: ptr32, w: ptr8):
    one = 1
    sign = one << 31
    mask = (sign << 1) - 1
    i = 0
    while i < p[0]:
        y[i] = int(_tanh(((x[i] & mask) ^ sign) - sign, 0))
        i += 1


@micropython.viper
def gru(x: ptr32, y: ptr32, p: ptr32, q: ptr32, w: ptr8):
    one = 1
    sign = one << 31
    mask = (sign << 1) - 1
    h = p[0]
    j = 0
    while j < h:
        reset = int(_logistic((((x[j] + x[3 * h + j]) & mask) ^ sign) - sign))
        update = int(_logistic((((x[h + j] + x[4 * h + j]) & mask) ^ sign) - sign))
        v = ((x[5 * h + j] & mask) ^ sign) - sign
        v = ((x[2 * h + j] & mask) ^ sign) - sign + ((reset * v + 16384) >> 15)
        new = int(_tanh(v, 0))
        v = ((q[j] & mask) ^ sign) - sign
        v = (update * v + (32768 - update) * new + 16384) >> 15
        q[j] = v
        if not p[1]:
            v = (v + 128) >> 8
            if v > 127:
                v = 127
        y[j] = v
        j += 1


@micropython.viper
def lstm(x: ptr32, y: ptr32, p: ptr32, q: ptr32, w: ptr8):
    one = 1
    sign = one << 31
    mask = (sign << 1) - 1
    h = p[0]
    bits = p[2]
    cell = p[3]
    j = 0
    while j < h:
        opened = int(_logistic((((x[j] + x[4 * h + j]) & mask) ^ sign) - sign))
        kept = int(_logistic((((x[h + j] + x[5 * h + j]) & mask) ^ sign) - sign))
        new = int(_tanh((((x[2 * h + j] + x[6 * h + j]) & mask) ^ sign) - sign, 0))
        shown = int(_logistic((((x[3 * h + j] + x[7 * h + j]) & mask) ^ sign) - sign))
        v = ((q[cell + j] & mask) ^ sign) - sign
        c = int(_requantise(kept * v, 16384, 0, 14))
        if c > 32767:
            c = 32767
        v = int(_requantise(opened * new, 16384, 0, 29 - bits))
        if v < -32768:
            v = -32768
        elif v > 32767:
            v = 32767
        c += v
        if c < -32768:
            c = -32768
        elif c > 32767:
            c = 32767
        q[cell + j] = c
        v = shown * int(_tanh(c, 12 - bits))
        if p[1]:
            v = int(_requantise(v, 16384, 0, 14))
        else:
            v = int(_requantise(v, 16384, 0, 22))
            if v > 127:
                v = 127
        q[j] = v
        y[j] = v
        j += 1


@micropython.viper
def choices(x: ptr32, y: ptr32, p: ptr32, q: ptr32, w: ptr8):
    m = p[1]
    at = 0
    j = 0
    while j < m:
        best = at
        top = x[at] + 32768 & 65535  # int16 in the order of unsigned numbers
        end = at + q[j]
        i = at + 1
        while i < end:
            v = x[i] + 32768 & 65535
            if v > top:
                top = v
                best = i
            i += 1
        y[j] = q[m + best]
        at = end
        j += 1


@micropython.viper
def bytecode(x: ptr32, y: ptr32, p: ptr32, q: ptr32, w: ptr8):
    one = 1
    sign = one << 31
    mask = (sign << 1) - 1
    n = p[0]
    while n > 0:
        op = w[0]
        a = w[2]
        b = w[3]
        v = 0
        if op == 0:
            v = q[a | b << 8]
        elif op == 1:
            v = x[a]
        elif op == 5:
            v = (((y[a] & mask) ^ sign) - sign) >> b
        elif op == 9:
            if y[a] & mask:
                v = y[b]
            else:
                v = y[w[4]]
        else:
            a = ((y[a] & mask) ^ sign) - sign
            b = ((y[b] & mask) ^ sign) - sign
            if op == 2:
                v = a + b
            elif op == 3:
                v = a - b
            elif op == 4:
                v = a * b
            elif op == 6:
                if a < b:
                    v = 1
            elif op == 7:
                v = a
                if b < a:
                    v = b
            elif op == 8:
                v = a
                if b > a:
                    v = b
            elif a != b:
                v = 1
        y[w[1]] = v
        w = ptr8(int(w) + 5)
        n -= 1
