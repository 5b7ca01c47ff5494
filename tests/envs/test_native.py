"""The pointer of pe_env.h: what C sees, whatever way rows are split, from this process or from the cache."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.envs import native
from puffer_edge.envs.draw import Draws
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.native import PeEnv, Pointer
from puffer_edge.errors import InvalidInput, MissingExtra, Unsupported

ROOT = Path(__file__).parents[2]
HEADER = (ROOT / "puffer_edge" / "envs" / "pe_env.h").read_text()
EVERY = [*envs.names(), *envs.sanity_names()]
POLE = envs.load("cartpole")


def test_the_struct_is_the_headers() -> None:
    assert f"#define PE_ENV_VERSION {native.VERSION}u" in HEADER
    body = HEADER[HEADER.index("typedef struct pe_env") :]
    assert re.findall(r"(\w+);", re.sub(r"/\*.*?\*/", "", body))[: len(PeEnv._fields_)] == [name for name, *_ in PeEnv._fields_]
    assert ctypes.sizeof(PeEnv) == 10 * 4 + 3 * ctypes.sizeof(ctypes.c_void_p)


def test_a_pointer_says_what_the_environment_is() -> None:
    pytest.importorskip("numba")
    for name in EVERY:
        environment = envs.load(name)
        struct = PeEnv.from_address(environment.pointer().address)
        assert (struct.version, struct.size, struct.n_parameters) == (native.VERSION, ctypes.sizeof(PeEnv), 0)
        assert (struct.agents, struct.n_state, struct.max_steps) == (environment.agents, environment.state_size, environment.max_steps)
        assert (struct.n_observation, struct.n_action) == (environment.contract.n_observations, environment.contract.n_actions)


def rolled(environment: Environment, parts: int, steps: int = 60, saved_at: int = -1) -> list[np.ndarray]:
    """What 12 rows gave through the pointer, called in so many parts, with a save and a restore after some step."""
    n, agents, c = 12, environment.agents, environment.contract
    pointer, key, rng = environment.pointer(), np.array([5, 0], np.uint32), np.random.default_rng(0)
    state, observation = np.zeros((n, environment.state_size)), np.zeros((n, agents, c.n_observations))
    reward, cost = np.zeros((n, agents)), np.zeros((n, agents))
    terminated, alive, step = np.zeros((n, agents), np.uint8), np.ones((n, agents), np.uint8), np.zeros(n, np.uint64)
    pointer.reset(0, key, step, np.ones(n, np.uint8), state, observation)
    seen = [observation.copy()]
    low, high = np.array([ch.low for ch in c.actions]), np.array([ch.high for ch in c.actions])
    for t in range(steps):
        action = rng.uniform(low, high, (n, agents, c.n_actions))
        if t == saved_at:
            state = np.frombuffer(state.tobytes()).reshape(state.shape).copy()
        for rows in np.array_split(np.arange(n), parts):
            s = slice(rows[0], rows[-1] + 1)
            pointer.step(s.start, key, step[s], action[s], *(array[s] for array in (state, observation, reward, cost, terminated, alive)))
        step += 1
        seen += [array.copy() for array in (state, observation, reward, cost, terminated, alive)]
        over = terminated.all(-1).astype(np.uint8)
        pointer.reset(0, key, step, over, state, observation)
    return seen


@pytest.mark.parametrize("name", EVERY)
def test_bits_do_not_depend_on_how_rows_are_split_nor_on_a_restored_state(name: str) -> None:
    pytest.importorskip("numba")
    whole = rolled(envs.load(name), 1)
    for other in (rolled(envs.load(name), 3), rolled(envs.load(name), 12), rolled(envs.load(name), 1, saved_at=30)):
        assert all(np.array_equal(a, b) for a, b in zip(whole, other))


SCRIPT = """
import sys
from puffer_edge import envs
from puffer_edge.envs.check import check
for name in sys.argv[1:]:
    check(envs.load(name))
    print(name, envs.load(name).dynamics.native.cached)
"""


def test_what_comes_from_the_cache_is_what_was_compiled(tmp_path: Path) -> None:
    """Environments that were compiled by different processes have inner functions of equal names: none may be taken for another's."""
    pytest.importorskip("numba")

    def run(*names: str) -> list[str]:
        about = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": ":".join([str(ROOT), *sys.path]), "PATH": ""}
        answer = subprocess.run([sys.executable, "-c", SCRIPT, *names], env=about, capture_output=True, text=True)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.split("\n")[:-1]

    assert run("bandit") == ["bandit False"]
    assert run("stochastic") == ["stochastic False"]
    assert run("bandit", "stochastic") == ["bandit True", "stochastic True"]


def test_a_damaged_cache_costs_a_compilation_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    about = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": ":".join([str(ROOT), *sys.path]), "PATH": ""}
    for _ in range(2):
        answer = subprocess.run([sys.executable, "-c", SCRIPT, "stochastic"], env=about, capture_output=True, text=True)
        assert (answer.returncode, answer.stdout) == (0, "stochastic False\n"), answer.stderr
        for path in tmp_path.rglob("*.nb[ci]"):
            path.write_bytes(path.read_bytes()[:100])


