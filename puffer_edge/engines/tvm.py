"""The bundle's TVM library for this computer's architecture, in TVM's virtual machine: bit for bit."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from typing import Any

import numpy as np

from puffer_edge.engines import Case, Row
from puffer_edge.errors import MissingExtra, Unsupported
from puffer_edge.firmware.shared import protocol

MOST = 20_000
"""Vectors: one row a call."""


def rows(case: Case) -> Iterator[Row]:
    """One row, where the bundle has a library for this architecture."""
    name = f"tvm/policy-{platform.machine()}.so"
    if case.holds(name, "tvm/module.json"):
        yield _exact(case, name)


def _exact(case: Case, name: str) -> Row:
    """Proposals and memory, sequence by sequence."""
    steps, _ = case.few(MOST)
    run, version = _main(case, name)
    c, program = case.image.contract, case.image.program
    good = (steps.flags & (protocol.STEP_MISSED | protocol.STEP_INVALID)) == 0
    different, largest = 0, 0
    for flags, observation, came in zip(steps.flags, steps.observation, good):
        memory = got = program.start(1)
        for t in np.flatnonzero(came | (flags & protocol.STEP_RESET != 0)):
            if flags[t] & protocol.STEP_RESET:
                memory = got = program.start(1)
            if not came[t]:
                continue
            wanted, memory = program.step(np.clip(observation[t : t + 1], c.observation_low, c.observation_high), memory)
            action, got = run(observation[t : t + 1], got)
            different += not (np.array_equal(action, wanted) and np.array_equal(got, memory))
            largest = max(largest, int(np.abs(action.astype(np.int64) - wanted).max()))
    return Row(name, f"TVM {version}", case.profile, int(good.sum()), different, float(largest), 0)


def _main(case: Case, name: str) -> tuple[Any, str]:
    """A function from observation (1, n) and memory (1, k) to action (1, m) and the next memory, and TVM's version."""
    try:
        import tvm
        from tvm import relax
    except ImportError:
        raise MissingExtra("tvm", "verifying the TVM module") from None
    facts = json.loads(case.read("tvm/module.json"))
    if facts["tvm"] != tvm.__version__:
        raise Unsupported(f"the TVM module was compiled by {facts['tvm']}, here is {tvm.__version__}: export the bundle again")
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(case.bundle.path / name)), tvm.cpu())
    main, tensor, with_memory = machine["main"], tvm.runtime.tensor, "memory_out" in facts["outputs"]

    def run(observation: Any, memory: Any) -> tuple[Any, Any]:
        result = main(tensor(observation), tensor(memory)) if with_memory else main(tensor(observation))
        results = [result] if hasattr(result, "numpy") else list(result)
        return results[0].numpy(), results[-1].numpy() if with_memory else memory

    return run, str(tvm.__version__)
