"""The parent process: a watchdog. When the child hangs or dies, it is ended for good and the safe output is written from here."""

import argparse
import os
import select
import signal
import stat
import subprocess
import sys
import time
from array import array
from collections.abc import Sequence
from types import FrameType

from puffer_edge_device.device import WATCHDOG_MS
from puffer_edge_device.store import Store

from .board import REST
from .driver import load_driver
from .options import say
from .serve import SIGNALS, STOPPED, WRONG

LEAVE_S = 2.0  # for a child that was asked to end
HUNG = 1


def supervise(options: argparse.Namespace, command: Sequence[str]) -> int:
    """Start the child and watch it; returns its exit status, or 1 when it had to be ended."""
    watch = Watch(command)
    for number in SIGNALS:
        signal.signal(number, watch.leave)
    hung = watch.hangs()
    if hung:
        say("no sign of life: the process that drives the actuators is ended")
        watch.child.kill()
    status = watch.child.wait()
    if hung or status not in (STOPPED, WRONG):
        _last_resort(options)
        return HUNG
    return status


class Watch:
    """The child, and when it must have given its next sign of life.

    Args:
        command: what starts it; it gets the descriptor for its signs of life as ``--watched``, and a standard input that ends with this process.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._beats, theirs = os.pipe()
        self.child = subprocess.Popen([*command, "--watched", str(theirs)], stdin=subprocess.PIPE, pass_fds=(theirs,))
        os.close(theirs)
        self._limit: float | None = None  # it is watched while it runs free; otherwise it may take its time
        self._leaving = False

    def leave(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Ask the child to end, which it does with the safe output."""
        self.child.send_signal(signal.SIGTERM)
        self._limit, self._leaving = time.monotonic() + LEAVE_S, True

    def hangs(self) -> bool:
        """Wait until the child ends (False) or gives no sign of life in time (True)."""
        inputs = [self._beats, *_ending_input()]
        while True:
            left = 3600.0 if self._limit is None else max(0.0, self._limit - time.monotonic())
            ready, _, _ = select.select(inputs, [], [], min(left, 0.2))  # a signal moves the limit while this waits
            if self._beats in ready:
                signs = os.read(self._beats, 4096)
                if not signs:
                    return False
                if not self._leaving:
                    self._limit = None if signs.endswith(REST) else time.monotonic() + WATCHDOG_MS / 1000
            elif self._limit is not None and time.monotonic() >= self._limit:
                return True
            for other in set(ready) - {self._beats}:
                if not os.read(other, 4096):
                    inputs.remove(other)
                    self.leave()


def _ending_input() -> list[int]:
    """Standard input where it is a pipe: whoever holds its other end leaves no runner behind."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return []
    return [sys.stdin.fileno()] if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else []


def _last_resort(options: argparse.Namespace) -> None:
    """The safe output of the installed policy, through the user's driver, loaded afresh."""
    image, _ = Store(str(options.folder), lambda: None).open()
    driver = load_driver(options.folder) if image else None
    if image is None or driver is None:
        return
    driver.write(array("i", (image.actions[4 * j + 2] for j in range(image.m))))
    say("the safe output was written by the process that watches")
