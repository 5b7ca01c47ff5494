"""A headless Chromium behind its debugging pipe, and a static server: what the page's tests drive."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import http.server
import json
import os
import select
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe")
QUIET = ("--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--disable-sync")
PATIENCE_S = 60.0


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A static server that does not write a line for every file."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address under which a folder is served."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Browser:
    """One page. Commands and events are JSON, ended by a zero byte, on file descriptors 3 and 4 (Chrome DevTools Protocol).

    Attributes:
        faults: uncaught errors and messages at level error, in order.
    """

    def __init__(self, program: str, home: str, width: int = 1280, height: int = 1200) -> None:
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()
        command = [program, *OPTIONS, *QUIET, f"--window-size={width},{height}", f"--user-data-dir={home}", "about:blank"]
        ends = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (commands, answers)]  # out of the way of 3 and 4
        null = os.open(os.devnull, os.O_RDWR)
        moves = [(os.POSIX_SPAWN_DUP2, source, to) for source, to in ((null, 0), (null, 1), (null, 2), (ends[0], 3), (ends[1], 4))]
        self._process = os.posix_spawn(program, command, os.environ, file_actions=moves)
        for fd in (commands, answers, null, *ends):
            os.close(fd)
        self._pending = b""
        self._count = 0
        self._session = ""
        self.faults: list[str] = []

    def close(self) -> None:
        """End the browser."""
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._to)
        os.close(self._from)

    def attach(self) -> None:
        """Make the page, and listen to its events."""
        page = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE_S
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self._count:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])
            self._note(answer)

    def open(self, address: str) -> None:
        """Go to a page; its scripts start."""
        self.ask("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression on the page, awaited; it travels as JSON."""
        answer = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str) -> None:
        """Until an expression is true."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.run(script):
            assert time.monotonic() < deadline, f"{script} stays false; {self.faults}"
            time.sleep(0.05)

    def picture(self, path: Path) -> None:
        """The whole page as a PNG file."""
        data = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._pending:
            ready, _, _ = select.select([self._from], [], [], max(deadline - time.monotonic(), 0))
            assert ready, "the browser does not answer"
            more = os.read(self._from, 1 << 16)
            assert more, "the browser ended"
            self._pending += more
        line, _, self._pending = self._pending.partition(b"\0")
        return dict(json.loads(line))

    def _note(self, event: dict[str, Any]) -> None:
        about = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.faults.append(json.dumps(about["exceptionDetails"]))
        if event.get("method") == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.faults.append(json.dumps(about["entry"]))


def program() -> str | None:
    """The browser on this machine, if there is one."""
    return next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)


@contextlib.contextmanager
def opened(**options: int) -> Iterator[Browser]:
    """A fresh browser; it is ended, and its profile removed, at the end."""
    found = program()
    assert found is not None, "no browser"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        browser = Browser(found, home, **options)
        try:
            browser.attach()
            yield browser
        finally:
            browser.close()
