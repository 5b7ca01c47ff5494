"""The checker finds what is wrong with broken environments, by the right rule, on the right line; and says it on the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from puffer_edge import envs
from puffer_edge.envs.check import Verdict, check, verdicts
from puffer_edge.errors import ContractError

ROOT = Path(__file__).parents[2]
GOOD = """
import json
import random

import numpy as np

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.draw import normal, uniform
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import clip, sqrt

COUNTS = [0]


def reset(draw, state, parameters):
    state[0] = uniform(draw, -1.0, 1.0)
    state[1] = 0.0


def observe(state, observation):
    observation[0] = state[0]
    observation[1] = state[1]


def step(draw, state, action, parameters):
    state[1] = clip(state[1] + 0.1 * action[0], -1.0, 1.0)
    state[0] = clip(state[0] + 0.1 * state[1], -2.0, 2.0)
    return -abs(state[0]), 0.0, abs(state[0]) >= 2.0


CONTRACT = Contract(
    "mine",
    (
        ObservationChannel("x", "m", -2.0, 2.0),
        ObservationChannel("v", "m/s", -1.0, 1.0),
    ),
    (
        ActionChannel("u", "m/s^2", -1.0, 1.0, 0.0, 0.0),
    ),
    "clip",
    10.0,
)
MINE = Environment.of_scalars(
    CONTRACT,
    Dynamics(2, 2, 1, reset, observe, step),
    max_steps=50,
    shield=({"stage": "limit"},),
    solved=-1.0,
)
"""
RETURN = "return -abs(state[0]), 0.0, abs(state[0]) >= 2.0"
WRITES = "state[0] = clip(state[0] + 0.1 * state[1], -2.0, 2.0)"


def wrong(rule: str, message: str, old: str, new: str, *more: str) -> tuple[str, str, tuple[str, ...]]:
    """A rule, what it says, and what makes a broken environment of the good one; the line to change is the one with HERE."""
    return rule, message, (old, new, *more)


FAULTS = {
    "an index beyond the state": wrong("plain step", "IndexError", WRITES, "state[2] = 1.0  # HERE"),
    "an index beyond the observation": wrong("plain observe", "IndexError", "observation[1] = state[1]", "observation[2] = 0.0  # HERE"),
    "a state that is not reset": wrong(
        "plain reset",
        r"leaves state\[1\] as the episode before left it",
        "state[1] = 0.0",
        "pass",
        "def reset(draw, state, parameters):",
        "def reset(draw, state, parameters):  # HERE",
    ),
    "an observation that is not written": wrong(
        "plain observe",
        r"does not write observation\[1\]",
        "observation[1] = state[1]",
        "pass",
        "def observe(state, observation):",
        "def observe(state, observation):  # HERE",
    ),
    "a start of the wrong source": wrong("plain reset", "something else than the draws", "state[1] = 0.0", "state[1] = random.random()  # HERE"),
    "two results for three": wrong("plain step", "no reward, cost and terminated", RETURN, "return 1.0, 0.0  # HERE"),
    "a reward of text": wrong("plain step", "no reward, cost and terminated", RETURN, "return 'much', 0.0, False  # HERE"),
    "a draw that is not declared": wrong("plain step", "say random_steps=True", WRITES, "state[0] = clip(0.1 * normal(draw), -2.0, 2.0)  # HERE"),
    "a step that remembers": wrong("plain step", "two results", WRITES, "state[0] = random.random()  # HERE"),
    "what numba cannot compile": wrong("compiled", "Unknown attribute 'dumps'", WRITES, "json.dumps(3)  # HERE"),
    "what numba has no type for": wrong(
        "compiled", "cannot compile the environment's step: Cannot unify", WRITES, "state[0] = 0.5 if state[1] < 9.0 else 'c'  # HERE"
    ),
    "a range too narrow": wrong("ranges", "v reached .* its range is", '"m/s", -1.0, 1.0),', '"m/s", -0.05, 0.05),  # HERE'),
    "a NaN in the state": wrong("step", "states with NaN", WRITES, "state[0] = sqrt(state[1]) - 1.0  # HERE"),
    "a NaN in the observation": wrong("observe", "NaN", "observation[1] = state[1]", "observation[1] = sqrt(-1.0 - abs(state[1]))  # HERE"),
    "a NaN in the reward": wrong("step", "rewards with NaN", RETURN, "return sqrt(state[1]), 0.0, abs(state[0]) >= 2.0  # HERE"),
    "an action without effect": wrong(
        "actions",
        "the action w changes nothing",
        "0.0, 0.0),",
        '0.0, 0.0),\n        ActionChannel("w", "1", 0.0, 1.0, 0.0, 0.0),  # HERE',
        "Dynamics(2, 2, 1",
        "Dynamics(2, 2, 2",
    ),
    "another number of observations": wrong(
        "sizes",
        "the dynamics say 3 observations of one agent, the contract has 2",
        "Dynamics(2, 2, 1, reset, observe, step),",
        "Dynamics(2, 3, 1, reset, observe, step),  # HERE",
    ),
    "no steps": wrong("sizes", "max_steps must be at least 1", "max_steps=50,", "max_steps=0,  # HERE"),
    "a shield that does not exist": wrong("shield", "unknown shield stage", '({"stage": "limit"},),', '({"stage": "wish"},),  # HERE'),
    "a state that runs away": wrong(
        *("held", "NaN or infinity", WRITES, "state[0] = state[0] * (1.0 if abs(state[1]) < 0.99 else 1e200)  # HERE"),
        *(
            "observation[0] = state[0]",
            "observation[0] = clip(state[0], -2.0, 2.0)",
            RETURN,
            "return 0.0, 0.0, False",
            "max_steps=50",
            "max_steps=15",
        ),
    ),
    "a contract out of order": wrong(
        "import", "low must be the smaller", '"m/s", -1.0, 1.0),', '"m/s", 1.0, -1.0),', "CONTRACT = Contract(", "CONTRACT = Contract(  # HERE"
    ),
    "a module that fails": wrong("import", "ZeroDivisionError", "COUNTS = [0]", "COUNTS = 1 / 0  # HERE"),
    "a module that is no Python": wrong("import", "SyntaxError", "COUNTS = [0]", "COUNTS = = 0  # HERE"),
}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Name of a module in the working folder, which is new to this process, with the good environment in it."""
    name = f"checked_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    return name


