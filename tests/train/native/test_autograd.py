"""The native networks under torch's autograd."""

from __future__ import annotations

import copy
import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from puffer_edge import envs  # noqa: E402
from puffer_edge.errors import InvalidInput, Unsupported  # noqa: E402
from puffer_edge.train.algorithms.ppo import PPO, Batch, Weights, loss  # noqa: E402
from puffer_edge.train.distributions import Categorical  # noqa: E402
from puffer_edge.train.native.autograd import outputs, segments  # noqa: E402
from puffer_edge.train.native.engine import Engine  # noqa: E402
from puffer_edge.train.native.learner import shape_of  # noqa: E402
from puffer_edge.train.nets.actor_critic import ActorCritic  # noqa: E402
from puffer_edge.train.settings import PPOSettings  # noqa: E402
from tests.train.native.reference import SHAPES, parameters  # noqa: E402


@pytest.mark.parametrize("name", SHAPES)
def test_gradients_are_finite_differences_in_double(name: str, double: Path) -> None:
    engine, rng = Engine(replace(SHAPES[name], hidden=(5, 3), activation="tanh"), 2, "portable", double), np.random.default_rng(0)
    flat = torch.from_numpy(parameters(engine.shape))
    x = torch.from_numpy(rng.standard_normal((7, engine.shape.inputs)))
    leaves, at = [], 0
    for shape in segments(engine):
        leaves.append(flat[at : at + math.prod(shape)].view(shape).requires_grad_())
        at += math.prod(shape)
    assert at == len(flat) == engine.shape.size
    out = outputs(engine, flat, leaves, x)
    pushed = torch.from_numpy(rng.standard_normal(tuple(out.shape)))
    out.backward(pushed)
    found = torch.cat([leaf.grad.reshape(-1) for leaf in leaves if leaf.grad is not None]).numpy()
    for k in range(len(flat)):
        ends = []
        for step in (1e-6, -1e-6):
            changed = flat.clone().numpy()
            changed[k] += step
            ends.append(float((engine.forward(changed, x.numpy()) * pushed.numpy()).sum()))
        assert found[k] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", ["cartpole", "pendulum"])
