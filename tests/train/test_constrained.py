"""Limits on costs: what prices them, that nothing of it reaches a policy which pays nothing, and that all of it goes on to the same bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from puffer_edge import envs
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.gym import GymFactory, of_env
from puffer_edge.envs.native import available
from puffer_edge.errors import Diverged, InvalidInput
from puffer_edge.train import PPOSettings, resume, train
from puffer_edge.train.advantages import advantages
from puffer_edge.train.algorithms.pid_lagrangian import PIDLagrangian
from puffer_edge.train.algorithms.ppo import PPO
from puffer_edge.train.algorithms.ppo_lagrangian import PPOLagrangian
from puffer_edge.train.constraint import AdamMultiplier, PIDLagrangianSettings, PIDMultiplier, PPOLagrangianSettings
from puffer_edge.train.native import why_not
from puffer_edge.train.native.learner import Experience
from puffer_edge.train.trust_region_settings import CPOSettings, TRPOLagrangianSettings
from puffer_edge.train.verdict import rank, verdict
from tests.train.test_agents import MULTI, haunted

NATIVE = pytest.mark.skipif(bool(why_not()) or not available(), reason="there is no native engine here")
SMALL: dict[str, Any] = {"engine": "torch", "threads": 1, "steps": 2048, "rows": 8, "horizon": 32, "minibatch": 64, "epochs": 2}
ENGINES = pytest.mark.parametrize("engine", ["torch", pytest.param("native", marks=NATIVE)])


def lagrangian(environment: str = "cartpole", seed: int = 1, **changes: Any) -> PPOLagrangian:
    return PPOLagrangian(environment, PPOLagrangianSettings(**{**SMALL, "cost_limit": 5.0, **changes}), seed=seed)


def flat(learner: Any) -> bytes:
    return b"".join(p.detach().numpy().tobytes() for p in learner.net.parameters())


def test_adam_moves_the_multiplier_as_torchs_adam_does_its_parameter() -> None:
    ours, theirs = AdamMultiplier(0.5, 0.035), torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
    adam = torch.optim.Adam([theirs], lr=0.035)
    for excess in np.random.default_rng(0).normal(0.3, 5.0, 200):
        adam.zero_grad()
        (-theirs * excess).backward()
        adam.step()
        with torch.no_grad():
            theirs.clamp_(min=0)
        ours.update(float(excess))
        assert ours.value == pytest.approx(theirs.item(), abs=1e-12)
        assert ours.value >= 0


def test_a_penalty_adds_to_the_price_and_leaves_the_multiplier_alone() -> None:
    plain, augmented = AdamMultiplier(0.5, 0.035), AdamMultiplier(0.5, 0.035, 2.0)
    for excess in (1.0, 0.1, -0.1, -4.0):
        plain.update(excess)
        augmented.update(excess)
        assert augmented.value == max(0.0, plain.value + 2.0 * excess)
    again = AdamMultiplier(0.0, 0.035, 2.0)
    again.load(augmented.state())
    for each in (again, augmented):
        each.update(0.3)
    assert again.value == augmented.value > 0


def test_a_controller_sums_what_is_too_much_and_answers_a_rise() -> None:
    pid = PIDMultiplier(0.0, 0.1, 0.01, 0.5)
    found = []
    for excess in (10.0, 12.0, 4.0, -3.0, -200.0, 1.0):
        pid.update(excess)
        found.append(pid.value)
    # by hand: integral 0.1, 0.22, 0.26, 0.23, 0, 0.01; a rise of 2 at the second step, and of 201 at the last
    np.testing.assert_allclose(found, [1.1, 1.2 + 0.22 + 1.0, 0.4 + 0.26, 0.0, 0.0, 0.1 + 0.01 + 100.5])


def test_advantages_of_costs() -> None:
    cost, value = np.array([[1.0], [0.0], [2.0], [1.0]]), np.array([[0.5], [1.0], [0.0], [2.0]])
    final = np.array([[1.0], [9.0], [4.0], [3.0]])  # what followed: the second step terminated, the third was cut off at 4
    terminated, truncated = (np.array(x, bool)[:, None] for x in ([0, 1, 0, 0], [0, 0, 1, 0]))
    advantage, returns = advantages(cost, value, final, terminated, truncated, 0.9, 0.5)
    by_hand = [1 + 0.9 * 1.0 - 0.5 + 0.45 * -1.0, 0 - 1.0, 2 + 0.9 * 4.0 - 0.0, 1 + 0.9 * 3.0 - 2.0]
    np.testing.assert_allclose(advantage[:, 0], by_hand)
    np.testing.assert_allclose(returns[:, 0], np.array(by_hand) + value[:, 0])


@ENGINES
@pytest.mark.parametrize("name", ["cartpole", "rover"])
def test_a_multiplier_of_nought_is_ppo_to_the_bit(name: str, engine: str) -> None:
    small = SMALL | {"engine": engine}
    ppo = PPO(name, PPOSettings(**small), seed=3).learn()
    free = lagrangian(name, 3, multiplier=0.0, multiplier_rate=0.0, engine=engine).learn()
    assert flat(free) == flat(ppo)
    assert list(free.recent_returns) == list(ppo.recent_returns)
    assert list(free.recent_costs) == list(ppo.recent_costs)
    assert any(free.recent_costs), "a test without costs says nothing"
    assert flat(lagrangian(name, 3, multiplier=1.0, engine=engine).learn()) != flat(ppo)


@ENGINES
def test_the_multiplier_moves_before_the_policy(engine: str) -> None:
    """One update from λ = 0: what the policy learnt was priced already."""
    ppo = PPO("cartpole", PPOSettings(**(SMALL | {"engine": engine})), seed=3).learn(256)
    found = lagrangian("cartpole", 3, engine=engine, cost_limit=0.0, multiplier=0.0, multiplier_rate=1.0).learn(256)
    assert found.multiplier.value == pytest.approx(1.0, abs=1e-6)
    assert flat(found) != flat(ppo)


@ENGINES
@pytest.mark.parametrize("kind", [PPOLagrangian, PIDLagrangian])
def test_going_on_from_a_checkpoint_gives_the_bits_of_never_stopping(kind: Any, engine: str, tmp_path: Path) -> None:
    made = {PPOLagrangian: PPOLagrangianSettings, PIDLagrangian: PIDLagrangianSettings}[kind]
    settings = made(**(SMALL | {"engine": engine}), cost_limit=5.0)
    whole = kind("cartpole", settings, seed=1).learn()
    kind("cartpole", settings, seed=1).learn(SMALL["steps"] // 2).save(tmp_path / "half.safetensors")
    resumed = kind.load(tmp_path / "half.safetensors").learn()
    assert flat(whole) == flat(resumed)
    assert torch.equal(whole.cost_critic.flat, resumed.cost_critic.flat)
    np.testing.assert_array_equal(whole.multiplier.state(), resumed.multiplier.state())
    assert whole.cost_estimate == resumed.cost_estimate > 0


@NATIVE
def test_native_bits_do_not_depend_on_threads() -> None:
    one, three = (lagrangian(engine="native", threads=threads).learn() for threads in (1, 3))
    assert flat(one) == flat(three)
    assert torch.equal(one.cost_critic.flat, three.cost_critic.flat)


@NATIVE
def test_what_the_native_engine_says_of_costs_is_what_torch_says_of_the_same_rollout() -> None:
    for name in ("cartpole", "rover"):
        learner = lagrangian(name, engine="native")
        learner.learn(1024)
        rollout, critic = learner._collect(), learner.cost_critic
        assert isinstance(rollout, Experience)
        said = learner._judge(rollout)
        shape, n = rollout.cost.shape, rollout.observation.shape[-1]
        value = critic.values(learner.inputs(rollout.observation.reshape(-1, n))).reshape(shape)
        np.testing.assert_allclose(rollout.arrays["cost_value"], value, rtol=1e-4, atol=1e-5)
        about = rollout.cost, value, rollout.arrays["final_cost_value"].astype(float), rollout.terminated, rollout.truncated
        wanted = advantages(*about, 0.99, 0.95, alive=rollout.alive)
        np.testing.assert_allclose(said.advantage, wanted[0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(said.returns, wanted[1], rtol=1e-4, atol=1e-4)


@NATIVE
def test_the_native_critic_learns_as_torchs_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole update, the order of samples being the same: within what float can be, as PPO's own."""
    learner = lagrangian(engine="native", cost_minibatch=60)
    other, native = lagrangian(cost_minibatch=60), learner.native
    assert native is not None
    assert native.critic is not None
    x, y = np.random.default_rng(0).standard_normal((256, 4)).astype(np.float32), np.random.default_rng(1).normal(2, 1, 256).astype(np.float32)
    engine, seed = native.critic.engine, learner.cost_critic.shuffle_seed
    orders = iter([engine.order(256, seed, 0, epoch) for epoch in range(4)])
    monkeypatch.setattr(np.random, "default_rng", lambda *_: type("Orders", (), {"permutation": staticmethod(lambda _: next(orders))}))
    before = other.cost_critic.flat.clone()
    assert torch.equal(before, learner.cost_critic.flat)
    loss = other.cost_critic.learn(torch.from_numpy(x), y, 4, 60)
    assert native.critic.learn(x, np.zeros(256, np.float32), y, 4, 60, 1e-3, 0.5) == pytest.approx(loss, rel=1e-4)
    assert torch.linalg.norm(learner.cost_critic.flat - other.cost_critic.flat) < 2e-3 * torch.linalg.norm(other.cost_critic.flat)
    assert torch.linalg.norm(before - other.cost_critic.flat) > 0.01 * torch.linalg.norm(before)


