"""Living environments in this process and in others: the same bits, clear words where one fails, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from puffer_edge import envs  # noqa: E402
from puffer_edge.envs.draw import Draws  # noqa: E402
from puffer_edge.envs.living import Face  # noqa: E402
from puffer_edge.envs.plant import Plant  # noqa: E402
from puffer_edge.envs.world import World  # noqa: E402
from puffer_edge.errors import InvalidInput, Unsupported, WorkerFailed  # noqa: E402
from puffer_edge.train import resume, train, vector  # noqa: E402
from puffer_edge.train.algorithms.ppo import PPO  # noqa: E402
from puffer_edge.train.settings import PPOSettings  # noqa: E402
from puffer_edge.train.vector.processes import Processes  # noqa: E402
from puffer_edge.train.vector.serial import Serial  # noqa: E402
from puffer_edge.train.vector.worker import DONE, START, STATUS  # noqa: E402
from tests.train.vector.counters import counting  # noqa: E402

SHARED = Path("/dev/shm")
FIELDS = ("observation", "final_observation", "reward", "cost", "terminated", "truncated", "alive", "applied")


def left_behind() -> set[str]:
    """Names of shared memory and semaphores."""
    return set(os.listdir(SHARED)) if SHARED.is_dir() else set()


def all_gone(before: set[str]) -> bool:
    """Whether nothing new is left soon; tests beside this one have memory of their own for a while."""
    until = time.monotonic() + 15
    while not left_behind() <= before and time.monotonic() < until:
        time.sleep(0.1)
    return left_behind() <= before


def driven(world: World | None, name: str, steps: int) -> list[Any]:
    """What a plant gives under equal actions."""
    environment = envs.load(name) if ":" in name else counting()
    plant, rng = Plant(environment, 10, 3, world=world), np.random.default_rng(0)
    low, high = (np.array([getattr(c, end) for c in environment.contract.actions]) for end in ("low", "high"))
    found: list[Any] = [plant.last.copy()]
    for _ in range(steps):
        step = plant.step(rng.choice([low, high], 10) if ":" in name else rng.uniform(low, high, (10, len(low))))
        found += [getattr(step, f) for f in FIELDS]
    return found


@pytest.mark.parametrize("name", ["counter", "gym:CartPole-v1"])
def test_serial_and_processes_give_equal_bits(name: str) -> None:
    environment = envs.load(name) if ":" in name else counting()
    serial = driven(Serial(environment, 10), name, 60)
    world = Processes(environment, 10, 3)
    try:
        assert [last - first for first, last in world.blocks] == [3, 4, 3]
        for a, b in zip(serial, driven(world, name, 60), strict=True):
            np.testing.assert_array_equal(a, b)
    finally:
        world.close()


@pytest.mark.parametrize("game", ["Nested", "Wandering", "Matches"])
def test_agents_and_masks_have_equal_bits_too(game: str) -> None:
    """With rows that die and return, wait for their turn, and are cut by a clock of their own or of the plant's."""
    pytest.importorskip("pettingzoo")
    environment = envs.load(f"tests.envs.games:{game}")
    face, rng = Face.of(environment.contract, environment.agents, environment.allowed is not None), np.random.default_rng(0)
    worlds = Serial(environment, 5), Processes(environment, 5, 2)
    try:
        ours, theirs = (Plant(environment, 5, 3, world=world) for world in worlds)
        for _ in range(60):
            allowed = worlds[0].allowed if worlds[0].allowed is not None else np.ones((5, environment.agents, face.n_outputs), bool)
            action = np.concatenate([face.random(rng, mask) for mask in allowed])
            a, b = ours.step(action), theirs.step(action)
            for name in (*FIELDS, *(["allowed"] if ours.allowed is not None else [])):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
        assert ours.episode.max() >= 10
        np.testing.assert_array_equal(ours.episode, theirs.episode)
        for name, held in worlds[0].rows.save().items():
            np.testing.assert_array_equal(held, getattr(worlds[1].rows, name), err_msg=name)
    finally:
        worlds[1].close()


