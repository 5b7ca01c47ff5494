"""The kernels as machine code: same names, same arguments, same bits as ``kernels.py``.

Exact on 32-bit and 64-bit ports: viper's ints are as wide as a register and loads from ptr32 are not sign-extended on 64 bits.
So what is loaded and may be negative goes through ``((v & mask) ^ sign) - sign``, which does nothing on 32 bits. Viper has
no inlined calls: the rounding of ``kernels.requantise`` is written out three times.
"""

import micropython

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
        a = ((x[i] & mask) ^ sign) - sign
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
        q = ptr32(int(q) + 16)
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
        s = q[3]
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
