"""Train a policy, put it into integers, export it, install it on a board, and check that the board does what the trainer said."""

from __future__ import annotations

import json as jsonlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from tempfile import TemporaryFile
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from puffer_edge.errors import DoesNotFit, InvalidInput, PufferEdgeError

# Paths and messages are printed as they are: no square bracket is a style.
OUT = Console(markup=False, highlight=False, soft_wrap=True)
SIDE = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
Name = Annotated[str, tyro.conf.Positional]
Folder = Annotated[Path, tyro.conf.Positional]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
CALIBRATION_EPISODES = 32
CALIBRATION_SEED = 7_000_000
EVALUATION_SEED = 8_000_000
MAX_EPISODES = 100_000


def train(
    environment: Name,
    steps: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    hidden: tuple[int, ...] | None = None,
    shield: bool = True,
    json: Flag = False,
) -> None:
    """Train a policy with PPO and write a run folder.

    The policy learns behind the environment's default shield, so that it meets the actuator that it will have.
    Ctrl-C stops early and keeps the best policy so far.

    Args:
        environment: name of an environment; 'puffer-edge envs' lists them.
        steps: environment steps, rounded up to whole rollouts; the preset of the environment where not given.
        seed: of everything random.
        out: folder of the run; runs/ENVIRONMENT-SEED where not given. A run that is there already is kept as FOLDER.1, FOLDER.2 …
        hidden: widths of the hidden layers, for example --hidden 32 32.
        shield: train behind the default shield (--no-shield: without any).
        json: print the result as JSON.
    """
    from puffer_edge import envs
    from puffer_edge.train import train as run_training
    from puffer_edge.train.settings import preset

    env = envs.load(environment)
    settings = preset(environment)
    changes = {k: v for k, v in (("steps", steps), ("hidden", hidden)) if v is not None}
    settings = settings.from_dict({**settings.to_dict(), **changes})
    folder = out or Path("runs") / f"{environment}-{seed}"
    with _bar("training") as advance:

        def progress(report: Any) -> bool:
            advance(report.steps, report.total, f"return {report.ep_rew_mean:8.1f}  {report.steps_per_second:9,.0f} steps/s")
            return True

        run = run_training(env, seed=seed, out=folder, shield=shield, progress=progress, settings=settings)
    result = {"run": str(folder), "environment": env.name, "seed": seed, **run.result}
    _print(json, result, lambda: _show_training(result, env.solved))
    if run.result["status"] == "interrupted":
        raise SystemExit(130)


def _show_training(result: dict[str, Any], solved: float) -> None:
    OUT.print(f"trained {result['environment']} for {result['steps']:,} steps in {result['seconds']:.1f} s: {result['status']}")
    OUT.print(f"  saved in {result['run']}")
    for key, words in (("evaluation", "behind the training's shield"), ("evaluation_unshielded", "without a shield")):
        found = result[key]
        if found:
            low, high = found["interval"]
            OUT.print(f"  return {found['return']:.1f} (95 % interval {low:.1f} … {high:.1f}) {words}, {found['episodes']} fresh episodes")
    if result["evaluation"] and result["evaluation"]["return"] < solved:
        OUT.print(f"  not solved: {result['environment']} counts as solved at {solved:g}; more --steps or a larger --hidden may help", style="yellow")
    name = f"{result['environment']}-rp2040"
    OUT.print(f"next: puffer-edge export {quote(result['run'])} --target rp2040 --out build/{name}")


def evaluate(run: Folder, integer: Flag = False, shield: bool = True, episodes: int = 100, seed: int = EVALUATION_SEED, json: Flag = False) -> None:
    """Returns of a trained policy, in float and, with --integer, in integers beside it.

    Float and integers start from the same states, so their difference is the quantisation's.

    Args:
        run: a run folder, or a policy.safetensors.
        integer: put the policy into integers and run what a device would compute.
        shield: behind the environment's default shield (--no-shield: without any).
        episodes: how many.
        seed: of the start states.
        json: print the result as JSON.
    """
    from puffer_edge.envs import closed_loop
    from puffer_edge.integer.quantize import quantize
    from puffer_edge.integer.reference import InFloat, Runner

    _check_episodes(episodes, seed)
    policy, env = _policy(run)
    guard = _shield(env, shield)
    kinds: dict[str, Any] = {"float": InFloat(policy)}
    if integer:
        kinds["integer"] = quantize(policy, calibration(env, policy, guard))
    found = {name: closed_loop.run(env, Runner(proposer, guard, episodes), seed) for name, proposer in kinds.items()}
    result = {"environment": env.name, "shield": list(guard.stages), "episodes": episodes, "seed": seed}
    result |= {name: episodes_of.summary(guard.stages) for name, episodes_of in found.items()}

    def show() -> None:
        table = Table("", "return", "95 % interval", "lowest", "cost", "steps the shield acted", box=None, pad_edge=False)
        for name in found:
            row = result[name]
            acted = ", ".join(f"{k} {v}" for k, v in row["interventions"].items() if v) or "0"
            low, high = row["interval"]
            table.add_row(name, f"{row['return']:.2f}", f"{low:.2f} … {high:.2f}", f"{row['lowest']:.2f}", f"{row['cost']:.2f}", acted)
        OUT.print(f"{env.name}, {episodes} episodes, {'shield ' + ' → '.join(guard.stages) if guard.stages else 'no shield'}")
        OUT.print(table)

    _print(json, result, show)