@pytest.mark.parametrize(("number", "handed_over"), [(4, False), (10, True)])
def test_a_worker_begins_the_expected_episode_and_shows_it_when_it_is_asked_for(number: int, handed_over: bool) -> None:
    """Row 1 of 3 is in episode 1: 4 is expected next, and any other is started when it is asked for."""
    world, serial, said = Processes(counting(), 3, 2), Serial(counting(), 3), []
    try:
        for w in (world, serial):
            w.start(np.arange(3), 7, np.arange(3))
        while not serial.terminated[1, 0]:
            for w in (world, serial):
                w.step(np.ones((3, 1, 1)))
        np.testing.assert_array_equal(world.seen[1], serial.seen[1])  # what ended it is still seen
        tell = world._tell
        world._tell = lambda index, command: (said.append(command), tell(index, command))[1]  # type: ignore[method-assign, func-returns-value]
        for w in (world, serial):
            w.start(np.array([1]), 7, np.array([number]))
        np.testing.assert_array_equal(world.seen[1], serial.seen[1])
        assert world.rows.seed[1] == serial.rows.seed[1] and world.seen[1, 0, 0] == 0.0
        assert said == [START] * handed_over
    finally:
        world.close()


def test_gymnasiums_cartpole_in_processes_is_ours_step_by_step() -> None:
    """From the same states, where the environment is the same: the pure functions against living ones."""
    world, pure = Processes(envs.load("gym:CartPole-v1"), 4, 2), envs.load("cartpole")
    try:
        world.start(np.arange(4), 0, np.arange(4))
        rng = np.random.default_rng(1)
        for _ in range(200):
            before, action = world.seen[:, 0].copy(), rng.integers(0, 2, 4)
            world.step(action[:, None, None].astype(float))
            exact = pure.step(before, np.where(action, 10.0, -10.0)[:, None])
            np.testing.assert_allclose(world.seen[:, 0], exact[0], rtol=2e-6, atol=1e-6)  # Gymnasium's observations are float32
            np.testing.assert_array_equal(world.reward[:, 0], exact[1])
            ended = np.flatnonzero(world.terminated[:, 0])
            if len(ended):
                world.start(ended, 0, ended + 10)
    finally:
        world.close()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise", r"counter \(row [0-3], seed \d+, step 3\) raised ZeroDivisionError: the plant divided by nought[\s\S]*_fail"),
        ("die", r"worker [01] of counter died with exit code -9 \(row [0-3], seed \d+, step 3\)"),
        ("exit", r"raised SystemExit: 3"),
        ("hang", r"worker [01] of counter has not answered for 1 s \(row [0-3], seed \d+, step 3\)"),
        ("shape", r"raised ValueError: could not broadcast"),
        ("make", r"raised RuntimeError: no licence"),
    ],
)
def test_a_worker_that_fails_is_named_and_nothing_stays(fault: str, message: str) -> None:
    before = left_behind()
    with pytest.raises(WorkerFailed, match=message):
        world = Processes(counting(fault, 3), 4, 2, timeout_s=1.0)
        world.start(np.arange(4), 0, np.arange(4))
        for _ in range(3):
            world.step(np.zeros((4, 1, 1)))
    assert all_gone(before)
    if fault != "make":
        with pytest.raises(WorkerFailed, match="have been stopped"):
            world.step(np.zeros((4, 1, 1)))


def test_what_raises_in_this_process_is_named_too() -> None:
    world = Serial(counting("raise", 2), 3)
    world.start(np.arange(3), 0, np.arange(3))
    world.step(np.zeros((3, 1, 1)))
    with pytest.raises(WorkerFailed, match=r"counter \(row 0, seed \d+, step 2\) raised ZeroDivisionError: .* \(.*\.py:\d+\)"):
        world.step(np.zeros((3, 1, 1)))


def test_what_raises_in_an_evaluation_is_named_too() -> None:
    environment = counting("raise", 2)
    state = environment.reset(Draws.of_episodes(0, [0, 1]))
    state, *_ = environment.step(state, np.zeros((2, 1)))
    with pytest.raises(WorkerFailed, match=r"counter raised ZeroDivisionError: the plant divided by nought \(.*\.py:\d+\)"):
        environment.step(state, np.zeros((2, 1)))


