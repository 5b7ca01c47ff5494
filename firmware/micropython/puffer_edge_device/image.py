"""A policy image (docs/image.md), read from its file and checked in full: nothing in it is trusted.

What a tick needs is held in RAM in the form that the kernels take; contract and self-test vectors stay in the file.
"""

import struct
from array import array
from hashlib import sha256

from . import shield

LIMIT = 0x3FFFFFFF
HEADER = 80
TRAILER = 32
MAX_OPERATIONS = 64
MAX_WIDTH = 4096
MAX_MEMORY = 4096
INPUT, DENSE, LOOKUP, LOOKUP16, ARGMAX, AFFINE, CONV, POOL, GRU, LSTM, CHOICES, TANH16 = range(1, 13)
ORDERED, WIDE, X16, INT4, SHIFT, DEPTHWISE, MAX = 1, 1, 2, 4, 8, 16, 32
# what flows from one operation to the next, by the bytes of a value: int8, int16, observations; and what leaves
INT8, INT16, OBSERVATION, ACTION = 1, 2, 4, 8
# the flags that a kind may have
FLAGS = (0, ORDERED | X16, WIDE | X16 | INT4 | SHIFT, 0, 0, 0, 0, X16 | INT4 | SHIFT | DEPTHWISE, X16 | MAX, X16, X16, 0, 0)


def flow(kind, flags):
    """What an operation takes and what it gives; nothing of an unknown one, or one with other flags."""
    if not 1 <= kind <= 12 or flags & ~FLAGS[kind] or (flags & X16 and flags & INT4):
        return 0, 0
    wide = INT16 if flags & X16 else INT8
    if kind == INPUT:
        return OBSERVATION, wide
    if kind == DENSE:
        if flags & WIDE:
            return (0, 0) if flags & X16 else (INT8, INT16)
        return wide, wide
    if kind == LOOKUP:
        return INT8, INT8
    if kind == LOOKUP16 or kind == TANH16:
        return INT16, INT16
    if kind == ARGMAX or kind == AFFINE or kind == CHOICES:
        return INT16, ACTION
    return wide, wide


class BadImage(Exception):
    """The argument is the offset of what was refused, from the start of the image."""


class BadDigest(Exception):
    """The file is not what its last 32 bytes say."""


def padded(n):
    return (n + 3) & ~3


def _stride(columns, flags):
    """Values of a row of weights with its padding."""
    return (columns + 7) & ~7 if flags & INT4 else padded(columns)


