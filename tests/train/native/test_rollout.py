"""Rollouts in C, replayed in numpy step by step; ends of episodes, agents, faults, threads, and going on."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from puffer_edge import envs
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.train.native import structs
from puffer_edge.train.native.engine import Engine, Shape, fill
from tests.train.native.reference import parameters
from tests.train.native.stage import Array, cartpole_in_c, in_python, masking, philox, shaped, stage, trained, uniform

CARTPOLE = Shape(4, (24, 17), "tanh", "categorical", (2,))
CRITIC = Shape(4, (13, 20), "relu", "value", ())


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> tuple[Any, Any]:
    """The C CartPole, whose clock ends an episode after 29 steps."""
    return cartpole_in_c(tmp_path_factory.mktemp("cartpole"), 29)


def test_a_rollout_is_what_numpy_does_step_by_step(cartpole: tuple[Any, Any], folder: Path, runs: list[str]) -> None:
    """Two horizons of 70 environments: blocks that are not full, both ends of an episode, and what goes over from one horizon to the next."""
    horizon, rows, seed = 40, 70, 3
    for variant in runs:
        engine, flat = Engine(CARTPOLE, 2, variant, folder), parameters(CARTPOLE).astype(np.float32)
        about = {"mean": np.array([0.01, 0.0, -0.02, 0.1]), "deviation": np.array([0.1, 0.002, 0.2, 0.5]), "levels": np.array([-10.0, 10.0])}
        critic, priced = Engine(CRITIC, 2, variant, folder), parameters(CRITIC, 1).astype(np.float32)
        r, held = stage(engine, cartpole[0], horizon, rows, seed, True, **about)
        assert engine.reset(r) == (0, 0, 0)
        count, elapsed, total, cost = (np.zeros(rows, kind) for kind in (np.uint64, np.int64, np.float64, np.float64))
        state = started(count, seed)
        endings = np.zeros(2, int)
        for _ in range(2):
            assert engine.rollout(flat, r, critic, priced) == (0, 0, 0)
            for t in range(horizon):
                np.testing.assert_allclose(held["observation"][t], state, rtol=1e-9, atol=1e-12)
                inputs = np.clip((held["observation"][t] - about["mean"]) / about["deviation"], -10, 10).astype(np.float32)
                np.testing.assert_array_equal(held["inputs"][t], inputs)
                assert (np.abs(inputs) == 10).any()
                out = engine.forward(flat, inputs)
                np.testing.assert_array_equal(held["value"][t], out[:, 2])
                np.testing.assert_array_equal(held["cost_value"][t], critic.forward(priced, inputs)[:, 0])
                choice = held["choice"][t, :, 0]
                check_choice(
                    out[:, :2].astype(np.float64), choice, held["log_prob"][t], uniform(philox((0, np.arange(rows), count, 0), (seed, 1))[0])
                )
                state, reward, price, terminated = envs.load("cartpole").step(held["observation"][t], np.where(choice[:, None], 10.0, -10.0))
                count, elapsed, total, cost = count + np.uint64(1), elapsed + 1, total + reward, cost + price
                truncated = (elapsed == 29) & ~terminated
                over = terminated | truncated
                endings += terminated.sum(), truncated.sum()
                np.testing.assert_array_equal(held["terminated"][t], terminated)
                np.testing.assert_array_equal(held["truncated"][t], truncated)
                np.testing.assert_array_equal(held["reward"][t], reward)
                np.testing.assert_array_equal(held["cost"][t], price)
                np.testing.assert_array_equal(held["finished_return"][t], np.where(over, total, np.nan))
                np.testing.assert_array_equal(held["finished_cost"][t], np.where(over, cost, np.nan))
                np.testing.assert_array_equal(held["finished_length"][t], np.where(over, elapsed, 0))
                after = np.clip((state - about["mean"]) / about["deviation"], -10, 10).astype(np.float32)
                for name, value in (("final_value", engine.forward(flat, after)[:, 2]), ("final_cost_value", critic.forward(priced, after)[:, 0])):
                    np.testing.assert_allclose(held[name][t], np.where(terminated, 0, value), rtol=1e-5, atol=1e-6)
                if t + 1 < horizon:
                    inside = ~over
                    np.testing.assert_array_equal(held["final_value"][t][inside], held["value"][t + 1][inside])
                state[over] = started(count, seed)[over]
                elapsed[over], total[over], cost[over] = 0, 0, 0
            np.testing.assert_allclose(held["observed"], state, rtol=1e-9, atol=1e-12)
        assert (endings > 20).all()


def started(count: Array, seed: int) -> Array:
    """Start states of CartPole by the draws of pe_env.h, as if all began now."""
    columns = []
    for draw in range(4):
        a, b, *_ = philox((2**31 + draw, np.arange(len(count)), count, 0), (seed, 0))
        columns.append(((a >> np.uint64(5)).astype(np.float64) * 2**26 + (b >> np.uint64(6)).astype(np.float64)) / 2**53 * 0.1 - 0.05)
    return np.stack(columns, 1)


def check_choice(logits: Array, choice: Array, log_prob: Array, drawn: Array) -> None:
    """The inverse of the cumulated probabilities; where the number drawn lies on a border, either side."""
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    reached = np.exp(logs).cumsum(1)
    wanted = (drawn[:, None] >= reached[:, :-1]).sum(1)
    clear = np.abs(reached[:, :-1] - drawn[:, None]).min(1) > 1e-6
    np.testing.assert_array_equal(choice[clear], wanted[clear])
    np.testing.assert_allclose(log_prob, np.take_along_axis(logs, choice[:, None], 1)[:, 0], rtol=1e-5, atol=1e-6)


def echo(state: Array, action: Array, index: Array) -> tuple[Array, Array, Array]:
    """The state is the last action, which is also the reward of its first number; nothing ends."""
    state[:, : action.shape[2]] = action[:, 0]
    return action[:, :, 0], np.zeros(action.shape[:2]), np.zeros(action.shape[:2], np.bool_)


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("numbers", [1, 2, 3, 5])
def test_gaussian_numbers_are_box_and_mullers(numbers: int, squash: bool, folder: Path, runs: list[str]) -> None:
    environment, kept = in_python(numbers, numbers, numbers, echo)
    shape, rows, seed = shaped(environment, "gaussian", (1,) * numbers), 60, 11
    flat = parameters(shape).astype(np.float32)
    scale, offset = np.linspace(1, 3, numbers), np.linspace(-1, 1, numbers)
    for variant in runs:
        engine = Engine(shape, 2, variant, folder)
        r, held = stage(engine, environment, 3, rows, seed, scale=scale, offset=offset)
        r.squash = squash
        engine.reset(r)
        assert engine.rollout(flat, r) == (0, 0, 0)
        for t in range(3):
            mean, log_std = engine.forward(flat, held["inputs"][t])[:, :numbers].astype(np.float64), flat[-numbers:].astype(np.float64)
            noise = []
            for call in range((numbers + 3) // 4):
                words = philox((call, np.arange(rows), t, 0), (seed, 1))
                for radius, turn in (words[:2], words[2:]):
                    length, angle = np.sqrt(-2 * np.log(uniform(radius) + 2.0**-24)), 2 * np.pi * uniform(turn)
                    noise += [length * np.cos(angle), length * np.sin(angle)]
            drawn = np.stack(noise[:numbers], 1)
            np.testing.assert_allclose(held["number"][t], mean + np.exp(log_std) * drawn, rtol=1e-4, atol=3e-6)
            density = (-0.5 * drawn**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(1)
            np.testing.assert_allclose(held["log_prob"][t], density, rtol=1e-4, atol=1e-5)
            acted = held["number"][t].astype(np.float64)
            acted = offset + scale * (np.tanh(acted) if squash else acted)
            np.testing.assert_allclose(held["reward"][t], acted[:, 0], rtol=1e-12)
            if t < 2:
                np.testing.assert_allclose(held["observation"][t + 1], acted, rtol=1e-12)
    assert kept


def test_the_noise_is_normal(folder: Path) -> None:
    """Moments of 120,000 numbers of one seed, within four standard errors, and no two rows or steps alike."""
    environment, _ = in_python(2, 2, 2, echo)
    shape = shaped(environment, "gaussian", (1, 1))
    engine = Engine(shape, 2, "portable", folder)
    r, held = stage(engine, environment, 60, 1000)
    engine.reset(r)
    engine.rollout(np.zeros(shape.size, np.float32), r)
    x = held["number"].astype(np.float64)
    n = x.size
    for power, moment, error in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        assert abs((x**power).mean() - moment) < 4 * np.sqrt(error / n)
    assert abs((x[..., 0] * x[..., 1]).mean()) < 4 / np.sqrt(n / 2)
    assert abs((x[1:] * x[:-1]).mean()) < 4 / np.sqrt(n) and abs((x[:, 1:] * x[:, :-1]).mean()) < 4 / np.sqrt(n)
    assert len(np.unique(x[..., 0])) > 0.99 * x[..., 0].size


def test_several_choices_take_their_own_levels(folder: Path) -> None:
    environment, _ = in_python(2, 2, 2, echo)
    shape = shaped(environment, "categorical", (3, 2))
    engine = Engine(shape, 1, "portable", folder)
    r, held = stage(engine, environment, 30, 9, levels=np.array([1.0, 2.0, 3.0, 10.0, 20.0]))
    engine.reset(r)
    engine.rollout(parameters(shape).astype(np.float32), r)
    choice = held["choice"]
    acted = np.stack([np.array([1.0, 2.0, 3.0])[choice[..., 0]], np.array([10.0, 20.0])[choice[..., 1]]], -1)
    np.testing.assert_array_equal(held["observation"][1:], acted[:-1])
    assert len(np.unique(choice[..., 0])) == 3 and len(np.unique(choice[..., 1])) == 2


TOP = 15_563_334
"""A step at which environment 0 with seed 3 draws the largest number there is, 1 − 2^-24."""


def test_a_choice_without_probability_is_never_taken(folder: Path, runs: list[str]) -> None:
    """Nineteen equal choices, whose probabilities add up to 0.9999998 in float, and one of probability 0: the largest draw finds none of that."""
    assert uniform(philox((0, 0, TOP, 0), (3, 1))[0]) == 1 - 2**-24
    environment, _ = in_python(1, 1, 1, echo)
    shape = shaped(environment, "categorical", (20,))
    flat = np.zeros(shape.size, np.float32)
    actor = shape.networks[0]
    flat[sum(a * b + b for a, b in zip(actor, actor[1:])) - 1] = -100.0
    for variant in runs:
        engine = Engine(shape, 1, variant, folder)
        r, held = stage(engine, environment, 1, 1, levels=np.arange(20.0))
        held["step"][:] = TOP
        engine.reset(r)
        engine.rollout(flat, r)
        assert held["choice"][0, 0, 0] == 18


def dying(state: Array, action: Array, index: Array) -> tuple[Array, ...]:
    """Three agents; the state counts steps. Agent k of environment e dies at step e + 2k + 1, the last agent of the odd ones never."""
    state += 1
    age = state[:, :3] - index[:, None]
    terminated = age >= index[:, None] + 2 * np.arange(3) + 1
    terminated[index % 2 == 1, 2] = False
    alive = age - 1 < index[:, None] + 2 * np.arange(3) + 1
    alive[index % 2 == 1, 2] = True
    return np.where(alive, 1.0, 7.0), np.full_like(age, 3.0), terminated, alive  # what the dead are paid does not count


def test_agents_end_by_themselves_and_environments_when_all_have_or_the_clock_says(folder: Path) -> None:
    environment, _ = in_python(3, 1, 1, dying, agents=3, max_steps=12)
    shape = shaped(environment, "categorical", (2,))
    flat = parameters(shape).astype(np.float32)
    for threads in (1, 2):
        engine = Engine(shape, threads, "portable", folder)
        r, held = stage(engine, environment, 12, 4, levels=np.array([0.0, 1.0]))
        engine.reset(r)
        assert engine.rollout(flat, r) == (0, 0, 0)
        by = {
            name: held[name].reshape(12, 4, 3)
            for name in ("terminated", "truncated", "alive", "finished_length", "finished_return", "final_value", "reward")
        }
        for e, k in ((0, 0), (0, 1), (0, 2), (3, 0), (3, 1)):
            life = e + 2 * k + 1
            assert by["alive"][:life, e, k].all() and by["terminated"][life - 1, e, k] and by["finished_length"][life - 1, e, k] == life
            assert by["finished_return"][life - 1, e, k] == life and by["final_value"][life - 1, e, k] == 0
            assert (by["reward"][~by["alive"].view(bool)] == 0).all() and (by["reward"][by["alive"].view(bool)] == 1).all()
        assert not by["alive"][1:5, 0, 0].any() and by["alive"][5, 0].all()  # environment 0 begins anew after its last agent died at step 5
        assert by["terminated"][1:5, 0, 0].all() and not np.isfinite(by["finished_return"][1:5, 0, 0]).any()
        assert by["truncated"][11, 3].tolist() == [0, 0, 1] and by["finished_length"][11, 3].tolist() == [0, 0, 12]
        assert by["truncated"][:11].sum() == 0


def counting(state: Array, action: Array, index: Array) -> tuple[Array, ...]:
    """Two agents; the state counts steps from the environment's index, which stays beside it. The second acts in every other step."""
    state[:, 0] += 1
    zeros = np.zeros(action.shape[:2])
    alive = np.ones(zeros.shape, bool)
    alive[:, 1] = (state[:, 0] - index) % 2 == 1
    return zeros, zeros, zeros > 0, alive


