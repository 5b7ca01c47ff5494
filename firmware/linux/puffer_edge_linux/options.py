"""The command line of the runner."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
ENGINES = ("integer", "tvm", "onnx", "tensorrt")
EXACT = ("integer", "tvm")
LOCAL = "127.0.0.1"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Options of one run; ends the program with status 2 where they are wrong."""
    parser = argparse.ArgumentParser(prog="run.py", description="Runs a puffer-edge policy behind its shield and answers the puffer-edge link.")
    add = parser.add_argument
    add("--folder", type=Path, default=_default_folder(), help="the board's own files: user.py and installed policies (%(default)s)")
    add("--bundle", type=Path, default=HERE.parent, help="the bundle that this runner came with (%(default)s)")
    add(
        "--engine",
        choices=ENGINES,
        default="integer",
        help="integer, tvm: the program's own bits; onnx, tensorrt: float, other bits, and 'check' says how far they are (%(default)s)",
    )
    add("--engine-file", type=Path, help="TensorRT: the engine that trtexec built (tensorrt/policy.engine in the bundle); onnx: the model")
    add("--host", default=LOCAL, help="address to listen on; any but %(default)s lets others on the network drive this board")
    add("--port", type=int, default=7000, help="TCP port, 0 for a free one (%(default)s)")
    add("--serial", type=Path, help="serial port to answer on, instead of TCP")
    add("--baud", type=int, default=115200, help="rate of the serial port (%(default)s)")
    add("--realtime", action="store_true", help="ask Linux for SCHED_FIFO and keep the memory in RAM; needs the right to do so")
    add("--simulated", metavar="TARGET", help="say in every greeting that no real board answers, but a simulated TARGET")
    # What the parent and an earlier self hand on; not for people.
    add("--watched", type=int, help=argparse.SUPPRESS)
    add("--line", type=int, help=argparse.SUPPRESS)
    add("--caller", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not 0 <= options.port <= 65535:
        parser.error(f"--port {options.port} is no port: 0 to 65535")
    if options.engine in EXACT and options.engine_file:
        parser.error("--engine-file goes with --engine onnx or tensorrt")
    if options.host != LOCAL and not options.serial and options.watched is None:
        say(f"warning: listening on {options.host}. The link has no password: whoever reaches this port can install a policy and start it.")
    return options


def say(text: str) -> None:
    """One line for the person who started this, or for the journal."""
    print(f"puffer-edge: {text}", file=sys.stderr, flush=True)


def _default_folder() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "puffer-edge"
