"""Prices of a tick, core by core: fitted to what emulators count, and compared with nets that were not fitted.

- *rp2040*: the shipped firmware on the emulated chip; cycles are those that the firmware itself counts, network and shield.
- *other Arm cores and rv32imc*: the same C sources in an instruction emulator (``benchmarks/instructions.py``); instructions, loads
  and taken branches are counted, cycles modelled from them.
- *MicroPython*: the whole runtime in MicroPython's own QEMU port (``benchmarks/micropython_ticks.py`` says how to build it);
  instructions are counted, and cycles modelled by one number of cycles an instruction for each core.

Each tick that is counted is also compared with the reference. ``--write`` puts the fitted prices into ``targets/cores``; the files
keep what the script does not fit. A fit is least squares on relative errors, no price below zero.

python benchmarks/cost_model.py [--cores cortex-m0plus rv32imc …] [--micropython ports/qemu] [--write]
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import instructions
import micropython_ticks
import numpy as np
import numpy.typing as npt
from record import save, show

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.device import target as targets
from puffer_edge.device import work
from puffer_edge.device.board import open_simulator
from puffer_edge.device.work import KINDS, Work
from puffer_edge.errors import PufferEdgeError
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer import vectors
from puffer_edge.integer.image import Image
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.shield import Shield
from puffer_edge.integer.vectors import Vectors
from puffer_edge.policy import Conv, Head, Layer, Normalizer, Policy, Pool, Recurrent

CORES = Path(__file__).parents[1] / "targets" / "cores"
STEPS = 8
EMULATED = "cortex-m0plus"
"""The core whose chip is emulated whole."""
PRINTED_ON_M0PLUS = "instructions of firmware/c counted in an emulated Cortex-M0; a load 2 cycles, a taken branch 2"
LIKE = {"rv32imc": {"rv32imc": 1.0, "xtensa-lx6": 1.1, "xtensa-lx7": 1.1}}
"""Cores that no emulator here counts have another's prices, times a factor; their files say why."""
CYCLES_PER_INSTRUCTION = {
    "cortex-m0plus": ("armv7m", 1.7),
    "cortex-m4": ("armv7m", 1.6),
    "cortex-m33": ("armv7m", 1.6),
    "cortex-m7": ("armv7m", 1.0),
    "rv32imc": ("rv32imc", 1.5),
    "xtensa-lx6": ("rv32imc", 1.25),
    "xtensa-lx7": ("rv32imc", 1.25),
}
"""MicroPython: cycles of a core for one instruction counted on another; each core's file says where the number comes from."""


@dataclass(frozen=True)
class Net:
    """A policy of random weights.

    Attributes:
        observations: how many.
        actions: how many.
        hidden: widths.
        activation: of the hidden layers.
        head: kind.
        stages: of the shield, by name.
        choices: of a discrete head, or for each action of one with several.
        profile: of the quantisation.
        first: what is in front of the dense layers: "dense" (nothing), "gru", "lstm", or convolutions over an image of four rows: "conv",
            "depthwise" (the image padded), "valid", "apart" (the same, not padded), "largest" (padded, and a pool), "deep" (two, padded,
            and a pool that averages); "signal" is one over an image of one row.
        channels: of the image.
        kernel: of the convolutions, rows and columns; one row over an image of one row.
        stride: of the convolutions, down and right.
    """

    observations: int
    actions: int
    hidden: tuple[int, ...]
    activation: str = "relu"
    head: str = "clip"
    stages: tuple[str, ...] = ("slew", "limit")
    choices: int = 5
    profile: str = "int8"
    first: str = "dense"
    channels: int = 3
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)

    @property
    def name(self) -> str:
        """Sizes and what is in it, in one word."""
        widths = "x".join(str(w) for w in (self.observations, *self.hidden, self.actions))
        extra = [word for word, plain in ((self.profile, "int8"), (self.first, "dense")) if word != plain]
        if self.first not in ("dense", "gru", "lstm"):
            extra += [f"{self.channels} channels", "kernel {}x{}".format(*self.kernel), "stride {}x{}".format(*self.stride)]
        return " ".join([widths, self.activation, self.head, "+".join(self.stages) or "unshielded", *extra])