def asked(name: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    """Exit code and answer of ``puffer-edge envs check NAME --json``."""
    from puffer_edge.cli import main

    code = 0
    try:
        main(["envs", "check", name, "--json"])
    except SystemExit as end:
        code = int(end.code or 0)
    return code, json.loads(capsys.readouterr().out)


def test_the_good_one_keeps_every_rule(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = asked(f"{module}:MINE", capsys)
    assert (code, answer["ok"]) == (0, True) and len(answer["rules"]) == 14
    assert all(not rule["findings"] and not rule["waits_for"] for rule in answer["rules"])


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found_by_its_rule_on_its_line(fault: str, module: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("numba")
    rule, message, changes = FAULTS[fault]
    text = GOOD
    for old, new in zip(changes[::2], changes[1::2]):
        assert text.count(old) == 1
        text = text.replace(old, new)
    Path(f"{module}.py").write_text(text)
    code, answer = asked(f"{module}:MINE", capsys)
    assert (code, answer["ok"]) == (1, False)
    broken = [found for found in answer["rules"] if found["findings"]]
    assert [found["rule"] for found in broken] == [rule]
    finding = broken[0]["findings"][0]
    assert re.search(message, finding["message"])
    assert (finding["file"], "HERE" in finding["text"]) == (f"{module}.py", True), finding
    assert text.splitlines()[finding["line"] - 1].strip() == finding["text"]


def test_a_number_that_only_counts_may_outlive_its_episode(module: str) -> None:
    text = GOOD.replace("Dynamics(2, 2, 1", "Dynamics(3, 2, 1").replace(WRITES, f"state[2] += 1.0\n    {WRITES}")
    Path(f"{module}.py").write_text(text)
    check(envs.load(f"{module}:MINE"))


def test_how_long_episodes_last_is_noted(module: str) -> None:
    Path(f"{module}.py").write_text(GOOD.replace(RETURN, "return -abs(state[0]), 0.0, True"))
    notes = {v.rule: v.note for v in verdicts(envs.load(f"{module}:MINE"))}
    assert notes["step"] == "1600 episodes ended by themselves, after 1.0 steps on average; max_steps is 50"


def test_several_faults_are_all_named(module: str) -> None:
    Path(f"{module}.py").write_text(GOOD.replace('"m/s", -1.0, 1.0),', '"m/s", -0.05, 0.05),').replace('"m", -2.0, 2.0),', '"m", -0.1, 0.1),'))
    found = {v.rule: [f.message for f in v.findings] for v in verdicts(envs.load(f"{module}:MINE"))}
    assert [len(found[rule]) for rule in ("ranges", "step", "actions")] == [2, 0, 0]
    with pytest.raises(ContractError, match=rf"x reached .* \({module}\.py:\d+\)"):
        check(envs.load(f"{module}:MINE"))


def test_what_needs_a_broken_rule_waits(module: str) -> None:
    Path(f"{module}.py").write_text(GOOD.replace("observation[1] = state[1]", "observation[2] = state[1]"))
    found = {v.rule: v for v in verdicts(envs.load(f"{module}:MINE"))}
    assert found["plain observe"].findings and found["plain step"] == Verdict("plain step", found["plain step"].promise)
    assert found["compiled"].waits == found["ranges"].waits == "plain observe"


GROUP = {
    "reward": "reward[k] = 1.0 / STEPS[k] if acting and right else 0.0",
    "cost": "cost[k] = 1.0 if acting and not right else 0.0",
    "terminated": "terminated[k] = 1 if state[0] + 1.0 >= STEPS[k] else 0",
    "alive": "alive[k] = 1 if acting else 0",
}


@pytest.mark.parametrize("array", GROUP)
def test_what_a_step_of_several_agents_leaves_out_is_named(array: str, module: str) -> None:
    text = (ROOT / "puffer_edge" / "envs" / "sanity" / "multiagent.py").read_text()
    assert text.count(GROUP[array]) == 1
    Path(f"{module}.py").write_text(text.replace(GROUP[array], "pass"))
    found = next(v for v in verdicts(envs.load(f"{module}:ENVIRONMENT")) if v.findings)
    assert found.rule == "plain step" and found.findings[0].message == f"step does not write {array} of every agent"


BAD_GYM = """
import gymnasium
import numpy as np


class Bad(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), "much", False, False, {}  # HERE


gymnasium.register("Checked-v0", Bad, max_episode_steps=20)
"""


def test_gymnasiums_environments_are_checked_by_its_own_check_too(tmp_path: Path) -> None:
    (tmp_path / "bad_gym.py").write_text(BAD_GYM)
    script = (
        "import sys; sys.path.insert(0, '.'); import bad_gym; from puffer_edge import envs; from puffer_edge.envs.check import verdicts;"
        "found = {v.rule: v for v in verdicts(envs.load('gym:Checked-v0'))};"
        "print(found['step'].findings, found['gymnasium'].note)"
    )
    answer = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=_here(), capture_output=True, text=True)
    for said in ("the reward is 'much' in step 1 of an episode", "file='bad_gym.py', line=15", "reward returned by `step()`"):
        assert said in answer.stdout, answer.stdout + answer.stderr


def test_what_gymnasiums_check_says_comes_with_the_environments_own_line(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    from puffer_edge.cli import main

    pytest.importorskip("gymnasium")
    text = BAD_GYM[: BAD_GYM.index("gymnasium.register")].replace("self, *, seed=None, options=None", "self, **more").replace("seed=seed", "**more")
    Path(f"{module}_g.py").write_text(text.replace('"much"', "0.0"))
    with pytest.raises(SystemExit):
        main(["envs", "check", f"{module}_g:Bad"])
    out = capsys.readouterr().out
    Path(f"{module}_h.py").write_text(text.replace('"much", False, False, {}', "1.0 / 0.0, False, False, {}"))
    with pytest.raises(SystemExit):
        main(["envs", "check", f"{module}_h:Bad"])
    raised, step = capsys.readouterr().out, text[: text.rindex("return np.zeros(2, np.float32), ")].count("\n") + 1
    assert "step raised ZeroDivisionError: float division by zero\n" in raised and f"→ {module}_h.py:{step}:" in raised
    line = text[: text.index("def reset")].count("\n") + 1
    assert "broken gymnasium" in out and "does not provide a `seed`" in out and f"→ {module}_g.py:{line}: def reset(self, **more):" in out


def _here() -> dict[str, str]:
    return {"PYTHONPATH": ":".join([str(ROOT), *(path for path in sys.path if path)]), "PATH": ""}


def test_the_command_says_it_in_words(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    from puffer_edge.cli import main

    text = GOOD.replace('"m/s", -1.0, 1.0),', '"m/s", -0.05, 0.05),')
    Path(f"{module}.py").write_text(text)
    line = text[: text.index('"m/s", -0.05')].count("\n") + 1
    with pytest.raises(SystemExit) as end:
        main(["envs", "check", f"{module}:MINE"])
    out = capsys.readouterr().out
    assert end.value.code == 1 and f'→ {module}.py:{line}: ObservationChannel("v", "m/s", -0.05, 0.05),' in out
    assert "broken ranges" in out and f"{module}:MINE: 1 of 14 rules broken" in out
    for wrong_call in (["envs", "check"], ["envs", "list", "cartpole"], ["envs", "check", "catpole"]):
        with pytest.raises(SystemExit) as end:
            main(wrong_call)
        assert end.value.code == 2
    main(["envs"])
    listed = capsys.readouterr().out
    main(["envs", "list"])
    assert capsys.readouterr().out == listed and "cartpole" in listed
