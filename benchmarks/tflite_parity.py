"""Does TensorFlow Lite compute what the program does? TFLite-Micro and LiteRT, over every kind of net and profile that has a file.

TFLite-Micro must give the program's bits. LiteRT's reference kernels must give those of the program with single rounding in what they
run as FULLY_CONNECTED (their convolutions round twice); its default kernels, XNNPACK's, are measured: how many values of the head differ, and by
how much at most, in steps of its 65,536. An LSTM is a kernel of its own in LiteRT, which is measured too. A quarter of the rows are
edges; memory goes on from batch to batch. "whole" takes observations to actions: the bundle's C around TFLite-Micro.

With --converter, TensorFlow's converter makes files of the same policies (extra "tensorflow"): size, memory and closed-loop return,
behind the same shield, of the float policy, of ours and of its file, for policies of a run folder or, without one, untrained ones.

python benchmarks/tflite_parity.py [--vectors 1000000] [--seed 0] [--converter [--episodes 64] [--runs RUN ...]]
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))  # the nets that the tests compare are measured here at length
from puffer_edge.device import target
from puffer_edge.errors import Unsupported
from puffer_edge.export import tflm
from puffer_edge.export.source import Source
from puffer_edge.export.tflite import covered, tflite
from puffer_edge.export.tflite_compare import factors, inputs, litert, micro, program_steps
from puffer_edge.integer import vectors
from puffer_edge.integer.image import Image
from puffer_edge.integer.program import Program
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import Policy
from tests import samples

ROWS = 4096
PROFILES = ("int8", "int16x8", "int4")
HEADS = {"mlp": "tanh", "average": "discrete"}
"""Head of a net; "clip" for the others."""
STRICT = ["-std=c99", "-fno-strict-aliasing", "-O2"]


def nets() -> Iterator[tuple[str, str, Policy, Program]]:
    """Every net and profile that has a file, with its policy and program."""
    for name in samples.NETWORKS:
        policy = samples.network(name, HEADS.get(name, "clip"))
        seen, starts = samples.episodes(policy.contract)
        for profile in PROFILES:
            program = quantize(policy, seen, starts, profile)
            try:
                tflite(program)
            except Unsupported as error:
                print(f"{name} {profile}: {error}")
                continue
            yield name, profile, policy, program


def networks_different(program: Program, count: int, seed: int) -> dict[str, Any]:
    """Values of the head that differ, engine by engine."""
    model, rng = tflite(program, ROWS), np.random.default_rng(seed)
    twice, once = program_steps(program, ROWS), program_steps(program, ROWS, factors(model))
    micro_, reference, default = micro(model, ROWS), _litert(model, True), _litert(model, False)
    found = dict.fromkeys(("tflm", "reference", "default", "default_max", "reference_max", "single", "values"), 0)
    for _ in range(-(-count // ROWS)):
        x = inputs(program, ROWS, rng)
        ours, single = twice(x).astype(np.int64), once(x).astype(np.int64)
        found["values"] += ours.size
        found["tflm"] += int((micro_(x) != ours).sum())
        found["single"] += int((single != ours).sum())
        for name, engine, wanted in (("reference", reference, single), ("default", default, ours)):
            if engine:
                error = np.abs(engine(x) - wanted)
                found[name] += int((error > 0).sum())
                found[f"{name}_max"] = max(found[f"{name}_max"], int(error.max()))
    return {
        "vectors": -(-count // ROWS) * ROWS,
        "tflm_different": found["tflm"],
        "litert_reference_different": found["reference"] if reference else None,
        "litert_reference_max_steps": found["reference_max"] if reference else None,
        "litert_default_share": found["default"] / found["values"] if default else None,
        "litert_default_max_steps": found["default_max"] if default else None,
        "single_rounding_share": found["single"] / found["values"],
    }


def _litert(model: bytes, reference: bool) -> Any:
    """LiteRT's interpreter; None where it has no kernel for an operator of the file."""
    try:
        return litert(model, ROWS, reference)
    except (ValueError, RuntimeError) as error:
        print(f"LiteRT's {'reference' if reference else 'default'} kernels: {str(error)[:100]}")
        return None


