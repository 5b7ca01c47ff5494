"""Environments in C, C++ and Rust: loaded, compared bit for bit, checked and trained; and whatever is wrong with a library is said."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.contract import Contract
from puffer_edge.envs.check import check
from puffer_edge.envs.draw import ON_RESET, Draws
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.native import PeEnv
from puffer_edge.envs.rewire import replaced
from puffer_edge.errors import ContractError, InvalidInput, Unsupported

ROOT = Path(__file__).parents[2]
INCLUDE = f"-I{ROOT / 'puffer_edge' / 'envs'}"
POLE = envs.load("cartpole")
NEEDED: dict[str, Any] = {"solved": 475.0, "random_steps": False}


def built(command: list[str], folder: Path, name: str = "made") -> Path:
    library = folder / f"lib{name}.so"
    subprocess.run([*command, "-o", str(library)], check=True, capture_output=True, text=True, cwd=folder)
    return library


def of_c(text: str, folder: Path, name: str = "made") -> Path:
    (folder / f"{name}.c").write_text('#include "pe_env.h"\n' + text)
    return built(["cc", "-O1", "-fPIC", "-shared", INCLUDE, f"{name}.c"], folder, name)


def same(ours: Environment, theirs: Environment, size: int) -> None:
    """Start states, steps, ends and what is seen are the same bits over 60 random steps of 20 rows."""
    numbers, rng = np.arange(20), np.random.default_rng(0)
    a, b = ours.start(3, numbers), theirs.start(3, numbers)
    low, high = np.array([c.low for c in ours.contract.actions]), np.array([c.high for c in ours.contract.actions])
    for elapsed in range(60):
        np.testing.assert_array_equal(a[:, :size], b)
        np.testing.assert_array_equal(ours.observe(a), theirs.observe(b))
        shape = (20, len(low)) if ours.agents == 1 else (20, ours.agents, len(low))
        action = rng.uniform(low, high, shape)
        (a, *got), (b, *expected) = (e.advance(x, action, 3, numbers, elapsed) for e, x in ((ours, a), (theirs, b)))
        for x, y in zip(got, expected):
            np.testing.assert_array_equal(x, y)


@pytest.mark.toolchain("cc")
@pytest.mark.parametrize("compiler", [["cc"], ["c++", "-x", "c++"]], ids=["C", "C++"])
def test_cartpole_in_c_has_the_bits_of_that_in_python(compiler: list[str], tmp_path: Path) -> None:
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"needs {compiler[0]} (toolchain: g++)")
    flags = ["-O2", "-ffp-contract=off", "-Wall", "-Werror", "-fPIC", "-shared", INCLUDE]
    library = built([*compiler, *flags, str(ROOT / "examples" / "cartpole_c" / "cartpole.c"), "-lm"], tmp_path)
    made = Environment.of_library(library, POLE.contract, shield=POLE.shield, **NEEDED)
    assert (made.max_steps, made.state_size, made.name) == (500, 8, "cartpole")
    same(made, POLE, 4)
    check(made)


@pytest.mark.toolchain("cc")
def test_the_header_in_cpp_has_the_layout_that_python_reads(tmp_path: Path) -> None:
    if shutil.which("c++") is None:
        pytest.skip("needs c++ (toolchain: g++)")
    offsets = "".join(f'static_assert(offsetof(pe_env, {name}) == {getattr(PeEnv, name).offset}, "{name}");\n' for name, *_ in PeEnv._fields_)
    size = f'static_assert(sizeof(pe_env) == {ctypes.sizeof(PeEnv)}, "size");\n'
    (tmp_path / "layout.cpp").write_text(f'#include <cstddef>\n#include "pe_env.h"\n{offsets}{size}')
    subprocess.run(["c++", "-std=c++11", "-fsyntax-only", "-Wall", "-Werror", INCLUDE, "layout.cpp"], cwd=tmp_path, check=True)


GROUP = """
static void reset_many(int64_t n, int64_t first, const uint32_t *key, const uint64_t *step, const uint8_t *mask, const double *parameters,
                       double *state, double *observation)
{
    (void)first, (void)key, (void)step, (void)parameters;
    for (int64_t i = 0; i < n; i++)
        if (mask[i]) state[i] = 0, observation[2 * i] = -1, observation[2 * i + 1] = 1;
}