def export(
    run: Folder,
    out: Path,
    target: str | None = None,
    all_targets: Flag = False,
    rate: float | None = None,
    shield: bool = True,
    json: Flag = False,
) -> None:
    """Put a trained policy into integers and write a bundle for a target, or one for every target that it fits.

    Args:
        run: a run folder, or a policy.safetensors.
        out: folder of the bundle; with --all-targets the folder of their folders.
        target: name of a target; 'puffer-edge targets' lists them.
        all_targets: write OUT/TARGET for every target; exit code 0 if the policy fits at least one.
        rate: demand, in Hz, that a tick fit at this rate by the predicted time; refuse otherwise. The contract's rate stays.
        shield: put the environment's default shield before the actuator (--no-shield: the contract's range alone).
        json: print the manifest, or the table of all targets, as JSON.
    """
    from puffer_edge.device import target as targets
    from puffer_edge.device.budget import MOST_HZ
    from puffer_edge.export.bundle import export as write

    if all_targets == (target is not None):
        raise InvalidInput("export takes --target NAME or --all-targets, one of the two")
    if rate is not None and not 0 < rate <= MOST_HZ:
        raise InvalidInput(f"--rate lies above 0 and up to {MOST_HZ:,.0f} Hz, not {rate:g}")
    board = targets.load(target) if target else None
    policy, env = _policy(run)
    guard = _shield(env, shield)
    if not shield:
        SIDE.print("without a shield: nothing but the contract's range stands between the policy and the actuator", style="yellow")
    seen, about = calibration(env, policy, guard), {"environment": env.name}
    if board is None:
        _export_all(policy, out, seen, guard.specification, about, rate, json)
        return
    bundle = write(policy, board, out, seen, guard.specification, about, rate_hz=rate)
    _print(json, dict(bundle.manifest), lambda: _show_bundle(bundle, board.title, guard.stages, policy.head.kind))


def _show_bundle(bundle: Any, title: str, stages: tuple[str, ...], head: str) -> None:
    from puffer_edge.export.page import agreement, tick_words

    manifest = bundle.manifest
    cost = manifest["cost"]
    OUT.print(f"bundle for {title}: {bundle.path}")
    OUT.print(f"  {cost['macs']:,} multiply-accumulates, image {cost['image_bytes']:,} bytes, shield {' → '.join(stages) or 'none'}")
    OUT.print(f"  flash {cost['flash_bytes']:,} bytes with the engine, RAM {cost['ram_bytes']:,}")
    for line in tick_words(cost):
        OUT.print(f"  {line}")
    OUT.print(f"  {agreement(manifest['calibration'], head)}; {len(manifest['files'])} files")
    for name, why in manifest["left_out"].items():
        OUT.print(f"  {name} left out: {why}", style="yellow")
    for name in manifest["files"]:
        if name.endswith(".uf2"):
            OUT.print(f"  drag onto the Pico: {bundle.path / name}")
    OUT.print(f"next: puffer-edge check {quote(str(bundle.path))} --board sim")


