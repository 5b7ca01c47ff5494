"""Lines that leave the process: good ones, silent ones, noisy ones, busy ones, and boards unplugged half way."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from puffer_edge.device import target
from puffer_edge.device.board import Board
from puffer_edge.device.loopback import LoopbackDevice
from puffer_edge.device.ports import SerialLink, SocketLink, list_ports, open_link
from puffer_edge.errors import BadFrame, InvalidInput, PortUnavailable, Timeout
from tests.device import installed

HOST = target.load("host")
Answer = Callable[[bytes], bytes | None]


@contextlib.contextmanager
def tcp(answer: Answer) -> Iterator[str]:
    """A serial server for one caller; an answer of None unplugs the board."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            caller, _ = server.accept()
            with caller:
                while data := caller.recv(4096):
                    reply = answer(data)
                    if reply is None:
                        return
                    caller.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"socket://127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.close()
        thread.join(10)


@contextlib.contextmanager
def serial_port(answer: Answer) -> Iterator[str]:
    """A pseudo terminal with a board behind it; an answer of None unplugs it."""
    pty = pytest.importorskip("pty")
    import tty

    board, port = pty.openpty()
    tty.setraw(board)
    tty.setraw(port)
    name = os.ttyname(port)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while data := os.read(board, 4096):
                reply = answer(data)
                if reply is None:
                    break
                os.write(board, reply)
        os.close(board)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield name
    finally:
        os.close(port)
        thread.join(10)


def unplugged_after(steps: int) -> Answer:
    device, left = LoopbackDevice(), [steps]

    def answer(data: bytes) -> bytes | None:
        left[0] -= 1
        return device.receive(data) if left[0] >= 0 else None

    return answer


def silence(data: bytes) -> bytes:
    return b""


def noise(data: bytes) -> bytes:
    return b"\x00ets Jun  8 2016 00:22:57\r\n\x00rst:0x1 (POWERON_RESET)\x00"


def test_the_walk_over_tcp() -> None:
    with tcp(LoopbackDevice().receive) as url, Board(open_link(url, HOST)) as board:
        installed.walk(board)
        assert board.link.retries == 0


def test_the_walk_over_a_serial_port() -> None:
    with serial_port(LoopbackDevice().receive) as name, Board(open_link(name, HOST)) as board:
        installed.walk(board)
        assert board.link.retries == 0


@pytest.mark.parametrize("line", [tcp, serial_port])
def test_unplugging_half_way_names_the_port(line: Callable[[Answer], contextlib.AbstractContextManager[str]]) -> None:
    with line(unplugged_after(8)) as url, Board(open_link(url, HOST)) as board, pytest.raises(PortUnavailable, match="went away") as caught:
        installed.walk(board)
    assert url in str(caught.value)


@pytest.mark.parametrize("line", [tcp, serial_port])
def test_silence_is_a_timeout(line: Callable[[Answer], contextlib.AbstractContextManager[str]]) -> None:
    with line(silence) as url, contextlib.closing(open_link(url, HOST)) as link, pytest.raises(Timeout, match="did not answer 'hello'"):
        link.ask("hello", timeout_s=0.02)


@pytest.mark.parametrize("line", [tcp, serial_port])
def test_noise_is_no_answer(line: Callable[[Answer], contextlib.AbstractContextManager[str]]) -> None:
    with line(noise) as url, pytest.raises(BadFrame, match="no puffer-edge frame: check the firmware, the baud rate"):
        Board(open_link(url, HOST))


def test_a_port_that_is_held_by_another() -> None:
    with serial_port(silence) as name, contextlib.closing(SerialLink(name, HOST)), pytest.raises(PortUnavailable, match="another program holds it"):
        SerialLink(name, HOST)


def test_a_port_that_is_not_there() -> None:
    with pytest.raises(PortUnavailable, match="no such port; ports here"):
        SerialLink("/dev/no-such-port", HOST)


def test_a_port_that_is_not_permitted(monkeypatch: pytest.MonkeyPatch) -> None:
    import serial

    def refuse(*args: object, **settings: object) -> None:
        raise serial.SerialException(13, "could not open port /dev/ttyACM0: Permission denied")

    monkeypatch.setattr(serial, "serial_for_url", refuse)
    with pytest.raises(PortUnavailable, match="usermod -aG dialout"):
        SerialLink("/dev/ttyACM0", HOST)


def test_nobody_at_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(PortUnavailable, match="is the simulator or serial server running"):
        SocketLink(f"socket://127.0.0.1:{port}")


@pytest.mark.parametrize("url", ["socket://", "socket://host", "socket://host:port", "socket://host:99999999"])
def test_an_address_without_host_or_port(url: str) -> None:
    with pytest.raises(InvalidInput, match="socket://HOST:PORT"):
        open_link(url, HOST)


def test_lines_are_set_before_the_port_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    import serial

    seen: list[tuple[str, object]] = []

    class Fake(serial.SerialBase):  # type: ignore[misc]
        def _reconfigure_port(self) -> None:
            seen.append(("configured", None))

        def open(self) -> None:
            seen.append(("open", (self._dtr_state, self._rts_state, self._baudrate, self._exclusive)))
            raise serial.SerialException("that is enough")

    monkeypatch.setattr(serial, "serial_for_url", lambda url, do_not_open, **settings: Fake(None, **settings))
    with pytest.raises(PortUnavailable):
        SerialLink("COM7", target.load("esp32"))
    assert seen == [("open", (False, False, 115200, True))]


def test_ports_are_listed_without_opening_them() -> None:
    for port in list_ports():
        assert port.device
        assert not port.device.startswith("/dev/tty.")
