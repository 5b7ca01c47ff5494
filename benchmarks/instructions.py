"""Runs the C engine of the firmware in an instruction emulator and counts what a tick executes, one core at a time.

The sources are ``firmware/c``, compiled for the core as a firmware would be; the emulator is Unicorn (QEMU's translator as a
library). Instructions and taken branches are counted as they run; which of them load, and how many words, is read from the
disassembly. (The emulator's own hook for loads is of no use: inside an IT block of Thumb-2 it changes what the block does.)
It knows no cycles: ``Counts.cycles`` is a model.
"""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from puffer_edge.errors import MissingExtra, PufferEdgeError
from puffer_edge.firmware.build import LINK_ONLY, RP2040, C
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer.image import Image
from puffer_edge.integer.vectors import Vectors

LOAD, STACK, END, IMAGE = 0x10000, 0x800000, 0x900000, 0x400000
MEMORY = 0x1000000
COMMON = ["-std=c99", "-O2", "-ffreestanding", "-fno-strict-aliasing", "-fno-tree-loop-distribute-patterns", "-nostdlib", "-static"]
HARNESS = """
#include "pe_engine.h"
pe_shield printed_shield;
static pe_policy p;
static uint32_t scratch[65536];
static int32_t raw[PE_MAX_ACTIONS], applied[PE_MAX_ACTIONS];
int32_t load(const uint8_t *image, uint32_t bytes, uint32_t printed)
{
    const int32_t problem = pe_open(&p, image, bytes);
    p.scratch = (uint8_t *)scratch;
    p.shield = printed ? printed_shield : 0;
    if (problem == PE_OK)
        pe_reset(&p);
    return problem;
}
uint32_t step(uint32_t flags, const int32_t *observation) { return pe_tick(&p, flags, observation, raw, applied); }
uint32_t digest(void) { return pe_state_digest(&p); }
"""


@dataclass(frozen=True)
class Core:
    """A core that the emulator knows.

    Attributes:
        name: file of the core in ``targets/cores``.
        compiler: prefix of the cross compiler.
        flags: what selects the core.
        model: name of the CPU in Unicorn.
        load_cycles: cycles of a load beyond one.
        branch_cycles: cycles of a taken branch beyond one.
    """

    name: str
    compiler: str
    flags: tuple[str, ...]
    model: str
    load_cycles: float
    branch_cycles: float


CORTEX = ("-mthumb",)
PICOLIBC = Path("/usr/lib/picolibc/riscv64-unknown-elf/include")  # headers alone: string.h declares what memory.c defines
CORES = (
    Core("cortex-m0plus", "arm-none-eabi-", (*CORTEX, "-mcpu=cortex-m0plus"), "CORTEX_M0", 1, 1),
    Core("cortex-m4", "arm-none-eabi-", (*CORTEX, "-mcpu=cortex-m4"), "CORTEX_M4", 1, 2),
    Core("cortex-m33", "arm-none-eabi-", (*CORTEX, "-mcpu=cortex-m33"), "CORTEX_M33", 1, 2),
    Core("cortex-m7", "arm-none-eabi-", (*CORTEX, "-mcpu=cortex-m7"), "CORTEX_M7", 0, 0),
    Core("rv32imc", "riscv64-unknown-elf-", ("-march=rv32imc", "-misa-spec=2.2", "-mabi=ilp32", f"-isystem{PICOLIBC}"), "", 1, 2),
)


@dataclass(frozen=True)
class Counts:
    """What was executed.

    Attributes:
        instructions: all of them.
        loads: words, halfwords and bytes loaded, one each.
        branches: times that the next instruction was not the one behind.
    """

    instructions: float
    loads: float
    branches: float

    def cycles(self, core: Core) -> float:
        """Modelled cycles: one an instruction, and what the core's manual adds to loads and taken branches."""
        return self.instructions + self.loads * core.load_cycles + self.branches * core.branch_cycles


