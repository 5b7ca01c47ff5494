"""One tick, as docs/tick.md numbers its steps. Nothing is allocated after ``Engine`` was made."""

from array import array

from . import shield
from .frames import crc32
from .protocol import (
    INVALID,
    MISSED,
    POLICY_RAN,
    REASON_INVALID,
    REASON_SHIFT,
    REASON_STALE,
    SATURATED,
    SHIELDS,
    STALE,
    STEP_INVALID,
    STEP_MISSED,
    STEP_RESET,
)
from .ticks import ticks_diff, ticks_us

try:
    from . import kernels_viper as kernels
except (ImportError, SyntaxError):  # no machine code on this port
    from . import kernels

KERNELS = (
    kernels.input, kernels.dense, kernels.lookup, kernels.lookup16, kernels.argmax, kernels.affine,
    kernels.conv, kernels.pool, kernels.gru, kernels.lstm, kernels.choices, kernels.tanh16,
)  # by kind - 1  # fmt: skip
GRU, LSTM = 9, 10


class Engine:
    """``tick`` leaves ``raw``, ``applied``, ``policy_us`` and ``shield_us``."""

    def __init__(self, image):
        n, m = image.n, image.m
        self.n, self.m, self.divider, self.stale_limit = n, m, image.divider, image.stale_limit
        self.channels, self.actions = image.channels, image.actions
        self.last = _ints(n)
        self.x, self.y = _ints(max(image.widest, n)), _ints(max(image.widest, n))
        values = _ints(image.memory + 3)  # a row of weights may read three more than there are
        self.memory = memoryview(values)[: image.memory]
        self.steps = []
        self._plan(image.ops, memoryview(values))
        self.held, self.raw, self.previous = _ints(m), _ints(m), _ints(m)
        self.applied = self.previous  # the same thing after a tick
        self.safe = array("i", (self.actions[4 * j + 2] for j in range(m)))
        self.inputs, self.outputs = _ints(n + 2 * m + 1), _ints(m + 1)
        self.state = bytearray(4 * (2 * m + n + 2) + 2 * image.memory)
        self.policy_us = self.shield_us = 0
        self.shield, self.shield_kind = None, SHIELDS["none"]
        if image.shield:
            self.shield, self.shield_kind = shield.printed(image.digests[3]), SHIELDS["printed"]
            if self.shield is None:
                self.shield, self.shield_kind = shield.Bytecode(image.shield, kernels.bytecode).run, SHIELDS["bytecode"]
        self.reset()

    def reset(self):
        for j in range(self.m):
            self.previous[j] = self.actions[4 * j + 3]
            self.held[j] = self.safe[j]
        for i in range(self.n):
            self.last[i] = 0
        for i in range(len(self.memory)):
            self.memory[i] = 0
        self.phase = 0
        self.stale = self.stale_limit + 1

    def _plan(self, ops, memory):
        """Who reads and writes what: operations alternate between two buffers; a cell is its gates, twice, and what it makes of them."""
        x, y = self.x, self.y
        for kind, p, q, w in ops:
            kernel = KERNELS[kind - 1]
            if kind == GRU or kind == LSTM:
                rows, h = p[0][1], p[2][0]
                gates = _ints(2 * rows)
                self.steps.append((kernels.dense, x, gates, p[0], q[0], w[0]))
                self.steps.append((kernels.dense, memory, memoryview(gates)[rows:], p[1], q[1], w[1]))
                self.steps.append((kernel, gates, y, p[2], memory, b""))
                memory = memory[h if kind == GRU else 2 * h :]
            else:
                self.steps.append((kernel, x, y, p, q, w))
            x, y = y, x
        self.result = x

    def tick(self, observation, flags):
        """Returns the outcome. ``observation`` (array "i") is not looked at if ``flags`` say missed or invalid."""
        if flags & STEP_RESET:
            self.reset()
        outcome = self._observe(observation, flags)
        start = ticks_us()
        if self.stale == 0 and self.phase == 0:  # a good observation came in this tick
            self._run()
            outcome |= POLICY_RAN
        self.phase = 0 if self.phase + 1 == self.divider else self.phase + 1
        middle = ticks_us()
        reasons = 0
        if self.stale > self.stale_limit:
            outcome |= STALE
            reasons = REASON_STALE
        if outcome & INVALID:
            reasons = REASON_INVALID
        proposal = self.safe if reasons else self.held
        for j in range(self.m):
            self.raw[j] = proposal[j]
        reasons |= self._guard(1 if reasons else 0)
        self.policy_us = ticks_diff(middle, start)
        self.shield_us = ticks_diff(ticks_us(), middle)
        return outcome | reasons << REASON_SHIFT

    def digest(self, halves):
        """CRC-32 of the state, as two halves."""
        at = _store(self.state, 0, self.previous)
        at = _store(self.state, at, self.held)
        at = _store(self.state, at, self.last)
        at = store(self.state, at, self.phase)
        at = store(self.state, at, self.stale)
        for i in range(len(self.memory)):
            v = self.memory[i]
            self.state[at] = v & 255
            self.state[at + 1] = (v >> 8) & 255
            at += 2
        crc32(self.state, at, halves)

    def _observe(self, observation, flags):
        if flags & (STEP_MISSED | STEP_INVALID):
            if self.stale <= self.stale_limit:
                self.stale += 1
            return INVALID if flags & STEP_INVALID else MISSED
        outcome = k = 0
        for i in range(self.n):
            v = observation[i]
            low = self.channels[k]
            high = self.channels[k + 1]
            if v < low:
                v = low
                outcome = SATURATED
            elif v > high:
                v = high
                outcome = SATURATED
            self.last[i] = v
            k += 3
        self.stale = 0
        return outcome

    def _run(self):
        x = self.x
        for i in range(self.n):
            x[i] = self.last[i]
        for kernel, x, y, p, q, w in self.steps:
            kernel(x, y, p, q, w)
        x = self.result
        for j in range(self.m):
            self.held[j] = x[j]

    def _guard(self, fallback):
        """Steps 5 to 7; returns the stage bits."""
        n, m = self.n, self.m  # pairs are exchanged on the stack; four values would make a tuple
        v, out = self.inputs, self.outputs
        for i in range(n):
            x = self.last[i] >> self.channels[3 * i + 2]
            v[i] = -32768 if x < -32768 else 32767 if x > 32767 else x
        for j in range(m):
            out[j] = v[n + j] = self.raw[j]
            v[n + m + j] = self.previous[j]
        v[n + 2 * m] = fallback
        out[m] = 0
        if self.shield:
            self.shield(v, out)
        for j in range(m):
            a = out[j]
            low = self.actions[4 * j]
            high = self.actions[4 * j + 1]
            self.applied[j] = low if a < low else high if a > high else a
        return out[m] & 255


def _ints(n):
    return array("i", bytes(4 * n))


def store(buffer, at, value):
    """An integer as 4 bytes, little-endian; returns the offset after them."""
    buffer[at] = value & 255
    buffer[at + 1] = (value >> 8) & 255
    buffer[at + 2] = (value >> 16) & 255
    buffer[at + 3] = (value >> 24) & 255
    return at + 4


def _store(buffer, at, values):
    for value in values:
        at = store(buffer, at, value)
    return at