class Image:
    """Reads and checks the file ``path``, and closes it; ``feed`` is called all the while, for a watchdog.

    After that: ``n``, ``m``, ``divider``, ``period_us``, ``stale_limit``, ``channels`` (array of low, high, shift each),
    ``actions`` (array of low, high, safe, initial each), ``ops`` (kind, p, q, w), ``shield`` (None or what
    ``shield.check`` gives), ``bytes``, ``contract_bytes``, ``steps``, and ``digests``: image, contract, program, shield.
    """

    def __init__(self, path, feed=None):
        self.path = path
        self.feed = feed or (lambda: None)
        with open(path, "rb") as self.file:
            self._load()
        self.file = None

    def contract(self, at, buffer):
        """Read the contract's text from ``at`` on into ``buffer``; returns the bytes read."""
        size = max(0, min(self.contract_bytes - at, len(buffer)))
        with open(self.path, "rb") as file:
            file.seek(self.contract_at + at)
            return file.readinto(memoryview(buffer)[:size]) if size else 0

    def vectors(self):
        """Every self-test step, in one buffer, as it lies in the image."""
        row = bytearray(4 * (3 + self.n + 2 * self.m))
        with open(self.path, "rb") as file:
            file.seek(self.vectors_at)
            for _ in range(self.steps):
                file.readinto(row)
                yield row

    def read(self, at, size):
        self.file.seek(at)
        data = bytearray(size)
        self._need(self.file.readinto(data) == size, at)
        return data

    def digest(self, at, size):
        """SHA-256 of a stretch of the file."""
        h = sha256()
        self.file.seek(at)
        chunk = bytearray(256)
        while size:
            got = self.file.readinto(chunk) if size >= 256 else self.file.readinto(memoryview(chunk)[:size])
            self._need(got, at)
            h.update(memoryview(chunk)[:got])
            size -= got
            self.feed()
        return h.digest()

    def _need(self, condition, at):
        if not condition:
            raise BadImage(at)

    def _load(self):
        total = self.file.seek(0, 2)
        self._need(total >= HEADER + TRAILER and total % 4 == 0, 8)
        head = self.read(0, HEADER)
        magic, version, header, size, n, m, count, divider = struct.unpack_from("<4sHHIHHHH", head)
        self._need(magic == b"PEP1" and version == 1 and header == HEADER, 0)
        self._need(size == total, 8)
        self._need(1 <= n <= 64 and 1 <= m <= 16, 12)
        self._need(1 <= count <= MAX_OPERATIONS and divider >= 1, 16)
        self.bytes, self.n, self.m, self.divider = size, n, m, divider
        self.period_us, self.stale_limit, self.buffer = struct.unpack_from("<IHH", head, 20)
        self._need(1 <= self.period_us < 1 << 29, 20)  # twice what ticks_diff can tell apart
        self._need(self.buffer % 8 == 0, 26)
        image = self.digest(0, size - TRAILER)
        if image != self.read(size - TRAILER, TRAILER):
            raise BadDigest()
        self._sections(head, count, image)

    def _sections(self, head, count, image):
        contract, c_bytes, channels, ops, ops_bytes, code, code_bytes, vectors, steps = struct.unpack_from("<9I", head, 28)
        code = code if code_bytes else HEADER  # the offset of nothing means nothing
        self._inside(28, contract, c_bytes)
        self._inside(36, channels, 12 * self.n + 16 * self.m)
        self._inside(40, ops, ops_bytes)
        self._inside(48, code, code_bytes)
        self._inside(56, vectors, steps * 4 * (3 + self.n + 2 * self.m))
        self.contract_at, self.contract_bytes, self.vectors_at, self.steps = contract, c_bytes, vectors, steps
        self.digests = (image, self.digest(contract, c_bytes), self.digest(ops, ops_bytes), self.digest(code, code_bytes))
        self._channels(channels)
        self._operations(ops, ops + ops_bytes, count)
        self.shield = None
        if code_bytes:
            self.shield = shield.check(self.read(code, code_bytes), self.n, self.m)
            self._need(self.shield, code)

    def _inside(self, field, at, size):
        self._need(at % 4 == 0 and at >= HEADER and at + size <= self.bytes - TRAILER, field)

    def _channels(self, at):
        n, m = self.n, self.m
        data = self.read(at, 12 * n + 16 * m)
        self.channels = array("i", bytes(12 * n))
        for k in range(n):
            low, high, shift = struct.unpack_from("<iiB", data, 12 * k)
            self._need(-LIMIT <= low <= high <= LIMIT and shift <= 30, at + 12 * k)
            self.channels[3 * k], self.channels[3 * k + 1], self.channels[3 * k + 2] = low, high, shift
        self.actions = self._ints(data, 12 * n, 4 * m)
        for k in range(0, 4 * m, 4):
            low, high, safe, initial = self.actions[k], self.actions[k + 1], self.actions[k + 2], self.actions[k + 3]
            self._need(-LIMIT <= low <= high <= LIMIT, at + 12 * n + 4 * k)
            self._need(low <= safe <= high and low <= initial <= high, at + 12 * n + 4 * k)

    def _operations(self, at, end, count):
        self.ops = []
        self.memory = self.widest = 0
        width, here = self.n, OBSERVATION
        for _ in range(count):
            self._need(at + 12 <= end, at)
            kind, flags, n_in, n_out, zero, low, high = struct.unpack("<BBHHhhh", self.read(at, 12))
            takes, gives = flow(kind, flags)
            self._need(takes == here and n_in == width and 1 <= n_out <= MAX_WIDTH, at)
            self._need(n_in == n_out or kind in (DENSE, ARGMAX, CONV, POOL, GRU, LSTM, CHOICES), at)
            self._need(gives != ACTION or n_out == self.m, at)
            self._need(gives == ACTION or self.buffer >= (2 if kind == GRU else gives) * padded(n_out), at)
            if kind in (INPUT, DENSE, CONV):
                self._need(low <= high, at)
                self._need(gives != INT8 or (low >= -128 and high <= 127 and -128 <= zero <= 127), at)
            self.at, self.end = at + 12, end
            p = array("i", (n_in, n_out, _stride(n_in, flags), zero, low - zero, high - zero, 7 if flags & WIDE else 0, 1 if flags & SHIFT else 0))
            p, q, w = self._data(kind, flags, n_in, n_out, p)
            self.ops.append((kind, p, q, w))
            self.widest = max(self.widest, n_out, _stride(n_in, flags))
            self.memory += 0 if kind not in (GRU, LSTM) else n_out if kind == GRU else 2 * n_out
            self._need(self.memory <= MAX_MEMORY, at)
            at = self.at
            width, here = n_out, gives
            self.feed()
        self._need(here == ACTION and at == end, at)

    def _take(self, size):
        """The next bytes of the operation, and the padding after them."""
        at = self.at
        self._need(at + padded(size) <= self.end, at)
        self.at = at + padded(size)
        return self.read(at, padded(size))

    def _data(self, kind, flags, i, o, p):
        """An operation's data as the kernels take it: parameters, rows of integers, bytes."""
        at = self.at
        if kind == DENSE:
            q, w = self._weighted(o, i, flags, 0)
            return p, q, w
        if kind == CONV:
            return self._conv(flags, i, o, p)
        if kind == GRU or kind == LSTM:
            return self._cell(kind, flags, i, o)
        if kind == POOL:
            self._need(i % o == 0, at)
            return array("i", (i, o, i // o, 1 if flags & MAX else 0)), array("i"), b""
        if kind == INPUT:
            return p, self._input(flags, i), b""
        if kind == AFFINE:
            return p, self._affine(i), b""
        if kind == ARGMAX:
            return p, self._levels(at, self._ints(self._take(4 * i * o), 0, i * o), o), b""
        if kind == CHOICES:
            return p, self._choices(i, o), b""
        if kind == LOOKUP16:
            return p, array("i", struct.unpack_from("<513h", self._take(1026))), b""
        return p, array("i"), self._take(256) if kind == LOOKUP else b""

    def _weighted(self, rows, columns, flags, lowest):
        """Rows of bias, mh, ml, shift, and weights + 128 as bytes, which are padded to the stride of the values."""
        at = self.at
        bias = self._ints(self._take(4 * rows), 0, rows)
        multipliers = None if flags & SHIFT else self._take(4 * rows)
        shifts = self._take(rows)
        q = array("i", bytes(16 * rows))
        for k in range(rows):
            q[4 * k] = bias[k]
            q[4 * k + 1], q[4 * k + 2], q[4 * k + 3] = self._scale(at, multipliers, 4 * k, shifts, k, lowest)
        return q, self._weights(rows, columns, flags)

    def _weights(self, rows, columns, flags):
        stride = _stride(columns, flags)
        if not flags & INT4:
            w = self._take(rows * stride)
            for k in range(len(w)):
                w[k] ^= 128  # signed to + 128
                if not k & 1023:
                    self.feed()
            return w
        w = bytearray(rows * stride)
        for k in range(rows * stride // 8):
            four = self._take(4)
            for b in range(4):
                w[8 * k + 2 * b] = ((four[b] & 15) ^ 8) + 120
                w[8 * k + 2 * b + 1] = ((four[b] >> 4) ^ 8) + 120
            if not k & 127:
                self.feed()
        return w

    def _conv(self, flags, i, o, p):
        at = self.at
        height, width, channels, filters, down, across, spare, outside, kh, kw, sh, sw, top, left, last = struct.unpack("<7Hh6BH", self._take(24))
        self._need(spare == 0 and last == 0 and height * width * channels == i and down * across * filters == o, at)
        self._need(kh > top and kw > left and sh >= 1 and sw >= 1 and min(height, width, channels, filters, down, across) >= 1, at)
        self._need((down - 1) * sh - top < height and (across - 1) * sw - left < width, at)
        self._need(flags & X16 or -128 <= outside <= 127, at)
        deep = flags & DEPTHWISE
        self._need(not deep or filters % channels == 0, at)
        columns = kh * kw * (1 if deep else channels)
        self._need(columns <= 65535, at)
        q, w = self._weighted(filters, columns, flags, 0)
        sizes = (height, width, channels, filters, down, across, kh, kw, sh, sw, top, left, outside, p[3], p[4], p[5], p[7], _stride(columns, flags))
        return array("i", sizes + ((filters // channels) if deep else 0,)), q, w

    def _cell(self, kind, flags, i, h):
        rows = (3 if kind == GRU else 4) * h
        bits = 0
        if kind == LSTM:
            bits = self._take(1)[0]
            self._need(bits <= 12, self.at)
        q_given, w_given = self._weighted(rows, i, 0, -15)
        q_kept, w_kept = self._weighted(rows, h, 0, -15)
        given = array("i", (i, rows, padded(i), 0, -32768, 32767, 0, 0))
        # no value of the memory is set to zero for padding: what its weights of zero read is another state's
        kept = array("i", (padded(h), rows, padded(h), 0, -32768, 32767, 0, 0))
        cell = array("i", (h, 1 if flags & X16 else 0, bits, h))
        return (given, kept, cell), (q_given, q_kept), (w_given, w_kept)

    def _input(self, flags, n):
        """Rows of mean, mh, ml, shift, index."""
        at = self.at
        mean = self._ints(self._take(4 * n), 0, n)
        multipliers, shifts = self._take(4 * n), self._take(n)
        order = self._take(2 * n) if flags & ORDERED else None
        q = array("i", bytes(20 * n))
        for k in range(n):
            self._need(-LIMIT <= mean[k] <= LIMIT, at)
            q[5 * k] = mean[k]
            q[5 * k + 1], q[5 * k + 2], q[5 * k + 3] = self._scale(at, multipliers, 4 * k, shifts, k, -30)
            q[5 * k + 4] = struct.unpack_from("<H", order, 2 * k)[0] if order else k
            self._need(q[5 * k + 4] < n, at)
        for k in range(n):  # each once
            for j in range(k):
                self._need(q[5 * k + 4] != q[5 * j + 4], at)
        return q

    def _choices(self, n, m):
        at = self.at
        sizes = struct.unpack("<%dH" % m, self._take(2 * m)[: 2 * m])
        self._need(min(sizes) >= 1 and sum(sizes) == n, at)
        levels = self._ints(self._take(4 * n), 0, n)
        k = 0
        for j in range(m):
            for _ in range(sizes[j]):
                self._need(self.actions[4 * j] <= levels[k] <= self.actions[4 * j + 1], at)
                k += 1
        return array("i", sizes + tuple(levels))

    def _ints(self, data, at, count):
        return array("i", (struct.unpack_from("<i", data, at + 4 * k)[0] for k in range(count)))

    def _scale(self, at, multipliers, multiplier, shifts, shift, lowest):
        """A multiplier as two limbs, and its shift; without multipliers the shift alone."""
        s = struct.unpack_from("<b", shifts, shift)[0]
        self._need(lowest <= s <= 31, at)
        if multipliers is None:
            return 0, 0, s
        ml, mh = struct.unpack_from("<HH", multipliers, multiplier)
        self._need(0x4000 <= mh < 0x8000 or mh == ml == 0, at)
        return mh, ml, s

    def _affine(self, m):
        """Rows of mh, ml, shift, offset, low, high, the last two less offset; low and high are within the contract's."""
        at = self.at
        multipliers, shifts = self._take(4 * m), self._take(m)
        data = self._take(12 * m)
        q = array("i", bytes(24 * m))
        for j in range(m):
            offset, low, high = (struct.unpack_from("<i", data, 4 * (j + part * m))[0] for part in range(3))
            self._need(-LIMIT <= offset <= LIMIT and self.actions[4 * j] <= low <= high <= self.actions[4 * j + 1], at)
            q[6 * j], q[6 * j + 1], q[6 * j + 2] = self._scale(at, multipliers, 4 * j, shifts, j, -30)
            q[6 * j + 3], q[6 * j + 4], q[6 * j + 5] = offset, low - offset, high - offset
        return q

    def _levels(self, at, levels, m):
        for k in range(len(levels)):
            j = 4 * (k % m)
            self._need(self.actions[j] <= levels[k] <= self.actions[j + 1], at + 4 * k)
        return levels
