"""Train a policy, put it into integers, export it, install it on a board, and check that the board does what the trainer said."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import tyro

from puffer_edge.commands.benching import bench
from puffer_edge.commands.boards import check, install, simulate, start, status, stop
from puffer_edge.commands.comparing import compare
from puffer_edge.commands.console import fail
from puffer_edge.commands.distilling import distil
from puffer_edge.commands.exporting import export
from puffer_edge.commands.importing import import_policy
from puffer_edge.commands.lists import doctor, environments, targets
from puffer_edge.commands.training import evaluate, train, train_for
from puffer_edge.commands.verifying import verify
from puffer_edge.commands.watching import plot, watch
from puffer_edge.errors import PufferEdgeError

COMMANDS: dict[str, Callable[..., None]] = {
    "train": train,
    "watch": watch,
    "plot": plot,
    "import": import_policy,
    "eval": evaluate,
    "distil": distil,
    "export": export,
    "verify": verify,
    "compare": compare,
    "install": install,
    "check": check,
    "start": start,
    "stop": stop,
    "status": status,
    "simulate": simulate,
    "targets": targets,
    "envs": environments,
    "bench": bench,
    "doctor": doctor,
}


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit codes: 0 fine, 2 wrong input, 130 Ctrl-C, others by kind of error (see errors.py)."""
    args = sys.argv[1:] if arguments is None else arguments
    if args in (["--version"], ["-V"]):
        from puffer_edge import __version__

        print(__version__)
        return
    try:
        commands = COMMANDS | ({"train": train_for(args[1:])} if args[:1] == ["train"] else {})
        tyro.extras.subcommand_cli_from_dict(commands, prog="puffer-edge", description=__doc__, args=args)
    except PufferEdgeError as error:
        fail(args, type(error).__name__, str(error), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has left: no second complaint at exit
        raise SystemExit(141) from None
    except OSError as error:
        fail(args, "OSError", f"{error.strerror or error}{': ' + str(error.filename) if error.filename else ''}", 1)
    except KeyboardInterrupt:
        fail(args, "Interrupted", "stopped by Ctrl-C", 130)


if __name__ == "__main__":
    main()