def test_a_loss_text_gives_the_modules_the_same_gradients(name: str, shared: bool, folder: Path, runs: list[str]) -> None:
    contract, settings = envs.load(name).contract, PPOSettings(hidden=(33, 20), activation="tanh", shared=shared)
    net = ActorCritic(contract, settings.hidden, settings.activation, -0.3, torch.Generator().manual_seed(1), shared=shared)
    rng = np.random.default_rng(2)
    x, target = (torch.from_numpy(rng.standard_normal(size).astype(np.float32)) for size in ((300, contract.n_observations), 300))

    def loss(out: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        if contract.head == "discrete":
            policy = Categorical(out).log_prob(torch.arange(300) % out.shape[1])
        else:
            policy = -(((out - 0.5) / net.log_std.exp()) ** 2).sum(-1) - net.log_std.sum()
        return (value - target).square().mean() - (policy * target).mean()

    loss(net.actor(x), net.critic(x)[:, 0]).backward()
    wanted = {key: p.grad.clone() for key, p in net.named_parameters() if p.grad is not None}
    for variant in runs:
        net.zero_grad()
        net.kernels = Engine(shape_of(contract, settings), 2, variant, folder)
        policy, value = net(x)
        with torch.inference_mode():
            assert torch.equal(net(x)[1], value)
        loss(policy.logits if isinstance(policy, Categorical) else policy.mean, value).backward()
        for key, p in net.named_parameters():
            assert p.grad is not None
            assert float((p.grad - wanted[key]).norm()) <= 1e-5 * float(wanted[key].norm()), (variant, key)


def test_what_autograd_cannot_have_is_refused(folder: Path) -> None:
    contract, settings = envs.load("cartpole").contract, PPOSettings(hidden=(8,))
    net = ActorCritic(contract, settings.hidden, settings.activation, 0.0, torch.Generator().manual_seed(1))
    engine, x = Engine(shape_of(contract, settings), 1, "portable", folder), torch.zeros(3, 4)
    net.kernels = engine
    own = sorted(net.parameters(), key=torch.Tensor.data_ptr)
    with pytest.raises(Unsupported, match="no gradient by their inputs"):
        net(x.requires_grad_())
    with pytest.raises(InvalidInput, match="in its order"):
        outputs(engine, net.flat, own[::-1], x.detach())
    with pytest.raises(InvalidInput, match=r"are 40 numbers, the networks have 107"):
        outputs(engine, net.flat, own[:2], x.detach())
    value = net(x.detach())[1]
    with torch.no_grad():
        own[0].add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.sum().backward()


def test_the_flat_buffer_is_what_the_modules_hold() -> None:
    net = PPO("pendulum", PPOSettings(hidden=(8,), engine="torch")).net
    net.flat.fill_(0.25)
    assert all(bool((p == 0.25).all()) for p in net.parameters())
    assert sum(p.numel() for p in net.parameters()) == net.flat.numel()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", ["cartpole", "pendulum"])
def test_ppos_loss_has_float64s_gradients(name: str, shared: bool) -> None:
    """The loss as it stands, in float32 by the kernels, against torch's modules in float64."""
    settings = PPOSettings(hidden=(32, 16), rows=16, horizon=32, shared=shared, engine="torch", kernels="native", entropy_weight=0.01)
    learner = PPO(name, settings, seed=3)
    assert learner.kernels != "torch"
    batch, _ = learner._batch(learner._collect_in_torch())
    loss(learner.net, batch.normalized(), settings, Weights(0.01))[0].backward()  # type: ignore[no-untyped-call]
    found = torch.cat([p.grad.reshape(-1) for p in learner.net.parameters() if p.grad is not None]).double()
    learner.net.kernels = None  # which holds threads and cannot be copied
    exact = copy.deepcopy(learner.net).double()
    exact.zero_grad()
    values = [getattr(batch, f.name) for f in fields(batch)]
    wide = Batch(*(x.double() if x is not None and x.is_floating_point() else x for x in values))
    loss(exact, wide.normalized(), settings, Weights(0.01))[0].backward()  # type: ignore[no-untyped-call]
    wanted = torch.cat([p.grad.reshape(-1) for p in exact.parameters() if p.grad is not None])
    assert len(found) == len(wanted) == learner.net.flat.numel()
    assert float((found - wanted).norm()) <= 1e-5 * float(wanted.norm())


def test_the_torch_engine_learns_with_the_kernels_and_goes_on_to_the_bit(tmp_path: Path) -> None:
    settings = PPOSettings(steps=40_000, hidden=(32,), engine="torch", kernels="native", minibatch=512, epochs=6, learning_rate=3e-3)
    whole, half = PPO("cartpole", settings, seed=1).learn(), PPO("cartpole", settings, seed=1).learn(20_000)
    assert np.mean(whole.recent_returns) > 100  # a random policy has 22
    half.save(tmp_path / "half")
    again = PPO.load(tmp_path / "half").learn()
    assert again.kernels == whole.kernels != "torch"
    assert bool((again.net.flat == whole.net.flat).all())


def test_kernels_that_cannot_serve_are_not_asked_for() -> None:
    assert PPO("cartpole", PPOSettings(hidden=(8,), engine="torch", kernels="torch")).kernels == "torch"
    assert PPO("pendulum", PPOSettings(hidden=(8,), exploration="state")).kernels == "torch"
    with pytest.raises(Unsupported, match=r"no native kernels for this training: amp needs torch's modules"):
        PPO("cartpole", PPOSettings(hidden=(8,), engine="torch", amp=True, kernels="native"))
    with pytest.raises(Unsupported, match=r"no native kernels for this training: it takes 1 to 3 hidden layers, not 4"):
        PPO("cartpole", PPOSettings(hidden=(8, 8, 8, 8), engine="torch", kernels="native"))
