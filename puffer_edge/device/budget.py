"""Does a policy fit a board? Flash, RAM and the time of a tick, what the manifest says of them, and what would fit where it does not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import puffer_edge.firmware
from puffer_edge.device import cost, work
from puffer_edge.device import target as targets
from puffer_edge.device.cost import SHARE, Prediction
from puffer_edge.device.target import Target
from puffer_edge.device.work import Work
from puffer_edge.errors import DoesNotFit
from puffer_edge.integer.image import Image
from puffer_edge.integer.ops.dense import Dense
from puffer_edge.integer.ops.lookup import Lookup
from puffer_edge.integer.ops.lookup16 import Lookup16
from puffer_edge.integer.ops.tanh16 import Tanh16

PREBUILT = Path(puffer_edge.firmware.__file__).parent / "prebuilt"
MICROPYTHON = Path(puffer_edge.firmware.__file__).parent / "micropython" / "puffer_edge_device"
SMALLER = "try narrower layers (here 'puffer-edge train … --hidden 32 32'), or '--profile int4'"
MOST_HZ = 1_000_000.0


def predictions(image: Image, target: Target) -> list[Prediction]:
    """A tick on a target, by each engine that it may run and that has prices; the engine of its firmware first."""
    done = work.count(image.program, image.shield)
    found = [cost.predict(target, done, engine, len(image.program.packed)) for engine in cost.engines(target)]
    return [one for one in found if one is not None]


def manifest_cost(image: Image, target: Target, rate_hz: float | None = None) -> dict[str, Any]:
    """What the manifest says under ``cost``: work, bytes, and ``ticks``, the predicted time of a tick by engine.

    With a rate that was demanded also ``demand``: the rate, and whether it was ``checked``, which needs a prediction.

    ``flash_bytes`` and ``ram_bytes`` are what the policy and its engine take. Where the engine's own bytes are not known
    (``engine_bytes``, ``engine_ram_bytes`` 0) they are without them; a stack, the interpreter of MicroPython and the C library are
    never in them.
    """
    program = image.program
    done, (engine, engine_ram) = work.count(program, image.shield), _engine_bytes(target)
    demand = {} if rate_hz is None else {"demand": {"rate_hz": rate_hz, "checked": own_prediction(image, target) is not None}}
    return {
        "macs": program.macs,
        "requantises": done.requantise + done.shift + done.gate + done.state,
        "lookups": done.lookup + done.interpolate + done.squash,
        "shield_instructions": image.shield.instructions,
        "image_bytes": len(image.data),
        "program_bytes": len(program.packed),
        "activation_bytes": 2 * program.activation_bytes,
        "memory_bytes": program.memory_bytes,
        "engine_bytes": engine,
        "engine_ram_bytes": engine_ram,
        "flash_bytes": len(image.data) + engine,
        "ram_bytes": ram_bytes(image, target) + engine_ram,
        "ticks": [one.summary(image.contract.rate_hz) for one in predictions(image, target)],
        **demand,
    }


def own_prediction(image: Image, target: Target) -> Prediction | None:
    """The prediction for the engine of the target's own firmware, if there is one."""
    return next((one for one in predictions(image, target) if one.engine == cost.engines(target)[0]), None)


def _engine_bytes(target: Target) -> tuple[int, int]:
    """Flash and RAM of what runs the policy: the prebuilt firmware, the runtime's files, or the engine compiled for the core."""
    if target.firmware == "c":
        about = json.loads((PREBUILT / f"{target.name}.json").read_text("utf-8"))
        return about["bytes"], about["data_ram_bytes"] + about["code_ram_bytes"]
    if target.firmware == "micropython":
        return sum(path.stat().st_size for path in MICROPYTHON.glob("*.py")), 0
    return cost.load(target.core).code_bytes.get("c", 0) if target.core else 0, 0


def ram_bytes(image: Image, target: Target) -> int:
    """Of the policy: activations, memory, and the image where the engine copies it; a build of the C sources reads it in flash."""
    held = 0 if target.firmware in ("sources", "wasm") else len(image.data)
    return held + image.program.scratch_bytes


def check_size(image: Image, target: Target) -> None:
    """Raise DoesNotFit where the image is larger than the target's slot, or the image and its working memory than the RAM for them."""
    for what, needed, there in (
        ("KiB of flash for the policy image", len(image.data), target.image_max_bytes),
        ("KiB of RAM for the policy", ram_bytes(image, target), target.ram_for_policy_bytes),
    ):
        if needed > there:
            raise DoesNotFit(what, round(needed / 1024, 1), round(there / 1024, 1), target.name, SMALLER)