@pytest.mark.parametrize("sizes", [(5,), (3, 2)])
def test_only_what_is_allowed_is_drawn_with_its_probability_among_that(sizes: tuple[int, ...], folder: Path, runs: list[str]) -> None:
    environment, kept = in_python(2, 1, len(sizes), counting, agents=2)
    table = np.array([[0, 1, 1, 1, 0], [1, 0, 1, 0, 1], [0, 0, 9, 0, 1]], np.uint8)  # any number that is not 0 says yes
    kept = kept, masking(environment, 5, lambda state: table[(state[:, 0].astype(int)[:, None] + np.arange(2)) % 3])
    shape = shaped(environment, "categorical", sizes)
    flat, horizon, rows, edges = parameters(shape).astype(np.float32), 60, 100, np.cumsum(sizes)[:-1]
    for variant in runs:
        engine = Engine(shape, 2, variant, folder)
        r, held = stage(engine, environment, horizon, rows, levels=np.arange(5.0))
        engine.reset(r)
        assert engine.rollout(flat, r) == (0, 0, 0)
        step = np.arange(rows)[None, :, None] + np.arange(horizon)[:, None, None] + np.arange(2)
        wanted = (table[step % 3] != 0).reshape(horizon, 2 * rows, 5)
        np.testing.assert_array_equal(held["allowed"], wanted)
        logits = engine.forward(flat, held["inputs"].reshape(-1, 1))[:, :5].reshape(horizon, 2 * rows, 5).astype(np.float64)
        log_prob, start = np.zeros((horizon, 2 * rows)), 0
        for g, (part, mask) in enumerate(zip(np.split(logits, edges, -1), np.split(wanted, edges, -1))):
            choice = held["choice"][..., g, None]
            assert np.take_along_axis(mask, choice, -1).all()
            odds = np.where(mask, np.exp(part), 0)
            odds /= odds.sum(-1, keepdims=True)
            log_prob += np.log(np.take_along_axis(odds, choice, -1))[..., 0]
            for k in range(sizes[g]):  # as often as its probability says, within four standard errors
                assert abs((choice[..., 0] == k).mean() - odds[..., k].mean()) < 4 * np.sqrt(0.25 / choice.size)
            start += sizes[g]
        np.testing.assert_allclose(held["log_prob"], log_prob, rtol=1e-5, atol=1e-6)
    assert kept


