"""Several agents and masks in a training: what the dead see and get changes no bit, and what is not allowed is neither drawn nor learnt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from puffer_edge import envs  # noqa: E402
from puffer_edge.envs.environment import Environment  # noqa: E402
from puffer_edge.envs.scalar import Row  # noqa: E402
from puffer_edge.errors import InvalidInput  # noqa: E402
from puffer_edge.train import PPOSettings, resume, train  # noqa: E402
from puffer_edge.train.algorithms.ppo import PPO  # noqa: E402
from puffer_edge.train.distributions import Categorical, Choices, forbid  # noqa: E402
from puffer_edge.train.native import why_not  # noqa: E402
from tests.envs.test_agents import RETURNING  # noqa: E402
from tests.train.test_resume import assert_same_end  # noqa: E402

MASKED, MULTI = envs.load("masked"), envs.load("multiagent")
SMALL = PPOSettings(steps=8192, rows=16, horizon=32, minibatch=128, epochs=3, hidden=(16,), entropy_weight=0.01)


@pytest.fixture(params=["native", "torch"])
def engine(request: pytest.FixtureRequest) -> str:
    """Both."""
    if request.param == "native" and why_not():
        pytest.skip(f"{why_not()} (toolchain)")
    return str(request.param)


def haunted(environment: Environment) -> Environment:
    """multiagent, whose dead agent sees noise, is paid and costs, and does not say that it is over."""
    dynamics = environment.dynamics
    assert dynamics is not None
    inner_observe, inner_step = dynamics.observe, dynamics.step

    def observe(state: Row, observation: Row) -> None:
        inner_observe(state, observation)
        if state[0] >= 4.0:
            observation[1, 0] = 0.37 - 0.1 * state[0]

    def step(draw: Row, state: Row, action: Row, parameters: Row, reward: Row, cost: Row, terminated: Row, alive: Row) -> None:
        inner_step(draw, state, action, parameters, reward, cost, terminated, alive)
        if alive[1] == 0:
            reward[1], cost[1], terminated[1] = -50.0 * state[0], 9.0, 0

    changed = replace(dynamics, observe=observe, step=step)
    return Environment.of_scalars(environment.contract, changed, max_steps=8, solved=1.0, name=environment.name)


@pytest.mark.parametrize("settings", [SMALL, replace(SMALL, scale_reward=True, epochs=1)], ids=["plain", "scaled"])
def test_what_the_dead_see_and_get_changes_no_bit(settings: PPOSettings, engine: str) -> None:
    found = []
    for environment in (MULTI, haunted(MULTI)):
        logs: list[dict[str, float]] = []
        learner = PPO(environment, replace(settings, engine=engine), seed=3).learn(callback=lambda p, logs=logs: logs.append(dict(p.metrics)))
        for row in logs:
            for name in [n for n in row if n in ("steps_per_second", "seconds") or n.startswith("time_")]:
                del row[name]
        found.append((learner.net.flat.numpy().tobytes(), learner.moments.mean.tolist(), learner.moments.m2.tolist(), logs))
    assert found[0] == found[1]


@pytest.mark.parametrize("environment", [MULTI, RETURNING], ids=lambda e: e.name)
def test_only_what_was_acted_is_learnt_from(environment: Environment, engine: str) -> None:
    """Moments count the steps that were acted, costs are their mean, and an agent's return ends where its part does."""
    learner = PPO(environment, replace(SMALL, engine=engine), seed=1)
    rollout: Any = learner._collect()
    part = {"multiagent": [8, 4], "trio": [9, 5, 1]}[environment.name]
    acted, steps = sum(part), max(part)
    share = acted / (steps * len(part))
    assert rollout.alive.mean() == pytest.approx(share, abs=0.05)
    learner._finish(rollout, {})
    assert learner.moments.count == rollout.alive.sum() < rollout.reward.size == learner.steps
    assert (rollout.reward[~rollout.alive] == 0).all() and rollout.terminated[~rollout.alive].all()
    metrics = learner._metrics(rollout, {}, 0.0)
    assert metrics["cost_rate"] == pytest.approx(rollout.cost[rollout.alive].mean())
    if environment is RETURNING:
        assert set(learner.recent_lengths) == {9, 3, 7, 1}, "agent 1 ends twice, at steps 3 and 7 of its environment"
        ends = rollout.alive & (rollout.terminated | rollout.truncated)
        assert len(learner.recent_returns) == min(ends.sum(), 100)


def test_several_agents_learn(engine: str) -> None:
    learner = PPO(MULTI, PPOSettings(engine=engine, steps=20_000, rows=16, horizon=64, entropy_weight=0.01)).learn()
    assert np.mean(learner.recent_returns) > 0.93


def test_a_mask_is_learnt_with_and_nothing_forbidden_is_drawn(engine: str) -> None:
    costs: list[float] = []
    learner = PPO(MASKED, PPOSettings(engine=engine, steps=20_000, rows=16, horizon=64, entropy_weight=0.01)).learn(
        callback=lambda p: costs.append(p.metrics["cost_rate"])
    )
    assert np.mean(learner.recent_returns) > 0.96
    learner.learn(82_000, callback=lambda p: costs.append(p.metrics["cost_rate"]))
    assert learner.steps > 100_000 and max(costs) == 0.0, "a forbidden choice costs 1"


def test_without_the_mask_it_is_a_guess(engine: str) -> None:
    assert MASKED.dynamics is not None
    blind = Environment.of_scalars(MASKED.contract, replace(MASKED.dynamics, allow=None), max_steps=8, solved=1.0)
    learner = PPO(blind, PPOSettings(engine=engine, steps=20_000, rows=16, horizon=64)).learn()
    assert np.mean(learner.recent_returns) < -0.7


