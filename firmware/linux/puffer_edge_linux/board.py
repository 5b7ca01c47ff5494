"""What the runtime needs of a computer, with the attributes and methods of firmware/micropython's ``board.py``."""

import hashlib
import os
import select
import shutil
import socket
import sys
import time
from pathlib import Path

from .lines import SerialLine, SocketLine

FEED_S = 0.05
BEAT, REST = b".", b"!"  # signs of life: watch me, and no more
MAX_IMAGE = 4 << 20  # bytes: what a host may send
SIMULATED_ID = b"PESIM\0\0\4"


class Board:
    """The line to the host, the watchdog that the parent process is, and the clock.

    Args:
        line: where bytes come from and go to.
        name: the target's name.
        folder: the board's own files.
        beats: descriptor on which the parent expects signs of life.
        simulated: no real board answers, and the greeting says so.
    """

    clock_hz = 1_000_000  # of the "cycles" in replies: they are microseconds, as in MicroPython

    def __init__(self, line: SocketLine | SerialLine, name: str, folder: Path, beats: int, simulated: bool) -> None:
        self.line, self.folder, self.beats = line, folder, beats
        self.name = name.encode()[:12]
        self.unique_id = SIMULATED_ID if simulated else _unique_id()
        self.watched = False
        self._next_beat = 0.0
        self._data, self._at = b"", 0
        os.set_blocking(beats, False)

    def read(self) -> int:
        """The next byte, or -1 if there is none."""
        if self._at == len(self._data):
            self._data, self._at = self.line.receive(), 0
            if not self._data:
                return -1
        self._at += 1
        return self._data[self._at - 1]

    def write(self, buffer: bytearray, length: int) -> None:
        """Send the first ``length`` bytes."""
        self.line.send(bytes(memoryview(buffer)[:length]))

    def wait(self, us: int) -> None:
        """Until a byte is there, or for so many microseconds; -1 is for ever, and nothing runs: the watchdog rests.

        Raises:
            SystemExit: the parent is gone.
        """
        if us < 0 and self.watched:
            self._beat(REST)
            self.watched = False
        ready, _, _ = select.select([*self.line.files, sys.stdin.fileno()], [], [], us / 1e6 if us >= 0 else None)
        if sys.stdin.fileno() in ready:
            raise SystemExit("the process that watches this one is gone")

    def start_watchdog(self, ms: int) -> bool:
        """From now on the parent ends this process when ``feed`` is not called for a second, and writes the safe output itself."""
        self.watched, self._next_beat = True, 0.0
        self.feed()
        return True

    def feed(self) -> None:
        """A sign of life, at most one in 50 ms."""
        if self.watched and time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + FEED_S
            self._beat(BEAT)

    def _beat(self, sign: bytes) -> None:
        try:
            os.write(self.beats, sign)
        except BlockingIOError:
            pass  # the parent has not read the earlier ones yet: they count
        except BrokenPipeError:
            raise SystemExit("the process that watches this one is gone") from None

    def free_bytes(self) -> int:
        """Room for a new policy beside the present one."""
        return min(MAX_IMAGE, shutil.disk_usage(self.folder).free // 2)


def _unique_id() -> bytes:
    """Eight bytes that stay the same: a digest, because a machine's own id is not for the network."""
    try:
        machine = Path("/etc/machine-id").read_bytes()
    except OSError:
        machine = socket.gethostname().encode()
    return hashlib.sha256(b"puffer-edge " + machine).digest()[:8]