def test_a_forbidden_first_choice_is_not_taken_by_the_smallest_draw(folder: Path, runs: list[str]) -> None:
    """A draw of exactly 0 meets a first choice that is forbidden, whose exponential in float is not 0."""
    zero = 3_683_772
    assert uniform(philox((0, 0, zero, 0), (3, 1))[0]) == 0
    environment, _ = in_python(1, 1, 1, echo)
    kept = masking(environment, 3, lambda state: np.array([0, 0, 1], np.uint8))
    shape = shaped(environment, "categorical", (3,))
    for variant in runs:
        engine = Engine(shape, 1, variant, folder)
        r, held = stage(engine, environment, 1, 1, levels=np.arange(3.0))
        held["step"][:] = zero
        engine.reset(r)
        assert engine.rollout(np.zeros(shape.size, np.float32), r) == (0, 0, 0)
        assert held["choice"][0, 0, 0] == 2
    assert kept


def test_who_acts_without_a_choice_is_named_and_who_does_not_act_is_not(folder: Path) -> None:
    """Agent 1 of environments 60 and 80 has none at step 3, where it does not act, and at step 6, where it does; that of 70 at step 8."""
    environment, kept = in_python(2, 1, 1, counting, agents=2)

    def allowed(state: Array) -> Array:
        found, index = np.ones((len(state), 2, 3), np.uint8), state[:, 1]
        step = state[:, 0] - index
        found[(np.isin(index, (60, 80)) & np.isin(step, (3, 6))) | ((index == 70) & (step == 8)), 1] = 0
        return found

    kept = kept, masking(environment, 3, allowed)
    shape = shaped(environment, "categorical", (3,))
    for threads in (1, 3):
        engine = Engine(shape, threads, "portable", folder)
        r, held = stage(engine, environment, 10, 90, levels=np.arange(3.0))
        engine.reset(r)
        assert engine.rollout(parameters(shape).astype(np.float32), r) == (structs.NO_CHOICE, 6, 121)
        assert held["allowed"][3, 121].all(), "who has no choice is given all"
    assert kept


