"""Printed plants: numpy's bits where there is no sine in them, and how far they drift where there is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puffer_edge.envs import load, names
from puffer_edge.envs.environment import Environment
from puffer_edge.errors import Unsupported
from puffer_edge.export import javascript
from puffer_edge.spaces import Floats
from tests.export.javascript_node import node

ROLL = """
const states = [], rewards = [], costs = [], ended = [], observations = [];
let state = start;
for (const action of actions) {
  observations.push(plant.observe(state));
  const next = plant.step(state, action);
  state = next.state;
  states.push(state); rewards.push(next.reward); costs.push(next.cost); ended.push(next.terminated);
}
return { states, rewards, costs, ended, observations };
"""
ULP = 2.0**-52


def rolled(environment: Environment, start: Floats, actions: Floats, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """An episode in JavaScript, and with numpy."""
    module = folder / "plant.mjs"
    module.write_text(javascript.plant(environment))
    there = node(ROLL, {"plant": module}, start=start.tolist(), actions=actions.tolist())
    here: dict[str, Any] = {name: [] for name in there}
    state = start[None]
    for action in actions:
        here["observations"].append(environment.observe(state)[0])
        state, reward, cost, ended = environment.step(state, action[None])
        for name, value in (("states", state), ("rewards", reward), ("costs", cost), ("ended", ended)):
            here[name].append(value[0])
    return {name: np.array(value) for name, value in there.items()}, {name: np.array(value) for name, value in here.items()}


@pytest.mark.parametrize("name", [name for name in names() if not load(name).random_steps])
def test_one_step_differs_by_the_last_bits_of_a_sine(name: str, tmp_path: Path) -> None:
    environment, rng = load(name), np.random.default_rng(0)
    (tmp_path / "plant.mjs").write_text(javascript.plant(environment))
    c = environment.contract
    states = rng.uniform(-2, 2, (5000, environment.state_size))
    actions = rng.uniform([a.low for a in c.actions], [a.high for a in c.actions], (5000, c.n_actions))
    script = "return states.map((s, k) => { const n = plant.step(s, actions[k]); return [...n.state, n.reward, n.cost, +n.terminated]; });"
    there = np.array(node(script, {"plant": tmp_path / "plant.mjs"}, states=states.tolist(), actions=actions.tolist()))
    state, reward, cost, ended = environment.step(states, actions)
    here = np.concatenate([state, reward[:, None], cost[:, None], ended[:, None]], 1)
    bound = np.full(here.shape[1], 16 * ULP * np.abs(here).max())
    bound[environment.state_size] += 2.0**-32 if name == "pendulum" else 0.0  # the last bit of a square in float32, which libm's powf may miss
    assert (np.abs(there - here) <= bound).all()
    assert (there == here).mean() > 0.9
    assert (there[:, -2:] == here[:, -2:]).all()


@pytest.mark.parametrize(("name", "bound"), [("cartpole", 1e-9), ("pendulum", 1e-9), ("acrobot", 1e-6), ("mountain_car", 1e-9)])
def test_an_episode_stays_close(name: str, bound: float, tmp_path: Path) -> None:
    environment, rng = load(name), np.random.default_rng(1)
    start = environment.start(1, [0])[0]
    c = environment.contract
    actions = rng.uniform([a.low for a in c.actions], [a.high for a in c.actions], (200, c.n_actions))
    there, here = rolled(environment, start, actions, tmp_path)
    steps = int(np.argmax(here["ended"])) + 1 if here["ended"].any() else len(actions)
    for key in here:
        assert np.abs(there[key][:steps].astype(float) - here[key][:steps]).max() <= bound, key


def arithmetic(state: Floats, action: Floats) -> tuple[Any, Any, Any, Any]:
    """Everything that is exact: float32, remainders, roots, comparisons, conditions."""
    a, b, d = state.T
    force = np.clip(action[:, 0].astype(np.float32), -1.5, 1.5)
    turned = (a * 7.3 + b) % 2.5 - 1.25
    backwards = np.remainder(a, -0.7) + np.fmod(b, 0.3)
    root = np.sqrt(np.abs(b) + 0.1) + np.maximum(a, d) * np.minimum(b, 0.5)
    near = (np.abs(turned) < 1.0) & ~(d >= 0.3) | (force == 1.5)
    d_next = np.where(near, d * 0.5 + force * 0.1, -np.square(d) / 3)
    whole = np.floor(a * 3) + np.ceil(b) - np.trunc(d) + np.sign(a)
    following = np.stack([0.9 * a + 0.01 * turned + 1e-3 * whole, 0.8 * root - backwards, d_next], -1)
    return following, -(force**2) + near.astype(np.float64), (b > 0).astype(np.float64), np.isnan(d)


def test_what_needs_no_library_has_numpys_bits(tmp_path: Path) -> None:
    environment = replace(load("pendulum"), state_size=3, step=arithmetic, observe=lambda s: s * np.array([1.0, 2.0, -0.3]))
    environment = replace(environment, reset=lambda draws: draws.uniform(-1, (1.0, 2.0, 3.0), 3))
    rng = np.random.default_rng(2)
    there, here = rolled(environment, rng.uniform(-2, 2, 3), rng.uniform(-2, 2, (300, 1)), tmp_path)
    assert len(np.unique(here["states"][:, 0])) > 250
    for key in here:
        np.testing.assert_array_equal(there[key], here[key], key)


def test_start_states_take_the_callers_numbers_in_order(tmp_path: Path) -> None:
    (tmp_path / "plant.mjs").write_text(javascript.plant(load("pendulum")))
    script = "let k = 0; const low = plant.reset(() => 0), mixed = plant.reset(() => [0.5, 0.25][k++]); return [low, mixed, k];"
    low, mixed, drawn = node(script, {"plant": tmp_path / "plant.mjs"})
    assert (low, mixed, drawn) == ([-np.pi, -1.0], [0.0, -0.5], 2)


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (lambda s, a: (s if s[0, 0] > 0 else -s, s[:, 0], s[:, 0], s[:, 0] > 0), "branches on a value"),
        (lambda s, a: (np.linalg.norm(s, axis=-1), s[:, 0], s[:, 0], s[:, 0] > 0), "norm"),
        (lambda s, a: (np.add.reduce(s), s[:, 0], s[:, 0], s[:, 0] > 0), "add.reduce"),
        (lambda s, a: (s.astype(np.int64), s[:, 0], s[:, 0], s[:, 0] > 0), "int64"),
        (lambda s, a: (np.cbrt(s), s[:, 0], s[:, 0], s[:, 0] > 0), "cbrt"),
        (lambda s, a: (np.asarray(s), s[:, 0], s[:, 0], s[:, 0] > 0), "cannot be traced"),
        (lambda s, a: (s[:, :1], s[:, 0], s[:, 0], s[:, 0] > 0), "shape"),
    ],
)
def test_what_cannot_be_traced_is_refused(step: Any, why: str) -> None:
    with pytest.raises(Unsupported, match=f"the dynamics of pendulum cannot be printed as JavaScript: .*{why}"):
        javascript.plant(replace(load("pendulum"), step=step))