def _export_all(policy: Any, out: Path, seen: Any, specification: Any, about: dict[str, Any], rate: float | None, json: bool) -> None:
    from puffer_edge.export.all_targets import export_all

    with _bar("exporting") as advance:
        found = export_all(policy, out, seen, specification, about, rate, advance)
    rows = [one.summary() for one in found]

    def show() -> None:
        table = Table("target", "flash", "RAM", "engine", "µs a tick", "", "period", "", box=None, pad_edge=False)
        for row in rows:
            known = row["us"] is not None
            share = row["cold_us"] * rate / 1e6 if known and rate else row["share_of_period"]
            time = (row["engine"], f"{row['cold_us']:,}", row["label"], f"{share:.1%}") if known else ("", "–", "not predicted", "")
            cells = (f"{row['flash_bytes']:,}", f"{row['ram_bytes']:,}", *time, "fits") if row["fits"] else ("", "", "", "", "", "", "refused")
            table.add_row(row["target"], *cells)
        OUT.print(table)
        for row in rows:
            if row["refused"]:
                OUT.print(f"{row['target']} refused: {row['refused']}", style="yellow")

    _print(json, {"out": str(out), "rate_hz": rate, "targets": rows}, show)
    if not any(row["fits"] for row in rows):
        raise SystemExit(DoesNotFit.exit_code)


def install(bundle: Folder, board: str, json: Flag = False) -> None:
    """Install a bundle's policy and shield on a board, over its serial line.

    The old policy runs until the new one is there whole and has passed its own test vectors.

    Args:
        bundle: a bundle folder.
        board: 'sim', a serial port (/dev/ttyACM0, COM3), or socket://HOST:PORT.
        json: print the result as JSON.
    """
    from puffer_edge.device.board import open_board

    held = _bundle(bundle)
    with _bar("installing") as advance, open_board(board, held) as device:
        device.make_ready()
        device.install(held.image.data, lambda done, total: advance(done, total, ""))
        identity = device.identity.summary()
    result = {"board": identity, "target": held.target, "bytes": len(held.image.data), "image": held.image.digest.hex()}
    words = f"installed {result['bytes']:,} bytes on {identity['target']} ({identity['unique_id']}); its self-test passed"
    _print(json, result, lambda: OUT.print(words))


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

    held = _bundle(bundle)
    image = held.image
    with open_board(board, held) as device:
        device.make_ready()
        device.arm(image.contract.digest, image.program.digest, image.shield.digest, ARM_FREE_RUN, expected=image.contract)
        result = device.hello().summary()
    _print(
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

    with open_board(board, _bundle(bundle)) as device:
        if device.identity.state != "empty":
            device.disarm()
        result = device.hello().summary()
    words = {
        "empty": "holds no policy, and so knows no safe output: it drives nothing",
        "disarmed": "is disarmed: the safe output acts",
        "failed": "has failed, its policy or its driver: look at the actuators yourself",
    }
    _print(json, result, lambda: OUT.print(f"{result['target']} {words.get(result['state'], 'is still ' + result['state'])}"))
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

    held = _bundle(bundle)
    with open_board(board, held) as device:
        result: dict[str, Any] = {"board": device.identity.summary(), "counters": device.status().summary(held.image.shield.stages)}

    def show() -> None:
        for group in result.values():
            for key, value in group.items():
                OUT.print(f"{key.replace('_', ' '):24}{value}")

    _print(json, result, show)


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
    from puffer_edge import envs
    from puffer_edge.device.board import open_board
    from puffer_edge.hil.check import check as run_check
    from puffer_edge.hil.report import require_matplotlib, write_report

    _check_episodes(episodes, seed)
    held = _bundle(bundle)
    env = envs.load(held.environment)
    if report:
        require_matplotlib()
        report.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=report):  # now, not after the check, is the time to learn that it cannot be written
            pass
    with _bar("checking") as advance, open_board(board, held) as device:
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
    _print(json, summary, lambda: _show_check(summary))
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


def targets(json: Flag = False) -> None:
    """List the targets.

    Args:
        json: print as JSON.
    """
    from dataclasses import asdict

    from puffer_edge.device import target

    found = [target.load(name) for name in target.names()]

    def show() -> None:
        table = Table("target", "board", "flash KiB", "RAM KiB", "firmware", "simulated as", box=None, pad_edge=False)
        for t in found:
            table.add_row(t.name, t.title, str(t.flash_kib), str(t.ram_kib), t.firmware, t.simulator.says if t.simulator else "nothing here")
        OUT.print(table)

    _print(json, [asdict(t) for t in found], show)