class Engine:
    """The engine and one policy in an emulated core.

    Args:
        core: the core.
        image: the policy.
        printed: run the shield printed as C, not the image's bytecode.

    Raises:
        MissingExtra: Unicorn is not installed.
        PufferEdgeError: the compiler failed, or the engine refused the image.
    """

    def __init__(self, core: Core, image: Image, printed: bool = False) -> None:
        try:
            import unicorn
        except ImportError:
            raise MissingExtra("cost", "counting the instructions of a core") from None
        self.unicorn = unicorn
        shield = image.shield.to_c("printed_shield") if printed else "void printed_shield(const int32_t *in, int32_t *out) { (void)in, (void)out; }"
        code, self.symbols, self.loads = _build(core, shield)
        self.arm = core.compiler.startswith("arm")
        self.machine = self._machine(core)
        self.machine.mem_map(0, MEMORY)
        self.machine.mem_write(LOAD, code)
        self.machine.mem_write(IMAGE, image.data)
        problem = self._call("load", IMAGE, len(image.data), int(printed))
        if problem:
            raise PufferEdgeError(f"the emulated {core.name} refuses the image by check {problem}")

    def tick(self, flags: int, observation: Any) -> tuple[int, Counts]:
        """One tick: its outcome and its counts."""
        self.machine.mem_write(END + 64, np.asarray(observation).astype("<i4").tobytes())
        counted = [0, 0, 0]
        last = [0, 0]

        def on_code(machine: Any, address: int, size: int, _: Any) -> None:
            counted[0] += 1
            counted[1] += self.loads.get(address, 0)
            counted[2] += address != last[0] + last[1]
            last[0], last[1] = address, size

        hook = self.machine.hook_add(self.unicorn.UC_HOOK_CODE, on_code)
        outcome = self._call("step", flags, END + 64)
        self.machine.hook_del(hook)
        return outcome, Counts(*counted)

    def ticks(self, vectors: Vectors, steps: int) -> Counts:
        """Mean counts of a tick in which the network ran, over the first steps of some vectors.

        Raises:
            PufferEdgeError: an outcome, or the digest of the state that it leaves, is not the reference's.
        """
        rows = []
        for k in range(steps):
            outcome, counts = self.tick(int(vectors.flags[k]), vectors.observation[k])
            got, wanted = (outcome, self._call("digest")), (int(vectors.outcome[k]), int(vectors.state[k]))
            if got != wanted:
                raise PufferEdgeError(f"step {k} of the emulated core has outcome and state {got}, the reference {wanted}")
            if outcome & protocol.POLICY_RAN:
                rows.append((counts.instructions, counts.loads, counts.branches))
        return Counts(*np.mean(rows, 0))

    def _machine(self, core: Core) -> Any:
        u = self.unicorn
        if self.arm:
            machine = u.Uc(u.UC_ARCH_ARM, u.UC_MODE_THUMB | u.UC_MODE_MCLASS)
            machine.ctl_set_cpu_model(getattr(u.arm_const, f"UC_CPU_ARM_{core.model}"))
        else:
            machine = u.Uc(u.UC_ARCH_RISCV, u.UC_MODE_RISCV32)
        return machine

    def _call(self, name: str, *arguments: int) -> int:
        u, machine = self.unicorn, self.machine
        if self.arm:
            first, stack, link = u.arm_const.UC_ARM_REG_R0, u.arm_const.UC_ARM_REG_SP, u.arm_const.UC_ARM_REG_LR
        else:
            first, stack, link = u.riscv_const.UC_RISCV_REG_A0, u.riscv_const.UC_RISCV_REG_SP, u.riscv_const.UC_RISCV_REG_RA
        for k, value in enumerate(arguments):
            machine.reg_write(first + k, value)
        machine.reg_write(stack, STACK)
        machine.reg_write(link, END | int(self.arm))
        machine.emu_start(self.symbols[name] | int(self.arm), END)
        return int(machine.reg_read(first))


def code_bytes(core: Core) -> int:
    """Flash of the engine alone, without a policy, a link or a board's firmware."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        total = 0
        for path in sorted(path for path in C.glob("pe_*.c") if path.name not in LINK_ONLY):
            _run([f"{core.compiler}gcc", *core.flags, *COMMON, f"-I{C}", "-c", path, "-o", work / "part.o"])
            text, data = _run([f"{core.compiler}size", work / "part.o"]).splitlines()[1].split()[:2]
            total += int(text) + int(data)
        return total


@functools.lru_cache
def _build(core: Core, shield: str) -> tuple[bytes, dict[str, int], dict[int, int]]:
    """The engine with the harness and a shield, as it lies in memory, the addresses of its functions, and of what loads, with the number of loads."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "harness.c").write_text(HARNESS)
        (work / "shield.c").write_text("#include <stdint.h>\n" + shield + "\n")
        sources = sorted(path for path in C.glob("pe_*.c") if path.name not in LINK_ONLY)
        link = [f"-Wl,-Ttext={LOAD:#x}", "-Wl,-e,step", "-Wl,--build-id=none", "-lgcc"]
        files = [work / "harness.c", work / "shield.c", RP2040 / "memory.c", *sources]
        elf, binary = work / "engine.elf", work / "engine.bin"
        _run([f"{core.compiler}gcc", *core.flags, *COMMON, f"-I{C}", *files, *link, "-o", elf])
        _run([f"{core.compiler}objcopy", "-O", "binary", elf, binary])
        table = [line.split() for line in _run([f"{core.compiler}nm", elf]).splitlines()]
        symbols = {row[2]: int(row[0], 16) for row in table if len(row) == 3}
        return binary.read_bytes(), symbols, _loads(_run([f"{core.compiler}objdump", "-d", elf]))


def _loads(listing: str) -> dict[int, int]:
    """Words, halfwords and bytes that an instruction loads, by its address; a disassembly tells."""
    found = {}
    for address, name, operands in re.findall(r"^ *([0-9a-f]+):\t[0-9a-f ]+\t(\S+)(.*)$", listing, re.MULTILINE):
        if re.match(r"ldm|pop", name):
            found[int(address, 16)] = operands.partition("{")[2].count(",") + 1
        elif re.match(r"ldrd", name):
            found[int(address, 16)] = 2
        elif re.match(r"ldr|l[bhw]u?$", name):
            found[int(address, 16)] = 1
    return found


def _run(command: list[Any]) -> str:
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise PufferEdgeError(f"{command[0]} is not installed: 'make toolchains' installs it") from None
    if done.returncode:
        raise PufferEdgeError(f"{command[0]} failed:\n{done.stderr}")
    return done.stdout