def test_the_cost_critics_passes_follow_those_of_ppo() -> None:
    for kind in (PPOLagrangianSettings, PIDLagrangianSettings):
        for given, wanted in (({}, (5, 256)), ({"epochs": 4, "minibatch": 1024}, (2, 1024)), ({"epochs": 3, "cost_minibatch": 60}, (2, 60))):
            s = kind(cost_limit=1, **given)
            assert s.cost_passes(s.epochs, s.minibatch) == wanted
        assert kind.from_dict(kind(cost_limit=1, cost_epochs=7).to_dict()).cost_passes(4, 8) == (7, 8)
    for own in (TRPOLagrangianSettings(cost_limit=1, epochs=3), CPOSettings(cost_limit=1, epochs=3)):
        assert own.cost_passes(own.epochs, own.minibatch) == (5, 256)
    with pytest.raises(InvalidInput, match="cost_epochs must be a whole number of at least 1, or None to follow epochs, not 0"):
        PPOLagrangianSettings(cost_limit=1, cost_epochs=0)


@ENGINES
def test_what_a_cost_critic_follows_by_itself_is_what_can_be_said(engine: str) -> None:
    """Said or followed, the bits of the cost critic are the same, and those of other passes are not."""
    followed, said, other = (
        lagrangian(engine=engine, epochs=3, minibatch=64, **own) for own in ({}, {"cost_epochs": 2, "cost_minibatch": 64}, {"cost_epochs": 1})
    )
    for learner in (followed, said, other):
        learner.learn(1024)
    assert torch.equal(followed.cost_critic.flat, said.cost_critic.flat)
    assert not torch.equal(followed.cost_critic.flat, other.cost_critic.flat)


