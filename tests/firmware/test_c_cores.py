"""The C engine's loops for one core, in assembler and by the DSP's instructions, in emulated cores: bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import puffer_edge
from puffer_edge.integer import vectors
from puffer_edge.integer.image import Image
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.shield import Shield
from tests import samples

STEPS = 6


@pytest.fixture
def instructions(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("unicorn", reason="the extra cost is not installed")
    monkeypatch.syspath_prepend(str(Path(puffer_edge.__file__).parents[1] / "benchmarks"))
    import instructions

    return instructions


@pytest.mark.toolchain("arm-none-eabi-gcc")
@pytest.mark.parametrize(
    ("network", "profile"),
    [
        *((network, profile) for network in ("mlp", "conv") for profile in ("int8", "int16x8", "int4")),
        ("two_cells", "int8"),
        ("two_cells", "int16x8"),
    ],
)
@pytest.mark.parametrize("name", ["cortex-m0plus", "cortex-m4"])
def test_networks_give_the_programs_bits(name: str, network: str, profile: str, instructions: Any) -> None:
    core = next(core for core in instructions.CORES if core.name == name)
    policy = samples.network(network)
    seen, starts = samples.episodes(policy.contract, 200)
    program, shield = quantize(policy, seen, starts, profile), Shield.none(policy.contract)
    steps = vectors.make(program, shield, policy.contract.observe(seen)[0], steps=16)
    image = Image(policy.contract, program, shield, steps.head(4))
    assert instructions.Engine(core, image).ticks(steps, STEPS).instructions > 0  # raises where a bit differs
