"""SAC: its losses in closed form, bits of runs that stop and go on, and what it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from puffer_edge import envs  # noqa: E402
from puffer_edge.envs import closed_loop  # noqa: E402
from puffer_edge.envs.sanity.double_integrator import OPTIMUM, optimum  # noqa: E402
from puffer_edge.errors import Diverged, InvalidInput, Unsupported  # noqa: E402
from puffer_edge.integer.reference import InFloat  # noqa: E402
from puffer_edge.integer.shield import Shield  # noqa: E402
from puffer_edge.policy import Policy  # noqa: E402
from puffer_edge.train import PPOSettings, SACSettings, checkpoint, preset, resume, train  # noqa: E402
from puffer_edge.train.algorithms.ppo import PPO  # noqa: E402
from puffer_edge.train.algorithms.sac import SAC, STATISTICS, Batch, losses, squash  # noqa: E402
from puffer_edge.train.distributions import Gaussian, StateDependent  # noqa: E402

SMALL = SACSettings(steps=192, rows=2, horizon=16, warmup=20, minibatch=16, replay=100, hidden=(8,), evaluations=3, evaluation_episodes=2)
ENGINES = ("native", "torch")


def test_the_density_of_a_squashed_action_is_exact_also_where_tanh_rounds_to_one() -> None:
    mean, log_std = torch.tensor([[0.3, -1.2], [9.0, -20.0]], dtype=torch.float64), torch.full((2, 2), -0.7, dtype=torch.float64)
    noise = torch.tensor([[0.5, -2.0], [1.0, -1.0]], dtype=torch.float64)
    action, log_prob = squash(Gaussian(mean, log_std), noise)
    torch.testing.assert_close(action, torch.tanh(mean + log_std.exp() * noise))
    u = mean + log_std.exp() * noise
    normal = torch.distributions.Normal(mean, log_std.exp()).log_prob(u)
    torch.testing.assert_close(log_prob[0], (normal - torch.log1p(-(action**2)))[0].sum())
    far = 2 * u.abs() - 2 * np.log(2)  # −log(1 − tanh²u) for |u| ≫ 1
    torch.testing.assert_close(log_prob[1], (normal + far)[1].sum(), rtol=1e-6, atol=1e-6)


class Known:
    """Networks that answer with given numbers."""

    def __init__(self, values: Any, target: Any, policy: Any) -> None:
        self.critic, self.target, self.distribution = (lambda *_: values), (lambda *_: target), (lambda _: policy)
        self.log_temperature = torch.tensor([np.log(0.5)], requires_grad=True)


def test_the_losses_are_the_papers() -> None:
    """Two samples, the second one terminated; worked by hand."""
    policy = Gaussian(torch.zeros(2, 1), torch.zeros(2, 1))
    noise = torch.zeros(2, 1)
    log_prob = -0.5 * np.log(2 * np.pi)  # of u = 0, where tanh has slope 1
    values, target = torch.tensor([[1.0, 2.0], [3.0, 1.0]]), torch.tensor([[4.0, 7.0], [5.0, 6.0]])
    batch = Batch(torch.zeros(2, 1), torch.zeros(2, 1), torch.tensor([0.1, 0.2]), torch.tensor([0.9, 0.0]), torch.zeros(2, 1))
    net: Any = Known(values, target, policy)
    critic, actor, temperature, statistics = losses(net, batch, noise, noise, -1.0)
    y = np.array([0.1 + 0.9 * (4.0 - 0.5 * log_prob), 0.2])
    assert critic.item() == pytest.approx(0.5 * np.mean([(1 - y[0]) ** 2 + (3 - y[0]) ** 2, (2 - y[1]) ** 2 + (1 - y[1]) ** 2]), rel=1e-5)
    assert actor.item() == pytest.approx(0.5 * log_prob - np.mean([1.0, 1.0]), rel=1e-5)
    assert temperature.item() == pytest.approx(np.log(0.5) * (-log_prob + 1.0), rel=1e-5)
    assert dict(zip(STATISTICS, statistics.tolist()))["entropy"] == pytest.approx(-log_prob, rel=1e-5)


def test_gsdes_deviation_learns_through_the_features_weights_alone() -> None:
    features, log_std = torch.ones(1, 3), torch.zeros(3, 1, requires_grad=True)
    action, log_prob = squash(StateDependent(torch.zeros(1, 1), features, log_std), torch.ones(1, 1))
    assert action.item() == pytest.approx(np.tanh(np.sqrt(3 + 1e-6)))
    (gradient,) = torch.autograd.grad(log_prob.sum(), log_std)
    assert (gradient != 0).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("exploration", ["independent", "state"])
def test_stopping_and_going_on_gives_the_bits_of_never_stopping(engine: str, exploration: str, tmp_path: Path) -> None:
    """The replay has gone round by then."""
    settings = replace(SMALL, engine=engine, exploration=exploration, n_step=2)
    whole = train("pendulum", "sac", seed=5, out=tmp_path / "whole", settings=settings)
    run = train("pendulum", "sac", seed=5, out=tmp_path / "parts", settings=settings, progress=lambda p: p.steps < 96)
    assert run.result["status"] == "stopped"
    run = resume(run.path)
    assert run.result["resumed"] == [{"steps": 96, "exact": True, "because": []}]
    (about, mine), (_, theirs) = (checkpoint.read(one.checkpoints()[-1]) for one in (run, whole))
    assert about["algorithm"] == "sac" and mine.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(mine[name], value, err_msg=name)
    assert run.result["evaluation"] == whole.result["evaluation"]
    assert Policy.load(run.path / "policy.safetensors").head.kind == "tanh"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_learner_saves_and_loads(engine: str, tmp_path: Path) -> None:
    first = SAC("pendulum", replace(SMALL, engine=engine))
    first.learn(64)
    first.save(tmp_path / "it.safetensors")
    second = SAC.load(tmp_path / "it.safetensors")
    observation = np.zeros((3, 3))
    np.testing.assert_array_equal(first.predict(observation)[0], second.predict(observation)[0])
    first.learn(64)
    second.learn(64)
    np.testing.assert_array_equal(first.predict(observation)[0], second.predict(observation)[0])
    assert first.predict(observation, deterministic=False)[0].shape == (3, 1)


def test_an_engine_does_what_the_other_does() -> None:
    """Each in its own random numbers: the same number of episodes and updates, and numbers of the same size."""
    found = {}
    for engine in ENGINES:
        seen: list[Any] = []
        SAC("pendulum", replace(SMALL, engine=engine, steps=512, minibatch=64, warmup=40), seed=1).learn(
            callback=lambda p, into=seen: into.append(p.metrics)
        )
        found[engine] = seen[-1]
        assert np.isnan(seen[0]["critic_loss"]) and not np.isnan(seen[1]["critic_loss"])  # nothing is learnt in the warm-up
    assert found["native"]["ep_len_mean"] == found["torch"]["ep_len_mean"] == 200
    for name in ("ep_rew_mean", "entropy", "temperature", "value"):
        assert 0.2 < found["native"][name] / found["torch"][name] < 5, name


def test_what_it_cannot_train_is_told() -> None:
    with pytest.raises(Unsupported, match="'discrete' of cartpole chooses: train it with discrete-sac, or PPO"):
        SAC("cartpole")
    with pytest.raises(InvalidInput, match=r"replay of 100,000,000 steps of 3 observations .* at most 512 are kept: lower replay to 21,"):
        SAC("pendulum", SACSettings(replay=100_000_000))
    with pytest.raises(InvalidInput, match="sac is set by SACSettings, not by PPOSettings"):
        SAC("pendulum", PPOSettings())
    with pytest.raises(Unsupported, match="together"):
        SAC("pendulum", SACSettings(vector="asynchronous"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replay": 100}, "a replay of 100 steps is smaller than a minibatch of 256"),
        ({"critic_hidden": ()}, "critic_hidden must name at least one width"),
        ({"warmup": -1}, "warmup must be a whole number of at least 0, not -1"),
        ({"target_rate": 2.0}, "target_rate must lie in 0 … 1"),
        ({"temperature": 0.0}, "temperature must lie in"),
        ({"target_entropy": float("nan")}, "target_entropy must be a finite number or None"),
        ({"n_step": 0}, "n_step must be"),
        ({"clip": 0.2}, "SAC has no setting clip"),
    ],
)
def test_settings_that_are_wrong_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        SACSettings.from_dict(values)


def test_numbers_that_run_away_end_the_training() -> None:
    learner = SAC("pendulum", replace(SMALL, engine="torch", steps=10_000))
    learner.learn(64)
    with torch.no_grad():
        learner.net.log_temperature.fill_(float("nan"))
    with pytest.raises(Diverged):
        learner.learn(64)


def test_the_double_integrators_optimum_is_riccatis() -> None:
    line = np.linspace(-1, 1, 2001)
    starts = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    assert optimum(starts) == pytest.approx(OPTIMUM, rel=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", [SAC, PPO])
def test_it_comes_to_the_optimum_of_a_linear_task(kind: Any, seed: int) -> None:
    environment = envs.load("double_integrator")
    learner = kind(environment, preset("double_integrator", kind.name), seed=seed).learn()
    found = closed_loop.play(learner.environment, InFloat(learner.policy()), Shield.none(learner.environment.contract), 400, 777)
    assert found.returns.mean() >= 1.03 * optimum(environment.start(777, np.arange(400)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("name", "wanted"), [("pendulum", -180.0), ("mountain_car_continuous", 90.0)])
def test_it_learns(name: str, wanted: float, seed: int, tmp_path: Path) -> None:
    run = train(name, "sac", seed=seed, out=tmp_path, shield=False)
    assert run.result["evaluation"]["return"] >= wanted
