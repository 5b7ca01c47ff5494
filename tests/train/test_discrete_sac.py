"""SAC for choices: its losses by hand and against a mean over the choices, bits of runs that stop and go on, and what it learns."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puffer_edge.errors import Unsupported
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.reference import InFloat
from puffer_edge.train import DiscreteSACSettings, checkpoint, preset, resume, train

torch = pytest.importorskip("torch")

from puffer_edge import envs  # noqa: E402
from puffer_edge.envs import closed_loop  # noqa: E402
from puffer_edge.integer.shield import Shield  # noqa: E402
from puffer_edge.train.algorithms.discrete_sac import DiscreteSAC, losses  # noqa: E402
from puffer_edge.train.algorithms.sac import SAC, STATISTICS, Batch  # noqa: E402
from puffer_edge.train.distributions import Categorical  # noqa: E402

SMALL = DiscreteSACSettings(steps=512, rows=2, horizon=32, warmup=64, minibatch=16, hidden=(8,), replay=4096, evaluations=2, evaluation_episodes=2)


class Known:
    """Networks that answer with given numbers."""

    def __init__(self, values: Any, target: Any, logits: Any) -> None:
        self.critic, self.target = (type("Q", (), {"outputs": staticmethod(lambda _, x=x: x)}) for x in (values, target))
        self.choices = lambda _: Categorical(logits)
        self.log_temperature = torch.tensor([math.log(0.5)], requires_grad=True)


def test_the_losses_are_the_papers() -> None:
    """One sample of three choices; worked by hand."""
    p = np.array([0.5, 0.3, 0.2])
    values = torch.tensor([[[1.0, 2.0, 3.0]], [[2.0, 1.0, 4.0]]])
    target = torch.tensor([[[4.0, 5.0, 6.0]], [[5.0, 3.0, 7.0]]])
    net: Any = Known(values, target, torch.log(torch.tensor(p[None], dtype=torch.float32)))
    batch = Batch(torch.zeros(1, 1), torch.tensor([[2.0]]), torch.tensor([0.1]), torch.tensor([0.9]), torch.zeros(1, 1))
    critic, actor, temperature, statistics = losses(net, batch, 0.7)
    y = 0.1 + 0.9 * (p @ (np.array([4.0, 3.0, 6.0]) - 0.5 * np.log(p)))
    entropy = -(p @ np.log(p))
    assert critic.item() == pytest.approx(0.5 * ((3 - y) ** 2 + (4 - y) ** 2), rel=1e-5)
    assert actor.item() == pytest.approx(p @ (0.5 * np.log(p) - np.array([1.0, 1.0, 3.0])), rel=1e-5)
    assert temperature.item() == pytest.approx(math.log(0.5) * (entropy - 0.7), rel=1e-5)
    assert dict(zip(STATISTICS, statistics.tolist()))["entropy"] == pytest.approx(entropy, rel=1e-5)


def test_a_policy_that_learns_from_known_values_becomes_their_softmax() -> None:
    """J_π at its least is π ∝ exp(Q/α)."""
    values, logits = torch.tensor([[[0.0, 1.0, -0.5]], [[0.3, 1.2, -0.2]]]), torch.zeros(1, 3, requires_grad=True)
    net: Any = Known(values, values, logits)
    batch = Batch(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1), torch.zeros(1), torch.zeros(1, 1))
    steps = torch.optim.Adam([logits], lr=0.05)
    for _ in range(500):
        (logits.grad,) = torch.autograd.grad(losses(net, batch, 0.5)[1], [logits])
        steps.step()
    assert torch.softmax(logits, -1).detach().numpy() == pytest.approx(torch.softmax(values[0] / 0.5, -1).numpy(), abs=1e-3)


def test_stopping_and_going_on_gives_the_bits_of_never_stopping(tmp_path: Path) -> None:
    whole = train("cartpole", "discrete-sac", seed=3, out=tmp_path / "whole", settings=SMALL)
    train("cartpole", "discrete-sac", seed=3, out=tmp_path / "cut", settings=SMALL, progress=lambda p: p.steps < 256)
    again = resume(tmp_path / "cut")
    assert again.result["resumed"][-1]["exact"] is True
    (_, mine), (_, theirs) = (checkpoint.read(run.checkpoints()[-1]) for run in (again, whole))
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(mine[name], value, err_msg=name)


def test_what_it_cannot_train_is_told() -> None:
    for name, message in (("pendulum", "train it with sac, or PPO"), ("multiagent", "2 agents"), ("masked", "masks choices"), ("spaces", "PPO")):
        with pytest.raises(Unsupported, match=message):
            DiscreteSAC(name, SMALL)
    with pytest.raises(Unsupported, match="no native form"):
        DiscreteSAC("cartpole", replace(SMALL, engine="native"))
    with pytest.raises(Unsupported, match="train it with discrete-sac"):
        SAC("cartpole")


@pytest.mark.slow
def test_it_learns_and_ships() -> None:
    learner = DiscreteSAC("cartpole", replace(preset("cartpole", "discrete-sac"), steps=16_000), seed=1)
    learner.learn()
    environment, policy = envs.load("cartpole"), learner.policy()
    guard = Shield.build(environment.contract, environment.shield)
    seen, starts = closed_loop.calibration(environment, policy, guard)
    for proposer in (InFloat(policy), quantize(policy, seen, starts)):
        assert closed_loop.play(environment, proposer, guard, 50, 9).returns.mean() > 100  # a policy that draws at random gets 20
