"""Replays the bundle's vectors on the compiled module: every action must have the program's bits. ``load`` is what a program of yours needs."""

import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
import tvm
from tvm import relax

HERE = Path(__file__).resolve().parent
STEP_RESET, POLICY_RAN = 1, 16  # of a vector's step flags, and of its outcome


def load(folder=HERE):
    """What ``module.json`` says, and a function from the inputs to the outputs, both by name."""
    facts = json.loads((folder / "module.json").read_text())
    library = folder / f"policy-{platform.machine()}.so"
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())

    def run(**feeds):
        result = machine["main"](*(tvm.runtime.tensor(feeds[one["name"]]) for one in facts["inputs"]))
        results = [result] if hasattr(result, "numpy") else result
        return dict(zip(facts["outputs"], (one.numpy() for one in results)))

    return facts, run


def main():
    """Returns 1 where an action differs."""
    facts, run = load()
    memory = {one["name"]: np.zeros(one["shape"], one["type"]) for one in facts["inputs"][1:]}
    n, m = facts["inputs"][0]["shape"][1], facts["actions"]
    rows = np.fromfile(HERE.parent / "vectors.bin", "<i4").reshape(-1, 3 + n + 2 * m)  # docs/image.md
    ran = differing = 0
    seconds = 0.0
    for row in rows:
        if row[0] & STEP_RESET:
            memory = {name: np.zeros_like(values) for name, values in memory.items()}
        if not row[1 + n + 2 * m] & POLICY_RAN:
            continue
        start = time.perf_counter()
        result = run(observation=row[None, 1 : 1 + n], **memory)
        seconds += time.perf_counter() - start
        memory = {name: result[f"{name}_out"] for name in memory}
        ran += 1
        differing += not np.array_equal(result["action"][0], row[1 + n : 1 + n + m])
    print(
        json.dumps({"architecture": platform.machine(), "steps": ran, "mismatches": differing, "us_per_step": round(seconds / max(ran, 1) * 1e6, 1)})
    )
    return 1 if differing or not ran else 0


if __name__ == "__main__":
    sys.exit(main())
