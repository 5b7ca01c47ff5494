"""Hidden channels: what is left is the environment's own, and the rest of it goes on unseen."""

from __future__ import annotations

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.envs.draw import Draws
from puffer_edge.envs.hidden import hide
from puffer_edge.errors import InvalidInput, Unsupported


def test_what_is_shown_is_the_environments_own() -> None:
    bare, whole, rng = envs.load("cartpole_no_velocity"), envs.load("cartpole"), np.random.default_rng(0)
    assert [channel.name for channel in bare.contract.observations] == ["position", "angle"]
    assert (bare.max_steps, bare.solved, bare.state_size) == (whole.max_steps, whole.solved, whole.state_size)
    state = bare.reset(Draws.of_episodes(3, np.arange(5)))
    for _ in range(10):
        np.testing.assert_array_equal(bare.observe(state), whole.observe(state)[:, [0, 2]])
        action = rng.choice([-10.0, 10.0], (5, 1))
        found, expected = bare.step(state, action), whole.step(state, action)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected))
        state = found[0]


def test_what_is_refused() -> None:
    pole = envs.load("cartpole")
    for wrong in (("speed",), ("position", "velocity", "angle", "angular_velocity")):
        with pytest.raises(InvalidInput, match="hide some of them, but not all"):
            hide(pole, *wrong, name="x")
    with pytest.raises(Unsupported, match="one agent"):
        hide(envs.load("multiagent"), "side", name="x")
