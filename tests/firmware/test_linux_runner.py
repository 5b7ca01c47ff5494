"""The Linux runner as a process of this computer, from a bundle, behind its socket: what it computes, and where its actuators end up."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puffer_edge.device import target
from puffer_edge.device.board import Board
from puffer_edge.device.bundle import Bundle
from puffer_edge.device.link import Link
from puffer_edge.device.ports import SocketLink
from puffer_edge.envs import load
from puffer_edge.errors import Refused
from puffer_edge.export.bundle import export
from puffer_edge.firmware.shared import protocol
from puffer_edge.hil import check
from tests import samples

pytest.importorskip("onnxruntime")

# read() does what the file "mode" says: a number of seconds to sleep, or an expression; write() appends what it got to "written".
USER = """
import os, time
HERE = os.path.dirname(__file__)
def text(name):
    with open(os.path.join(HERE, name)) as file:
        return file.read()
def read(buffer):
    return eval(text("mode"))
def write(action):
    with open(os.path.join(HERE, "written"), "a") as file:
        file.write(str(list(action)) + "\\n")
    if os.path.exists(os.path.join(HERE, "broken")):
        raise OSError("bus")
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A cart-pole's: 50 ticks a second, the safe output is not what the policy does."""
    return samples.bundle(tmp_path_factory.mktemp("linux") / "bundle", "cartpole", "jetson")


@pytest.fixture(scope="module")
def continuous(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A pendulum's."""
    return samples.bundle(tmp_path_factory.mktemp("linux") / "bundle", "pendulum", "rpi-aarch64")


class Process:
    """A runner: started, spoken to, and ended however a test likes."""

    def __init__(self, bundle: Bundle, folder: Path, *options: str) -> None:
        self.folder, self.errors = folder, (folder.parent / f"{folder.name}.log").open("w+")
        command = [sys.executable, str(bundle.path / "linux" / "run.py"), "--folder", str(folder), "--port", "0", *options]
        self.parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True)
        assert self.parent.stdout is not None
        self.first = self.parent.stdout.readline()

    @property
    def said(self) -> str:
        self.errors.seek(0)
        return self.errors.read()

    @property
    def child(self) -> int:
        return int(Path(f"/proc/{self.parent.pid}/task/{self.parent.pid}/children").read_text().split()[0])

    def board(self) -> Board:
        return Board(SocketLink(f"socket://127.0.0.1:{json.loads(self.first)['port']}"))

    @property
    def written(self) -> list[list[int]]:
        path = self.folder / "written"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def end(self) -> int:
        """Close its standard input, as a simulator's owner does."""
        assert self.parent.stdin is not None and self.parent.stdout is not None
        with contextlib.suppress(OSError):
            self.parent.stdin.close()
        try:
            return self.parent.wait(10)
        finally:
            self.parent.kill()
            self.parent.stdout.close()
            self.errors.close()


@contextlib.contextmanager
def running(bundle: Bundle, folder: Path, *options: str, mode: str = "") -> Iterator[Process]:
    """A runner, with a driver that does ``mode`` if there is one."""
    folder.mkdir(exist_ok=True)
    if mode:
        (folder / "user.py").write_text(USER)
        (folder / "mode").write_text(mode)
    process = Process(bundle, folder, *options)
    try:
        yield process
    finally:
        process.end()