FITTED = (
    Net(4, 1, (8, 8)),
    Net(4, 1, (64, 64), stages=()),
    Net(4, 2, (32, 16), "tanh", "tanh"),
    Net(8, 3, (16,), stages=("limit",)),
    Net(3, 1, (48, 48), "tanh"),
    Net(16, 4, (24, 24), "relu", "tanh", ()),
    Net(6, 1, (32, 32), "relu", "discrete"),
    Net(6, 1, (12,), "tanh", "discrete", ()),
    Net(24, 6, (40,), "tanh", "clip"),
    Net(8, 8, (8, 8, 8, 8)),
    Net(32, 2, (64,), stages=()),
    Net(4, 1, (64,), "tanh", "discrete", ("limit",)),
    Net(4, 1, (8,) * 6),
    Net(4, 1, (16,) * 5, "tanh", stages=()),
    Net(4, 1, (64, 64), "tanh", stages=()),
    Net(8, 1, (16,), "relu", "discrete", (), choices=24),
    Net(8, 2, (24, 24), "tanh", "discrete", ("limit",), choices=12),
    Net(40, 1, (8,), stages=()),
    Net(4, 12, (32,), "relu", "tanh", ("slew", "limit")),
    Net(4, 12, (32,), "relu", "clip", ()),
    Net(12, 1, (128, 32), stages=("limit",)),
    Net(2, 1, (4,), stages=()),
    Net(4, 16, (16,), "relu", "tanh", ()),
    Net(4, 16, (16,), "relu", "clip", ()),
    Net(8, 10, (24,), "tanh", "tanh", ()),
    *(Net(4, 1, (64, 64), "relu", stages=(), profile=profile) for profile in ("int16x8", "int4", "shift")),
    *(Net(4, 1, (32, 32), "tanh", stages=(), profile=profile) for profile in ("int16x8", "int4", "shift")),
    *(Net(16, 2, (16,), "tanh", profile=profile) for profile in ("int16x8", "int4", "shift")),
    Net(8, 3, (16,), "relu", "multi_discrete", (), choices=4),
    Net(4, 6, (16,), "tanh", "multi_discrete", (), choices=9),
    Net(4, 1, (40, 40, 40), "tanh", stages=(), profile="int16x8"),
    *(Net(4, 1, (16,), stages=(), first=first) for first in ("gru", "lstm")),
    *(Net(12, 2, (32, 16), first=first) for first in ("gru", "lstm")),
    *(Net(24, 1, (8,), stages=(), first=first) for first in ("gru", "lstm")),
    *(Net(8, 1, (20, 16), stages=(), profile="int16x8", first=first) for first in ("gru", "lstm")),
    *(Net(48, 1, (8, 16), stages=(), first=first) for first in ("conv", "valid", "largest")),
    *(Net(60, 2, (6,), first=first) for first in ("conv", "valid", "largest")),
    *(Net(60, 1, (12,), stages=(), profile=profile, first="conv") for profile in ("int16x8", "int4", "shift")),
    *(Net(48, 1, (hidden, 16), stages=(), first="depthwise") for hidden in (6, 9)),
    *(Net(24, 2, (6,), profile=profile, first="depthwise") for profile in ("int8", "int16x8")),
    *(Net(n, 1, (hidden, 8), stages=(), first="apart") for n, hidden in ((48, 12), (60, 9), (60, 6))),
    *(Net(n, 1, (8, 12, *more), stages=(), first="deep") for n, more in ((48, (16,)), (60, ()))),
    *(Net(n, 1, hidden, stages=(), first="signal", channels=4) for n, hidden in ((32, (8, 16)), (60, (16, 8)))),
    Net(60, 1, (8,), stages=(), first="signal", channels=6, kernel=(1, 5), stride=(1, 2)),
    Net(48, 2, (6, 8), "tanh", first="conv", channels=2, kernel=(2, 2)),
    Net(60, 1, (8,), stages=(), first="valid", channels=5, kernel=(2, 2)),
    Net(64, 1, (12,), stages=(), first="valid", channels=4, kernel=(1, 1)),
    Net(48, 1, (10,), stages=(), first="conv", channels=4, kernel=(4, 3), stride=(2, 1)),
    Net(56, 1, (8,), stages=(), first="depthwise", channels=2, kernel=(2, 3)),
    Net(48, 1, (8, 6), stages=(), first="apart", channels=4, kernel=(1, 1)),
    Net(40, 1, (10, 8), stages=(), first="apart", channels=5, kernel=(4, 2)),
    Net(48, 1, (4, 8), stages=(), first="depthwise", channels=4, kernel=(3, 3), stride=(2, 2)),
)
HELD_OUT = (
    Net(4, 1, (64, 64)),
    Net(3, 1, (64, 64), "tanh", "tanh"),
    Net(4, 1, (64, 64), "relu", "discrete"),
    Net(12, 4, (32, 32)),
    Net(6, 2, (16, 16), "tanh", "tanh", ()),
    Net(17, 6, (128, 64), "relu", "tanh"),
    *(Net(8, 2, (48, 48), "tanh", profile=profile) for profile in ("int16x8", "int4", "shift")),
    *(Net(8, 1, (24,), first=first) for first in ("gru", "lstm")),
    *(Net(6, 2, (32, 24), profile="int16x8", first=first) for first in ("gru", "lstm")),
    *(Net(36, 1, (6, 12), first=first) for first in ("conv", "valid", "depthwise", "apart", "largest")),
    *(Net(36, 1, (8, 12), profile=profile, first="conv") for profile in ("int16x8", "int4", "shift")),
    Net(36, 1, (6, 8, 12), first="deep"),
    Net(48, 1, (12, 12), first="signal", channels=4),
    Net(32, 1, (6, 12), first="conv", channels=2, kernel=(3, 2)),
    Net(40, 2, (8,), "tanh", first="valid", channels=5, kernel=(3, 1)),
    Net(32, 1, (8,), first="depthwise", channels=4, kernel=(2, 2)),
    Net(6, 4, (24,), "relu", "multi_discrete", choices=6),
)


