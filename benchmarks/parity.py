"""Do all engines give the same bits? Reference, C, TFLite-Micro, MicroPython and an emulated RP2040, over nets from 1×8 to 3×64.

Every engine but TFLite-Micro runs whole ticks: network, head, shield and state, with missed and invalid observations among them,
and a step counts as different when one bit of its proposal, action, outcome or state digest is. TFLite-Micro runs what its file
covers, int8 input to int16 head. MicroPython and the RP2040 run in their simulators, over the link, a selection of the nets.

python benchmarks/parity.py [--steps 1000000] [--micropython 10000] [--rp2040 2000] [--seed 0]
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.device import target
from puffer_edge.device.board import Board, open_simulator
from puffer_edge.errors import Unsupported
from puffer_edge.export.tflite import tflite
from puffer_edge.firmware.build import build_host
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer import vectors
from puffer_edge.integer.image import Image
from puffer_edge.integer.ops.dense import Dense
from puffer_edge.integer.program import Program
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.reference import Runner, Tick
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import Head, Layer, Normalizer, Policy

HIDDEN = {"1x8": (8,), "1x64": (64,), "2x16": (16, 16), "2x64": (64, 64), "3x64": (64, 64, 64)}
ACTIVATIONS = ("relu", "tanh")
HEADS = ("discrete", "clip", "tanh")
OVER_THE_LINK = (
    ("1x8", "tanh", "clip"),
    ("1x64", "tanh", "discrete"),
    ("2x16", "relu", "discrete"),
    ("2x64", "relu", "tanh"),
    ("3x64", "relu", "clip"),
    ("3x64", "tanh", "discrete"),
)
BATCH = 1000
STAGES: tuple[dict[str, Any], ...] = (
    {"stage": "envelope", "bounds": {"angle": (-0.3, 0.3)}, "law": {"force": {"position": 1.0, "velocity": 2.0, "angle": 40.0, "rate": 8.0}}},
    {"stage": "slew", "per_second": {"force": 500.0}},
    {"stage": "limit"},
)


@dataclass(frozen=True, eq=False)
class Steps:
    """Sequences of ticks, each beginning with a reset.

    Attributes:
        observation: (sequences, length, n) int32.
        flags: (sequences, length) uint32 step flags.
    """

    observation: npt.NDArray[np.int32]
    flags: npt.NDArray[np.uint32]

    @property
    def count(self) -> int:
        """Ticks in all."""
        return self.flags.size


def make_policy(hidden: tuple[int, ...], activation: str, head: str, seed: int) -> tuple[Policy, npt.NDArray[np.float64]]:
    """A policy with random weights, and observations to calibrate it on. The clip head has one action: a rounding rule of its own in TFLite."""
    rng = np.random.default_rng(seed)
    ranges = (("position", "m", 4.8), ("velocity", "m/s", 10.0), ("angle", "rad", 0.42), ("rate", "rad/s", 10.0))
    observations = tuple(ObservationChannel(name, unit, -high, high) for name, unit, high in ranges)
    actions = (ActionChannel("force", "N", -10, 10, 0.5, -0.25), ActionChannel("brake", "1", 0, 1, 1, 1))[: 1 if head == "clip" else 2]
    levels = ((-10.0, 0.0), (0.0, 1.0), (10.0, 0.0)) if head == "discrete" else ()
    c = Contract("parity", observations, actions, head, 50.0, levels, policy_divider=1, staleness_limit=2)
    widths = (len(observations), *hidden, c.n_outputs)
    layers = tuple(
        Layer(rng.standard_normal((o, i)) * 1.3 / np.sqrt(i), rng.standard_normal(o) * 0.1, activation if k < len(hidden) else "none")
        for k, (i, o) in enumerate(itertools.pairwise(widths))
    )
    high = np.array([r[2] for r in ranges])
    policy = Policy(c, layers, Normalizer(high * 0.05, high / 2), Head(head, np.full(len(actions), 10.0), np.zeros(len(actions))))
    return policy, rng.uniform(-high, high, (4000, len(high)))


def make_image(hidden: tuple[int, ...], activation: str, head: str, seed: int) -> Image:
    """Such a policy in integers, behind a shield of three stages."""
    policy, seen = make_policy(hidden, activation, head, seed)
    c = policy.contract
    program, shield = quantize(policy, seen), Shield.build(c, STAGES)
    return Image(c, program, shield, vectors.make(program, shield, c.observe(seen)[0], seed).head(16))


def make_steps(c: Contract, count: int, seed: int, sequences: int = 1000) -> Steps:
    """Random observations, slow walks, and edges: bounds, their neighbours, the ends of int32; misses and invalid ones among them."""
    rng = np.random.default_rng(seed)
    sequences = min(sequences, max(count // 50, 1))
    shape = (sequences, -(-count // sequences), c.n_observations)
    low, high = c.observation_low.astype(np.int64), c.observation_high.astype(np.int64)
    observation = rng.integers(low, high, shape, endpoint=True)
    walks = np.cumsum(rng.normal(0, 0.02, shape), 1) * high
    observation[1::3] = np.clip(walks, 1.1 * low, 1.1 * high).astype(np.int64)[1::3]
    edges = np.stack([low, high, low - 1, high + 1, low + 1, high - 1, 0 * low, 0 * low - 2**31, 0 * low + 2**31 - 1])
    picked = np.take_along_axis(edges[:, None, None], rng.integers(0, len(edges), (1, *shape)), 0)[0]
    observation = np.where(rng.random(shape) < 0.05, picked, observation)
    flags = rng.choice([0, protocol.STEP_MISSED, protocol.STEP_INVALID, protocol.STEP_RESET], shape[:2], p=[0.88, 0.09, 0.02, 0.01])
    flags[:, 0] |= protocol.STEP_RESET
    return Steps(observation.astype(np.int32), flags.astype(np.uint32))


def by_reference(image: Image, steps: Steps) -> Tick:
    """The definition, all sequences side by side; results in the order of one long sequence."""
    runner = Runner(image.program, image.shield, len(steps.flags))
    ticks = [runner.tick(steps.observation[:, t], steps.flags[:, t]) for t in range(steps.flags.shape[1])]
    columns = (np.stack([getattr(t, name) for t in ticks], 1) for name in ("raw", "applied", "outcome", "state"))
    return Tick(*(column.reshape(steps.count, *column.shape[2:]) for column in columns))


def by_c(library: ctypes.CDLL, image: Image, steps: Steps) -> Tick:
    """The C engine on this computer."""
    m, count = image.contract.n_actions, steps.count
    data = np.frombuffer(image.data.ljust(-(-len(image.data) // 8) * 8, b"\0"), np.uint64).copy()
    arrays = [np.zeros((count, m), np.int32), np.zeros((count, m), np.int32), np.zeros(count, np.uint32), np.zeros(count, np.uint32)]
    flags, observation = np.ascontiguousarray(steps.flags), np.ascontiguousarray(steps.observation)
    pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (data, flags, observation, *arrays)]
    check = library.pe_batch(pointers[0], len(image.data), count, *pointers[1:])
    if check:
        raise AssertionError(f"the C engine refuses the image by check {check}")
    return Tick(*arrays)


def by_board(board: Board, steps: Steps) -> Tick:
    """A board, step by step over the link."""
    observations, flags = steps.observation.reshape(steps.count, -1), steps.flags.reshape(-1)
    replies = [board.replay(o, int(f)) for o, f in zip(observations, flags)]
    words = (np.array([getattr(r, name) for r in replies], np.uint32) for name in ("outcome", "state"))
    return Tick(np.stack([r.raw for r in replies]), np.stack([r.applied for r in replies]), *words)


def different_steps(a: Tick, b: Tick) -> int:
    """Steps with a bit that differs."""
    different = (a.raw != b.raw).any(1) | (a.applied != b.applied).any(1) | (a.outcome != b.outcome) | (a.state != b.state)
    return int(different.sum())


def int8_batches(n: int, count: int, seed: int) -> Iterator[npt.NDArray[np.int8]]:
    """Random int8 inputs, an eighth of the numbers edges."""
    rng = np.random.default_rng(seed)
    for _ in range(-(-count // BATCH)):
        x = rng.integers(-128, 128, (BATCH, n))
        edges = rng.choice([-128, -127, -1, 0, 1, 126, 127], x.shape)
        yield np.where(rng.random(x.shape) < 0.125, edges, x).astype(np.int8)


def head_of(program: Program, x: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
    """What the .tflite file covers: int8 input to the int16 layer."""
    for op in program.ops[1:]:
        x = op.run(x)
        if isinstance(op, Dense) and op.wide:
            break
    return x


def against_tflm(image: Image, count: int, seed: int) -> tuple[int, int]:
    """Inputs given to TFLite-Micro, and how many had another output.

    Raises:
        Unsupported: its Python package is not installed.
    """
    try:
        from tflite_micro.python.tflite_micro import runtime
    except ImportError:
        raise Unsupported("TFLite-Micro is not installed: pip install 'puffer-edge[tflm]'") from None
    program = image.program
    interpreter = runtime.Interpreter.from_bytes(tflite(program, BATCH), arena_size=2**22)
    tried = different = 0
    for x in int8_batches(program.ops[1].n_in, count, seed):
        interpreter.set_input(x, 0)
        interpreter.invoke()
        different += int((interpreter.get_output(0) != head_of(program, x)).any(1).sum())
        tried += len(x)
    return tried, different


def against_board(name: str, image: Image, steps: Steps, wanted: Tick) -> int:
    """Differing steps of a target's simulator."""
    with open_simulator(target.load(name)) as board:
        board.install(image.data)
        return different_steps(by_board(board, steps), wanted)