@pytest.mark.parametrize(("what", "name"), [(1, "observation"), (2, "reward"), (3, "cost"), (4, "first observation")])
def test_the_earliest_number_that_is_not_finite_is_named_for_any_threads(what: int, name: str, folder: Path) -> None:
    """Rows 57 and 130 fail at step 7, row 3 at step 9: the answer is row 57, whoever comes first."""
    fails = {57: 7, 130: 7, 3: 9}

    def step(state: Array, action: Array, index: Array) -> tuple[Array, Array, Array]:
        state[:, 1] += 1
        bad = np.array([fails.get(int(i)) == s - i - 1 for i, s in zip(index, state[:, 1])])
        reward, cost = np.zeros((len(index), 1)), np.zeros((len(index), 1))
        target = {1: state[:, :1], 2: reward, 3: cost}.get(what)
        if target is not None:
            target[bad] = np.inf if what == 2 else np.nan
        return reward, cost, bad[:, None] & (what == 4)

    environment, kept = in_python(2, 1, 1, step)
    if what == 4:
        environment, kept = broken_starts(environment), (kept, environment)
    shape = shaped(environment, "categorical", (2,))
    for threads in (1, 2, 3):
        engine = Engine(shape, threads, "portable", folder)
        r, _ = stage(engine, environment, 20, 150, levels=np.array([0.0, 1.0]))
        assert engine.reset(r) == (0, 0, 0)
        assert engine.rollout(parameters(shape).astype(np.float32), r) == (what, 7, 57), name
    assert kept