@pytest.mark.parametrize("where", ["serial", "processes"])
def test_nan_ends_a_training_with_its_place(where: str) -> None:
    settings = PPOSettings(rows=4, horizon=16, minibatch=32, hidden=(8,), engine="torch", vector=where, workers=2)
    learner = PPO(counting("nan", 7), settings)
    with pytest.raises(InvalidInput, match=r"counter observed a NaN or an infinity: .* in row 0, episode \d+, step \d"):
        learner.learn(64)
    learner.close()


def test_a_training_gives_equal_weights_wherever_environments_live() -> None:
    settings = PPOSettings(steps=512, rows=6, horizon=16, minibatch=32, hidden=(8,), engine="torch", workers=2)
    weights = []
    for where in ("serial", "processes"):
        learner = PPO(counting(), replace(settings, vector=where)).learn()
        assert ("processes step" in learner.engine) == (where == "processes")
        weights.append(learner.net.flat.clone())
        learner.close()
        learner.close()
    assert bool((weights[0] == weights[1]).all())


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(Unsupported, match="made of functions"):
        Processes(envs.load("cartpole"), 4)
    with pytest.raises(InvalidInput, match="4 rows need 1 to 4 workers, not 5"):
        Processes(counting(), 4, 5)
    with pytest.raises(InvalidInput, match="define its class or function in a module"):
        Processes(replace(counting(), living=lambda: None), 4, 2)
    with pytest.raises(InvalidInput, match="workers must lie in 1 … 4"):
        PPOSettings(rows=4, workers=5)
    assert vector.make(envs.load("cartpole"), 4, vector.Spec()) == (None, "")


def test_auto_takes_processes_where_a_step_is_dear() -> None:
    (cheap, _), (dear, _) = (vector.make(counting(pause_s=pause), 4, vector.Spec(workers=2)) for pause in (0.0, 0.002))
    assert isinstance(cheap, Serial) and isinstance(dear, Processes)
    dear.close()


def test_auto_says_why_one_process_makes_all_steps() -> None:
    made = counting(pause_s=0.002)
    held = replace(made, living=lambda: made.living())  # type: ignore[misc]
    learner = PPO(held, PPOSettings(rows=4, horizon=8, minibatch=32, hidden=(8,), workers=2))
    assert learner.engine == "torch, one process steps"
    assert "not written as scalar functions" in learner.engine_note and "cannot be made in another" in learner.engine_note


def test_a_word_is_believed_with_its_own_semaphore_alone() -> None:
    """A processor may show one worker's word before its numbers: another worker's semaphore proves nothing about them."""
    world = Processes(counting(pause_s=0.1), 3, 2)
    try:
        world.start(np.arange(3), 0, np.arange(3))
        assert world.blocks == ((0, 2), (2, 3))
        for index, (first, last) in enumerate(world.blocks):
            world.send(index, np.zeros((last - first, 1, 1)))
        world._control[0, STATUS] = DONE  # too early: it still steps, and the other one will be first
        assert world.receive({0, 1}, 1) == {0, 1}
        assert world.seen[:, 0, 0].tolist() == [1.0, 1.0, 1.0]
    finally:
        world.close()


def test_random_kills_never_hang_nor_leak() -> None:
    """A short crash drill; benchmarks/vector.py makes 200 of them."""
    before, rng = left_behind(), np.random.default_rng(0)
    for _ in range(4):
        world = Processes(counting(pause_s=0.001), 6, 2, timeout_s=20.0)
        world.start(np.arange(6), 0, np.arange(6))
        victim, after = int(rng.integers(2)), int(rng.integers(1, 30))
        with pytest.raises(WorkerFailed, match=rf"worker {victim} of counter died with exit code -9"):
            for k in range(1000):
                if k == after:
                    os.kill(world._processes[victim].pid, signal.SIGKILL)
                world.step(np.zeros((6, 1, 1)))
    assert all_gone(before)