def row(library: ctypes.CDLL, net: tuple[str, str, str], settings: dict[str, int]) -> dict[str, Any]:
    """One net against every engine; None where an engine did not run it."""
    size, activation, head = net
    seed = settings["seed"]
    image = make_image(HIDDEN[size], activation, head, seed)
    steps = make_steps(image.contract, settings["steps"], seed)
    wanted = by_reference(image, steps)
    result: dict[str, Any] = {"net": size, "activation": activation, "head": head, "c_steps": steps.count}
    result["c_different"] = different_steps(by_c(library, image, steps), wanted)
    result["shield_acted"] = round(float((wanted.outcome >> protocol.REASON_SHIFT & 255 != 0).mean()), 3)
    result["tflm_inputs"], result["tflm_different"] = against_tflm(image, settings["steps"], seed)
    for engine, name in (("micropython", "esp32"), ("rp2040", "rp2040")):
        count = settings[engine] if net in OVER_THE_LINK else 0
        short = make_steps(image.contract, count, seed + 1, 20) if count else None
        result[f"{engine}_steps"] = short.count if short else None
        result[f"{engine}_different"] = against_board(name, image, short, by_reference(image, short)) if short else None
    return result


def nets() -> list[tuple[str, str, str]]:
    """Every combination of size, activation and head."""
    return list(itertools.product(HIDDEN, ACTIVATIONS, HEADS))


def shown(r: dict[str, Any]) -> dict[str, Any]:
    """A row as one reads it: "0 of 1000000" an engine."""
    engines = {"C": "c_steps", "TFLite-Micro": "tflm_inputs", "MicroPython": "micropython_steps", "RP2040": "rp2040_steps"}
    found = {name: f"{r[key.split('_')[0] + '_different']} of {r[key]}" if r[key] else None for name, key in engines.items()}
    return {"net": f"{r['net']} {r['activation']}, {r['head']}", **found}


def main() -> None:
    """Run every net, print and save the table."""
    from record import save, show

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("steps", 1_000_000), ("micropython", 10_000), ("rp2040", 2_000), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    settings = vars(parser.parse_args())
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        library = ctypes.CDLL(str(build_host(Path(folder)).library))
        for net in nets():
            rows.append(row(library, net, settings))
            print(*shown(rows[-1]).values(), flush=True)
    show("how many steps, or inputs, differed from the reference", [shown(r) for r in rows])
    save("parity", settings=settings, rows=rows)


if __name__ == "__main__":
    main()
