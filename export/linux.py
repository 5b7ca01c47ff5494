"""The Linux runner, for a Jetson, a Raspberry Pi or another Linux computer: files that need Python and nothing else to run.

With numpy and ONNX Runtime on that computer, the bundle's integer model computes the policy, else the runtime's own kernels do:
the same bits. A float engine (TensorRT, or the float model) gives other bits; ``runner.json`` bounds how far it may be off.
"""

from __future__ import annotations

import json

import numpy as np

from puffer_edge import find
from puffer_edge.export import micropython
from puffer_edge.export.source import Source
from puffer_edge.integer.reference import InFloat, Runner

MODELS = {"integer": "policy.fixed.onnx", "onnx": "policy.onnx"}
# A float engine's bound in the self-test: so many times what lies between program and float policy on the same steps, but at least
# this share of an action's range, or of the choices (the int8 of QDQ is coarser than the program's int16 head).
TIMES, LEAST_SHARE = 2.0, 0.1


def files(source: Source) -> dict[str, bytes]:
    """``linux/``: ``run.py``, its package, the runtime that it shares with MicroPython, the printed shield, a template of ``user.py``."""
    runner = find.folder("puffer_edge.firmware") / "linux"
    held = {path.relative_to(runner).as_posix(): path.read_bytes() for path in sorted(runner.rglob("*.py"))}
    held["README.md"] = (runner / "README.md").read_bytes()
    held |= {name: data for name, data in micropython.runtime_files().items() if name.startswith(f"{micropython.RUNTIME}/")}
    held["user_example.py"] = micropython.user_example(source).encode()
    if source.image.shield.stages:
        held["shield.py"] = micropython.shield_module(source).encode()
    held["runner.json"] = (json.dumps(facts(source), indent=1) + "\n").encode()
    return {f"linux/{name}": data for name, data in held.items()}


def facts(source: Source) -> dict[str, object]:
    """What the runner cannot read from the image: the target, the models of this program, and the bounds of a float engine."""
    worst, flips = float_difference(source)
    span = source.policy.contract.action_high - source.policy.contract.action_low
    bound = np.ceil(np.maximum(TIMES * worst, LEAST_SHARE * span)).astype(int)
    return {
        "target": source.target.name,
        "program": source.image.program.digest.hex(),
        "models": MODELS,
        "bounds": {"action": [] if _chooses(source) else bound.tolist(), "flips": max(TIMES * flips, LEAST_SHARE) if _chooses(source) else 0.0},
    }


def float_difference(source: Source) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], float]:
    """How far the float policy is from the program over the self-test steps of the image.

    Returns:
        (m,) largest difference of each proposed action, in fixed-point units, and the share of steps with any difference.
    """
    vectors, runner = source.image.vectors, Runner(InFloat(source.policy), source.image.shield)
    ticks = [runner.tick(vectors.observation[k : k + 1], int(vectors.flags[k]), digest=False) for k in range(len(vectors))]
    apart = np.abs(np.concatenate([tick.raw for tick in ticks]).astype(np.float64) - vectors.raw)
    return apart.max(0), float(apart.any(1).mean())


def _chooses(source: Source) -> bool:
    return source.policy.contract.head in ("discrete", "multi_discrete")