def test_a_limit_must_be_given_and_be_one() -> None:
    with pytest.raises(InvalidInput, match=r"needs a limit.*--cost-limit"):
        PPOLagrangian("cartpole", PPOLagrangianSettings())
    with pytest.raises(InvalidInput, match="at least 0 that an episode may cost, or None, not -1"):
        PPOLagrangianSettings(cost_limit=-1)
    with pytest.raises(InvalidInput, match="multiplier_rate must lie in"):
        PPOLagrangianSettings(cost_limit=1, multiplier_rate=-0.1)
    with pytest.raises(InvalidInput, match="cost_hidden must name at least one width"):
        PPOLagrangianSettings(cost_limit=1, cost_hidden=())


def test_a_policy_that_keeps_the_limit_is_better_than_any_that_does_not() -> None:
    met, better, costly, cheap = rank(10, 5, 5), rank(12, 4, 5), rank(99, 9, 5), rank(1, 6, 5)
    assert better > met > cheap > costly
    assert rank(99, 9, None) > rank(98, 0, None)


def test_the_verdict_names_what_is_wrong_in_words() -> None:
    def words(cost: float, chosen: float, sampled: float, seen: bool = True) -> str:
        found = verdict(5.0, "mine", {"cost": cost}, {"steps": 2000, "cost": chosen, "sampled": {"cost": sampled}}, seen)
        assert found["kept"] == (cost <= 5.0)
        return " ".join(found["words"])

    assert words(4.0, 4.5, 6.0) == ""
    assert "breaks the limit on fresh episodes: 5.5 an episode" in words(5.5, 4.5, 6.0)
    assert "the lowest cost found was 7 an episode, at step 2,000" in words(7.5, 7.0, 9.0)
    assert "sampled from, as it was trained, this policy costs 4 and keeps the limit" in words(7.5, 7.0, 4.0)
    assert "no step of the training had a cost" in words(0.0, 0.0, 0.0, False)