def check_rate(image: Image, target: Target, rate_hz: float) -> None:
    """Raise where a tick is predicted to take more than ``SHARE`` of the period at a rate.

    Nothing is refused where nothing is predicted: a computer whose operating system schedules, or work that has no price. The
    manifest then says ``checked: false``.

    Raises:
        DoesNotFit: it does not fit by the engine of the target's firmware; the message says what would.
    """
    own = own_prediction(image, target)
    if own is None or own.share(rate_hz) <= SHARE:
        return
    raise DoesNotFit(
        f"µs for a tick ({own.label}, not timed on a board; engine {own.engine})",
        round(own.cold_us, 1),
        round(SHARE * 1e6 / rate_hz, 1),
        f"{target.name} at {rate_hz:g} Hz",
        f"that is {SHARE:.0%} of the period, the rest is for sensors, link and what no model knows. {'; '.join(ways_out(image, target, rate_hz))}",
    )


def ways_out(image: Image, target: Target, rate_hz: float) -> list[str]:
    """What would fit: a lower rate, a narrower net, another profile, another engine, another board; each with its number."""
    found = predictions(image, target)
    own, size = found[0], len(image.program.packed)
    done = work.count(image.program, image.shield)
    ways = [f"This policy fits up to {SHARE * 1e6 / own.cold_us:.0f} Hz"]
    width = widest_hidden(image, target, rate_hz)
    if width is not None:
        ways.append(f"{rate_hz:g} Hz holds hidden layers of {width}" if width else f"no hidden layer is narrow enough for {rate_hz:g} Hz")
    for name, changed in (("int4", done.four_bits()), ("shift", done.shifts())):
        other = cost.predict(target, changed, own.engine, size) if changed != done and not done.gate else None
        if other and other.share(rate_hz) <= SHARE:
            ways.append(f"the profile {name} takes {other.cold_us:.0f} µs ({other.label})")
    ways += [f"the {one.engine} engine takes {one.cold_us:.0f} µs ({one.label})" for one in found[1:] if one.share(rate_hz) <= SHARE]
    boards = _boards_that_hold(image, target, rate_hz)
    return ways + ([f"boards that hold it: {', '.join(boards)}"] if boards else [])


def _boards_that_hold(image: Image, target: Target, rate_hz: float) -> Sequence[str]:
    rows = []
    for other in map(targets.load, targets.names()):
        if other.name == target.name or len(image.data) > other.image_max_bytes:
            continue
        held = [one for one in predictions(image, other) if one.share(rate_hz) <= SHARE]
        rows += [(one.cold_us, f"{other.name} {one.cold_us:.0f} µs ({one.label}, engine {one.engine})") for one in held[:1]]
    return [words for _, words in sorted(rows)][:3]


def widest_hidden(image: Image, target: Target, rate_hz: float) -> int | None:
    """The largest width of all hidden layers, a multiple of 8, with which a tick fits at a rate; 0 where none does.

    None where the program is more than dense layers and tables: then a width alone says nothing.
    """
    ops = image.program.ops
    if not all(isinstance(op, (Dense, Lookup, Lookup16, Tanh16)) for op in ops[1:-1]):
        return None
    engine, best = cost.engines(target)[0], 0
    for width in range(8, max(op.n_out for op in ops) + 1, 8):
        narrowed, size = _narrowed(image, width)
        one = cost.predict(target, narrowed, engine, size)
        if one is None or one.share(rate_hz) > SHARE:
            break
        best = width
    return best


def _narrowed(image: Image, width: int) -> tuple[Work, int]:
    """The work, and roughly the bytes, with every hidden layer so wide and all else as it is."""
    program = image.program
    done = work.count(program, image.shield)
    dense = [op for op in program.ops if isinstance(op, Dense)]
    widths = [dense[0].n_in, *(width for _ in dense[1:]), dense[-1].n_out]
    macs, rows = sum(o * -(-i // 4) * 4 for i, o in zip(widths, widths[1:])), sum(widths[1:])
    kind = max(("mac_int8", "mac_int16", "mac_int4"), key=lambda name: int(getattr(done, name)))
    rounding = "shift" if done.shift else "requantise"
    counts = {"mac_int8": 0, "mac_int16": 0, "mac_int4": 0, kind: macs}
    counts[rounding] = getattr(done, rounding) + rows - sum(op.requantises for op in dense)
    counts["lookup"] = width * sum(isinstance(op, Lookup) for op in program.ops)
    tables = [op.lookups for op in program.ops if isinstance(op, Tanh16)]
    counts["squash"] = done.squash + width * len(tables) - sum(tables)
    before, after = (done.macs + 9 * sum(op.requantises for op in dense), macs + 9 * rows)
    return replace(done, **counts), len(program.packed) * after // max(1, before)
