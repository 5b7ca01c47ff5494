"""TRPO: a step stays in its region and gains, bits of runs that stop and go on, and what it learns."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from puffer_edge import envs  # noqa: E402
from puffer_edge.errors import Diverged, InvalidInput, Unsupported  # noqa: E402
from puffer_edge.policy import Policy  # noqa: E402
from puffer_edge.train import PPOSettings, TRPOSettings, checkpoint, resume, train  # noqa: E402
from puffer_edge.train.algorithms.trpo import TRPO, Surroundings  # noqa: E402
from puffer_edge.train.loop import Learner  # noqa: E402

SMALL = TRPOSettings(steps=512, rows=4, horizon=16, epochs=2, minibatch=32, hidden=(8,), evaluations=4, evaluation_episodes=3)
TASKS = ("cartpole", "pendulum", "masked", "spaces", "multiagent")


def weights(learner: Learner) -> bytes:
    return b"".join(p.detach().numpy().tobytes() for p in learner.net.parameters())


def flat(parameters: Any) -> Any:
    return np.concatenate([p.detach().numpy().ravel() for p in parameters])


@pytest.mark.parametrize("name", TASKS)
def test_every_step_stays_within_its_region_and_gains(name: str) -> None:
    """Measured anew from the rollout, between copies of the network from before and after."""
    learner = TRPO(envs.load(name), replace(SMALL, horizon=64), seed=1)
    for _ in range(4):
        rollout = learner._collect()
        batch, _ = learner._batch(rollout)
        around, before = Surroundings(learner.net, batch.normalized()), copy.deepcopy(learner.net)
        assert around.kl(around.now()).item() == pytest.approx(0, abs=1e-7)
        assert around.gain(around.now(), around.batch.advantage).item() == pytest.approx(0, abs=1e-5), "ratios are 1, advantages have mean 0"
        found = learner.update(rollout)
        assert 0 < found["step_share"] <= 1 and 1e-4 < found["kl"] <= SMALL.target_kl
        old, new = (net.distribution(batch.inputs, batch.allowed) for net in (before, learner.net))
        assert old.kl(new).mean().item() == pytest.approx(found["kl"], rel=1e-4)
        if name == "pendulum":
            assert before.log_std.item() != learner.net.log_std.item(), "the deviation is the policy's too"
        assert around.gain(around.now(), around.batch.advantage).item() == pytest.approx(-found["policy_loss"], rel=1e-3) and found["policy_loss"] < 0


def test_the_region_is_as_wide_as_it_is_set() -> None:
    found = {}
    for target in (0.001, 0.05):
        learner, seen = TRPO("cartpole", replace(SMALL, target_kl=target, damping=1e-3)), []
        learner.learn(callback=lambda p, into=seen: into.append(p.metrics["kl"]))
        found[target] = np.median(seen)
        assert 0.4 * target < found[target] <= target


def test_a_step_that_nothing_speaks_for_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy keeps its bits, the critic learns on."""
    learner = TRPO("cartpole", SMALL)
    actor, critic = (flat(part.parameters()) for part in (learner.net.actor, learner.net.critic))
    gain = Surroundings.gain
    monkeypatch.setattr(Surroundings, "gain", lambda self, *a: gain(self, *a) if torch.is_grad_enabled() else torch.tensor(-1.0))
    seen: list[Any] = []
    learner.learn(64, callback=lambda p: seen.append(p.metrics))
    assert (seen[0]["kl"], seen[0]["step_share"]) == (0.0, 0.0)
    np.testing.assert_array_equal(flat(learner.net.actor.parameters()), actor)
    assert np.abs(flat(learner.net.critic.parameters()) - critic).max() > 1e-4


@pytest.mark.parametrize("name", ["cartpole", "pendulum"])
def test_equal_seeds_give_equal_bits(name: str) -> None:
    first, second, other = (TRPO(name, SMALL, seed=seed).learn() for seed in (3, 3, 4))
    assert weights(first) == weights(second) != weights(other)


@pytest.mark.parametrize("changes", [{}, {"exploration": "state", "log_std": -1.0}, {"scale_reward": True}], ids=str)
def test_stopping_and_going_on_gives_the_bits_of_never_stopping(changes: dict[str, Any], tmp_path: Path) -> None:
    settings = replace(SMALL, **changes)
    whole = train("pendulum", "trpo", seed=5, out=tmp_path / "whole", settings=settings)
    run = train("pendulum", "trpo", seed=5, out=tmp_path / "parts", settings=settings, progress=lambda p: p.steps < 256)
    assert run.result["status"] == "stopped"
    run = resume(run.path)
    assert run.result["resumed"] == [{"steps": 256, "exact": True, "because": []}]
    (about, mine), (_, theirs) = (checkpoint.read(one.checkpoints()[-1]) for one in (run, whole))
    assert about["algorithm"] == "trpo" and mine.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(mine[name], value, err_msg=name)
    assert run.result["evaluation"] == whole.result["evaluation"]
    assert len(Policy.load(run.path / "policy.safetensors").layers) == 2


@pytest.mark.parametrize("name", TASKS)
def test_a_learner_saves_and_loads(name: str, tmp_path: Path) -> None:
    whole = TRPO(envs.load(name), SMALL, seed=1).learn()
    TRPO(envs.load(name), SMALL, seed=1).learn(SMALL.steps // 2).save(tmp_path / "half.safetensors")
    assert weights(TRPO.load(tmp_path / "half.safetensors").learn()) == weights(whole)


def test_what_it_cannot_train_is_told() -> None:
    with pytest.raises(Unsupported, match="trpo has no native form"):
        TRPO("cartpole", replace(SMALL, engine="native"))
    assert TRPO("cartpole", SMALL).engine == "torch"
    with pytest.raises(Unsupported, match="TRPO trains the package's own networks: leave out network="):
        TRPO("cartpole", SMALL, network=lambda contract, settings: torch.nn.Linear(1, 1))
    with pytest.raises(InvalidInput, match="trpo is set by TRPOSettings, not by PPOSettings"):
        TRPO("cartpole", PPOSettings())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"target_kl": None}, "target_kl must lie in 1e-08 … 10, not None"),
        ({"target_kl": 0.0}, "target_kl must lie in"),
        ({"damping": -0.1}, "damping must lie in 0 … inf, not -0.1"),
        ({"solver_steps": 0}, "solver_steps must be a whole number of at least 1, not 0"),
        ({"search_steps": 1.5}, "search_steps must be"),
        ({"search_decay": 1.0}, "search_decay must lie in 0.01 … 0.99"),
        ({"rows": 1, "horizon": 1}, "at least 2 samples"),
        ({"clip": 0.2}, "TRPO has no setting clip"),
    ],
)
def test_settings_that_are_wrong_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        TRPOSettings.from_dict(values)


def test_numbers_that_run_away_end_the_training() -> None:
    learner = TRPO("pendulum", SMALL)
    learner.learn(64)
    good = learner.last_good
    with torch.no_grad():
        learner.net.critic[0].weight[0, 0] = torch.nan  # type: ignore[operator]
    with pytest.raises(Diverged, match=r"diverged at step 128: policy_loss, value_loss.*step 64 is kept"):
        learner.learn(64)
    assert learner.last_good is good


@pytest.mark.slow
def test_it_learns(tmp_path: Path) -> None:
    """CartPole in 100,000 steps; five seeds are in benchmarks/trust_region.py."""
    run = train("cartpole", "trpo", out=tmp_path, shield=False)
    assert run.result["steps"] <= 101_000 and run.result["evaluation"]["return"] >= 475