static void step_many(int64_t n, int64_t first, const uint32_t *key, const uint64_t *step, const double *parameters, const double *action,
                      double *state, double *observation, double *reward, double *cost, uint8_t *terminated, uint8_t *alive)
{
    static const double steps[2] = {8, 4};
    (void)first, (void)key, (void)step, (void)parameters;
    for (int64_t i = 0; i < n; i++) {
        for (int k = 0; k < 2; k++) {
            int acting = state[i] < steps[k], right = action[2 * i + k] * (2.0 * k - 1.0) > 0;
            reward[2 * i + k] = acting && right ? 1.0 / steps[k] : 0;
            cost[2 * i + k] = acting && !right;
            terminated[2 * i + k] = state[i] + 1 >= steps[k];
            alive[2 * i + k] = acting;
        }
        state[i] += 1;
        observation[2 * i] = -1, observation[2 * i + 1] = 1;
    }
}

const pe_env pe_environment = {PE_ENV_VERSION, sizeof(pe_env), 2, 1, 1, 1, 0, 8, reset_many, step_many};
"""


@pytest.mark.toolchain("cc")
def test_several_agents_in_c(tmp_path: Path) -> None:
    theirs = envs.load("multiagent")
    ours = Environment.of_library(of_c(GROUP, tmp_path), theirs.contract, solved=0.97, random_steps=False)
    assert (ours.agents, ours.state_size) == (2, 3)
    same(ours, theirs, 1)
    check(ours)


@pytest.mark.toolchain("cc")
def test_the_seed_the_row_and_the_step_reach_the_library(tmp_path: Path) -> None:
    """Its draws are those of every other environment: what it is told is what ``Draws`` holds."""
    told = GROUP.replace("state[i] = 0,", "state[i] = key[0] + 1e3 * (double)(first + i) + 1e6 * (double)step[i],")
    theirs = envs.load("multiagent")
    e = Environment.of_library(of_c(told, tmp_path), theirs.contract, solved=1.0)
    state = e.reset(Draws(7, np.array([5, 6, 900]), np.array([0, 3, 2**33], np.uint64), ON_RESET))
    assert state[:, 0].tolist() == [7 + 5e3, 7 + 6e3 + 3e6, 7 + 9e5 + 1e6 * 2**33]


STUB = GROUP.split("const pe_env")[0]


@pytest.mark.toolchain("cc")
@pytest.mark.parametrize(
    ("held", "kind", "message"),
    [
        ("", InvalidInput, "has no pe_environment"),
        ("{9, sizeof(pe_env), 1, 1, 1, 1, 0, 8, reset_many, step_many}", InvalidInput, r"version 9 of pe_env\.h"),
        ("{PE_ENV_VERSION, 24, 1, 1, 1, 1, 0, 8, reset_many, step_many}", InvalidInput, "with 24 bytes"),
        ("{PE_ENV_VERSION, sizeof(pe_env), 1, 1, 1, 1, 0, 8, 0, step_many}", InvalidInput, "lacks a function"),
        ("{PE_ENV_VERSION, sizeof(pe_env), 1, 1, 3, 1, 0, 8, reset_many, step_many}", ContractError, "observes 3 numbers and drives 1"),
        ("{PE_ENV_VERSION, sizeof(pe_env), 1, 1, 1, 1, 2, 8, reset_many, step_many}", Unsupported, "wants 2 parameters"),
        ("{PE_ENV_VERSION, sizeof(pe_env), 1, 1, 1, 1, 0, 0, reset_many, step_many}", InvalidInput, "say max_steps"),
    ],
)
def test_what_is_wrong_with_a_library_is_said_before_it_is_called(held: str, kind: type[Exception], message: str, tmp_path: Path) -> None:
    text = STUB + (f"const pe_env pe_environment = {held};" if held else "pe_reset_many kept = reset_many; pe_step_many also = step_many;")
    with pytest.raises(kind, match=message):
        Environment.of_library(of_c(text, tmp_path), envs.load("multiagent").contract, **NEEDED)


def test_a_file_that_is_no_library_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"there is no library .*libgone\.so: compile it first"):
        Environment.of_library(tmp_path / "libgone.so", POLE.contract, **NEEDED)
    (tmp_path / "libtext.so").write_text("no machine code")
    with pytest.raises(InvalidInput, match=r"libtext\.so cannot be loaded"):
        Environment.of_library(tmp_path / "libtext.so", POLE.contract, **NEEDED)


@pytest.mark.toolchain("cc")
def test_a_plant_in_machine_code_is_not_printed_as_javascript(tmp_path: Path) -> None:
    made = Environment.of_library(of_c(GROUP, tmp_path), envs.load("multiagent").contract, **NEEDED)
    assert made.scalars is not None
    with pytest.raises(Unsupported, match="machine code of a library"):
        replaced(made.scalars.step, {})


def _command(folder: Path, *arguments: str) -> dict[str, Any]:
    about = {"PYTHONPATH": ":".join([str(ROOT), *(path for path in sys.path if path)]), "PATH": "", "OMP_NUM_THREADS": "1"}
    answer = subprocess.run([sys.executable, "-m", "puffer_edge.cli", *arguments, "--json"], cwd=folder, env=about, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


@pytest.mark.toolchain("cc")
def test_the_example_in_c_is_found_by_its_module(tmp_path: Path) -> None:
    for file in (ROOT / "examples" / "cartpole_c").iterdir():
        shutil.copy(file, tmp_path)
    built(["cc", "-O3", "-fPIC", "-shared", INCLUDE, "cartpole.c", "-lm"], tmp_path, "cartpole")
    assert _command(tmp_path, "envs", "check", "cartpole_in_c:CARTPOLE")["ok"]


@pytest.mark.toolchain("rustc")
def test_the_bouncer_in_rust_keeps_its_promises_and_learns_in_the_native_engine(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    for file in (ROOT / "examples" / "bouncer_rust").iterdir():
        shutil.copy(file, tmp_path)
    built(["rustc", "--edition", "2021", "-Dwarnings", "--crate-type", "cdylib", "-O", "bouncer.rs"], tmp_path, "bouncer")
    assert _command(tmp_path, "envs", "check", "bouncer:BOUNCER")["ok"]
    told = _command(tmp_path, "train", "bouncer:BOUNCER", "--steps", "100000", "--out", "run")
    assert told["engine"].startswith("native") and told["evaluation"]["return"] > 220.0
    again = _command(tmp_path, "eval", "run", "--episodes", "20", "--seed", "5")
    assert again["float"]["return"] > 220.0


@pytest.mark.toolchain("rustc")
def test_the_draws_in_rust_are_philoxs(tmp_path: Path) -> None:
    for file in (ROOT / "examples" / "bouncer_rust").iterdir():
        shutil.copy(file, tmp_path)
    library = built(["rustc", "--edition", "2021", "--crate-type", "cdylib", "-O", "bouncer.rs"], tmp_path, "bouncer")
    contract = Contract("bouncer", POLE.contract.observations[:2], POLE.contract.actions, "clip", 50.0)
    state = Environment.of_library(library, contract, **NEEDED).start(11, range(50))
    expected = Draws.of_episodes(11, np.arange(50)).uniform([0.0, 0.0], [1.0, 1.0], 2)
    np.testing.assert_array_equal(state[:, :2], np.stack([0.5 + expected[:, 0], 2.0 * expected[:, 1] - 1.0], -1))


@pytest.mark.toolchain("cc")
def test_a_checkpoint_knows_the_library_that_it_was_trained_with(tmp_path: Path) -> None:
    from puffer_edge.train.learner_state import source_digest

    contract, digests = envs.load("multiagent").contract, []
    for name, text in (("one", GROUP), ("two", GROUP.replace("1.0 / steps[k]", "2.0 / steps[k]"))):
        digests.append(source_digest(Environment.of_library(of_c(text, tmp_path, name), contract, **NEEDED)))
    assert len(set(digests)) == 2 and all(len(digest) == 64 for digest in digests)
