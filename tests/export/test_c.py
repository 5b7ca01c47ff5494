"""C sources of a bundle: compiled without a warning under every flag, they compute the vectors' bits."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from puffer_edge.device import target
from puffer_edge.envs import load
from puffer_edge.export import c
from puffer_edge.export.source import Source
from puffer_edge.integer import vectors
from puffer_edge.integer.image import Image
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.shield import Shield
from tests import samples

STRICT = ["-std=c99", "-fno-strict-aliasing", "-O2", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-pedantic"]


def source(environment: str, activation: str = "relu") -> Source:
    env = load(environment)
    policy = samples.policy(env.contract, activation=activation)
    rollout = samples.rollout(env, policy)
    program, shield = quantize(policy, rollout), Shield.build(env.contract, env.shield)
    steps = vectors.make(program, shield, env.contract.observe(rollout)[0])
    return Source(policy, Image(env.contract, program, shield, steps), steps, target.load("host"), rollout)


def write(held: Source, folder: Path) -> Path:
    for name, data in c.files(held).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder / "c"


@pytest.mark.parametrize("environment", ["cartpole", "pendulum"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_exported_sources_compute_the_vectors(environment: str, activation: str, tmp_path: Path) -> None:
    folder = write(source(environment, activation), tmp_path)
    files = [p.name for p in sorted(folder.glob("*.c"))]
    subprocess.run(["cc", *STRICT, *files, "-o", "policy"], cwd=folder, check=True)
    checked = ["-std=c99", "-O1", "-fno-strict-aliasing", "-fsanitize=undefined,address", "-fno-sanitize-recover=all"]
    subprocess.run(["cc", *checked, *files, "-o", "checked"], cwd=folder, check=True)
    for program in ("./policy", "./checked"):
        said = subprocess.run([program], cwd=folder, check=True, capture_output=True, text=True).stdout
        assert said.startswith("vectors agree")


@pytest.mark.toolchain("arm-none-eabi-gcc")
def test_exported_sources_compile_for_a_microcontroller(tmp_path: Path) -> None:
    folder = write(source("pendulum"), tmp_path)
    files = [p.name for p in sorted(folder.glob("*.c")) if p.name != "main.c"]
    flags = [*STRICT, "-mcpu=cortex-m0plus", "-mthumb", "-c"]
    subprocess.run(["arm-none-eabi-gcc", *flags, *files], cwd=folder, check=True)
    objects = [f.replace(".c", ".o") for f in files]
    symbols = subprocess.run(["arm-none-eabi-nm", "-u", *objects], cwd=folder, check=True, capture_output=True, text=True)
    outside = {line.split()[1] for line in symbols.stdout.splitlines() if line.strip().startswith("U ")}
    assert not any(name.startswith(("__aeabi_f", "__aeabi_d", "malloc", "tanh", "__aeabi_i2f")) for name in outside)


def test_a_changed_image_does_not_pass_its_vectors(tmp_path: Path) -> None:
    held = source("pendulum")
    folder = write(held, tmp_path)
    program = held.image.data.index(held.image.program.packed) + 40
    octets = bytearray(held.image.data)
    octets[program] ^= 0x55
    rows = "\n".join("    " + ",".join(str(b) for b in octets[i : i + 32]) + "," for i in range(0, len(octets), 32))
    text = (folder / "policy.c").read_text()
    start, end = text.index("{\n") + 2, text.index("\n};")
    (folder / "policy.c").write_text(text[:start] + rows + text[end:])
    subprocess.run(["cc", *STRICT, *[p.name for p in folder.glob("*.c")], "-o", "policy"], cwd=folder, check=True)
    finished = subprocess.run(["./policy"], cwd=folder, check=False, capture_output=True, text=True)
    assert finished.returncode == 1 and ("differs" in finished.stdout or "refused" in finished.stdout)


def test_sources_hold_no_float_and_no_allocation() -> None:
    text = b"".join(c.engine_files().values()).decode()
    words = set(text.replace("(", " ").replace(";", " ").split())
    assert not words & {"float", "double", "malloc", "calloc", "free", "#include <math.h>"}