def broken_starts(environment: Any) -> Any:
    """The same environment, but a start after the first one gives NaN."""
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, *[ctypes.c_void_p] * 6)
    inner = kind(environment.reset_many)

    @kind
    def reset_many(n: int, first: int, key: int, step: int, mask: int, parameters: int, state: int, observation: int) -> None:
        inner(n, first, key, step, mask, parameters, state, observation)
        begun = np.ctypeslib.as_array((ctypes.c_uint64 * n).from_address(step)) > 0
        masked = np.ctypeslib.as_array((ctypes.c_uint8 * n).from_address(mask)) != 0
        np.ctypeslib.as_array((ctypes.c_double * n).from_address(observation))[begun & masked] = np.nan

    other = structs.Environment.from_buffer_copy(environment)
    other.reset_many, other.alive_too = ctypes.cast(reset_many, ctypes.c_void_p), (reset_many, inner)
    return other


def test_a_start_that_is_not_finite_is_named(folder: Path) -> None:
    environment, _ = in_python(1, 1, 1, echo)
    shape = shaped(environment, "categorical", (2,))
    engine = Engine(shape, 1, "portable", folder)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, *[ctypes.c_void_p] * 6)

    @kind
    def reset_many(n: int, first: int, key: int, step: int, mask: int, parameters: int, state: int, observation: int) -> None:
        seen = np.ctypeslib.as_array((ctypes.c_double * n).from_address(observation))
        seen[:] = [np.inf if first + i >= 90 else 0.0 for i in range(n)]

    environment.reset_many = ctypes.cast(reset_many, ctypes.c_void_p)
    r, _ = stage(engine, environment, 2, 100, levels=np.array([0.0, 1.0]))
    assert engine.reset(r) == (structs.FIRST_OBSERVATION, 0, 90)


def test_bits_do_not_depend_on_threads_and_a_training_goes_on_to_the_bit(cartpole: tuple[Any, Any], folder: Path, runs: list[str]) -> None:
    shape = CARTPOLE
    for variant in runs:
        flat, sizes = parameters(shape), {"horizon": 16, "environments": 101, "minibatch": 300}
        whole = [trained(Engine(shape, threads, variant, folder), cartpole[0], flat, 4, **sizes) for threads in (1, 2, 3)]
        half = trained(Engine(shape, 2, variant, folder), cartpole[0], flat, 2, **sizes)
        whole.append(trained(Engine(shape, 1, variant, folder), cartpole[0], flat, 2, {name: x.copy() for name, x in half.items()}, **sizes))
        for name, x in whole[0].items():
            assert all(x.tobytes() == other[name].tobytes() for other in whole[1:]), (variant, name)
        assert not np.array_equal(whole[0]["parameters"], flat.astype(np.float32))


