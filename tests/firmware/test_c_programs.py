"""Whole programs of every operation, profile and kind of network in the C engine, bit for bit."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest

from puffer_edge.engines._steps import by_reference, difference, make_steps
from puffer_edge.engines.c import batch
from puffer_edge.firmware.build import build_host
from puffer_edge.integer import vectors
from puffer_edge.integer.image import Image
from puffer_edge.integer.program import KINDS
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.scales import PROFILES
from puffer_edge.integer.shield import Shield
from tests import samples
from tests.firmware import c_host
from tests.integer import programs

SEEDS = 24


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return ctypes.CDLL(str(build_host(tmp_path_factory.mktemp("host")).library))


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda k: k.__name__)
def test_operations_give_the_programs_bits(kind: type, library: ctypes.CDLL) -> None:
    made = [programs.image(kind, seed, steps=16) for seed in range(SEEDS)]
    images = [image for image in made if image is not None]
    assert len(images) > SEEDS // 3
    for image in images:
        steps = make_steps(image.contract, 300, 7, 6)
        assert difference(batch(library, image.data, steps, image.contract.n_actions), by_reference(image, steps)).steps == 0
        assert library.pe_batch_self_test(image.data, len(image.data)) == 0


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", samples.NETWORKS)
def test_networks_give_the_programs_bits(name: str, profile: str, library: ctypes.CDLL) -> None:
    policy = samples.network(name, samples.HEADS[sum(map(ord, name + profile)) % 4])
    x, starts = samples.episodes(policy.contract, 300)
    program = quantize(policy, x, starts, profile)
    shield = Shield.build(policy.contract, [{"stage": "slew", "per_second": {"force": 300.0}}, {"stage": "limit"}])
    image = Image(policy.contract, program, shield, vectors.make(program, shield, policy.contract.observe(x)[0], steps=16))
    steps = make_steps(image.contract, 3000, 3, 20)
    assert difference(batch(library, image.data, steps, 2), by_reference(image, steps)).steps == 0


def test_memory_is_cleared_by_reset_and_by_nothing_else(library: ctypes.CDLL) -> None:
    """The same observation from cleared memory gives the same action; later it does not."""
    policy = samples.network("gru")
    x, starts = samples.episodes(policy.contract, 300)
    program, shield = quantize(policy, x, starts), Shield.none(policy.contract)
    image = Image(policy.contract, program, shield, vectors.make(program, shield, np.zeros((0, 24), np.int32), steps=16))
    steps = make_steps(policy.contract, 100, 0, 2)
    steps.observation[:] = policy.contract.observe(x[5])[0]
    steps.flags[:], steps.flags[:, 0], steps.flags[:, 20] = 0, 1, 1
    raw = batch(library, image.data, steps, 2).raw.reshape(2, -1, 2)
    assert (raw[:, 0] == raw[:, 20]).all() and (raw[:, 0] != raw[:, 5]).any()


@pytest.mark.parametrize(("name", "profile"), [("conv_gru", "int8"), ("depthwise", "int4"), ("two_cells", "int16x8"), ("signal", "shift")])
def test_damaged_programs_of_new_kinds_stay_inside_their_memory(name: str, profile: str, tmp_path: Path) -> None:
    """Under the address and undefined-behaviour sanitizers: whatever pe_open accepts runs."""
    policy = samples.network(name, "multi_discrete")
    x, starts = samples.episodes(policy.contract, 300)
    program, shield = quantize(policy, x, starts, profile), Shield.none(policy.contract)
    image = Image(policy.contract, program, shield, vectors.make(program, shield, np.zeros((0, 24), np.int32), steps=4))
    path = tmp_path / "image.bin"
    path.write_bytes(image.data)
    done = subprocess.run([c_host.build(sanitize=True).fuzz, path, "1", "20000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) > 1000
