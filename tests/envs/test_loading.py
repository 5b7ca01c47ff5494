"""An environment of one's own is loaded from its module, and whatever is wrong with its name or its module is said."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs import living
from puffer_edge.envs.check import check
from puffer_edge.envs.environment import Environment
from puffer_edge.errors import InvalidInput

OWN = """
from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.draw import uniform
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import clip


def reset(draw, state, parameters):
    state[0] = uniform(draw, -1.0, 1.0)


def observe(state, observation):
    observation[0] = state[0]


def step(draw, state, action, parameters):
    if action[0] > 0.5:
        action_taken = action[0]
    else:
        action_taken = -0.5
    state[0] = clip(state[0] + 0.1 * action_taken, -2.0, 2.0)
    return -abs(state[0]), 0.0, abs(state[0]) >= 2.0


CONTRACT = Contract(
    "mine", (ObservationChannel("x", "m", -2.0, 2.0),), (ActionChannel("u", "m/s", -1.0, 1.0, 0.0, 0.0),), "clip", 10.0
)
MINE = Environment.of_scalars(CONTRACT, Dynamics(1, 1, 1, reset, observe, step), max_steps=50, solved=-1.0)
NUMBER = 3


def make():
    raise SystemExit("a name in a file must call nothing")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Name of a module in the working folder, which is new to this process."""
    name = f"mine_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return name


def test_an_environment_of_ones_own_keeps_its_promises(module: str) -> None:
    environment = envs.load(f"{module}:MINE")
    assert environment.name == f"{module}:MINE"
    assert envs.load(environment.name).dynamics is environment.dynamics
    check(environment)
    assert np.ptp(environment.start(0, range(100))) > 1.5


def test_the_environment_on_the_page_keeps_its_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "environments.md").read_text()
    (tmp_path / "slider_of_the_page.py").write_text(page.split("```python\n")[1].split("```")[0])
    monkeypatch.chdir(tmp_path)
    check(envs.load("slider_of_the_page:SLIDER"))


def test_what_was_compiled_from_one_module_serves_its_copy(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    for name in ("first_copy", "second_copy"):
        (tmp_path / f"{name}.py").write_text(OWN)
        script = f"from puffer_edge import envs; e = envs.load('{name}:MINE'); e.pointer(); print(e.dynamics.native.cached)"
        about = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": ":".join([str(Path(__file__).parents[2]), *sys.path]), "PATH": ""}
        answer = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=about, capture_output=True, text=True)
        assert (answer.stdout, answer.stderr) == (f"{name == 'second_copy'}\n", "")
        (tmp_path / f"{name}.py").unlink()


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("THEIRS", "has no 'THEIRS'; environments in it: MINE"),
        ("MIEN", r"has no 'MIEN' \(did you mean MINE\?\); environments in it: MINE"),
        ("NUMBER", "is of type int: it must be a puffer_edge.envs.environment.Environment"),
        ("make", "is of type function: it must be"),
        ("a b", "write my_module:MY_ENVIRONMENT"),
    ],
)
def test_what_is_wrong_with_the_attribute_is_said(module: str, attribute: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        envs.load(f"{module}:{attribute}")


def test_what_is_wrong_with_the_module_is_said(module: str, tmp_path: Path) -> None:
    for name, message in (
        ("no_such_module:MINE", "there is no module 'no_such_module' in"),
        ("mine.py:MINE", "there is no module 'mine' in"),
        ("folder/mine.py:MINE", "without .py and slashes"),
        (":MINE", "names no environment"),
        ("mine:", "names no environment"),
        ("gymm:CartPole-v1", r"no family of environments 'gymm' \(did you mean gym\?\)"),
        ("pettinzoo:mpe2.simple_spread_v3", r"did you mean pettingzoo\?"),
    ):
        with pytest.raises(InvalidInput, match=message):
            envs.load(name)
    (tmp_path / f"{module}_b.py").write_text("import no_such_package")
    with pytest.raises(InvalidInput, match="imports 'no_such_package', which is not installed"):
        envs.load(f"{module}_b:MINE")
    (tmp_path / f"{module}_c.py").write_text("1 / 0")
    with pytest.raises(InvalidInput, match="importing the module raised ZeroDivisionError: division by zero"):
        envs.load(f"{module}_c:MINE")
    (tmp_path / f"{module}_d.py").write_text("raise SystemExit(0)")
    with pytest.raises(InvalidInput, match="importing the module raised SystemExit: 0"):
        envs.load(f"{module}_d:MINE")


def test_importing_and_making_raise_with_their_own_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tests.envs.games")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep_one.py").write_text("from deep_two import half\nhalf(3)\n")
    (tmp_path / "deep_two.py").write_text("def half(x):\n    return x / 0\n")
    with pytest.raises(
        InvalidInput, match=r"ZeroDivisionError: division by zero\n  .*deep_one.py, line 2: half\(3\)\n  .*deep_two.py, line 2: return x / 0$"
    ):
        envs.load("deep_one:MINE")
    with pytest.raises(InvalidInput, match=r"making the environment raised TypeError: .*missing 1 required positional argument: 'size'"):
        envs.load("tests.envs.games:NeedsMore")


def test_only_what_says_what_it_makes_is_called() -> None:
    games = pytest.importorskip("tests.envs.games")
    for name in ("Nested", "make_nested", "Wandering", "Matches"):
        environment = envs.load(f"tests.envs.games:{name}")
        assert environment.name == f"tests.envs.games:{name}" and environment.living is not None and not environment.pure
    assert envs.load("tests.envs.games:Wandering").max_steps == 8, "an environment's own word"
    with pytest.raises(InvalidInput, match="is of type function: it must be"):
        envs.load("tests.envs.games:make_unsaid")
    with pytest.raises(InvalidInput, match=r"is the class ClassVar|is of type _SpecialForm"):
        envs.load("tests.envs.games:ClassVar")
    with pytest.raises(InvalidInput, match=r"environments in it: .*Nested, Faulty, Wandering, Relay, Matches, parallel_env"):
        envs.load("tests.envs.games:Nothing")
    with pytest.raises(InvalidInput, match="is the class ABC"):
        envs.load("abc:ABC")
    assert games.make_nested().limit == 20


class Drifting:
    """A simulator of one's own that keeps ``world.Living`` without Gymnasium."""

    def reset(self, seed: int, seen: Any, allowed: Any) -> None:
        self.x = np.random.default_rng(seed).uniform(-1, 1)
        seen[0, 0] = self.x

    def step(self, action: Any, seen: Any, reward: Any, cost: Any, terminated: Any, alive: Any, allowed: Any) -> bool:
        self.x += 0.1 * action[0, 0]
        seen[0, 0], reward[0], cost[0], terminated[0] = self.x, -abs(self.x), 0.0, abs(self.x) > 1.5
        return False

    def close(self) -> None:
        pass


CHANNELS = (ObservationChannel("x", "m", -2.0, 2.0),), (ActionChannel("u", "m/s", -1.0, 1.0, 0.0, 0.0),)
DRIFTING = living.of_contract(Contract("drifting", *CHANNELS, "clip", 10.0), Drifting, max_steps=30)


def test_a_living_simulator_of_ones_own() -> None:
    environment = envs.load("tests.envs.test_loading:DRIFTING")
    state = environment.start(3, [0, 1])
    assert np.array_equal(environment.observe(state), environment.observe(environment.start(3, [0, 1]))), "equal episode, equal start"
    for _ in range(30):
        state, reward, _, terminated = environment.step(state, np.ones((2, 1)))
    assert terminated.all() and (reward == 0).all()


def test_what_counts_as_solved_is_a_number_or_left_out() -> None:
    known = envs.load("double_integrator")
    assert known.dynamics is not None
    assert Environment.of_scalars(known.contract, known.dynamics, max_steps=30).solved == np.inf
    for wrong in (None, "all", np.nan, True):
        with pytest.raises(InvalidInput, match="solved is the mean return that counts as such, not"):
            replace(known, solved=wrong)