def make(net: Net) -> tuple[Image, Vectors]:
    """Such a policy in integers, behind its shield, and steps to run."""
    rng = np.random.default_rng(net.observations * 1000 + sum(net.hidden))
    observations = tuple(ObservationChannel(f"o{i}", "1", -1.0 - i, 1.0 + i) for i in range(net.observations))
    actions = tuple(ActionChannel(f"a{j}", "1", -10.0, 10.0, 0.0, 0.0) for j in range(net.actions))
    steps = tuple(20.0 * k / (net.choices - 1) - 10.0 for k in range(net.choices))
    levels = {"discrete": tuple((value,) * net.actions for value in steps), "multi_discrete": (steps,) * net.actions}.get(net.head, ())
    c = Contract("cost", observations, actions, net.head, 50.0, levels, policy_divider=1, staleness_limit=2)
    high = np.array([channel.high for channel in observations])
    policy = Policy(
        c, _layers(net, c.n_outputs, rng), Normalizer(0 * high, high / 2), Head(net.head, np.full(net.actions, 10.0), np.zeros(net.actions))
    )
    seen = rng.uniform(-high, high, (500, net.observations))
    stages = {"slew": {"stage": "slew", "per_second": {a.name: 200.0 for a in actions}}, "limit": {"stage": "limit"}}
    program, shield = quantize(policy, seen, profile=net.profile), Shield.build(c, [stages[name] for name in net.stages])
    made = vectors.make(program, shield, c.observe(seen)[0], steps=32)
    return Image(c, program, shield, made.head(4)), made


