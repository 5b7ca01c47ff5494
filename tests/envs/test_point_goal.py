"""point_goal: the motion against its closed form, ranges against a march, places as far apart as they must be, and what is paid and charged."""

from __future__ import annotations

import math

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.envs import point_goal as task
from puffer_edge.spaces import Floats

E = envs.load("point_goal")


def start(
    x: float = 0.0, y: float = 0.0, heading: float = 0.0, goal: tuple[float, float] = (9.0, 9.0), hazard: tuple[float, float] = (9.0, 0.0)
) -> Floats:
    """(1, S) state with one hazard that counts; the others are far outside."""
    return np.array([[x, y, heading, 0.0, 0.0, *goal, *hazard, *[50.0] * 14]])


def advance(state: Floats, action: tuple[float, float], t: int = 0) -> tuple[Floats, float, float]:
    following, reward, cost, terminated = E.advance(state, np.array([action]), 0, [0], t)
    assert not terminated.any()
    return following, float(reward[0]), float(cost[0])


def test_it_comes_to_its_speed_with_its_time_constant() -> None:
    """v(t) = F/d·(1 − exp(−t·d/m)); the substeps' error falls with their length."""
    mass, damping = (p.value for p in task.PARAMETERS)
    state = start(x=-1.9)
    for t in range(1, 18):
        state, _, _ = advance(state, (task.FORCE_MN, 0.0))
        wanted = 1.5 * (1 - math.exp(-0.1 * t * damping / mass))
        assert state[0, task.VX] == pytest.approx(wanted, abs=0.02) and state[0, task.VY] == 0.0
    assert mass == pytest.approx(4 / 3 * math.pi * 0.1**3 + 0.1**3, rel=1e-3)  # of 1 kg/m³, sphere and box of point.xml


def test_it_turns_at_the_rate_that_is_asked_for_and_stops_at_the_wall() -> None:
    state, _, _ = advance(start(), (0.0, 3.0))
    assert state[0, task.HEADING] == pytest.approx(0.3)
    state = start(x=1.9)
    for _ in range(10):
        state, _, _ = advance(state, (task.FORCE_MN, 0.0))
    assert state[0, task.X] == task.WALL_M and state[0, task.VX] == 0.0


def test_everything_lies_as_far_apart_as_it_must() -> None:
    state = E.start(1, range(500))
    hazards = state[:, task.FIRST :].reshape(-1, task.HAZARDS, 2)
    point, goal = state[:, None, :2], state[:, None, task.GOAL : task.GOAL + 2]
    between = np.linalg.norm(hazards[:, :, None] - hazards[:, None], axis=-1) + 9.0 * np.eye(task.HAZARDS)
    distances = [between, *(np.linalg.norm(hazards - other, axis=-1) for other in (point, goal)), np.linalg.norm(point - goal, axis=-1)]
    least = (task.APART_M, task.POINT_APART_M, task.GOAL_APART_M, task.POINT_GOAL_M)
    for distance, wanted in zip(distances, least):
        assert wanted <= distance.min() < wanted + 0.05
    assert np.abs(hazards).max() <= task.EXTENT_M


def test_the_ranges_are_geometry() -> None:
    rng, along = np.random.default_rng(0), np.arange(0.0, task.RANGE_M, 1e-3)
    for episode in range(20):
        state = E.start(2, [episode])[0]
        hazards = state[task.FIRST :].reshape(-1, 2)
        state[:2] = hazards[0] + rng.uniform(-0.1, 0.1, 2) if episode % 4 == 0 else state[:2]
        seen = E.observe(state[None])[0]
        gaps = task.HAZARD_M - np.linalg.norm(hazards - state[:2], axis=-1)
        assert seen[5] == pytest.approx(max(gaps.max(), 0.0))
        for k, angle in enumerate(task.BEAMS):
            points = state[:2] + along[:, None] * [math.cos(state[2] + angle), math.sin(state[2] + angle)]
            inside = np.linalg.norm(points[:, None] - hazards, axis=-1) < task.HAZARD_M
            edges = along[1:][(inside[1:] != inside[:-1]).any(-1)]  # of any hazard, from without or within
            assert seen[6 + k] == pytest.approx(edges[0] if len(edges) else task.RANGE_M, abs=2e-3)


def test_it_is_told_where_the_goal_is() -> None:
    seen = E.observe(start(heading=math.pi / 2, goal=(1.0, 0.0)))[0]
    np.testing.assert_allclose(seen[:3], [1.0, 0.0, -1.0], atol=1e-12)  # the goal is to its right


def test_a_goal_pays_and_is_followed_by_another() -> None:
    state = start(goal=(0.32, 0.0))
    state[0, task.VX] = 1.0
    following, reward, cost = advance(state, (task.FORCE_MN, 0.0))
    moved = following[0, task.X]
    assert reward == pytest.approx(1.0 + moved) and cost == 0.0
    assert np.hypot(*(following[0, task.GOAL : task.GOAL + 2] - following[0, :2])) >= task.POINT_GOAL_M
    _, reward, _ = advance(start(goal=(1.0, 0.0)), (0.0, 0.0))
    assert reward == 0.0


def test_the_cost_is_the_share_of_the_step_within_a_hazard() -> None:
    assert advance(start(hazard=(0.1, 0.0)), (0.0, 0.0))[2] == 1.0
    assert advance(start(hazard=(0.21, 0.0)), (0.0, 0.0))[2] == 0.0
    state = start(hazard=(0.25, 0.0))
    state[0, task.VX] = 1.0  # 20 mm in each substep: from the third one on it is inside
    assert advance(state, (0.0, 0.0))[2] == pytest.approx(0.6)
