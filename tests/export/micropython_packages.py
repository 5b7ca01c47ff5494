"""A board to which mpremote's own mip installs: MicroPython's unix port with a littlefs in memory as its root, spoken to over a pipe."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from mpremote.transport import Transport, TransportExecError

from tests.firmware.micropython_vm import UNIX

# Takes "bytes\n" and as much code; answers what it prints, then "\x04" and a traceback, if any, and "\x04".
BOARD = """
import io, os, sys, vfs

class Flash:
    def __init__(self, blocks):
        self.data = bytearray(blocks * 4096)
    def readblocks(self, block, buffer, offset=0):
        at = block * 4096 + offset
        buffer[:] = memoryview(self.data)[at : at + len(buffer)]
    def writeblocks(self, block, buffer, offset=0):
        at = block * 4096 + offset
        self.data[at : at + len(buffer)] = buffer
    def ioctl(self, op, argument):
        return {4: len(self.data) // 4096, 5: 4096}.get(op, 0)

flash = Flash(256)
vfs.VfsLfs2.mkfs(flash)
vfs.umount('/')
vfs.mount(vfs.VfsLfs2(flash), '/')
os.chdir('/')
sys.path[:] = ['', '/lib']
names = {'__name__': '__main__'}
while True:
    size = sys.stdin.buffer.readline()
    if not size:
        break
    said = io.StringIO()
    try:
        exec(sys.stdin.buffer.read(int(size)), names)
    except Exception as e:
        sys.print_exception(e, said)
    sys.stdout.buffer.write(b'\\x04' + said.getvalue().encode() + b'\\x04')
"""


class Piped(Transport):
    """mpremote's file functions on that process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def exec(self, command: str | bytes, data_consumer: Callable[[bytes], None] | None = None) -> bytes:
        code = command.encode() if isinstance(command, str) else command
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(b"%d\n" % len(code) + code)
        self.process.stdin.flush()
        printed, error = self._until(b"\x04"), self._until(b"\x04")
        if error:
            raise TransportExecError(1, error.decode())
        if data_consumer:
            data_consumer(printed)
        return printed

    def eval(self, expression: str) -> object:
        return ast.literal_eval(self.exec(f"print(repr({expression}))").decode())

    def _until(self, end: bytes) -> bytes:
        assert self.process.stdout is not None
        held = bytearray()
        while not held.endswith(end):
            byte = self.process.stdout.read(1)
            assert byte, f"the board ended: {bytes(held)!r}"
            held += byte
        return bytes(held[:-1])


@contextmanager
def board(machine: str) -> Iterator[Piped]:
    """A fresh board; ``machine`` is "unix-64" or "unix-32"."""
    program = UNIX / f"micropython-{machine[5:]}"
    if not program.exists():
        pytest.skip(f"needs MicroPython's unix port ({machine})")
    with subprocess.Popen([program, "-X", "heapsize=16M", "-c", BOARD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Piped(process)
        finally:
            process.kill()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a web server on this computer that shows a folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
