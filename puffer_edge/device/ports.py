"""Lines that leave this process: a serial port or a TCP socket."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from puffer_edge.device.link import Link
from puffer_edge.device.target import Target
from puffer_edge.errors import InvalidInput, PortUnavailable, Unsupported

POLL_S = 0.05
WRITE_TIMEOUT_S = 5.0
CHUNK = 4096


@dataclass(frozen=True)
class Port:
    """A serial port of this computer.

    Attributes:
        device: the path or name to open; on Linux the one that stays the same when boards are replugged.
        description: what the system says about it.
    """

    device: str
    description: str


def list_ports() -> list[Port]:
    """Serial ports with hardware behind them, by stable name."""
    try:
        from serial.tools.list_ports import comports
    except ImportError:
        return []
    stable = {str(link.resolve()): str(link) for link in sorted(Path("/dev/serial/by-id").glob("*"))}
    # On macOS tty.* waits for carrier detect for ever, cu.* does not; the "n/a" ones on Linux are UARTs without a device.
    found = [p for p in comports() if not p.device.startswith("/dev/tty.") and (p.hwid != "n/a" or sys.platform != "linux")]
    return [Port(stable.get(p.device, p.device), str(p.description)) for p in sorted(found, key=lambda p: str(p.device))]


def open_link(url: str, target: Target) -> Link:
    """Open a port or address: "/dev/ttyACM0", "COM3", "socket://host:port", or any other URL that pyserial knows.

    Raises:
        PortUnavailable: missing, busy, or not permitted; says which and what to do.
        InvalidInput: the address has no host or port.
    """
    return SocketLink(url) if url.startswith("socket://") else SerialLink(url, target)


class SocketLink(Link):
    """A line over TCP, to a simulator or a serial server.

    Args:
        url: socket://HOST:PORT.
        last_words: what the other end said before it went away.
    """

    def __init__(self, url: str, last_words: Callable[[], str] = str) -> None:
        super().__init__(url)
        self._last_words = last_words
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or not port:
            raise InvalidInput(f"{url!r} is no address: socket://HOST:PORT, for example socket://127.0.0.1:7000")
        try:
            self._socket = socket.create_connection((host, port), timeout=WRITE_TIMEOUT_S)
        except OSError as error:
            raise PortUnavailable(f"{url} cannot be reached ({error}): is the simulator or serial server running?") from None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        """Put bytes on the line."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._gone(error) from None

    def receive(self, timeout_s: float) -> bytes:
        """Whatever arrived; nothing if none came in time."""
        try:
            if not select.select([self._socket], [], [], timeout_s)[0]:
                return b""
            data = self._socket.recv(CHUNK)
        except (OSError, ValueError) as error:
            raise self._gone(error) from None
        if not data:
            raise self._gone("the other end closed the connection")
        return data

    def close(self) -> None:
        """Leave the line."""
        self._socket.close()

    def _gone(self, why: object) -> PortUnavailable:
        way = self._last_words() or "start the simulator or serial server again"
        return PortUnavailable(f"{self.name} went away ({why}): {way}")


class SerialLink(Link):
    """A line over a serial port.

    Args:
        url: device path, port name, or a URL that pyserial knows.
        target: how the port is opened.
    """

    def __init__(self, url: str, target: Target) -> None:
        super().__init__(url)
        try:
            import serial
        except ImportError:
            raise Unsupported("a serial port needs pyserial: pip install pyserial") from None
        settings = target.serial
        if settings is None:
            raise Unsupported(f"a {target.name} has no serial line that answers: {target.notes}")
        try:
            port: Any = serial.serial_for_url(
                url, do_not_open=True, baudrate=settings.baud, timeout=POLL_S, write_timeout=WRITE_TIMEOUT_S, exclusive=True
            )
            # Before open: on many boards these lines are wired to reset and to the boot mode.
            port.dtr, port.rts = settings.dtr, settings.rts
            port.open()
        except (OSError, ValueError) as error:
            raise PortUnavailable(_cannot_open(url, error)) from None
        self._port = port
        with contextlib.suppress(AttributeError, NotImplementedError, OSError, ValueError):
            port.set_low_latency_mode(True)  # FTDI adapters hold bytes back for 16 ms otherwise
        try:
            time.sleep(settings.boot_ms / 1000)
            port.reset_input_buffer()
        except BaseException:
            self.close()
            raise

    def send(self, data: bytes) -> None:
        """Put bytes on the line."""
        try:
            self._port.write(data)
        except (OSError, TypeError) as error:  # pyserial: TypeError when the port vanished under it
            raise self._gone(error) from None

    def receive(self, timeout_s: float) -> bytes:
        """Whatever arrived; nothing if none came in time."""
        deadline = time.monotonic() + timeout_s
        try:
            # Changing pyserial's timeout would set up the whole port anew, hence the short fixed one.
            while not (data := self._port.read(1)):
                if time.monotonic() >= deadline:
                    return b""
            return bytes(data + self._port.read(self._port.in_waiting))
        except (OSError, TypeError) as error:
            raise self._gone(error) from None

    def close(self) -> None:
        """Leave the line."""
        with contextlib.suppress(OSError, TypeError):
            self._port.close()

    def _gone(self, error: Exception) -> PortUnavailable:
        return PortUnavailable(f"{self.name} went away ({error}): plug the board in again; a weak cable or hub also looks like this")


def _cannot_open(url: str, error: Exception) -> str:
    """Why a port does not open, and the way out."""
    number = getattr(error, "errno", None)
    text = str(error).lower()
    if number in (errno.EACCES, errno.EPERM) and "lock" not in text:
        way = "you may not open it: join the group that owns it (Linux: sudo usermod -aG dialout $USER, then log in again)"
    elif number in (errno.EBUSY, errno.EAGAIN) or "lock" in text or "access is denied" in text:
        way = "another program holds it: close mpremote, a serial monitor or another check; ModemManager holds new ports for some seconds"
    else:
        found = ", ".join(p.device for p in list_ports()) or "none; is the cable a data cable?"
        way = f"there is no such port; ports here: {found}"
        if number not in (None, errno.ENOENT, errno.ENODEV, errno.ENXIO):
            way = f"{error}; ports here: {found}"
    return f"{url} cannot be opened: {way}"
