"""ONNX Runtime as a browser has it, the WebAssembly provider of onnxruntime-web under node: the program's bits there too."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import puffer_edge
from puffer_edge.export.onnx_integer import integer_model
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.scales import PROFILES
from puffer_edge.integer.shield import Shield
from tests.export import nets

pytest.importorskip("onnx")
ROOT = Path(puffer_edge.__file__).parents[1]
SCRIPT = Path(__file__).with_name("onnx_web.mjs")
ROWS, STEPS = 50, 3


def tensor(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {"type": values.dtype.name, "data": values.ravel().tolist(), "shape": list(values.shape)}


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None or not (ROOT / "node_modules/onnxruntime-web").is_dir():
        pytest.skip("needs node 18 or newer, and onnxruntime-web from npm")
    return found


def test_the_browsers_runtime_gives_the_programs_bits(node: str, tmp_path: Path) -> None:
    """Every kind of layer, the profiles in turn, physical observations, a shield behind it, memories fed back."""
    cases, wanted = [], []
    for k, kind in enumerate(nets.KINDS):
        policy = nets.policy(kind, nets.HEADS.get(kind, "clip"))
        c = policy.contract
        program = quantize(policy, nets.observations(c, 600), profile=list(PROFILES)[k % len(PROFILES)])
        shield = Shield.build(c, [{"stage": "slew", "per_second": {"servo1": 7000.0}}])
        (tmp_path / f"{kind}.onnx").write_bytes(integer_model(program, shield, physical=True))
        x = nets.observations(c, ROWS * STEPS, 5).reshape(STEPS, ROWS, -1)
        previous = np.broadcast_to(c.action_initial, (ROWS, c.n_actions)).astype(np.int32)
        given = {"previous": tensor(previous), "fallback": tensor(np.zeros(ROWS, np.int32))}
        steps = [{"observation": tensor(row), **given} for row in x]
        memory = program.start(ROWS)
        if program.memory:
            steps[0]["memory"] = tensor(memory)
        cases.append({"model": str(tmp_path / f"{kind}.onnx"), "steps": steps, "feedback": {"memory_out": "memory"} if program.memory else {}})
        for row in x:
            ints, _, _ = c.observe(row)
            action, memory = program.step(ints, memory)
            applied, stages = shield.apply(ints, action, previous, np.zeros(ROWS, np.int32))
            after = {"memory_out": memory} if program.memory else {}
            wanted.append({"action_fixed": action, "applied_fixed": applied, "stages": stages, "action": c.physical_action(action)} | after)
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    command = [node, str(SCRIPT), str(tmp_path / "cases.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    got = [step for case in json.loads(done.stdout) for step in case]
    assert len(got) == len(wanted) == STEPS * len(nets.KINDS)
    for step, (answer, right) in enumerate(zip(got, wanted)):
        for name, values in right.items():
            assert answer[name] == values.ravel().tolist(), (step, name)
