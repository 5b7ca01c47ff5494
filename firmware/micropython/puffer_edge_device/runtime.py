"""The loop: tick when it is due, answer the host in between, keep the watchdog fed."""

import micropython

from .device import Device
from .link import Link


class Runtime:
    def __init__(self, board, driver=None, folder=""):
        self.board = board
        self.device = Device(board, driver, folder)
        self.link = Link(board, self.device)

    def poll(self):
        """One turn; returns microseconds that may be slept, or -1 until a byte comes."""
        self.board.feed()
        busy = self.link.poll()
        us = self.device.poll()
        return 0 if busy else us

    @property
    def done(self):
        return self.link.leave or self.link.reset_asked


def load_driver():
    """The board's ``user.py``, or None. Ctrl-C works while it is imported, so that a driver that hangs can be taken off."""
    micropython.kbd_intr(3)
    try:
        return __import__("user")
    except ImportError as e:
        if "'user'" in str(e):  # not one that user.py itself lacks
            return None
        raise
    finally:
        micropython.kbd_intr(-1)


def run():
    """Until the host asks for the prompt, which returns, or for a reset, which does not."""
    from .board import Board

    micropython.kbd_intr(-1)  # the link carries every byte, 3 included
    board, runtime = Board(), None
    try:
        runtime = Runtime(board, load_driver())
        while not runtime.done:
            board.wait(runtime.poll())
    finally:
        if runtime:
            runtime.device.rest()
        micropython.kbd_intr(3)
    if runtime.link.reset_asked:
        board.reset()