def until(condition: Callable[[], Any], limit_s: float = 20.0) -> None:
    """Wait for what must happen."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def start(board: Board, bundle: Bundle, mode: int = protocol.ARM_FREE_RUN) -> None:
    """Arm what the bundle names."""
    board.arm(*(getattr(bundle.image, part).digest for part in ("contract", "program", "shield")), mode=mode)


def safe(bundle: Bundle) -> list[int]:
    return [int(v) for v in bundle.image.contract.action_safe]


# What it computes


@pytest.mark.parametrize("which", ["bundle", "continuous"])
def test_the_integer_engine_gives_every_bit(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    held: Bundle = request.getfixturevalue(which)
    with running(held, tmp_path / "board") as process, process.board() as board:
        found = check.check(held, board, load(held.environment), episodes=1)
        assert "on the integer model, bit for bit" in process.said
    summary = found.summary()
    assert found.mismatches == 0 and found.vectors == len(held.vectors) and len(found.trace) > 5
    assert set(summary["largest_difference"].values()) == {0.0} and summary["note"] is None
    assert summary["board"]["kind"] == "linux" and summary["board"]["target"] == held.target
    assert summary["board"]["shield"] == "printed" and not board.simulated


@pytest.mark.parametrize(("engine", "says"), [("integer", "on the integer model"), ("onnx", "float self-test passed")])
def test_a_policy_with_memory(engine: str, says: str, tmp_path: Path) -> None:
    policy = samples.network("two_cells", "multi_discrete")
    seen, starts = samples.episodes(policy.contract, 600)
    board = dataclasses.replace(target.load("jetson"), formats=("linux", "onnx"))
    held = export(policy, board, tmp_path / "bundle", seen, [{"stage": "limit"}], starts=starts)
    with running(held, tmp_path / "board", "--engine", engine) as process, process.board() as found:
        assert says in process.said
        wrong, _ = check.replay(held.vectors, held.image.contract, found, lambda *_: None)
        assert (wrong == 0) == (engine == "integer")


def test_another_policy_runs_on_the_kernels(bundle: Bundle, continuous: Bundle, tmp_path: Path) -> None:
    with running(bundle, tmp_path / "board") as process:
        with process.board() as board:
            board.install(continuous.image.data)
            assert check.replay(continuous.vectors, continuous.image.contract, board, lambda *_: None) == (0, "")
        assert "the runtime's own kernels, bit for bit" in process.said
    with running(bundle, tmp_path / "board") as process, process.board() as board:
        assert board.digests().image == continuous.image.digest, "a board keeps what was installed"
        assert "which is not the bundle's policy.bin" in process.said


def test_a_float_engine_says_so_and_is_measured(continuous: Bundle, bundle: Bundle, tmp_path: Path) -> None:
    with running(continuous, tmp_path / "board", "--engine", "tensorrt") as process, process.board() as board:
        found = check.check(continuous, board, load(continuous.environment), episodes=1)
        assert "ONNX Runtime computes instead" in process.said and "float self-test passed" in process.said
        with pytest.raises(Refused) as refused:
            board.install(bundle.image.data)
        assert refused.value.code == protocol.ERRORS["not_here"]
        board.install(continuous.image.data)
        assert board.digests().installs == 2
    summary = found.summary()
    assert summary["board"]["kind"] == "linux_float" and "computes the policy in float" in summary["note"]
    torque = continuous.image.contract.actions[0]
    assert found.mismatches > 0 and 0 < summary["largest_difference"][torque.name] < torque.high - torque.low


@pytest.mark.parametrize(
    ("wrong", "says"), [("Neg", "FAILED at step"), ("Sqrt", "the float network gave no number")], ids=["another function", "no number"]
)
def test_a_wrong_float_engine_never_arms(wrong: str, says: str, continuous: Bundle, tmp_path: Path) -> None:
    import onnx

    n, m = continuous.image.contract.n_observations, continuous.image.contract.n_actions
    number = onnx.helper.make_tensor_value_info
    weight = onnx.numpy_helper.from_array(np.zeros((n, m), np.float32), "w")
    bias = onnx.numpy_helper.from_array(np.full(m, -2.0, np.float32), "b")
    nodes = [
        onnx.helper.make_node("MatMul", ["observation", "w"], ["x"]),
        onnx.helper.make_node("Add", ["x", "b"], ["y"]),
        onnx.helper.make_node(wrong, ["y"], ["action"]),
    ]
    seen, action = number("observation", 1, ["batch", n]), number("action", 1, ["batch", m])
    graph = onnx.helper.make_graph(nodes, "wrong", [seen], [action], [weight, bias])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    (tmp_path / "wrong.onnx").write_bytes(model.SerializeToString())
    options = ("--engine", "onnx", "--engine-file", str(tmp_path / "wrong.onnx"))
    with running(continuous, tmp_path / "board", *options, mode="True") as process, process.board() as board:
        assert says in process.said and board.identity.state == "failed"
        with pytest.raises(Refused) as refused:
            start(board, continuous)
        assert refused.value.code == protocol.ERRORS["self_test"]
        assert process.written and all(action == safe(continuous) for action in process.written)


# Where its actuators end up


def test_free_running_goes_on_without_the_host(bundle: Bundle, tmp_path: Path) -> None:
    with running(bundle, tmp_path / "board", mode="True") as process:
        with process.board() as board:
            assert process.written == [safe(bundle)], "the first thing written"
            start(board, bundle)
            board.link.close()  # the host is gone, with no word
        count = len(process.written)
        until(lambda: len(process.written) > count + 5)
        with process.board() as board:
            assert board.identity.state == "free_run"
            status = board.status()
            assert status.ticks > 5 and status.invalid == status.missed == 0
            board.disarm()
            assert process.written[-1] == safe(bundle)
            count = len(process.written)
            time.sleep(0.1)
            assert len(process.written) == count, "nothing runs any more"
    assert process.parent.returncode == 0


@pytest.mark.parametrize(("mode", "counter"), [("1 / 0", "invalid"), ("float('nan')", "invalid"), ("False", "missed")])
def test_a_driver_that_cannot_read_brings_the_safe_output(mode: str, counter: str, bundle: Bundle, tmp_path: Path) -> None:
    with running(bundle, tmp_path / "board", mode=mode) as process, process.board() as board:
        start(board, bundle)
        until(lambda: board.status().ticks > 8)
        status = board.status()
        assert getattr(status, counter) == status.ticks or getattr(status, counter) >= status.ticks - 1
        assert process.written[-1] == safe(bundle)


def test_a_driver_that_cannot_write_stops_everything(bundle: Bundle, tmp_path: Path) -> None:
    with running(bundle, tmp_path / "board", mode="True") as process, process.board() as board:
        start(board, bundle)
        (tmp_path / "board" / "broken").touch()
        until(lambda: board.hello().state == "failed")
        assert process.written[-1] == safe(bundle)
        with pytest.raises(Refused):
            start(board, bundle)
        (tmp_path / "board" / "broken").unlink()
        board.disarm()
        start(board, bundle)


def ends(process: Process, bundle: Bundle, how: Callable[[Process], None]) -> int:
    """Let it run free, do something to it, and return its exit status; the safe output must be the last thing written."""
    with process.board() as board:
        start(board, bundle)
        until(lambda: len(process.written) > 3)
        child = process.child
        how(process)
        status = process.parent.wait(15)
        until(lambda: not Path(f"/proc/{child}").exists())
    assert process.written[-1] == safe(bundle)
    return status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda s: s.name)
def test_a_signal_ends_it_with_the_safe_output(number: signal.Signals, bundle: Bundle, tmp_path: Path) -> None:
    with running(bundle, tmp_path / "board", mode="True") as process:
        assert ends(process, bundle, lambda p: p.parent.send_signal(number)) == 0


def test_a_driver_that_hangs_is_ended_and_replaced(bundle: Bundle, tmp_path: Path) -> None:
    with running(bundle, tmp_path / "board", mode="True") as process:
        assert ends(process, bundle, lambda p: (p.folder / "mode").write_text("time.sleep(60)") and None) == 1
        assert "no sign of life" in process.said and "written by the process that watches" in process.said


def test_a_killed_process_leaves_the_safe_output(bundle: Bundle, tmp_path: Path) -> None:
    with running(bundle, tmp_path / "board", mode="True") as process:
        assert ends(process, bundle, lambda p: os.kill(p.child, signal.SIGKILL)) == 1
    with running(bundle, tmp_path / "board", mode="True") as process:
        assert ends(process, bundle, lambda p: p.parent.kill()) == -signal.SIGKILL


# The line


def test_a_reset_keeps_the_line_and_forgets_the_rest(bundle: Bundle, tmp_path: Path) -> None:
    with running(bundle, tmp_path / "board", mode="True") as process, process.board() as board:
        start(board, bundle, protocol.ARM_LOCK_STEP)
        assert board.reset().state == "disarmed"
        assert board.status().ticks == 0
        with process.board() as other:
            assert other.hello().kind == "linux", "the newest caller has the line"
            with pytest.raises(Refused) as refused:
                other.service()
        assert refused.value.code == protocol.ERRORS["not_here"]


class PseudoTerminal(Link):
    """The far end of a pseudo-terminal."""

    def __init__(self, file: int) -> None:
        super().__init__("pty")
        self._file = file

    def send(self, data: bytes) -> None:
        os.write(self._file, data)

    def receive(self, timeout_s: float) -> bytes:
        return os.read(self._file, 4096) if select.select([self._file], [], [], timeout_s)[0] else b""

    def close(self) -> None:
        pass


def test_a_serial_port(bundle: Bundle, tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    try:
        (tmp_path / "board").mkdir()
        command = [sys.executable, str(bundle.path / "linux" / "run.py"), "--folder", str(tmp_path / "board"), "--serial", os.ttyname(theirs)]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process, Board(PseudoTerminal(ours)) as board:
            assert check.replay(bundle.vectors.head(64), bundle.image.contract, board, lambda *_: None) == (0, "")
            board.reset()
            assert board.identity.state == "disarmed"
    finally:
        os.close(ours)
        os.close(theirs)
    assert process.returncode == 0


def test_a_simulated_board_of_the_target(bundle: Bundle) -> None:
    from puffer_edge.device.board import open_board

    with open_board("sim", bundle) as board:
        assert board.simulated and "own kernels" in board.says and board.identity.target == "jetson"
        assert board.identity.state == "empty"
        board.install(bundle.image.data)
        assert check.replay(bundle.vectors.head(64), bundle.image.contract, board, lambda *_: None) == (0, "")


# What it refuses


def refusal(path: Path, folder: Path, *options: str) -> str:
    """What it says when it ends at once with status 2."""
    command = [sys.executable, str(path / "linux" / "run.py"), "--folder", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_wrong_options_and_damaged_files_end_in_words(bundle: Bundle, continuous: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "board"
    with running(bundle, folder) as process:
        port = str(json.loads(process.first)["port"])
        assert "in use" in refusal(bundle.path, tmp_path / "second", "--port", port)
    assert "--port 70000" in refusal(bundle.path, folder, "--port", "70000")
    assert "no rate" in refusal(bundle.path, folder, "--serial", "/dev/null", "--baud", "12345")
    assert "no serial port" in refusal(bundle.path, folder, "--serial", "/dev/null")
    assert "holds another program" in refusal(continuous.path, folder, "--port", "0", "--engine", "onnx")
    fixed = continuous.path / "policy.fixed.onnx"
    assert "does not read" in refusal(continuous.path, tmp_path / "a", "--port", "0", "--engine", "onnx", "--engine-file", __file__)
    copy = tmp_path / "copy"
    shutil.copytree(continuous.path, copy)
    (copy / "policy.fixed.onnx").write_bytes(fixed.read_bytes()[:-1] + b"x")
    assert "SHA-256 differs" in refusal(copy, tmp_path / "b", "--port", "0")
    (copy / "linux" / "runner.json").write_text("{}")
    assert "SHA-256 differs" in refusal(copy, tmp_path / "c", "--port", "0")
    (copy / "manifest.json").write_text('{"files": 3}')
    assert "export it again" in refusal(copy, tmp_path / "d", "--port", "0")
    (folder / "user.py").write_text("read = None\n")
    assert "lacks read and write" in refusal(bundle.path, folder, "--port", "0")


def test_it_listens_on_this_computer_alone_unless_told(bundle: Bundle, tmp_path: Path) -> None:
    with running(bundle, tmp_path / "board", "--host", "0.0.0.0") as process:
        assert "The link has no password" in process.said
    with running(bundle, tmp_path / "board") as process:
        assert "password" not in process.said