def _layers(net: Net, outputs: int, rng: np.random.Generator) -> tuple[Any, ...]:
    """Layers of random weights; the first one of its kind."""
    made: list[Any] = []
    inputs, widths = net.observations, list(net.hidden)
    if net.first in ("gru", "lstm"):
        width = widths.pop(0)
        rows = width * (3 if net.first == "gru" else 4)
        shapes = ((rows, inputs), (rows, width), (rows,), (rows,))
        made.append(Recurrent(net.first, *(rng.standard_normal(shape) / np.sqrt(shape[-1]) for shape in shapes)))
        inputs = width
    elif net.first != "dense":
        height = 1 if net.first == "signal" else 4
        image = (net.channels, height, inputs // (net.channels * height))
        for _ in range(2 if net.first == "deep" else 1):
            made.append(_convolution(net, widths.pop(0), image, rng))
            image = made[-1].out_shape
        if net.first in ("largest", "deep"):
            made.append(Pool("max" if net.first == "largest" else "average", image))
        inputs = made[-1].n_out
    for k, width in enumerate((*widths, outputs)):
        activation = net.activation if k < len(widths) else "none"
        made.append(Layer(rng.standard_normal((width, inputs)) * 1.3 / np.sqrt(inputs), rng.standard_normal(width) * 0.1, activation))
        inputs = width
    return tuple(made)


def _convolution(net: Net, filters: int, image: tuple[int, int, int], rng: np.random.Generator) -> Conv:
    """A convolution of random weights."""
    alone, padded = net.first in ("depthwise", "apart"), net.first not in ("valid", "apart")
    kernel = min(net.kernel[0], image[1]), net.kernel[1]
    weight = rng.standard_normal((filters, 1 if alone else image[0], *kernel)) / 3
    border = [(size // 2 if padded else 0, (size - 1) // 2 if padded else 0) for size in kernel]
    padding = (border[0][0], border[1][0], border[0][1], border[1][1])
    return Conv(weight, rng.standard_normal(filters) * 0.1, net.activation, image, net.stride, padding, alone)


def on_rp2040(image: Image, steps: Vectors) -> float:
    """Cycles of network and shield on the emulated chip, as its firmware counts them; every reply is compared."""
    found = []
    with open_simulator(targets.load("rp2040")) as board:
        board.install(image.data)
        for k in range(STEPS):
            reply = board.replay(steps.observation[k], int(steps.flags[k]))
            if (reply.outcome, reply.applied.tolist()) != (int(steps.outcome[k]), steps.applied[k].tolist()):
                raise AssertionError(f"step {k} of the emulated RP2040 differs from the reference")
            if reply.outcome & protocol.POLICY_RAN:
                found.append(reply.cycles_policy + reply.cycles_shield)
    return float(np.mean(found))


def fit(rows: Sequence[Work], cycles: npt.NDArray[np.float64]) -> dict[str, float]:
    """Prices that are not negative and give the least relative error, for the kinds of work that occur."""
    kinds = [kind for kind in KINDS if any(getattr(row, kind) for row in rows)]
    a = np.array([[getattr(row, kind) for kind in kinds] for row in rows], np.float64) / cycles[:, None]
    free = list(range(len(kinds)))
    while True:
        found = np.linalg.lstsq(a[:, free], np.ones(len(rows)), rcond=None)[0]
        if found.min() >= 0:
            return {kind: round(float(found[free.index(k)]), 3) if k in free else 0.0 for k, kind in enumerate(kinds)}
        free.remove(free[int(found.argmin())])


def in_core(core: instructions.Core, image: Image, steps: Vectors) -> float:
    """Modelled cycles of a tick of the C engine in an emulated core."""
    return instructions.Engine(core, image).ticks(steps, STEPS).cycles(core)


@dataclass(frozen=True)
class Prices:
    """What goes into a table of a core's file.

    Attributes:
        core: name of the file.
        engine: of the table.
        values: by kind of work; a text stands for itself.
    """

    core: str
    engine: str
    values: dict[str, Any]


def write(prices: Prices) -> None:
    """Put prices into their table; other lines stay."""
    path = CORES / f"{prices.core}.toml"
    text = path.read_text()
    start = text.index(f"[{prices.engine}]\n")
    end = text.find("\n[", start)
    part, rest = (text[start:end].rstrip("\n"), f"\n{text[end:]}") if end >= 0 else (text[start:].rstrip("\n"), "\n")
    for kind, value in prices.values.items():
        line = f"{kind} = {value}" if isinstance(value, str) else f"{kind} = {value:.6g}"
        part, done = re.subn(rf"^{kind} = .*$", line, part, flags=re.MULTILINE)
        part += "" if done else f"\n{line}"
    path.write_text(text[:start] + part + rest)


def printed(core: instructions.Core) -> float:
    """Cycles of a shield's instruction printed as C, in the emulated core: a tick with the shield less one without it, in the mean."""
    found = []
    for net in (net for net in FITTED if net.stages and net.profile == "int8" and net.first == "dense"):
        (image, steps), (bare, bare_steps) = make(net), make(replace(net, stages=()))
        with_it = instructions.Engine(core, image, printed=True).ticks(steps, STEPS).cycles(core)
        without = instructions.Engine(core, bare).ticks(bare_steps, STEPS).cycles(core)
        found.append((with_it - without) / (image.shield.instructions - bare.shield.instructions))
    return round(float(np.mean(found)), 3)


def compare(name: str, label: str, counter: Callable[[Image, Vectors], float]) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Count the fitted and the held-out nets, fit, and print the one beside the other. A net that the engine refuses is named."""
    rows: list[tuple[Net, bool, Work, float]] = []
    for net, held_out in [*((net, False) for net in FITTED), *((net, True) for net in HELD_OUT)]:
        image, steps = make(net)
        try:
            rows.append((net, held_out, work.count(image.program, image.shield), counter(image, steps)))
        except PufferEdgeError as refusal:
            print(f"{name} does not run {net.name}: {refusal}")
    seen = [row for row in rows if not row[1]]
    prices = fit([done for _, _, done, _ in seen], np.array([value for *_, value in seen]))
    table = []
    for net, held_out, done, value in rows:
        predicted = sum(getattr(done, kind) * price for kind, price in prices.items())
        table.append({"net": net.name, "fitted": not held_out, "counted": round(value), "predicted": round(predicted)})
        table[-1]["error"] = round(predicted / value - 1, 4)
    show(f"{name}, {label}: a unit of each work", [{"work": kind, "price": price} for kind, price in prices.items()])
    show(f"{name}, {label}: nets that the fit has not seen", [row for row in table if not row["fitted"]])
    return prices, [{"on": name, "label": label, **row} for row in table]


def c_engine(core: instructions.Core) -> tuple[list[Prices], list[dict[str, Any]]]:
    """Price the C engine on a core, and on the cores that are like it."""
    counter = on_rp2040 if core.name == EMULATED else partial(in_core, core)
    prices, rows = compare(core.name, "emulated cycles" if core.name == EMULATED else "modelled cycles", counter)
    as_c, found = printed(core), []
    for name, factor in LIKE.get(core.name, {core.name: 1.0}).items():
        values: dict[str, float | str] = {kind: round(price * factor, 3) for kind, price in prices.items()}
        values["code_bytes"] = instructions.code_bytes(core)
        values["printed"] = round(as_c * factor, 3)
        if name == EMULATED:
            values["printed"] = f'{{ cycles = {as_c}, label = "modelled", source = "{PRINTED_ON_M0PLUS}" }}'
        found.append(Prices(name, "c", values))
    return found, rows


def micropython(machine: micropython_ticks.Machine, firmware: Path) -> tuple[list[Prices], list[dict[str, Any]]]:
    """Price the MicroPython runtime on all cores whose instructions a machine stands for."""
    prices, rows = compare(f"MicroPython on {machine.core}", "emulated instructions", partial(micropython_ticks.count, machine, firmware))
    alike = ((name, cycles) for name, (like, cycles) in CYCLES_PER_INSTRUCTION.items() if like == machine.core)
    return [Prices(name, "micropython", {kind: round(price * cycles, 3) for kind, price in prices.items()}) for name, cycles in alike], rows


def main() -> None:
    """Count, fit, compare, save."""
    names = [core.name for core in instructions.CORES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", nargs="*", choices=names, default=names)
    parser.add_argument("--micropython", type=Path, help="MicroPython's ports/qemu, with both firmwares built")
    parser.add_argument("--write", action="store_true", help="put the prices into targets/cores")
    options = parser.parse_args()
    made = [c_engine(core) for core in instructions.CORES if core.name in options.cores]
    for machine in (micropython_ticks.CORTEX_M3, micropython_ticks.RV32) if options.micropython else ():
        made.append(micropython(machine, options.micropython / f"build-{machine.board}" / "firmware.elf"))
    results = [row for _, rows in made for row in rows]
    worst: dict[str, float] = {}
    for row in results:
        if not row["fitted"]:
            worst[row["on"]] = max(worst.get(row["on"], 0.0), abs(row["error"]))
    save(
        "cost_model",
        settings={"steps": STEPS, "worst_error_of_nets_not_fitted": worst, "cycles_per_instruction": CYCLES_PER_INSTRUCTION},
        rows=results,
    )
    for prices in (prices for found, _ in made for prices in found if options.write):  # after the commit is noted that was counted
        write(prices)


if __name__ == "__main__":
    main()
