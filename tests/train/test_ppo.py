"""PPO: the loss in closed form, equal bits for equal seeds, and a training that goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from puffer_edge import envs  # noqa: E402
from puffer_edge.contract import Contract  # noqa: E402
from puffer_edge.errors import BundleError, Diverged, InvalidInput  # noqa: E402
from puffer_edge.train.algorithms.ppo import PPO, STATISTICS, Batch, Weights, critic_loss, kl_factor, loss, rate_step  # noqa: E402
from puffer_edge.train.distributions import Categorical  # noqa: E402
from puffer_edge.train.loop import Learner  # noqa: E402
from puffer_edge.train.progress import Progress  # noqa: E402
from puffer_edge.train.settings import PPOSettings  # noqa: E402

SMALL = PPOSettings(steps=512, rows=4, horizon=16, epochs=2, minibatch=32, hidden=(8,), scale_reward=True)


class Fixed:
    """A network that answers with given logits and values."""

    def __init__(self, logits: Any, value: Any) -> None:
        self.logits, self._value = logits, value

    def __call__(self, inputs: Any) -> tuple[Categorical, Any]:
        return Categorical(self.logits), self._value


def test_the_loss_is_equation_9() -> None:
    """Ratios 2, ½, 1.1 and 1 with advantages +, −, +, −: clipped where clipping helps nobody, worked by hand."""
    old = torch.tensor([0.25, 0.8, 0.5, 0.5])
    new = torch.tensor([0.5, 0.4, 0.55, 0.5])
    logits = torch.stack([new, 1 - new], -1).log().requires_grad_()
    advantage, returns = torch.tensor([1.0, -1.0, 1.0, -1.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    value = torch.zeros(4, requires_grad=True)
    batch = Batch(torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64), old.log(), torch.zeros(4), advantage, returns).normalized()
    settings = PPOSettings(clip=0.2, value_weight=0.5)
    total, statistics = loss(Fixed(logits, value), batch, settings, Weights(0.01))  # type: ignore[arg-type]
    a = 1 / np.sqrt(4 / 3)  # the advantages' sample standard deviation is √(4/3)
    surrogate = np.mean([1.2 * a, -0.8 * a, 1.1 * a, -1.0 * a])
    entropy = np.mean([-(p * np.log(p) + (1 - p) * np.log(1 - p)) for p in new.numpy().astype(float)])
    kl = np.mean([r - 1 - np.log(r) for r in (2.0, 0.5, 1.1, 1.0)])
    found = dict(zip(STATISTICS, statistics.tolist()))
    assert found == pytest.approx({"policy_loss": -surrogate, "value_loss": 7.5, "entropy": entropy, "approx_kl": kl, "clip_fraction": 0.5}, rel=1e-5)
    assert total.item() == pytest.approx(-surrogate + 0.5 * 7.5 - 0.01 * entropy, rel=1e-5)
    with_kl, _ = loss(Fixed(logits, value), batch, settings, Weights(0.01, 3.0))  # type: ignore[arg-type]
    assert with_kl.item() - total.item() == pytest.approx(3.0 * kl, rel=1e-5)
    loss(Fixed(logits, value), batch, settings, Weights())[0].backward()  # type: ignore[arg-type, no-untyped-call]
    assert logits.grad is not None and value.grad is not None
    assert logits.grad[:2].abs().max() == 0, "clipped samples give no gradient"
    assert logits.grad[2:].abs().min() > 0
    np.testing.assert_allclose(value.grad, -0.25 * returns)


def test_the_dual_clip_bounds_what_a_bad_action_may_cost() -> None:
    """Ratio 4 at advantage −1: −4 without it, −3 with c = 3; advantages that are not negative are left alone."""
    old, new = torch.tensor([0.2, 0.2]), torch.tensor([0.8, 0.8])
    net = Fixed(torch.stack([new, 1 - new], -1).log(), torch.zeros(2))
    for advantage, plain, dual in ((-1.0, 4.0, 3.0), (1.0, -1.2, -1.2)):
        batch = Batch(
            torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64), old.log(), *torch.zeros(1, 2), torch.full((2,), advantage), torch.zeros(2)
        )
        for c, wanted in ((None, plain), (3.0, dual), (1e30, plain)):
            found = loss(net, batch, PPOSettings(dual_clip=c), Weights())[1][0]  # type: ignore[arg-type]
            assert found == pytest.approx(wanted, rel=1e-5)


def test_the_three_value_losses() -> None:
    """Errors 3, 0.1 and −1 of new values, old ones 0.5 before them; bound 0.2."""
    returns, value = torch.zeros(3), torch.tensor([3.0, 0.1, -1.0])
    old = value - torch.tensor([0.5, 0.05, -0.5])
    batch = Batch(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64), torch.zeros(3), old, torch.zeros(3), returns)
    for name, wanted in (("plain", [9, 0.01, 1]), ("clipped", [9, 0.01, 1]), ("clamped", [0.2, 0.01, 0.2])):
        assert critic_loss(value, batch, PPOSettings(value_loss=name)).item() == pytest.approx(np.mean(wanted), rel=1e-5)
    away = Batch(batch.inputs, batch.action, batch.log_prob, value + 0.5, batch.advantage, returns)
    clipped = critic_loss(value, away, PPOSettings(value_loss="clipped")).item()
    assert clipped == pytest.approx(np.mean([3.3**2, 0.4**2, 1.0]), rel=1e-5), "a value that has moved further than 0.2 counts as if it had not"


@pytest.mark.parametrize(
    "changes",
    [
        {"dual_clip": 1e30},
        {"entropy_weight": 0.0, "entropy_final": 0.0},
        {"target_kl": 1e9},
        {"kl_control": "penalty", "target_kl": 1e9, "kl_weight": 0.0},
    ],
    ids=str,
)
def test_what_is_set_to_do_nothing_changes_no_bit(changes: dict[str, Any]) -> None:
    assert weights(PPO("cartpole", SMALL).learn()) == weights(PPO("cartpole", replace(SMALL, **changes)).learn())


@pytest.mark.parametrize("parts", [2, 3, 32])
def test_a_gradient_in_parts_is_that_of_the_whole(parts: int) -> None:
    whole, added = (PPO("pendulum", replace(SMALL, accumulate=n, steps=128)).learn() for n in (1, parts))
    for a, b in zip(whole.net.parameters(), added.net.parameters()):
        np.testing.assert_allclose(b.detach(), a.detach(), rtol=2e-4, atol=2e-6)


def test_the_kl_steers_the_penalty_and_the_rate() -> None:
    assert [kl_factor(kl, 0.01) for kl in (0.02, 0.012, 0.006)] == [2.0, 1.0, 0.5]
    assert [rate_step(kl, 0.01) for kl in (0.03, 0.012, 0.004)] == pytest.approx([1 / 1.5, 1.0, 1.5])
    low, high = (PPO("cartpole", replace(SMALL, kl_control="penalty", target_kl=target)).learn() for target in (1e-6, 1e3))
    assert low.control["kl_weight"] > 1 and high.control["kl_weight"] == 0.5**8, "8 updates"
    slow, fast = (
        PPO("cartpole", replace(SMALL, kl_control="learning_rate", target_kl=target, schedule="constant")).learn() for target in (1e-9, 1e3)
    )
    assert slow.rate == 1e-5 and fast.rate == 1e-2, "kept between the bounds"


def test_bfloat16_learns_and_stays_finite() -> None:
    learner = PPO("cartpole", replace(SMALL, amp=True)).learn()
    assert all(p.dtype == torch.float32 and bool(torch.isfinite(p).all()) for p in learner.net.parameters())
    assert weights(learner) != weights(PPO("cartpole", SMALL).learn())


def test_noise_of_the_state_learns_resumes_and_is_not_deployed(tmp_path: Any) -> None:
    settings = replace(SMALL, exploration="state", log_std=-1.0)
    whole = PPO("pendulum", settings, seed=1).learn()
    half = PPO("pendulum", settings, seed=1).learn(SMALL.steps // 2)
    assert half.net.log_std.shape == (8, 1)
    half.save(tmp_path / "half.safetensors")
    assert weights(PPO.load(tmp_path / "half.safetensors").learn()) == weights(whole)
    assert len(whole.policy().layers) == 2, "the deployed head is the mean"
    with pytest.raises(InvalidInput, match="that of cartpole is discrete"):
        PPO("cartpole", settings)


def test_observations_need_not_be_whitened() -> None:
    policy = PPO("cartpole", replace(SMALL, normalize_observation=False)).learn().policy()
    assert (policy.normalizer.mean.tolist(), policy.normalizer.std.tolist()) == ([0.0] * 4, [1.0] * 4)


def weights(learner: Learner) -> bytes:
    return b"".join(p.detach().numpy().tobytes() for p in learner.net.parameters())


@pytest.mark.parametrize("name", envs.names())
def test_equal_seeds_give_equal_bits(name: str) -> None:
    first, second, other = (PPO(name, SMALL, seed=seed).learn() for seed in (3, 3, 4))
    assert weights(first) == weights(second) != weights(other)
    assert first.steps == SMALL.steps


@pytest.mark.slow
def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    script = (
        "import hashlib; from puffer_edge.train.algorithms.ppo import PPO; p = PPO('cartpole', seed=1).learn(2048).policy();"
        "print(hashlib.sha256(b''.join(layer.weight.tobytes() for layer in p.layers)).hexdigest())"
    )
    found = {
        subprocess.run([sys.executable, "-c", script], env={**os.environ, "OMP_NUM_THREADS": n}, capture_output=True, text=True, check=True).stdout
        for n in ("1", "2")
    }
    assert len(found) == 1


@pytest.mark.parametrize("name", envs.names())
def test_going_on_from_a_checkpoint_gives_the_bits_of_never_stopping(name: str, tmp_path: Any) -> None:
    whole = PPO(name, SMALL, seed=1).learn()
    PPO(name, SMALL, seed=1).learn(SMALL.steps // 2).save(tmp_path / "half.safetensors")
    resumed = PPO.load(tmp_path / "half.safetensors")
    assert resumed.steps == SMALL.steps // 2
    resumed.learn()
    assert weights(whole) == weights(resumed)
    np.testing.assert_array_equal(whole.moments.mean, resumed.moments.mean)
    assert list(whole.recent_returns) == list(resumed.recent_returns)


def test_a_checkpoint_that_cannot_be_read(tmp_path: Any) -> None:
    path = tmp_path / "c.safetensors"
    with pytest.raises(InvalidInput, match="no checkpoint"):
        PPO.load(path)
    PPO("cartpole", SMALL).save(path)
    with pytest.raises(BundleError, match="another contract"):
        PPO.load(path, replace(envs.load("cartpole"), contract=replace(envs.load("cartpole").contract, rate_hz=25.0)))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BundleError, match="damaged"):
        PPO.load(path)


@pytest.mark.parametrize("head", ["clip", "tanh", "discrete"])
def test_what_is_deployed_is_what_was_trained(head: str) -> None:
    """The numpy policy in float64 gives the network's own outputs, and its action is the head's."""
    environment = envs.load("cartpole" if head == "discrete" else "pendulum")
    contract: Contract = replace(environment.contract, head=head)
    learner = PPO(replace(environment, contract=contract), SMALL, seed=2).learn()
    observation = np.random.default_rng(0).normal(size=(100, contract.n_observations))
    policy = learner.policy()
    with torch.no_grad():
        outputs = learner.net.actor(learner.inputs(observation)).numpy()
    np.testing.assert_allclose(policy.outputs(observation), outputs, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(policy.act(observation), learner.predict(observation)[0])
    assert learner.predict(observation[0])[0].shape == (1,)
    assert learner.predict(observation, deterministic=False)[0].shape == (100, 1)
    for wrong, words in ((np.zeros(100), "has shape"), (np.zeros((2, 1)), "has shape"), (np.full_like(observation, np.nan), "is NaN or infinite")):
        with pytest.raises(InvalidInput, match=words):
            learner.predict(wrong)
    if head == "clip":
        np.testing.assert_allclose(policy.act(observation), np.clip(2.0 * outputs, -2, 2), atol=1e-4)
    if head == "tanh":
        np.testing.assert_allclose(policy.act(observation), 2.0 * np.tanh(outputs), atol=1e-4)


def test_a_sampled_action_is_within_its_range() -> None:
    action = PPO("pendulum", PPOSettings(steps=512)).predict(np.zeros((1000, 3)), deterministic=False)[0]
    assert np.abs(action).max() == 2.0


def test_the_callback_sees_every_update_and_can_stop() -> None:
    seen: list[Progress] = []

    def callback(progress: Progress) -> bool:
        seen.append(progress)
        return len(seen) < 3

    learner = PPO("cartpole", SMALL).learn(callback=callback)
    assert [p.steps for p in seen] == [64, 128, 192] and learner.steps == 192
    names = {
        "ep_rew_mean",
        "ep_len_mean",
        "approx_kl",
        "explained_variance",
        "clip_fraction",
        "entropy",
        "cost_rate",
        "intervention_rate",
        "learning_rate",
    }
    assert names <= set(seen[0].metrics) and seen[0].total == SMALL.steps
    assert seen[1].metrics["learning_rate"] == pytest.approx(SMALL.learning_rate * (1 - 64 / 512))


def test_a_large_kl_ends_the_epochs() -> None:
    changes: list[float] = []
    for target in (None, 1e-9):
        learner = PPO("cartpole", replace(SMALL, epochs=50, learning_rate=0.01, target_kl=target))
        before = np.concatenate([p.detach().numpy().ravel().copy() for p in learner.net.parameters()])
        learner.learn(1)
        changes.append(float(np.abs(np.concatenate([p.detach().numpy().ravel() for p in learner.net.parameters()]) - before).max()))
    assert changes[1] < changes[0] / 5


def test_a_training_that_diverges_says_so_and_keeps_the_last_good_policy() -> None:
    learner = PPO("pendulum", SMALL)
    learner.learn(64)
    good = learner.last_good
    with torch.no_grad():
        learner.net.critic[0].weight[0, 0] = torch.nan  # type: ignore[operator]
    with pytest.raises(Diverged, match=r"diverged at step 128: .*value_loss.*step 64 is kept.*lower learning_rate than 0.001"):
        learner.learn(64)
    assert learner.last_good is good


def test_a_reward_of_nan_is_the_environments_fault() -> None:
    pole = envs.load("cartpole")

    def step(state: Any, action: Any) -> Any:
        following, reward, cost, terminated = pole.step(state, action)
        return following, reward * np.nan, cost, terminated

    with pytest.raises(Diverged, match="cartpole gave the reward nan in row 0, step 0 of the horizon that began at step 0"):
        PPO(replace(pole, step=step), SMALL).learn()


def test_training_behind_a_shield_keeps_what_was_proposed_and_what_acted() -> None:
    stages = ({"stage": "limit", "low": {"force": -1.0}, "high": {"force": 1.0}},)
    learner = PPO("cartpole", replace(SMALL, engine="torch"), shield=stages)
    seen: list[float] = []
    learner.learn(64, callback=lambda p: seen.append(p.metrics["intervention_rate"]))
    rollout = learner._rollout
    assert seen == [1.0] and (np.abs(rollout.applied) == 1 << 16).all()
    np.testing.assert_array_equal(rollout.applied[..., 0] > 0, rollout.action == 1)
    assert PPO("cartpole", SMALL, shield=False).shield.stages == ()


def test_the_threads_of_torch_are_left_as_they_were() -> None:
    before = torch.get_num_threads()
    PPO("cartpole", SMALL).learn(64)
    assert torch.get_num_threads() == before