@pytest.mark.parametrize("hangs", [False, True])
def test_workers_end_when_their_parent_is_killed(hangs: bool) -> None:
    before = left_behind()
    script = (
        "import numpy as np, os, time\n"
        "from puffer_edge.train.vector.processes import Processes\n"
        "from tests.train.vector.counters import counting\n"
        "if __name__ == '__main__':\n"
        f"    hangs = {hangs}\n"
        "    w = Processes(counting('hang', 1), 4, 2)\n"
        "    w.start(np.arange(4), 0, np.arange(4))\n"
        "    for k in range(2 * hangs):\n"
        "        w.send(k, np.zeros((2, 1, 1)))\n"
        "    while not all(w.rows.steps[[0, 2]] == hangs):\n"
        "        time.sleep(0.01)\n"
        "    print(*[p.pid for p in w._processes], flush=True)\n"
        "    time.sleep(100)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    workers = [int(word) for word in child.stdout.readline().split()]
    assert len(workers) == 2
    child.kill()
    child.wait()
    child.stdout.close()
    until = time.monotonic() + 15
    while any(Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2] for pid in workers):
        assert time.monotonic() < until, "workers outlived their parent"
        time.sleep(0.1)
    assert all_gone(before), left_behind() - before


def asynchronous(**values: Any) -> PPOSettings:
    """Settings of a small asynchronous training."""
    about: dict[str, Any] = {"rows": 8, "horizon": 16, "minibatch": 64, "hidden": (8,), "engine": "torch", "workers": 4, "batch": 2}
    return PPOSettings(vector="asynchronous", **(about | values))


def test_asynchronous_rows_keep_their_own_order_and_say_their_lag() -> None:
    learner = PPO(counting(pause_s=0.0005), asynchronous())
    try:
        for update in range(3):
            rollout = learner._collect()
            count, seed = rollout.observation[..., 0], rollout.observation[..., 1]
            begun, before = count[1:] == 0, rollout.terminated[:-1] | rollout.truncated[:-1]
            np.testing.assert_array_equal(begun, before)  # each row's steps follow each other
            np.testing.assert_array_equal(count[1:][~begun], count[:-1][~begun] + 1)
            np.testing.assert_array_equal(seed[1:][~begun], seed[:-1][~begun])
            np.testing.assert_allclose(rollout.final_observation[..., 0], count + 1)
            pushed = learner.physical(rollout.action)[..., 0].clip(-1, 1)
            np.testing.assert_allclose(rollout.reward, pushed, atol=1e-3)  # what was sampled there acted there, in fixed point
            assert rollout.lag[0].tolist() == [min(update, 1)] * 8 and not rollout.lag[1:].any()
            learner._finish(rollout, learner.update(rollout))
        assert learner._metrics(rollout, {}, 0.0)["policy_lag_max"] == 1.0
    finally:
        learner.close()


def test_asynchronous_training_learns_and_goes_on(tmp_path: Path) -> None:
    settings = asynchronous(steps=6000, horizon=32, learning_rate=1e-2)
    learner = PPO(counting(), settings).learn(4000)
    learner.save(tmp_path / "half")
    learner.close()
    again = PPO.load(tmp_path / "half", counting()).learn()
    again.close()
    assert again.steps >= 6000 and np.mean(again.recent_returns) > 6.0  # a random policy has 0, the best 8


def test_asynchronous_asks_for_what_it_needs() -> None:
    with pytest.raises(InvalidInput, match="4 workers cannot be waited for 5 at a time"):
        PPO(counting(), asynchronous(batch=5))
    with pytest.raises(Unsupported, match="cartpole cannot be stepped asynchronously"):
        PPO("cartpole", asynchronous())
    with pytest.raises(InvalidInput, match="exploration 'state'"):
        asynchronous(exploration="state")
    learner = PPO(counting("die", 5), asynchronous())
    with pytest.raises(WorkerFailed, match="died with exit code -9"):
        learner.learn(1000)


def test_going_on_says_that_no_order_can_be_repeated(tmp_path: Path) -> None:
    train(counting(), steps=256, out=tmp_path / "run", settings=asynchronous(evaluations=1, evaluation_episodes=2))
    run = resume(tmp_path / "run", steps=384, environment=counting())
    assert not run.result["resumed"][-1]["exact"]
    assert any("take no order that could be repeated" in reason for reason in run.result["resumed"][-1]["because"])
