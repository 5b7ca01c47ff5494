"""A network of the user's own: trained on the torch engine, asked, saved, loaded, and deployed where it says what its layers are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from puffer_edge.contract import Contract  # noqa: E402
from puffer_edge.errors import BundleError, Unsupported  # noqa: E402
from puffer_edge.policy import Layer  # noqa: E402
from puffer_edge.train.algorithms.ppo import PPO  # noqa: E402
from puffer_edge.train.distributions import Categorical  # noqa: E402
from puffer_edge.train.settings import PPOSettings  # noqa: E402

SETTINGS = PPOSettings(steps=30_000, minibatch=512, learning_rate=3e-3)


class Residual(nn.Module):
    """A trunk with a skip connection and LayerNorm, which no ``Policy`` has."""

    def __init__(self, contract: Contract, settings: PPOSettings) -> None:
        super().__init__()
        self.first = nn.Linear(contract.n_observations, 32)
        self.second = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 32), nn.Tanh())
        self.heads = nn.Linear(32, contract.n_outputs + 1)

    def forward(self, inputs: Any) -> tuple[Categorical, Any]:
        x = self.first(inputs)
        out = self.heads(x + self.second(x))
        return Categorical(out[:, :-1]), out[:, -1]


class Narrow(nn.Module):
    """One that can be deployed."""

    def __init__(self, contract: Contract, settings: PPOSettings) -> None:
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(contract.n_observations, 16), nn.ReLU(), nn.Linear(16, contract.n_outputs))
        self.critic = nn.Linear(contract.n_observations, 1)

    def forward(self, inputs: Any) -> tuple[Categorical, Any]:
        return Categorical(self.actor(inputs)), self.critic(inputs)[:, 0]

    def layers(self) -> tuple[Layer, ...]:
        first, _, last = self.actor
        return tuple(Layer(m.weight.detach().double().numpy(), m.bias.detach().double().numpy(), a) for m, a in ((first, "relu"), (last, "none")))


def test_any_module_is_trained_and_asked() -> None:
    learner = PPO("cartpole", SETTINGS, network=Residual)
    assert learner.engine == "torch" and "a network of your own" in learner.engine_note
    before = learner.predict(np.zeros(4))[0]
    learner.learn()
    assert learner._metrics(learner._collect(), {}, 0.0)["ep_rew_mean"] > 80
    assert before.shape == learner.predict(np.zeros(4))[0].shape == (1,)
    assert not learner.deployable
    with pytest.raises(Unsupported, match=r"Residual cannot be deployed: give it layers\(\)"):
        learner.policy()
    with pytest.raises(Unsupported, match=r"a network of your own is torch's"):
        PPO("cartpole", PPOSettings(engine="native"), network=Residual)


def test_equal_seeds_make_equal_modules_and_leave_torchs_generator_alone() -> None:
    state = torch.get_rng_state()
    a, b, c = (PPO("cartpole", SETTINGS, seed=seed, network=Residual).net.state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a[key], b[key]) for key in a) and not all(torch.equal(a[key], c[key]) for key in a)


def test_what_says_its_layers_is_deployed() -> None:
    learner = PPO("cartpole", SETTINGS, network=Narrow).learn(2048)
    x = np.random.default_rng(0).uniform(-1, 1, (50, 4))
    with torch.inference_mode():
        logits = learner.net(learner.inputs(x))[0].logits.numpy()
    np.testing.assert_array_equal(learner.policy().act(x), learner.physical(logits.argmax(-1)))


def test_it_goes_on_to_the_bit_with_the_same_network_alone(tmp_path: Path) -> None:
    whole = PPO("cartpole", SETTINGS, network=Residual).learn(4096)
    half = PPO("cartpole", SETTINGS, network=Residual).learn(2048)
    half.save(tmp_path / "half")
    again = PPO.load(tmp_path / "half", network=Residual).learn(2048)
    assert all(torch.equal(p, q) for p, q in zip(whole.net.parameters(), again.net.parameters()))
    with pytest.raises(BundleError, match="give network=, which makes a Residual"):
        PPO.load(tmp_path / "half")
    PPO("cartpole", SETTINGS).save(tmp_path / "own")
    with pytest.raises(BundleError, match="leave out network="):
        PPO.load(tmp_path / "own", network=Residual)
    with pytest.raises(BundleError, match="lacks a part of a checkpoint, or has one of another shape"):
        PPO.load(tmp_path / "half", network=Narrow)
