"""install, start, stop, status, simulate and check: what is said to a board."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from puffer_edge.commands.console import OUT, Flag, Folder, Name, progress_bar, show_result
from puffer_edge.commands.sources import EVALUATION_SEED, check_episodes, open_bundle, plant_of
from puffer_edge.errors import InvalidInput


def install(bundle: Folder, board: str, json: Flag = False) -> None:
    """Install a bundle's policy and shield on a board, over its serial line.

    The old policy runs until the new one is there whole and has passed its own test vectors.

    Args:
        bundle: a bundle folder.
        board: 'sim', a serial port (/dev/ttyACM0, COM3), or socket://HOST:PORT.
        json: print the result as JSON.
    """
    from puffer_edge.device.board import open_board

    held = open_bundle(bundle)
    with progress_bar("installing") as advance, open_board(board, held) as device:
        device.make_ready()
        device.install(held.image.data, lambda done, total: advance(done, total, ""))
        identity = device.identity.summary()
    result = {"board": identity, "target": held.target, "bytes": len(held.image.data), "image": held.image.digest.hex()}
    words = f"installed {result['bytes']:,} bytes on {identity['target']} ({identity['unique_id']}); its self-test passed"
    show_result(json, result, lambda: OUT.print(words))


def start(bundle: Folder, board: str, json: Flag = False) -> None:
    """Let the board run by itself: its own sensors, its own rate, the shield before its actuators.

    Needs your read and write on the board (user_io.c or user.py). The board goes on when this computer leaves.
    It never starts by itself: after a reset it waits, with the safe output, for the next start.

    Args:
        bundle: the bundle that is installed; the board refuses when it holds anything else.
        board: a serial port, or socket://HOST:PORT.
        json: print the result as JSON.
    """
    from puffer_edge.device.board import open_board
    from puffer_edge.firmware.shared.protocol import ARM_FREE_RUN

    held = open_bundle(bundle)
    image = held.image
    with open_board(board, held) as device:
        device.make_ready()
        device.arm(image.contract.digest, image.program.digest, image.shield.digest, ARM_FREE_RUN, expected=image.contract)
        result = device.hello().summary()
    show_result(
        json, result, lambda: OUT.print(f"{result['target']} runs free at {image.contract.rate_hz:g} Hz; 'puffer-edge stop' brings the safe output")
    )


def stop(bundle: Folder, board: str, json: Flag = False) -> None:
    """Disarm the board: the safe output acts at once.

    Args:
        bundle: a bundle for the board's target, which says how its port is opened.
        board: a serial port, or socket://HOST:PORT.
        json: print the result as JSON.
    """
    from puffer_edge.device.board import open_board

    with open_board(board, open_bundle(bundle)) as device:
        if device.identity.state != "empty":
            device.disarm()
        result = device.hello().summary()
    words = {
        "empty": "holds no policy, and so knows no safe output: it drives nothing",
        "disarmed": "is disarmed: the safe output acts",
        "failed": "has failed, its policy or its driver: look at the actuators yourself",
    }
    show_result(json, result, lambda: OUT.print(f"{result['target']} {words.get(result['state'], 'is still ' + result['state'])}"))
    if result["state"] not in ("empty", "disarmed"):
        raise SystemExit(9)


def status(bundle: Folder, board: str, json: Flag = False) -> None:
    """Who the board is, what state it is in, and its counters since it was armed.

    Args:
        bundle: the bundle that is installed, which names the shield's stages.
        board: a serial port, or socket://HOST:PORT.
        json: print the result as JSON.
    """
    from puffer_edge.device.board import open_board

    held = open_bundle(bundle)
    with open_board(board, held) as device:
        result: dict[str, Any] = {"board": device.identity.summary(), "counters": device.status().summary(held.image.shield.stages)}

    def show() -> None:
        for group in result.values():
            for key, value in group.items():
                OUT.print(f"{key.replace('_', ' '):24}{value}")

    show_result(json, result, show)


def simulate(target: Name, port: int = 0, state: Path | None = None, json: Flag = False) -> None:
    """Start a simulated board and keep it running, like a board that is plugged in.

    Prints the address under which install and check find it. Ends with Ctrl-C, or when its standard input closes.

    Args:
        target: name of a target; 'puffer-edge targets' lists them.
        port: TCP port on this computer; 0 takes a free one.
        state: folder that keeps its flash between runs; a fresh board where not given.
        json: print the address as JSON.
    """
    from puffer_edge.device import simulators
    from puffer_edge.device import target as targets

    board = targets.load(target)
    simulator = simulators.start(board, state, port)
    try:
        result = {"board": simulator.url, "target": board.name, "says": simulator.says}
        words = f"{board.title} at {simulator.url}\n{simulator.says}\nCtrl-C ends it"
        print(jsonlib.dumps(result) if json else words, flush=True)  # one line each way: a script reads the first
        simulator.wait()
    finally:
        simulator.stop()


def check(bundle: Folder, board: str, episodes: int = 10, seed: int = EVALUATION_SEED, report: Path | None = None, json: Flag = False) -> None:
    """Prove on the line that a board does what the reference does.

    Replays the bundle's vectors on the board, then lets it drive the simulated plant in lock-step, and compares every bit.
    Exit code 0 when all agree, 8 when a step differs.

    Args:
        bundle: the bundle that is installed.
        board: 'sim', a serial port, or socket://HOST:PORT. A simulated board is given the policy first.
        episodes: closed-loop episodes.
        seed: of the start states.
        report: folder for report.html, report.png, trace.npz and check.json.
        json: print the result as JSON.
    """
    from puffer_edge.device.board import open_board
    from puffer_edge.hil.check import check as run_check
    from puffer_edge.hil.report import require_matplotlib, write_report

    check_episodes(episodes, seed)
    held = open_bundle(bundle)
    if not held.environment:
        raise InvalidInput(
            f"{bundle} names no environment, so there is no plant that a board could drive: 'install' replays its vectors on the board, "
            "'verify' tries its files; a policy imported with --env can be checked"
        )
    env = plant_of(held)
    if report:
        require_matplotlib()
        report.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=report):  # now, not after the check, is the time to learn that it cannot be written
            pass
    with progress_bar("checking") as advance, open_board(board, held) as device:
        if board in ("sim", "loopback"):
            device.install(held.image.data, lambda done, total: advance(done, total, "installing"))
        result = run_check(held, device, env, episodes, seed, lambda stage, done, total: advance(done, total, stage))
    summary = result.summary()
    failure: OSError | None = None
    if report:
        try:
            summary["report"] = str(write_report(result, held.image.contract, report))
        except OSError as error:
            failure = error
    show_result(json, summary, lambda: _show_check(summary))
    if failure:
        raise failure
    if result.mismatches:
        raise SystemExit(8)


def _show_check(summary: dict[str, Any]) -> None:
    same = summary["mismatches"] == 0
    OUT.print(
        f"{summary['mismatches']} mismatches in {summary['vectors']} vector and {summary['steps']} closed-loop steps",
        style="green" if same else "red",
    )
    if not same:
        OUT.print(f"  first: {summary['first_difference']}")
        OUT.print("  at most: " + ", ".join(f"{name} {value:g}" for name, value in summary["largest_difference"].items()))
    OUT.print(f"  return: float {summary['return_float']}, integer {summary['return_integer']}, device {summary['return_device']}")
    acted = ", ".join(f"{k} {v}" for k, v in summary["interventions_by_reason"].items() if v)
    OUT.print(f"  the shield acted on {summary['interventions']} steps{': ' + acted if acted else ''}")
    trip = summary["round_trip_us"]
    OUT.print(f"  round trip: median {trip['median']:.0f} µs, 99 % below {trip['p99']:.0f} µs")
    if summary["ticks_cycles"]:
        tick, policy, shield = (summary[f"{part}_cycles"] for part in ("ticks", "policy", "shield"))
        parts = f"network {policy['median']:,}, shield {shield['median']:,}"
        OUT.print(f"  cycles a tick ({summary['cycles_are']}): median {tick['median']:,} ({parts}), most {tick['max']:,}")
    if summary.get("note"):
        OUT.print(f"  {summary['note']}", style="yellow")
    if summary.get("simulated"):
        OUT.print(f"  simulated: {summary['simulated']}")
    if summary.get("report"):
        OUT.print(f"  report: {summary['report']}")
