"""C sources of a bundle: compiled without a warning under every flag, they compute the vectors' bits."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from puffer_edge.device import target
from puffer_edge.envs import load
from puffer_edge.export import c, c_single
from puffer_edge.export.source import Source
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer import vectors
from puffer_edge.integer.image import Image
from puffer_edge.integer.program import KINDS
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


def network(name: str, profile: str) -> Source:
    policy = samples.network(name)
    x, starts = samples.episodes(policy.contract, 300)
    program = quantize(policy, x, starts, profile)
    shield = Shield.build(policy.contract, [{"stage": "slew", "per_second": {"force": 300.0}}, {"stage": "limit"}])
    steps = vectors.make(program, shield, policy.contract.observe(x)[0], steps=64)
    return Source(policy, Image(policy.contract, program, shield, steps.head(16)), steps, target.load("host"), x, starts)


def write(held: Source, folder: Path) -> Path:
    for name, data in c.files(held).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder / "c"


def build(folder: Path, form: str, compiler: str = "cc", *more: str) -> Path:
    """The replay example with one form of a policy."""
    out = folder / f"replay-{form}"
    sources = [*sorted((folder / form).glob("*.c")), folder / "examples" / "replay" / "main.c"]
    subprocess.run([compiler, *STRICT, *more, f"-I{folder / form}", *sources, "-o", out], check=True)
    return out


def replay(program: Path, vectors_file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, vectors_file], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("form", ["src", "single"])
@pytest.mark.parametrize(("name", "profile"), [("mlp", "int8"), ("two_cells", "int16x8"), ("conv", "int4"), ("largest", "shift"), ("elu", "int8")])
def test_exported_sources_compute_the_vectors(name: str, profile: str, form: str, tmp_path: Path) -> None:
    held = network(name, profile)
    folder = write(held, tmp_path)
    (tmp_path / "vectors.bin").write_bytes(held.vectors.pack())
    plain = build(folder, form)
    assert replay(plain, tmp_path / "vectors.bin").stdout.endswith(f"vectors agree: {len(held.vectors)} steps\n")
    checked = build(folder, form, "cc", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")
    assert replay(checked, tmp_path / "vectors.bin").returncode == 0
    wrong = held.vectors.pack()[:-1] + b"\x00"
    (tmp_path / "wrong.bin").write_bytes(wrong if wrong != held.vectors.pack() else wrong[:-1] + b"\x01")
    assert "differs" in replay(plain, tmp_path / "wrong.bin").stdout


@pytest.mark.parametrize(("form", "defined"), [("src", "-DARDUINO=10819"), ("single", "-DSOMEBODY")])
def test_where_no_flag_can_be_given_the_sources_give_it(form: str, defined: str, tmp_path: Path) -> None:
    held = network("conv_gru", "int8")
    folder = write(held, tmp_path)
    (tmp_path / "vectors.bin").write_bytes(held.vectors.pack())
    for path in (folder / form).glob("*.c"):
        given = '#pragma GCC optimize("no-strict-aliasing")' in path.read_text()
        assert given == (form == "single" or path.stem.startswith("pe_"))
    assert replay(build(folder, form, "gcc", "-fstrict-aliasing", "-O3", defined), tmp_path / "vectors.bin").returncode == 0


@pytest.mark.parametrize("name", ["pe", "PE_x", "1x", "string", "main"])
def test_a_policy_may_have_the_name_of_something_else(name: str, tmp_path: Path) -> None:
    """The engine's prefix, a digit, a header of the C library, a function: both forms compile and run."""
    env = load("pendulum")
    policy, rollout = samples.policy(replace(env.contract, name=name)), samples.rollout(env, samples.policy(env.contract))
    program, shield = quantize(policy, rollout), Shield.build(policy.contract, env.shield)
    steps = vectors.make(program, shield, policy.contract.observe(rollout)[0], steps=16)
    held = Source(policy, Image(policy.contract, program, shield, steps), steps, target.load("host"), rollout)
    folder = write(held, tmp_path)
    (tmp_path / "vectors.bin").write_bytes(steps.pack())
    for form in ("src", "single"):
        assert replay(build(folder, form), tmp_path / "vectors.bin").returncode == 0