def _still(draw: Any, state: Any, parameters: Any) -> None:
    state[0] = parameters[0]


def _seen(state: Any, observation: Any) -> None:
    observation[0] = state[0]


def _counts(draw: Any, state: Any, action: Any, parameters: Any) -> Any:
    state[0] = state[0] + parameters[0]
    return 1.0, 0.0, False


def _endless(draw: Any, state: Any, action: Any, parameters: Any) -> Any:
    return _endless(draw, state, action, parameters)


def _of_text(draw: Any, state: Any, action: Any, parameters: Any) -> Any:
    return "much", 0.0, False


def one(step: Any, value: float = 1.0) -> Dynamics:
    from puffer_edge.envs.dynamics import Parameter

    return Dynamics(1, 1, 1, _still, _seen, step, (Parameter("unit", "1", value),))


def test_a_parameter_is_part_of_what_is_compiled() -> None:
    for value in (1.0, 2.0):
        dynamics = one(_counts, value)
        state = dynamics.start(Draws.of_episodes(0, [0, 1]))
        np.testing.assert_array_equal(dynamics.advance(state, np.zeros((2, 1)))[0], [[2 * value], [2 * value]])


def test_what_cannot_be_compiled_is_said() -> None:
    pytest.importorskip("numba")
    with pytest.raises(InvalidInput, match="_endless calls itself"):
        native.compile_dynamics(one(_endless))
    with pytest.raises(InvalidInput, match="numba cannot compile the environment's step"):
        native.compile_dynamics(one(_of_text))


def test_numpy_functions_have_no_pointer() -> None:
    with pytest.raises(Unsupported, match="cartpole is written as numpy functions"):
        replace(POLE, step=lambda state, action: POLE.step(state, action)).pointer()
    with pytest.raises(Unsupported, match="numpy functions"):
        replace(POLE, dynamics=None).pointer()


def test_without_numba_the_pointer_names_the_extra_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "available", lambda: False)
    assert POLE.dynamics is not None
    about = {"max_steps": 500, "solved": 475.0}
    plain = Environment.of_scalars(POLE.contract, replace(POLE.dynamics), **about)
    with pytest.raises(MissingExtra, match=r"puffer-edge\[train\]"):
        plain.pointer()
    np.testing.assert_array_equal(plain.start(1, range(9)), POLE.start(1, range(9)))


def test_an_abi_of_another_version_is_refused() -> None:
    struct = PeEnv(native.VERSION + 1, ctypes.sizeof(PeEnv), 1, 1, 1, 1, 0, 0, 1, 1)
    with pytest.raises(InvalidInput, match=r"version 3 of pe_env\.h"):
        Pointer.at(ctypes.addressof(struct), struct)
    struct = PeEnv(native.VERSION, 8, 1, 1, 1, 1, 0, 0, 1, 1)
    with pytest.raises(InvalidInput, match="with 8 bytes"):
        Pointer.at(ctypes.addressof(struct), struct)
    struct = PeEnv(native.VERSION, ctypes.sizeof(PeEnv), 1, 1, 1, 1, 0, 0, None, 1)
    with pytest.raises(InvalidInput, match="lacks a function"):
        Pointer.at(ctypes.addressof(struct), struct)
    with pytest.raises(InvalidInput, match="null pointer"):
        Pointer.at(0, None)


def test_arrays_that_a_pointer_would_misread_are_refused() -> None:
    pytest.importorskip("numba")
    wide = np.zeros((4, 8))
    with pytest.raises(InvalidInput, match="not contiguous"):
        POLE.pointer().reset(0, np.zeros(2, np.uint32), np.zeros(4, np.uint64), np.ones(4, np.uint8), wide[:, ::2], np.zeros((4, 1, 4)))


def test_importing_an_environment_imports_no_numba() -> None:
    script = "import sys; from puffer_edge import envs; envs.load('cartpole').contract; print('numba' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_nan_goes_through_and_does_not_hang() -> None:
    for name in envs.names():
        environment = envs.load(name)
        state = np.full((2, environment.state_size), np.nan)
        state[1] = np.inf
        following, *_ = environment.advance(state, np.zeros((2, environment.contract.n_actions)), 0, np.arange(2), 0)
        assert not np.isfinite(following).all(-1).any(), name


def test_few_rows_load_no_numba_and_many_do() -> None:
    """An export asks for some ten thousand rows: importing numba would take longer than they do."""
    script = (
        "import sys, numpy as np; from puffer_edge import envs; from puffer_edge.envs import dynamics; from puffer_edge.envs.draw import Draws;"
        "e = envs.load('pendulum'); few = e.observe(e.reset(Draws.of_episodes(0, np.arange(50)))); assert 'numba' not in sys.modules;"
        "dynamics.PATIENCE = 100; many = e.observe(e.reset(Draws.of_episodes(0, np.arange(50)))); assert 'numba' in sys.modules;"
        "assert np.array_equal(few, many)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
