"""Frames of the link, for both ends: COBS with a zero byte around it and a CRC-32 inside, without heap use on MicroPython.

A frame is 0, COBS(type, sequence, payload, CRC-32), 0: ``protocol.py`` names the types. Imports nothing of the project.
"""

import sys

try:
    from collections.abc import Iterator
except ImportError:  # MicroPython: the annotation below is never evaluated there
    pass

OVERHEAD = 6  # type, sequence, CRC-32


def frame_bytes(payload_bytes: int) -> int:
    """Length of the longest frame with such a payload: one code byte for each 254 bytes, and the two zeros."""
    body = payload_bytes + OVERHEAD
    return body + body // 254 + 3


if sys.implementation.name == "micropython":
    from array import array

    def _table(upper: bool) -> "array[int]":
        """One 16-bit half of the 256 table entries of the polynomial 0xEDB88320: a whole entry would not fit a small int."""
        half = array("H", bytes(512))
        for k in range(256):
            low, high = k, 0
            for _ in range(8):
                odd = low & 1
                low = (low >> 1) | (high & 1) << 15
                high >>= 1
                if odd:
                    low ^= 0x8320
                    high ^= 0xEDB8
            half[k] = high if upper else low
        return half

    _LOW, _HIGH = _table(False), _table(True)

    def crc32(data: "bytes | bytearray", length: int, halves: "list[int]") -> None:
        """CRC-32 of the first ``length`` bytes: its low 16 bits to ``halves[0]``, its high ones to ``halves[1]``."""
        low = high = 0xFFFF
        table_low, table_high = _LOW, _HIGH
        k = 0
        while k < length:
            index = (low ^ data[k]) & 255
            low = (low >> 8 | (high & 255) << 8) ^ table_low[index]
            high = high >> 8 ^ table_high[index]
            k += 1
        halves[0] = low ^ 0xFFFF
        halves[1] = high ^ 0xFFFF

else:
    import zlib

    def crc32(data: "bytes | bytearray", length: int, halves: "list[int]") -> None:
        """As above, from the C library."""
        value = zlib.crc32(memoryview(data)[:length])
        halves[0] = value & 0xFFFF
        halves[1] = value >> 16


_halves = [0, 0]


def seal(body: bytearray, length: int, out: bytearray) -> int:
    """Frame the first ``length`` bytes of ``body`` (type, sequence, payload), which needs room for 4 more; returns the frame's length."""
    crc32(body, length, _halves)
    body[length] = _halves[0] & 255
    body[length + 1] = _halves[0] >> 8
    body[length + 2] = _halves[1] & 255
    body[length + 3] = _halves[1] >> 8
    out[0] = 0
    code_at = 1  # where the code byte of the running block goes: the distance to the next zero
    at = 2
    k = 0
    while k < length + 4:
        byte = body[k]
        k += 1
        if byte:
            out[at] = byte
            at += 1
        if byte == 0 or (at - code_at == 255 and k < length + 4):
            out[code_at] = at - code_at
            code_at = at
            at += 1
    out[code_at] = at - code_at
    out[at] = 0
    return at + 1


def encode(type: int, sequence: int, payload: "bytes | bytearray | memoryview", out: bytearray) -> int:
    """Write one frame to ``out``, which needs ``frame_bytes(len(payload))``; returns its length."""
    body = bytearray(len(payload) + OVERHEAD)
    body[0] = type
    body[1] = sequence
    body[2 : 2 + len(payload)] = payload
    return seal(body, 2 + len(payload), out)


class Decoder:
    """Bytes in, frames out; whatever is no frame is dropped and the next zero byte starts afresh.

    After ``put`` returned True and until it is called again: ``type``, ``sequence``, ``length`` of the payload, which lies
    in ``body`` from index 2 on, and ``crc``, the two halves of the CRC-32. ``bad`` counts frames that were refused.
    """

    def __init__(self, max_payload: int) -> None:
        self.body = bytearray(max_payload + OVERHEAD)
        self.type = 0
        self.sequence = 0
        self.length = 0
        self.crc = [0, 0]
        self.bad = 0
        self._at = 0  # bytes decoded
        self._left = 0  # bytes until the next code byte
        self._zero = False  # that code byte stands for a zero
        self._overrun = False

    def put(self, byte: int) -> bool:
        """Take one byte; True when it completed a good frame."""
        if byte == 0:
            return self._end()
        if self._left:
            self._left -= 1
            self._append(byte)
        else:
            if self._zero:
                self._append(0)
            self._left = byte - 1
            self._zero = byte != 255
        return False

    def feed(self, data: "bytes | bytearray | memoryview") -> "Iterator[tuple[int, int, bytes]]":
        """Take bytes and yield (type, sequence, payload) of every good frame: the comfortable form, for the host."""
        for byte in data:
            if self.put(byte):
                yield self.type, self.sequence, bytes(self.body[2 : 2 + self.length])

    @property
    def started(self) -> bool:
        """Bytes of an unfinished frame are held."""
        return self._at > 0 or self._left > 0 or self._zero

    def _append(self, byte: int) -> None:
        if self._at < len(self.body):
            self.body[self._at] = byte
            self._at += 1
        else:
            self._overrun = True

    def _end(self) -> bool:
        empty = not self.started
        good = self._left == 0 and self._at >= OVERHEAD and not self._overrun and self._check(self._at - 4)
        self._at = self._left = 0
        self._zero = self._overrun = False
        if not good and not empty:
            self.bad += 1
        return good

    def _check(self, end: int) -> bool:
        body = self.body
        crc32(body, end, self.crc)
        if self.crc[0] != body[end] | body[end + 1] << 8 or self.crc[1] != body[end + 2] | body[end + 3] << 8:
            return False
        self.type = body[0]
        self.sequence = body[1]
        self.length = end - 2
        return True