def environments(json: Flag = False) -> None:
    """List the environments.

    Args:
        json: print as JSON.
    """
    from puffer_edge import envs

    found = [envs.load(name) for name in envs.names()]
    rows: list[dict[str, Any]] = [
        {
            "name": e.name,
            "observations": [f"{c.name} [{c.unit}]" for c in e.contract.observations],
            "actions": [f"{c.name} [{c.unit}]" for c in e.contract.actions],
            "head": e.contract.head,
            "rate_hz": e.contract.rate_hz,
            "solved": e.solved,
            "shield": [str(stage["stage"]) for stage in e.shield],
        }
        for e in found
    ]

    def show() -> None:
        table = Table("environment", "observes", "drives", "head", "Hz", "solved at", "default shield", box=None, pad_edge=False)
        for r in rows:
            observed, driven = (", ".join(r[key]) for key in ("observations", "actions"))
            table.add_row(r["name"], observed, driven, r["head"], f"{r['rate_hz']:g}", f"{r['solved']:g}", " → ".join(r["shield"]))
        OUT.print(table)

    _print(json, rows, show)


def doctor(json: Flag = False) -> None:
    """What is installed, what is missing, and how to get it.

    Args:
        json: print as JSON.
    """
    from dataclasses import asdict

    from puffer_edge.device import doctor as checks

    found = checks.checks()

    def show() -> None:
        for c in found:
            OUT.print(f"{'ok     ' if c.ok else 'missing'} {c.name}: {c.found}", style="" if c.ok else "yellow")
            if not c.ok:
                OUT.print(f"        → {c.fix}")

    _print(json, [asdict(c) for c in found], show)


COMMANDS: dict[str, Callable[..., None]] = {
    "train": train,
    "eval": evaluate,
    "export": export,
    "install": install,
    "check": check,
    "start": start,
    "stop": stop,
    "status": status,
    "simulate": simulate,
    "targets": targets,
    "envs": environments,
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
        tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="puffer-edge", description=__doc__, args=args)
    except PufferEdgeError as error:
        _fail(args, type(error).__name__, str(error), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has left: no second complaint at exit
        raise SystemExit(141) from None
    except OSError as error:
        _fail(args, "OSError", f"{error.strerror or error}{': ' + str(error.filename) if error.filename else ''}", 1)
    except KeyboardInterrupt:
        _fail(args, "Interrupted", "stopped by Ctrl-C", 130)


def _fail(args: list[str], kind: str, message: str, code: int) -> None:
    if "--json" in args:
        print(jsonlib.dumps({"error": kind, "message": message}))
    SIDE.print(f"error: {message}", style="red")
    raise SystemExit(code)


def _print(as_json: bool, result: Any, show: Callable[[], None]) -> None:
    if as_json:
        print(jsonlib.dumps(result, indent=1))
    else:
        show()


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int, str], None]]:
    done, note = TextColumn("{task.completed:,.0f}/{task.total:,.0f}"), TextColumn("{task.fields[note]}")
    with Progress(TextColumn(what), BarColumn(), done, note, TimeElapsedColumn(), console=SIDE, transient=True) as progress:
        task = progress.add_task(what, total=1, note="")
        yield lambda done, total, text: progress.update(task, completed=done, total=total, note=text)


def _check_episodes(episodes: int, seed: int) -> None:
    if not 1 <= episodes <= MAX_EPISODES or seed < 0:
        raise InvalidInput(f"episodes must lie in 1 … {MAX_EPISODES:,} and seed not be negative, not {episodes} and {seed}")


def _bundle(path: Path) -> Any:
    """A bundle, with a word about files in it that nothing reads."""
    from puffer_edge.device.bundle import Bundle

    held = Bundle.load(path)
    if held.unlisted:
        SIDE.print(f"{path} holds files that no export wrote, and nothing reads: {', '.join(held.unlisted[:5])}", style="yellow")
    return held


def _policy(run: Path) -> tuple[Any, Any]:
    """The policy of a run folder or file, and its environment."""
    from puffer_edge import envs
    from puffer_edge.policy import Policy

    policy = Policy.load(run / "policy.safetensors" if run.is_dir() else run)
    name = policy.origin.get("environment")
    if not isinstance(name, str):
        raise InvalidInput(f"{run} does not say which environment it belongs to")
    return policy, envs.load(name)


def _shield(env: Any, wanted: bool) -> Any:
    from puffer_edge.integer.shield import Shield

    return Shield.build(env.contract, env.shield if wanted else ())


def calibration(env: Any, policy: Any, guard: Any) -> Any:
    """Physical observations of the policy's own rollouts."""
    from puffer_edge.envs import closed_loop
    from puffer_edge.integer.reference import InFloat, Runner

    episodes = closed_loop.run(env, Runner(InFloat(policy), guard, CALIBRATION_EPISODES), CALIBRATION_SEED)
    return env.contract.physical_observation(episodes.observations)


if __name__ == "__main__":
    main()
