"""Two separate multilayer perceptrons, an actor and a critic: the actor alone is deployed."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import nn

from puffer_edge.contract import Contract
from puffer_edge.policy import Layer
from puffer_edge.train.distributions import Categorical, Gaussian, StateDependent

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


class ActorCritic(nn.Module):
    """Actor, critic and, for continuous heads, a log standard deviation that does not depend on the state.

    Orthogonal start with gain √2 in the hidden layers, 0.01 in the actor's last one and 1 in the critic's
    (Andrychowicz et al., 2021): the first policy is nearly uniform, or centred.

    Args:
        contract: decides inputs, outputs and head.
        hidden: widths of the hidden layers.
        activation: "relu" or "tanh".
        log_std: start of the log standard deviation.
        generator: draws the weights.
        exploration: "independent" noise, or "state" for ``StateDependent``, whose deviation has a row for each feature.
    """

    def __init__(
        self,
        contract: Contract,
        hidden: tuple[int, ...],
        activation: str,
        log_std: float,
        generator: torch.Generator,
        exploration: str = "independent",
    ) -> None:
        super().__init__()
        self.activation = activation
        self.discrete = contract.head == "discrete"
        self.actor = _mlp((contract.n_observations, *hidden, contract.n_outputs), activation, 0.01, generator)
        self.critic = _mlp((contract.n_observations, *hidden, 1), activation, 1.0, generator)
        if not self.discrete:
            features = (hidden[-1],) if exploration == "state" else ()
            self.log_std = nn.Parameter(torch.full((*features, contract.n_actions), log_std))

    def distribution(self, inputs: torch.Tensor) -> Categorical | Gaussian | StateDependent:
        """The policy at (B, n_observations) normalised observations."""
        if self.discrete:
            return Categorical(self.actor(inputs))
        if self.log_std.dim() == 1:
            return Gaussian(self.actor(inputs), self.log_std)
        features = self.actor[:-1](inputs)
        return StateDependent(self.actor[-1](features), features.detach(), self.log_std)

    def value(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B,) values of (B, n_observations) normalised observations."""
        values: torch.Tensor = self.critic(inputs)[:, 0]
        return values

    def layers(self) -> tuple[Layer, ...]:
        """The actor, as the layers of a ``Policy``."""
        linear = [module for module in self.actor if isinstance(module, nn.Linear)]
        activations = [self.activation] * (len(linear) - 1) + ["none"]
        return tuple(
            Layer(m.weight.detach().numpy().astype(np.float64), m.bias.detach().numpy().astype(np.float64), a) for m, a in zip(linear, activations)
        )


def _mlp(widths: tuple[int, ...], activation: str, last_gain: float, generator: torch.Generator) -> nn.Sequential:
    modules: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        linear = nn.Linear(inputs, outputs)
        nn.init.orthogonal_(linear.weight, math.sqrt(2), generator=generator)
        nn.init.zeros_(linear.bias)
        modules += [linear, ACTIVATIONS[activation]()]
    nn.init.orthogonal_(linear.weight, last_gain, generator=generator)
    return nn.Sequential(*modules[:-1])