@pytest.mark.toolchain("clang")
@pytest.mark.parametrize("form", ["src", "single"])
def test_a_second_compiler_agrees(form: str, tmp_path: Path) -> None:
    held = network("conv_gru", "int8")
    folder = write(held, tmp_path)
    (tmp_path / "vectors.bin").write_bytes(held.vectors.pack())
    assert replay(build(folder, form, "clang"), tmp_path / "vectors.bin").returncode == 0


CROSS = {
    "cortex-m0plus": ("arm-none-eabi-gcc", "-mcpu=cortex-m0plus", "-mthumb"),
    "cortex-m4": ("arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb"),
    "cortex-m33": ("arm-none-eabi-gcc", "-mcpu=cortex-m33", "-mthumb"),
    "cortex-m7": ("arm-none-eabi-gcc", "-mcpu=cortex-m7", "-mthumb"),
    "rv32imc": ("riscv64-unknown-elf-gcc", "-march=rv32imc", "-misa-spec=2.2", "-mabi=ilp32", "-ffreestanding"),
    "lx106": ("xtensa-lx106-elf-gcc", "-ffreestanding"),
}


@pytest.mark.toolchain("arm-none-eabi-gcc", "riscv64-unknown-elf-gcc", "xtensa-lx106-elf-gcc")
@pytest.mark.parametrize("core", CROSS)
@pytest.mark.parametrize("form", ["src", "single"])
def test_exported_sources_compile_for_microcontrollers(form: str, core: str, tmp_path: Path) -> None:
    """Every operation, in both forms; and nothing is asked of a library but memory functions and integer helpers."""
    compiler, *flags = CROSS[core]
    bare = ["-isystem", str(freestanding(tmp_path))] if core in ("rv32imc", "lx106") else []
    folder = write(network("conv_gru", "int8"), tmp_path)
    files = sorted((folder / form).glob("*.c"))
    subprocess.run([compiler, *STRICT, *flags, *bare, f"-I{folder / form}", "-c", *files], cwd=tmp_path, check=True)
    objects = [f"{path.stem}.o" for path in files]
    listed = subprocess.run([compiler.replace("gcc", "nm"), "-u", *objects], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    outside = {line.split()[1] for line in listed.splitlines() if line.strip().startswith("U ")}
    outside = {name for name in outside if not name.startswith(("pe_", "network_"))}
    assert all(name in ("memcpy", "memmove", "memset", "memcmp") or INTEGER_HELPER.fullmatch(name) for name in outside), outside


INTEGER_HELPER = re.compile(
    r"__aeabi_(u?idiv(mod)?|lmul|llsl|llsr|lasr|u?ldivmod|mem\w+)|__(mul|div|udiv|umod|mod|ashl|ashr|lshr)[sd]i3|__gnu_thumb1_case\w*"
)


def freestanding(folder: Path) -> Path:
    """These compilers come without a C library's headers: <string.h> with the four functions that the engine asks for."""
    (folder / "libc").mkdir()
    (folder / "libc" / "string.h").write_text(
        "#include <stddef.h>\nvoid *memcpy(void *, const void *, size_t);\nvoid *memmove(void *, const void *, size_t);\n"
        "void *memset(void *, int, size_t);\nint memcmp(const void *, const void *, size_t);\n"
    )
    return folder / "libc"


def test_two_policies_link_into_one_program(tmp_path: Path) -> None:
    """One engine for both, or each with its own: no name of one is in the way of the other."""
    first, second = source("cartpole"), source("pendulum")
    a, b = write(first, tmp_path / "a"), write(second, tmp_path / "b")
    main = tmp_path / "main.c"
    main.write_text(
        '#include "policy_cartpole.h"\n#include "policy_pendulum.h"\nint main(void) { return (int)(cartpole_start() | pendulum_start()); }\n'
    )
    shared = [*sorted((a / "src").glob("*.c")), b / "src" / "policy_pendulum.c"]
    single = [a / "single" / "policy_cartpole.c", b / "single" / "policy_pendulum.c"]
    for sources in (shared, single, [*shared[:-1], single[1]]):
        subprocess.run(["cc", *STRICT, f"-I{a / 'src'}", f"-I{b / 'src'}", *sources, main, "-o", tmp_path / "two"], check=True)
        assert subprocess.run([tmp_path / "two"], check=False).returncode == 0


def test_the_one_file_form_shows_a_linker_nothing_but_its_own_names(tmp_path: Path) -> None:
    folder = write(network("lstm", "int8"), tmp_path)
    subprocess.run(["cc", *STRICT, "-c", "policy_network.c"], cwd=folder / "single", check=True)
    listed = subprocess.run(
        ["nm", "-g", "--defined-only", "policy_network.o"], cwd=folder / "single", check=True, capture_output=True, text=True
    ).stdout
    assert all(line.split()[2].startswith("network_") for line in listed.splitlines())
    text = (folder / "single" / "policy_network.c").read_text()
    assert "#define pe_lstm network_pe_lstm" in text
    assert "/* conv:" not in text and "/* lstm:" in text  # kernels that it does not use are left out


def test_the_one_file_form_has_the_sources_that_its_operations_need() -> None:
    engine = {name: data.decode() for name, data in c.engine_files().items()}
    squash = ["pe_squash.c", "pe_squash_table.c"]
    core = {"pe_engine.c", "pe_image.c", "pe_input.c", "pe_dense.c", "pe_dot.c", "pe_crc32.c", "pe_sha256.c", "pe_shield.c"}
    assert set(c_single._sources(engine, {"input", "dense", "argmax"})) == core | {"pe_argmax.c"}
    assert set(c_single._sources(engine, {"input", "gru", "affine"})) == core | {"pe_gru.c", "pe_affine.c", *squash}
    everything = c_single._sources(engine, {op.__name__.lower() for op in KINDS.values()})
    assert set(everything) == {name for name in engine if name.endswith(".c")}
    assert set(c_single._headers(engine, everything)) == {name for name in engine if name.endswith(".h")}


def test_a_changed_image_does_not_start_and_gives_the_safe_output(tmp_path: Path) -> None:
    held = source("pendulum")
    folder = write(held, tmp_path)
    program = held.image.data.index(held.image.program.packed) + 40
    octets = bytearray(held.image.data)
    octets[program] ^= 0x55
    rows = "\n".join("    " + ",".join(str(b) for b in octets[i : i + 32]) + "," for i in range(0, len(octets), 32))
    for form in ("src", "single"):
        path = folder / form / "policy_pendulum.c"
        text = path.read_text()
        start = text.index("{\n", text.index("pendulum_image[")) + 2
        path.write_text(text[:start] + rows + text[text.index("\n};", start) :])
        main = tmp_path / "main.c"
        main.write_text(
            '#include "policy_pendulum.h"\n#include <stdio.h>\nint main(void) { int32_t o[3] = {0}, r[1] = {9}, a[1] = {9};\n'
            "const int32_t p = pendulum_start(); const uint32_t out = pendulum_tick(0, o, r, a);\n"
            'printf("%d %d %u", (int)p, (int)a[0], (unsigned)out); }\n'
        )
        sources = [*sorted((folder / form).glob("*.c")), main]
        subprocess.run(["cc", *STRICT, f"-I{folder / form}", *sources, "-o", tmp_path / "changed"], check=True)
        problem, applied, outcome = subprocess.run([tmp_path / "changed"], capture_output=True, text=True, check=True).stdout.split()
        assert int(problem) != 0 and int(applied) == held.image.contract.action_safe[0]
        assert int(outcome) & protocol.INVALID and int(outcome) >> protocol.REASON_SHIFT == protocol.REASON_INVALID


def test_sources_hold_no_float_and_no_allocation() -> None:
    text = b"".join(c.engine_files().values()).decode()
    words = set(text.replace("(", " ").replace(";", " ").split())
    assert not words & {"float", "double", "malloc", "calloc", "free", "#include <math.h>"}


@pytest.mark.toolchain("arm-none-eabi-gcc")
@pytest.mark.parametrize("level", ["-O1", "-Os", "-Og", "-O3", "-Os -fno-omit-frame-pointer", "-O2 -fno-omit-frame-pointer"])
@pytest.mark.parametrize("form", ["src", "single"])
def test_the_assembler_loops_leave_every_compiler_flag_its_registers(form: str, level: str, tmp_path: Path) -> None:
    """Cortex-M0+ has eight low registers; a frame pointer or -Os once left the loops too few."""
    folder = write(network("conv_gru", "int4"), tmp_path)
    flags = [flag for flag in STRICT if flag != "-O2"] + ["-mcpu=cortex-m0plus", "-mthumb", *level.split()]
    subprocess.run(["arm-none-eabi-gcc", *flags, f"-I{folder / form}", "-c", *sorted((folder / form).glob("*.c"))], cwd=tmp_path, check=True)
