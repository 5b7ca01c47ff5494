"""What the runtime needs of a chip: a serial line that carries any byte, a watchdog, a reset, a name.

A simulator brings its own class with the same attributes and methods.
"""

import os
import select
import sys

import machine


class Board:
    clock_hz = 1000000  # of the "cycles" in replies: they are microseconds here

    def __init__(self):
        self.name = sys.implementation._machine.split(" with ")[-1].lower().encode()[:12]  # "… with RP2040"
        self.unique_id = machine.unique_id()[:8]
        self.watchdog = None
        self.poller = select.poll()
        self.poller.register(sys.stdin, select.POLLIN)
        self.stdin, self.stdout = sys.stdin.buffer, sys.stdout.buffer
        self.byte = bytearray(1)

    @property
    def watched(self):
        return self.watchdog is not None

    def read(self):
        """The next byte, or -1 if there is none."""
        for _ in self.poller.ipoll(0):
            self.stdin.readinto(self.byte)
            return self.byte[0]
        return -1

    def write(self, buffer, length):
        self.stdout.write(buffer, length)

    def wait(self, us):
        """Until a byte is there, or for so long; -1 is for as long as the watchdog allows. Short waits return at once."""
        self.poller.poll(us // 1000 - 1 if us >= 2000 else 0) if us >= 0 else self.poller.poll(100)

    def start_watchdog(self, ms):
        """From now on ``feed`` must be called in time, until a reset: these chips cannot stop it. False if there is none."""
        if self.watchdog is None:
            self.watchdog = machine.WDT(timeout=ms)
        return True

    def feed(self):
        if self.watchdog is not None:
            self.watchdog.feed()

    def free_bytes(self):
        """Room for a new policy beside the present one."""
        block, _, _, free = os.statvfs("/")[:4]
        return block * max(0, free - 2)

    def reset(self):
        machine.reset()