@pytest.mark.parametrize("name", ["multiagent", "masked"])
def test_the_engines_agree_on_one_update(name: str) -> None:
    """Torch takes what the native engine collected: the loss of the first minibatch is the same, dead rows and masks among it."""
    if why_not():
        pytest.skip(f"{why_not()} (toolchain)")
    settings = replace(SMALL, epochs=1, minibatch=10_000, schedule="constant")
    fast, slow = (PPO(name, replace(settings, engine=kind), seed=2) for kind in ("native", "torch"))
    assert torch.equal(fast.net.flat, slow.net.flat)
    experience: Any = fast._collect()
    held = slow._rollout
    for field in ("observation", "reward", "cost", "terminated", "truncated", "alive"):
        getattr(held, field)[:] = getattr(experience, field)
    held.action[:] = experience.arrays["choice"][..., 0]
    if held.allowed is not None:
        held.allowed[:] = experience.arrays["allowed"] != 0
    held.final_observation[:-1] = held.observation[1:]
    held.final_observation[-1] = experience.arrays["observed"]
    mine, theirs = fast.update(experience), slow.update(held)
    for key in ("policy_loss", "value_loss", "entropy", "approx_kl", "explained_variance"):
        assert mine[key] == pytest.approx(theirs[key], rel=2e-4, abs=2e-6), key
    moved = (fast.net.flat - slow.net.flat).norm() / slow.net.flat.norm()
    assert moved < 1e-3


@pytest.mark.parametrize("name", ["multiagent", "masked"])
def test_a_stopped_training_goes_on_to_the_bit(name: str, engine: str, tmp_path: Path) -> None:
    settings = replace(SMALL, engine=engine, steps=2048, evaluations=2, evaluation_episodes=4, scale_reward=True)
    whole = train(name, seed=5, out=tmp_path / "whole", settings=settings)
    parts = train(name, seed=5, out=tmp_path / "parts", settings=settings, progress=lambda p: p.steps < 1024)
    assert parts.result["status"] == "stopped"
    assert_same_end(resume(tmp_path / "parts"), whole)
    masked = name == "masked"
    assert ("forbidden_share" in whole.result["evaluation"]) == ("evaluation_masked" in whole.result) == masked
    assert all(("eval_masked_rew_mean" in row) == masked for row in whole.metrics() if "eval_rew_mean" in row)
    if masked:
        found = whole.result["evaluation_masked"]
        assert found["forbidden_share"] == 0.0 and found["return"] > whole.result["evaluation"]["return"] + 0.5, "what ships guesses"


def test_forbidden_choices_have_no_probability_and_no_gradient() -> None:
    logits = torch.randn(200, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    allowed = torch.from_numpy(np.random.default_rng(0).random((200, 7)) < 0.5)
    allowed[:, 1] = allowed[:, 5] = True
    for policy in (Categorical(forbid(logits, allowed)), Choices(forbid(logits, allowed), (4, 3))):
        for seed in range(50):
            action = policy.sample(np.random.default_rng(seed)).reshape(200, -1) + torch.tensor([0, 4])[: 1 if isinstance(policy, Categorical) else 2]
            assert allowed.gather(1, action).all()
        taken = policy.sample(np.random.default_rng(0))
        value = policy.log_prob(taken).sum() + policy.entropy().sum()
        assert torch.isfinite(value) and (policy.entropy() >= 0).all()
        (gradient,) = torch.autograd.grad(value, logits, retain_graph=True)
        assert (gradient[~allowed] == 0).all() and (gradient[allowed] != 0).any()
    theirs = torch.distributions.Categorical(logits=logits.masked_fill(~allowed, -torch.inf))
    ours = Categorical(forbid(logits, allowed))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())


def test_predict_takes_a_mask() -> None:
    learner = PPO(MASKED, replace(SMALL, engine="torch"))
    seen, allowed = np.ones((3, 1)), np.zeros((3, 8), bool)
    allowed[np.arange(3), [2, 7, 4]] = True
    for deterministic in (True, False):
        found, _ = learner.predict(seen, deterministic=deterministic, allowed=allowed)
        assert found.tolist() == [[2.0], [7.0], [4.0]]
    assert learner.predict(seen[0], allowed=allowed[1])[0].tolist() == [7.0]
    np.testing.assert_array_equal(learner.predict(seen)[0], learner.policy().act(seen))
    with pytest.raises(InvalidInput, match=r"has shape \(3, 8\), not \(2, 8\)"):
        learner.predict(seen, allowed=allowed[:2])
    with pytest.raises(InvalidInput, match="at least one choice of each group"):
        learner.predict(seen, allowed=np.zeros((3, 8), bool))
    with pytest.raises(InvalidInput, match="head 'clip' of pendulum gives numbers"):
        PPO("pendulum", SMALL).predict(np.zeros((1, 3)), allowed=np.ones((1, 1), bool))


def test_a_training_in_which_nobody_acts_is_said() -> None:
    def nobody(state: Any, action: Any) -> Any:
        following, reward, cost, terminated, alive = MULTI.step(state, action)
        return following, reward, cost, terminated, np.zeros_like(alive)

    learner = PPO(replace(MULTI, step=nobody), replace(SMALL, engine="torch"))
    with pytest.raises(InvalidInput, match="its agents acted 0 times in 32 steps of 16 environments"):
        learner.learn()
