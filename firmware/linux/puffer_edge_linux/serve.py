"""The child process: tick when it is due, answer the host in between, and leave with the safe output whatever happens."""

import argparse
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from puffer_edge_device.store import Store

from .board import Board
from .bundle import BadBundle, Bundle
from .compute import OtherPolicy
from .device import Device, Link
from .driver import load_driver
from .lines import SerialLine, SocketLine
from .options import say

STOPPED, WRONG = 0, 2
PRIORITY = 50  # of SCHED_FIFO: above all ordinary work, below the kernel's own threads
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def serve(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Run until a signal, the end of the parent, or a reset; returns the exit status."""
    for number in SIGNALS:
        signal.signal(number, _stop)
    try:
        options.folder.mkdir(parents=True, exist_ok=True)
        bundle = Bundle(options.bundle)
        _first_install(options.folder, bundle)
        line = _line(options)
        board = Board(line, options.simulated or bundle.target, options.folder, options.watched, bool(options.simulated))
        device = Device(board, load_driver(options.folder), options, bundle)
    except (BadBundle, OtherPolicy, ImportError, OSError, ValueError) as error:
        say(str(error))
        return WRONG
    link = Link(board, device)
    if options.realtime:
        _realtime()
    if device.driver is None:
        say(f"there is no {options.folder / 'user.py'}: the board answers in lock-step and drives nothing")
    if isinstance(line, SocketLine) and options.line is None:
        print(json.dumps({"port": line.server.getsockname()[1]}), flush=True)
    try:
        while not link.reset_asked:
            board.feed()
            busy = link.poll()
            us = device.poll()
            board.wait(0 if busy else us)
    except (KeyboardInterrupt, SystemExit) as end:
        say(str(end))
        return STOPPED
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        device.rest()
    _restart(line, arguments)


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(f"stopped by {signal.Signals(number).name}: the safe output acts")


def _first_install(folder: Path, bundle: Bundle) -> None:
    """A new board holds the bundle's policy; one that holds a policy keeps it, as a chip keeps its flash."""
    held, count = Store(str(folder), lambda: None).open()
    if not bundle.there:
        return
    image = bundle.read("policy.bin")
    if held is None:
        part = folder / "policy.part"
        part.write_bytes(image)
        os.replace(part, folder / f"policy-{count + 1}.bin")
    elif held.digests[0] != image[-32:]:
        say(f"the board holds {Path(held.path).name}, which is not the bundle's policy.bin: 'puffer-edge install' replaces it")


def _line(options: argparse.Namespace) -> SocketLine | SerialLine:
    if options.serial:
        return SerialLine(options.serial, options.baud)
    if options.line is not None:
        return SocketLine(socket.socket(fileno=options.line), options.caller)
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    return SocketLine(socket.create_server((options.host, options.port), family=family))


def _realtime() -> None:
    """The scheduler's real-time class, and no page of this process on disk."""
    import ctypes

    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except PermissionError:
        say("no real-time scheduling: this user may not (sudo, or LimitRTPRIO= in the systemd unit); running as an ordinary process")
        return
    if ctypes.CDLL(None, use_errno=True).mlockall(3):  # MCL_CURRENT | MCL_FUTURE
        say("the memory could not be locked (LimitMEMLOCK= in the systemd unit)")


def _restart(line: SocketLine | SerialLine, arguments: Sequence[str]) -> None:
    """A reset: this program anew, on the same line, so that the host's next question is answered."""
    kept = _without(list(arguments), ("--line", "--caller"))
    os.execv(sys.executable, [sys.executable, sys.argv[0], *kept, *line.handles])


def _without(arguments: list[str], names: Sequence[str]) -> list[str]:
    for name in names:
        if name in arguments:
            at = arguments.index(name)
            del arguments[at : at + 2]
    return arguments