def test_a_run_says_what_its_policy_costs_and_goes_on_to_the_same(tmp_path: Path) -> None:
    settings = PPOLagrangianSettings(**SMALL, cost_limit=0.0, evaluations=4, evaluation_episodes=5)
    calls: list[int] = []
    whole = train("cartpole", "ppo-lagrangian", seed=1, out=tmp_path / "whole", settings=settings)
    train("cartpole", "ppo-lagrangian", seed=1, out=tmp_path / "part", settings=settings, progress=lambda p: calls.append(p.steps) or p.steps < 1200)
    part = resume(tmp_path / "part")
    about = whole.result["constraint"]
    assert about == part.result["constraint"]
    assert about["cost_limit"] == 0.0
    assert not about["kept"], "nothing in 2,000 steps lives without a cost"
    rows = [row for row in whole.metrics() if "eval_cost_mean" in row]
    assert about["chosen"]["cost"] == min(row["eval_cost_mean"] for row in rows) > 0
    assert f"the lowest cost found was {about['chosen']['cost']:.4g}" in about["words"][0]
    assert all(row["eval_sampled_cost_mean"] > 0 for row in rows)
    row = whole.metrics()[-2]
    assert row["cost_limit"] == 0.0
    assert row["lambda"] > 0.001
    assert row["ep_cost_mean"] > 0
    assert row["cost_value_loss"] > 0


def test_an_environment_of_gymnasium_must_say_its_costs() -> None:
    gymnasium = pytest.importorskip("gymnasium")

    class Priced(gymnasium.Wrapper):  # type: ignore[misc, name-defined]
        def step(self, action: Any) -> Any:
            observation, reward, over, cut, info = self.env.step(action)
            return observation, reward, over, cut, info | {"cost": float(abs(observation[0]) > 0.05)}

    settings = PPOLagrangianSettings(**{**SMALL, "steps": 512}, cost_limit=1.0)
    with pytest.raises(InvalidInput, match=r"gym:CartPole-v1 has no costs: its steps have no info\['cost'\]"):
        PPOLagrangian("gym:CartPole-v1", settings)
    factory = GymFactory("priced", lambda: Priced(gymnasium.make("CartPole-v1")))
    learner = PPOLagrangian(of_env(factory, factory(), 500), settings).learn()
    assert max(learner.recent_costs) > 0


@ENGINES
def test_what_dead_agents_cost_changes_no_bit(engine: str) -> None:
    settings = PPOLagrangianSettings(**(SMALL | {"engine": engine}), cost_limit=0.5, multiplier=1.0)
    found = [PPOLagrangian(environment, settings, seed=2).learn() for environment in (MULTI, haunted(MULTI))]
    assert flat(found[0]) == flat(found[1])
    assert torch.equal(*(learner.cost_critic.flat for learner in found))


@ENGINES
def test_a_cost_that_is_not_finite_ends_the_training(engine: str) -> None:
    cartpole = envs.load("cartpole")
    assert cartpole.dynamics is not None

    def step(draw: Any, state: Any, action: Any, parameters: Any) -> Any:
        return 1.0, np.nan, False

    broken = Environment.of_scalars(cartpole.contract, replace(cartpole.dynamics, step=step), max_steps=9, solved=1.0)
    with pytest.raises(Diverged, match=r"gave (a|the) cost (that is NaN|nan)"):
        PPOLagrangian(broken, PPOLagrangianSettings(**(SMALL | {"engine": engine}), cost_limit=1.0)).learn()