def whole_different(policy: Policy, program: Program, count: int, seed: int) -> int:
    """Rows where the bundle's C, around TFLite-Micro, gives another action than the program, from observations on, memory and all."""
    c, rng = policy.contract, np.random.default_rng(seed)
    shield = Shield.none(c)
    steps = vectors.make(program, shield, rng.integers(c.observation_low, c.observation_high, (8, c.n_observations), np.int32), steps=16)
    source = Source(policy, Image(c, program, shield, steps), steps, target.load("host"), np.zeros((1, c.n_observations)))
    with tempfile.TemporaryDirectory() as folder:
        library = _library(source, Path(folder))
        step_in, step_out = (getattr(library, f"{source.name}_{name}") for name in ("input", "action"))
        network, first, memory = micro(tflite(program, ROWS), ROWS), covered(program)[0], program.start(ROWS)
        different = 0
        for _ in range(-(-count // ROWS)):
            observation = rng.integers(c.observation_low, c.observation_high, (ROWS, c.n_observations), np.int32, endpoint=True)
            x = np.zeros((ROWS, first.n_in), np.int16 if first.in_bytes == 2 else np.int8)
            got = np.zeros((ROWS, c.n_actions), np.int32)
            _each(step_in, observation, x)
            _each(step_out, np.ascontiguousarray(network(x)), got)
            wanted, memory = program.step(observation, memory)
            different += int((got != wanted).any(1).sum())
    return different


def _library(source: Source, folder: Path) -> ctypes.CDLL:
    files = {name: data for name, data in tflm.files(source).items() if name.endswith((".c", ".h"))}
    for name, data in files.items():
        (folder / Path(name).name).write_bytes(data)
    subprocess.run(["cc", *STRICT, "-fPIC", "-shared", *sorted(p.name for p in folder.glob("*.c")), "-o", "policy.so"], cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "policy.so"))


def _each(function: Any, given: Any, taken: Any) -> None:
    """A C function of two pointers, row by row."""
    a, b = given.ctypes.data, taken.ctypes.data
    for k in range(len(given)):
        function(ctypes.c_void_p(a + k * given.strides[0]), ctypes.c_void_p(b + k * taken.strides[0]))


def converter_rows(runs: list[Path], episodes: int, seed: int) -> Iterator[dict[str, Any]]:
    """Size, memory and return of ours and of TensorFlow's file, beside the float policy's return."""
    from puffer_edge.envs import closed_loop, load, names
    from puffer_edge.export.tflite_converter import Converted, convert
    from puffer_edge.export.tflm_arena import arena_bytes
    from puffer_edge.integer.reference import InFloat

    policies = [Policy.load(run / "policy.safetensors") for run in runs]
    for policy in policies or [samples.policy(load(name).contract, (64, 64), "tanh", seed) for name in names()]:
        env = load(policy.name)
        guard = Shield.build(env.contract, env.shield)
        ran = closed_loop.play(env, InFloat(policy), guard, 16, seed + 1000)
        ints, starts = ran.calibration()
        seen = env.contract.physical_observation(ints)
        program = quantize(policy, seen, starts)
        ours, theirs = tflite(program), convert(policy, seen)
        row: dict[str, Any] = {"policy": policy.name, "trained": bool(policies), "episodes": episodes}
        for name, proposer in (("float", InFloat(policy)), ("ours", program), ("converter", Converted(policy, theirs))):
            row[f"{name}_return"] = float(closed_loop.integer_returns(env, proposer, guard, episodes, seed).mean())
        for name, model in (("ours", ours), ("converter", theirs)):
            row |= {f"{name}_bytes": len(model), f"{name}_arena_bytes": arena_bytes(model)}
        yield row


def main() -> None:
    """Run every net, print and save the table."""
    from record import save, show

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--converter", action="store_true")
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--runs", type=Path, nargs="*", default=[])
    given = parser.parse_args()
    if given.converter:
        rows = list(converter_rows(given.runs, given.episodes, given.seed))
        show("TensorFlow's converter beside ours", rows)
        save("tflite_converter", {"episodes": given.episodes, "seed": given.seed}, rows)
        return
    rows = []
    for name, profile, policy, program in nets():
        row = {"net": name, "profile": profile, "head": policy.head.kind, **networks_different(program, given.vectors, given.seed + 1)}
        rows.append(row | {"whole_different": whole_different(policy, program, given.vectors, given.seed + 2)})
        print(rows[-1], flush=True)
    show("TensorFlow Lite and the program", rows)
    save("tflite_parity", {"vectors": given.vectors, "seed": given.seed}, rows)


if __name__ == "__main__":
    main()
