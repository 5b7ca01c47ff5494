"""Where the host's bytes come from: a TCP port with one caller at a time, or a serial port. Nothing here ever waits."""

import contextlib
import os
import socket
import termios
import tty
from pathlib import Path

CHUNK = 4096


class SocketLine:
    """A TCP port. The newest caller has it, as the newest cable has a board.

    Args:
        server: listening socket.
        caller: descriptor of a caller that was there before this program restarted itself.
    """

    def __init__(self, server: socket.socket, caller: int | None = None) -> None:
        self.server = server
        self.server.setblocking(False)
        self.caller = None if caller is None else socket.socket(fileno=caller)
        if self.caller is not None:
            self.caller.setblocking(False)

    @property
    def files(self) -> list[int]:
        """Descriptors that become readable when there is something to do."""
        return [self.server.fileno()] + ([] if self.caller is None else [self.caller.fileno()])

    @property
    def handles(self) -> list[str]:
        """Arguments under which a restarted self finds the line again."""
        sockets = {"--line": self.server} | ({} if self.caller is None else {"--caller": self.caller})
        for one in sockets.values():
            one.set_inheritable(True)
        return [part for name, one in sockets.items() for part in (name, str(one.fileno()))]

    def receive(self) -> bytes:
        """What has arrived, or nothing."""
        try:
            caller, _ = self.server.accept()
        except BlockingIOError:
            pass
        except OSError:
            pass  # a caller that left before it was greeted
        else:
            self._hang_up()
            caller.setblocking(False)
            caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.caller = caller
        if self.caller is None:
            return b""
        try:
            data = self.caller.recv(CHUNK)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self._hang_up()
        return data

    def send(self, data: bytes) -> None:
        """Answer. A caller that does not read its answers is left: the control loop waits for nobody."""
        if self.caller is None:
            return
        try:
            sent = self.caller.send(data)
        except OSError:
            sent = 0
        if sent < len(data):
            self._hang_up()

    def _hang_up(self) -> None:
        if self.caller is not None:
            self.caller.close()
            self.caller = None


class SerialLine:
    """A serial port in raw mode, 8 bits, no parity.

    Args:
        path: the device, for example /dev/ttyTHS1.
        baud: a rate that the C library knows by name.

    Raises:
        OSError: missing, not permitted, or no serial port.
        ValueError: there is no such rate.
    """

    def __init__(self, path: Path, baud: int) -> None:
        speed = getattr(termios, f"B{baud}", None)
        if speed is None:
            raise ValueError(f"{baud} is no rate of this system's serial ports: 115200, 230400, 460800 and 921600 are usual")
        self.file = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            tty.setraw(self.file)
            mode = termios.tcgetattr(self.file)
            mode[2] = (mode[2] | termios.CLOCAL | termios.CREAD) & ~termios.CRTSCTS
            mode[4] = mode[5] = speed
            termios.tcsetattr(self.file, termios.TCSANOW, mode)
        except termios.error as error:
            os.close(self.file)
            raise OSError(f"{path} is no serial port ({error})") from None
        self.files = [self.file]
        self.handles: list[str] = []  # a restarted self opens the port again

    def receive(self) -> bytes:
        """What has arrived, or nothing."""
        try:
            return os.read(self.file, CHUNK)
        except BlockingIOError:
            return b""

    def send(self, data: bytes) -> None:
        """Answer; what the port does not take is lost, and the host asks again."""
        with contextlib.suppress(BlockingIOError):
            os.write(self.file, data)
