"""The replay's ring: what it gives back, against a list of everything that was ever written to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from puffer_edge.errors import InvalidInput
from puffer_edge.train.replay import NO_STEP, Replay, size_bytes

DISCOUNT = 0.9
History = list[list[tuple[int, float, float, str]]]


def filled(rows: int, steps: int, kept: int, seed: int = 0) -> tuple[Replay, History]:
    """A replay after so many steps of every row; and by row the steps as (number of the observation, reward, cost, how it went on).

    Every observation has a number of its own: (row · 10,000 + how many the row had seen before), and so has the action taken at it.
    """
    rng, replay = np.random.default_rng(seed), Replay(rows, kept, 2, 1)
    seen = np.arange(rows) * 10_000.0
    history: History = [[] for _ in range(rows)]

    def look(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.stack([x, -x], 1)

    replay.see(np.arange(rows), look(seen))
    for _ in range(steps):
        chance, reward, cost = rng.random(rows), rng.normal(size=rows), rng.random(rows)
        terminated, truncated = chance < 0.15, (chance >= 0.15) & (chance < 0.3)
        for row in range(rows):
            how = "terminated" if terminated[row] else "truncated" if truncated[row] else "on"
            history[row].append((int(seen[row]), float(np.float32(reward[row])), float(np.float32(cost[row])), how))
        final = seen + 1
        following = np.where(terminated | truncated, seen + 2, seen + 1)
        replay.write(seen[:, None] / 1e6, reward, cost, terminated, truncated, look(final), look(following))
        seen = following
    return replay, history


def by_brute_force(episode: list[tuple[int, float, float, str]], at: int, steps: int) -> tuple[float, float, int, float]:
    """Reward, cost, number of the observation to bootstrap at, weight: by walking the list of all steps of a row."""
    reward = cost = 0.0
    weight = 1.0
    for number, r, c, how in episode[at : at + steps]:
        reward, cost, weight, after = reward + weight * r, cost + weight * c, weight * DISCOUNT, number + 1
        if how == "terminated":
            return reward, cost, after, 0.0
        if how == "truncated":
            break
    return reward, cost, after, weight


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize(("rows", "length", "kept"), [(1, 30, 100), (3, 40, 60), (2, 500, 41)])
def test_returns_over_n_steps_are_those_of_brute_force(rows: int, length: int, kept: int, steps: int) -> None:
    """Also where the ring has gone round several times."""
    replay, history = filled(rows, length, kept)
    places = np.argwhere(replay.kind != NO_STEP)
    sample = replay.at(places, steps, DISCOUNT)
    where = [{step[0]: k for k, step in enumerate(row)} for row in history]
    for k, (row, _) in enumerate(places):
        number = int(sample.observation[k, 0])
        assert sample.action[k, 0] == np.float32(number / 1e6)
        reward, cost, after, weight = by_brute_force(history[row], where[row][number], steps)
        np.testing.assert_allclose((sample.reward[k], sample.cost[k], sample.weight[k]), (reward, cost, weight), rtol=1e-12)
        assert weight == 0.0 or tuple(sample.following[k]) == (after, -after)


def test_it_keeps_the_latest_steps() -> None:
    replay, history = filled(2, 500, 41)
    for row in range(2):
        kept = {int(x) for x in replay.observation[row, replay.kind[row] != NO_STEP, 0]}
        assert kept == {step[0] for step in history[row][-len(kept) :]}
        ends = sum(step[3] != "on" for step in history[row][-len(kept) :])
        assert len(kept) + ends >= replay.slots - 2  # the latest observation has a place, and an end's may be half overwritten
    assert len(replay) == int((replay.kind != NO_STEP).sum())


def test_draws_are_uniform_over_the_steps() -> None:
    replay, _ = filled(3, 40, 60)
    places = np.concatenate([replay.draw(1000, 7, batch) for batch in range(40)])
    assert (replay.kind[places[:, 0], places[:, 1]] != NO_STEP).all()
    counts = np.zeros(replay.kind.shape)
    np.add.at(counts, tuple(places.T), 1)
    seen, expected = counts[replay.kind != NO_STEP], len(places) / len(replay)
    assert ((seen - expected) ** 2 / expected).sum() < len(replay) + 4 * np.sqrt(2 * len(replay))  # χ², four deviations
    assert not np.array_equal(replay.draw(50, 7, 0), replay.draw(50, 7, 1))
    assert not np.array_equal(replay.draw(50, 7, 0), replay.draw(50, 8, 0))
    np.testing.assert_array_equal(replay.draw(50, 7, 2**40), replay.draw(50, 7, 2**40))


@pytest.mark.parametrize("length", [10, 300])
def test_it_goes_on_from_its_state(length: int) -> None:
    replay, _ = filled(2, length, 50)
    again = Replay(2, 50, 2, 1)
    again.load({name: x.copy() for name, x in replay.state().items()})
    for name in ("observation", "action", "reward", "cost", "kind", "place"):
        np.testing.assert_array_equal(getattr(again, name), getattr(replay, name))
    assert sum(x.nbytes for name, x in replay.state().items() if name != "place") <= size_bytes(50, 2, 2, 1)
    for arrays in ({}, {"place": np.zeros(3, np.int64)}, {**replay.state(), "kind": np.zeros((2, 5), np.uint8)}):
        with pytest.raises(InvalidInput, match="replay's saved"):
            Replay(2, 50, 2, 1).load(arrays)


def test_nothing_can_be_drawn_from_nothing() -> None:
    with pytest.raises(InvalidInput, match="no step"):
        Replay(1, 10, 1, 1).draw(1, 0, 0)
    with pytest.raises(InvalidInput, match="steps of at least 1, not 0"):
        Replay(1, 0, 1, 1)
