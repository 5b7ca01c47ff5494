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
INPUT, DENSE, LOOKUP, LOOKUP16, ARGMAX, AFFINE = 1, 2, 3, 4, 5, 6
# what flows from one operation to the next
OBSERVATION, INT8, HEAD, TABLE, ACTION = 0, 1, 2, 3, 4
# (kind, flags) -> what it may take, what it gives
FLOW = {
    (INPUT, 0): ((OBSERVATION,), INT8),
    (DENSE, 0): ((INT8,), INT8),
    (DENSE, 1): ((INT8,), HEAD),
    (LOOKUP, 0): ((INT8,), INT8),
    (LOOKUP16, 0): ((HEAD,), TABLE),
    (ARGMAX, 0): ((HEAD, TABLE), ACTION),
    (AFFINE, 0): ((HEAD, TABLE), ACTION),
}


class BadImage(Exception):
    """The argument is the offset of what was refused, from the start of the image."""


class BadDigest(Exception):
    """The file is not what its last 32 bytes say."""


def padded(n):
    return (n + 3) & ~3


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
        width, here = self.n, OBSERVATION
        for _ in range(count):
            self._need(at + 12 <= end, at)
            kind, flags, n_in, n_out, zero, low, high = struct.unpack("<BBHHhhh", self.read(at, 12))
            takes, gives = FLOW.get((kind, flags), ((), 0))
            self._need(here in takes and n_in == width and 1 <= n_out <= MAX_WIDTH, at)
            self._need(n_in == n_out or kind in (DENSE, ARGMAX), at)
            self._need(gives != ACTION or n_out == self.m, at)
            self._need(gives == ACTION or self.buffer >= (padded(n_out) if gives == INT8 else 2 * n_out), at)
            self._need(low <= high or kind not in (INPUT, DENSE), at)
            self._need(low >= -128 and high <= 127 or kind not in (INPUT, DENSE) or gives != INT8, at)
            size = self._size(kind, n_in, n_out)
            self._need(at + 12 + size <= end, at)
            q, w = self._data(kind, at + 12, n_in, n_out, size)
            p = array("i", (n_in, n_out, padded(n_in), zero, low - zero, high - zero, 7 if flags else 0))
            self.ops.append((kind, p, q, w))
            at += 12 + size
            width, here = n_out, gives
            self.feed()
        self._need(here == ACTION and at == end, at)

    def _size(self, kind, i, o):
        if kind == INPUT or kind == AFFINE:
            return (8 if kind == INPUT else 16) * i + padded(i)
        if kind == DENSE:
            return 8 * o + padded(o) + o * padded(i)
        return 4 * i * o if kind == ARGMAX else 256 if kind == LOOKUP else 1028

    def _data(self, kind, at, i, o, size):
        """An operation's data as the kernels take it: rows of integers, bytes."""
        if kind == DENSE:
            head = 8 * o + padded(o)
            data = self.read(at, head)
            weights = self.read(at + head, size - head)
            for k in range(size - head):
                weights[k] ^= 128  # signed to + 128
                if not k & 1023:
                    self.feed()
            return self._rows(at, o, self._ints(data, 0, o), data, 4 * o, 8 * o, 0), weights
        data = self.read(at, size)
        if kind == INPUT:
            mean = self._ints(data, 0, i)
            for k in range(i):
                self._need(-LIMIT <= mean[k] <= LIMIT, at)
            return self._rows(at, i, mean, data, 4 * i, 8 * i, -30), b""
        if kind == AFFINE:
            return self._affine(at, i, data), b""
        if kind == ARGMAX:
            return self._levels(at, self._ints(data, 0, i * o), o), b""
        if kind == LOOKUP16:
            return array("i", struct.unpack_from("<513h", data)), b""
        return array("i"), data

    def _ints(self, data, at, count):
        return array("i", (struct.unpack_from("<i", data, at + 4 * k)[0] for k in range(count)))

    def _multiplier(self, at, data, multiplier, shift, lowest):
        """A multiplier as two limbs, and its shift."""
        ml, mh = struct.unpack_from("<HH", data, multiplier)
        s = struct.unpack_from("<b", data, shift)[0]
        self._need(0x4000 <= mh < 0x8000 or mh == ml == 0, at + multiplier)
        self._need(lowest <= s <= 31, at + shift)
        return mh, ml, s

    def _rows(self, at, count, first, data, multiplier, shift, lowest):
        """Rows of first, mh, ml, shift."""
        q = array("i", bytes(16 * count))
        for k in range(count):
            q[4 * k] = first[k]
            q[4 * k + 1], q[4 * k + 2], q[4 * k + 3] = self._multiplier(at, data, multiplier + 4 * k, shift + k, lowest)
        return q

    def _affine(self, at, m, data):
        """Rows of mh, ml, shift, offset, low, high, the last two less offset; low and high are within the contract's."""
        q = array("i", bytes(24 * m))
        base = 4 * m + padded(m)
        for j in range(m):
            offset, low, high = (struct.unpack_from("<i", data, base + 4 * (j + part * m))[0] for part in range(3))
            self._need(-LIMIT <= offset <= LIMIT and self.actions[4 * j] <= low <= high <= self.actions[4 * j + 1], at + base + 4 * j)
            q[6 * j], q[6 * j + 1], q[6 * j + 2] = self._multiplier(at, data, 4 * j, 4 * m + j, -30)
            q[6 * j + 3], q[6 * j + 4], q[6 * j + 5] = offset, low - offset, high - offset
        return q

    def _levels(self, at, levels, m):
        for k in range(len(levels)):
            j = 4 * (k % m)
            self._need(self.actions[j] <= levels[k] <= self.actions[j + 1], at + 4 * k)
        return levels
