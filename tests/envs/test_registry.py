"""Every environment that is found keeps its promises, and a name that is not found says what is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.envs.check import check
from puffer_edge.errors import ContractError, InvalidInput


@pytest.mark.parametrize("name", [*envs.names(), *envs.sanity_names()])
def test_every_environment_keeps_its_promises(name: str) -> None:
    environment = envs.load(name)
    assert environment.name == name
    check(environment)


def test_names() -> None:
    classics = {"acrobot", "cartpole", "mountain_car", "mountain_car_continuous", "pendulum"}
    assert set(envs.names()) == classics | {"balancer", "furuta", "point_goal", "quadrotor", "rover", "servo", "swingup"}
    proofs = ("bandit", "cmdp", "double_integrator", "masked", "memory", "multiagent", "password", "spaces", "squared", "stochastic")
    assert envs.sanity_names() == tuple(sorted((*proofs, "cartpole_no_velocity", "grid")))


def test_an_unknown_name_is_answered_with_a_suggestion() -> None:
    with pytest.raises(InvalidInput, match=r"did you mean cartpole\?.*pendulum"):
        envs.load("catpole")


POLE = envs.load("cartpole")


def _in_place(state: Any, action: Any) -> Any:
    result = POLE.step(state, action)
    state += 1.0
    return result


def _mixing(state: Any, action: Any) -> Any:
    following, reward, cost, terminated = POLE.step(state, action)
    return following, reward / len(reward), cost, terminated


def _restless(state: Any, action: Any) -> Any:
    following, _, cost, terminated = POLE.step(state, action)
    return following, np.random.default_rng().uniform(size=len(state)), cost, terminated


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reset": lambda draws: np.zeros((len(draws), 3))}, "reset gives states: float64"),
        ({"reset": lambda draws: np.random.default_rng().uniform(size=(len(draws), 4)) * 0.01}, "something else than the draws"),
        ({"reset": lambda draws: np.arange(4.0 * len(draws)).reshape(-1, 4) / 1e3}, "depends on the episodes beside it"),
        ({"observe": lambda state: state.astype(np.float32)}, "float32"),
        ({"observe": lambda state: state * 1000.0}, "its range is"),
        ({"observe": lambda state: state * np.nan}, "NaN"),
        ({"step": _in_place}, "changed the arrays"),
        ({"step": _mixing}, "depends on the rows beside it"),
        ({"step": _restless}, "the same step gave two results"),
        ({"max_steps": 0}, "at least 1"),
    ],
)
def test_the_checker_sees(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check(replace(POLE, **change))


def test_the_checker_builds_the_shield() -> None:
    with pytest.raises(InvalidInput, match="unknown shield stage"):
        check(replace(POLE, shield=({"stage": "wish"},)))