def test_a_policy_is_trained_on_the_environment_in_c(tmp_path: Path, folder: Path) -> None:
    environment, _ = cartpole_in_c(tmp_path)
    shape = Shape(4, (32, 32), "tanh", "categorical", (2,))
    flat = parameters(shape)
    sizes = {"horizon": 32, "environments": 32, "minibatch": 256, "epochs": 10, "rate": 2e-3}
    first = trained(Engine(shape, 1, "portable", folder), environment, flat, 2, **sizes)
    last = trained(Engine(shape, 1, "portable", folder), environment, flat, 60, **sizes)
    assert first["elapsed"].mean() < 40
    assert last["terminated"].mean() < 0.004 and last["elapsed"].mean() > 150


def test_what_does_not_fit_is_refused_before_c_is_called(cartpole: tuple[Any, Any], folder: Path) -> None:
    engine, flat = Engine(CARTPOLE, 1, "portable", folder), np.zeros(CARTPOLE.size, np.float32)
    levels = {"levels": np.array([-10.0, 10.0])}
    for field, value, says in (
        ("version", 1, "built for version 1 of pe_env.h"),
        ("size", 40, "with 40 bytes"),
        ("agents", 0, "1 to 48 agents here, not 0"),
        ("agents", 49, "1 to 48 agents here, not 49"),
        ("n_observation", 5, "gives 5 numbers of observation, the networks take 4"),
        ("n_action", 65, "1 to 64 numbers here, not 65"),
        ("max_steps", 2**31, "up to 2147483647 steps"),
        ("step_many", 0, "lacks reset_many or step_many"),
    ):
        r, _ = stage(engine, cartpole[0], 2, 3, **levels)
        other = structs.Environment.from_buffer_copy(cartpole[0])
        setattr(other, field, value)
        r.env = ctypes.addressof(other)
        for call in (lambda: engine.reset(r), lambda: engine.rollout(flat, r)):
            with pytest.raises(Unsupported, match=says):
                call()
    for field, value, says in (
        ("horizon", 0, "horizon must be at least 1, not 0"),
        ("environments", -1, "environments must be at least 1, not -1"),
        ("environments", 10**12, "shorter horizon or fewer rows"),
        ("environments", 4, r"state is \(3, 4\) of float64, it needs \(4, 4\)"),
        ("env", None, "needs an environment"),
    ):
        r, _ = stage(engine, cartpole[0], 2, 3, **levels)
        setattr(r, field, value)
        with pytest.raises(InvalidInput, match=says):
            engine.rollout(flat, r)
    r, held = stage(engine, cartpole[0], 2, 3, **levels)
    fill(r, reward=held["reward"].astype(np.float32))
    with pytest.raises(InvalidInput, match=r"reward is .* of float32, it needs .* of float64"):
        engine.rollout(flat, r)
    fill(r, reward=held["reward"])
    critic, priced = Engine(CRITIC, 1, "portable", folder), np.zeros(CRITIC.size, np.float32)
    with pytest.raises(InvalidInput, match="needs cost_value"):
        engine.rollout(flat, r, critic, priced)
    with pytest.raises(InvalidInput, match="has the inputs, threads and type of the engine that it serves"):
        engine.rollout(flat, r, Engine(CRITIC, 2, "portable", folder), priced)
    with pytest.raises(InvalidInput, match="value is not contiguous"):
        fill(r, value=np.zeros((3, 2)).T)
    masked = structs.Environment.from_buffer_copy(cartpole[0])
    masked.allow_many, masked.n_choices = masked.step_many, 3  # never called: it is refused
    with pytest.raises(Unsupported, match="masks 3 choices, the categorical head has 2 outputs"):
        stage(engine, masked, 2, 3)
    with pytest.raises(Unsupported, match="masks 1 choices, the gaussian head has 1 outputs"):
        masked.n_choices = 1
        stage(Engine(Shape(4, (8,), "relu", "gaussian", (1,)), 1, "portable", folder), masked, 2, 3)
    with pytest.raises(Unsupported, match="takes 1 numbers of action, the head gives 3"):
        stage(Engine(Shape(4, (8,), "relu", "gaussian", (1, 1, 1)), 1, "portable", folder), cartpole[0], 2, 3)
