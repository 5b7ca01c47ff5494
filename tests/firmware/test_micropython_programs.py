"""Whole programs of every operation, profile and kind of network on every MicroPython there is, plain and as machine code, bit for bit."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from puffer_edge.integer import vectors
from puffer_edge.integer.image import Image
from puffer_edge.integer.program import KINDS
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.scales import PROFILES
from puffer_edge.integer.shield import Shield
from puffer_edge.integer.squash import TABLE
from tests import samples
from tests.firmware import micropython_cases, micropython_vm
from tests.integer import programs

MACHINES = ("cpython", "wasm", "unix-64", "unix-32")
REPLAY = """
import os
from array import array
from puffer_edge_device.image import Image
from puffer_edge_device.engine import Engine, kernels, store
from puffer_edge_device.device import load
print(kernels.NATIVE)
for name in sorted(n for n in os.listdir() if n.endswith('.bin')):
    image = Image(name)
    engine, halves, n, m = Engine(image), [0, 0], image.n, image.m
    observation, wrong, steps = array('i', bytes(4 * n)), 0, 0
    got = bytearray(8 * m + 8)
    for row in image.vectors():
        beyond = load(row, 4, observation, n)
        outcome = engine.tick(observation, row[0]) | (1 if beyond and not row[0] & 6 else 0)
        engine.digest(halves)
        for j in range(m):
            store(got, 4 * j, engine.raw[j])
            store(got, 4 * (m + j), engine.applied[j])
        store(got, 8 * m, outcome)
        store(got, 8 * m + 4, halves[0])
        got[8 * m + 6] = halves[1] & 255
        got[8 * m + 7] = halves[1] >> 8
        wrong += got != row[4 + 4 * n :]
        steps += 1
    print(name, steps, wrong)
"""


def replayed(machine: str, root: Path, images: dict[str, Image]) -> None:
    native, *lines = micropython_vm.run(machine, REPLAY, root, {f"{name}.bin": image.data for name, image in images.items()})
    assert native == str(machine.startswith("unix"))
    assert lines == [f"{name}.bin {len(images[name].vectors)} 0" for name in sorted(images)]


@pytest.fixture(scope="module")
def operations() -> dict[str, Image]:
    found = {f"{kind.__name__}{seed}": programs.image(kind, seed) for kind in KINDS.values() for seed in range(8)}
    return {name: image for name, image in found.items() if image is not None}


@pytest.fixture(scope="module")
def networks() -> dict[str, Image]:
    found = {}
    for k, name in enumerate(samples.NETWORKS):
        for j, profile in enumerate(PROFILES):
            policy = samples.network(name, samples.HEADS[(j + k) % 4])
            x, starts = samples.episodes(policy.contract, 300)
            program = quantize(policy, x, starts, profile)
            shield = Shield.build(policy.contract, [{"stage": "limit"}])
            steps = vectors.make(program, shield, policy.contract.observe(x)[0], steps=48)
            found[f"{name}-{profile}"] = Image(policy.contract, program, shield, steps)
    return found


@pytest.mark.parametrize("machine", MACHINES)
def test_operations_give_the_programs_bits(machine: str, operations: dict[str, Image], tmp_path: Path) -> None:
    assert len(operations) > 80
    replayed(machine, tmp_path, operations)


@pytest.mark.parametrize("machine", MACHINES)
def test_networks_give_the_programs_bits(machine: str, networks: dict[str, Image], tmp_path: Path) -> None:
    assert any(image.program.memory for image in networks.values())
    replayed(machine, tmp_path, networks)


def test_the_table_on_the_device_is_the_definitions(tmp_path: Path) -> None:
    script = "from puffer_edge_device.squash import TABLE\nprint(*TABLE)"
    [line] = micropython_vm.run("cpython", script, tmp_path)
    assert np.array_equal([int(v) for v in line.split()], TABLE)


# Machine code checks no bounds: the loader's checks are all there is. The headers of operations are where sizes and kinds stand.
HOSTILE = """
from hashlib import sha256
from array import array
from puffer_edge_device.image import Image, BadImage
from puffer_edge_device.engine import Engine
from micropython_cases import Random
good = open('policy.bin', 'rb').read()[:-32]
random, refused = Random(11), 0
for k in range(300):
    data = bytearray(good)
    for _ in range(1 + k % 3):
        at = random.pick({starts}) + random.below(64) if k % 4 else random.below(len(data))
        data[min(at, len(data) - 1)] = random.pick((0, 1, 255, 127, 128, random.below(256)))
    with open('hostile', 'wb') as f:
        f.write(data + sha256(data).digest())
    try:
        image = Image('hostile')
    except BadImage:
        refused += 1
        continue
    engine = Engine(image)
    observation = array('i', (random.int32() for _ in range(image.n)))
    for flags in (0, 0, 0, 2, 4, 1):
        engine.tick(observation, flags)
        for j in range(image.m):
            assert image.actions[4 * j] <= engine.applied[j] <= image.actions[4 * j + 1]
print(refused)
"""


@pytest.mark.parametrize("machine", ["cpython", "unix-64", "unix-32"])
@pytest.mark.parametrize("name", ["conv-int4", "depthwise-int16x8", "two_cells-int8", "conv_gru-shift", "average-int8"])
def test_hostile_operations_do_no_harm(name: str, machine: str, networks: dict[str, Image], tmp_path: Path) -> None:
    """CPython checks every index of the plain kernels; on the unix ports the same images run as machine code."""
    image, starts = networks[name], []
    [at] = struct.unpack_from("<I", image.data, 40)
    for op in image.program.ops:
        starts.append(at)
        at += len(op.pack())
    files = {"policy.bin": image.data, "micropython_cases.py": Path(micropython_cases.__file__).read_bytes()}
    [refused] = micropython_vm.run(machine, HOSTILE.format(starts=starts), tmp_path, files)
    assert 50 < int(refused) < 250
