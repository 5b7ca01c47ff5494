"""The networks of SAC on one flat buffer: an actor, which is deployed, and twin critics that are computed as one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.functional import linear

from puffer_edge.contract import Contract
from puffer_edge.policy import Layer
from puffer_edge.train.distributions import Categorical, Gaussian, StateDependent
from puffer_edge.train.integers import Integers
from puffer_edge.train.nets.encoder import ACTIVATIONS

LOG_STD = (-20.0, 2.0)
"""Bounds of the actor's log standard deviation (Haarnoja et al., 2018)."""


class Twin(nn.Module):
    """Two critics of one shape, Q(s, a): each layer is one batched matrix product over both.

    Args:
        widths: numbers of an observation and an action together, then those of the hidden layers.
        activation: "relu" or "tanh".
        outputs: 1, or a value for every choice, of critics that are given the observation alone.

    Attributes:
        flat: (2, size) all parameters: of each critic weight (outputs, inputs) and bias of each layer.
    """

    def __init__(self, widths: Sequence[int], activation: str, outputs: int = 1) -> None:
        super().__init__()
        self.widths, self.activation = (*widths, outputs), ACTIVATIONS[activation]()
        self.put(torch.zeros(2, sum(a * b + b for a, b in itertools.pairwise(self.widths))))

    def put(self, flat: torch.Tensor) -> None:
        """Take ``flat`` for all parameters, which become views on it."""
        self.flat, at = flat, 0
        weights, biases = [], []
        for inputs, outputs in itertools.pairwise(self.widths):
            weights.append(nn.Parameter(flat[:, at : at + inputs * outputs].view(2, outputs, inputs)))
            at += inputs * outputs
            biases.append(nn.Parameter(flat[:, at : at + outputs]))
            at += outputs
        self.weights, self.biases = nn.ParameterList(weights), nn.ParameterList(biases)

    def forward(self, inputs: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """(2, B) values of (B, n) normalised observations and (B, m) actions in −1 … 1."""
        return self.outputs(torch.cat([inputs, action], 1))[..., 0]

    def outputs(self, x: torch.Tensor) -> torch.Tensor:
        """(2, B, outputs) of what both are given."""
        y = x.expand(2, -1, -1)
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            y = torch.baddbmm(bias[:, None], y, weight.transpose(1, 2))
            y = self.activation(y) if k < len(self.widths) - 2 else y
        return y


class SoftActorCritic(nn.Module):
    """Actor, twin critics with their targets, and the logarithm of the temperature.

    Weights and biases start uniform in ±1/√inputs, as torch's linear layers do.

    All parameters but the targets' are views on one tensor: weight (outputs, inputs) and bias of each layer of the actor, then gSDE's log
    standard deviation if there is one, the two critics, and the logarithm of the temperature.

    Args:
        contract: decides inputs and outputs: of a head of choices the actor gives logits, and the critics a value for each.
        hidden: widths of the actor's hidden layers.
        critic_hidden: of each critic's, which stays at home and may be wider.
        activation: "relu" or "tanh".
        exploration: "independent": the actor gives a deviation for each state; "state": ``StateDependent``.
        log_std: start of the log standard deviation of "state".
        temperature: α at the start.
        generator: draws the weights.

    Attributes:
        flat: (size,) float32.
        target: the critics' targets.
        log_temperature: log α.
        integers: what computes the actor in integers, if it is there; it then takes observations as int32 in the contract's fixed point, the
            critics as ever. The deviation, which is not deployed, is a float function of the last features' integers.
    """

    integers: Integers | None = None

    def __init__(
        self,
        contract: Contract,
        hidden: tuple[int, ...],
        critic_hidden: tuple[int, ...],
        activation: str,
        exploration: str,
        log_std: float,
        temperature: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.activation, self.state_noise, self.chooses = activation, exploration == "state", contract.head == "discrete"
        n, m = contract.n_observations, contract.n_actions
        widths = (n, *hidden, contract.n_outputs if self.chooses else m if self.state_noise else 2 * m)
        modules: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            modules += [nn.Linear(inputs, outputs), ACTIVATIONS[activation]()]
        self.actor = nn.Sequential(*modules[:-1])
        judged = ((n, *critic_hidden), activation, contract.n_outputs) if self.chooses else ((n + m, *critic_hidden), activation, 1)
        self.critic, self.target = Twin(*judged), Twin(*judged)
        self.log_std = nn.Parameter(torch.full((hidden[-1], m), log_std)) if self.state_noise else None
        self.log_temperature = nn.Parameter(torch.tensor([math.log(temperature)]))
        self.flat = self._flatten()
        with torch.no_grad():
            for twice, weight, bias in self._affine():
                bound = 1 / math.sqrt(weight.shape[-1])
                for part in (p for one in range(2) for p in (weight[one], bias[one])) if twice else (weight, bias):
                    part.uniform_(-bound, bound, generator=generator)
            self.target.flat.copy_(self.critic.flat)
        self.target.requires_grad_(False)

    @property
    def _linear(self) -> list[nn.Linear]:
        """The actor's layers that have weights."""
        return [m for m in self.actor if isinstance(m, nn.Linear)]

    def _affine(self) -> list[tuple[bool, torch.Tensor, torch.Tensor]]:
        """Weights and biases of actor and critics; True where they are two."""
        actor = [(False, m.weight, m.bias) for m in self._linear]
        return actor + [(True, weight, bias) for weight, bias in zip(self.critic.weights, self.critic.biases)]

    def _flatten(self) -> torch.Tensor:
        """Move all parameters into one tensor, of which they become views."""
        sizes = [p.numel() for m in self._linear for p in (m.weight, m.bias)]
        spread = 0 if self.log_std is None else self.log_std.numel()
        flat, at = torch.zeros(sum(sizes) + spread + self.critic.flat.numel() + 1), 0
        for module in self._linear:
            for name in ("weight", "bias"):
                p = getattr(module, name)
                setattr(module, name, nn.Parameter(flat[at : at + p.numel()].view(p.shape)))
                at += p.numel()
        if self.log_std is not None:
            place = flat[at : at + spread].view(self.log_std.shape)
            place.copy_(self.log_std.detach())
            self.log_std, at = nn.Parameter(place), at + spread
        self.critic.put(flat[at:-1].view(2, -1))
        flat[-1:].copy_(self.log_temperature.detach())
        self.log_temperature = nn.Parameter(flat[-1:])
        return flat

    def distribution(self, inputs: torch.Tensor) -> Gaussian | StateDependent:
        """The policy before it is squashed, at (B, n) normalised observations."""
        if self.integers is not None:
            mean, features = self.integers.outputs(self._linear, self.flat, inputs)
            last, m = self._linear[-1], mean.shape[1]
            return Gaussian(mean, linear(features, last.weight[m:], last.bias[m:]).clamp(*LOG_STD))
        features = self.actor[:-1](inputs)
        out = self.actor[-1](features)
        if self.log_std is not None:
            return StateDependent(out, features.detach(), self.log_std)
        mean, log_std = out.chunk(2, 1)
        return Gaussian(mean, log_std.clamp(*LOG_STD))

    def choices(self, inputs: torch.Tensor) -> Categorical:
        """The policy of a head of choices, at (B, n) normalised observations."""
        return Categorical(self.actor(inputs) if self.integers is None else self.integers.outputs(self._linear, self.flat, inputs)[0])

    def layers(self) -> tuple[Layer, ...]:
        """What is deployed, as the layers of a ``Policy``: the actor, without the rows that give the deviation."""
        kept = [len(m.weight) for m in self._linear]
        kept[-1] = kept[-1] if self.state_noise or self.chooses else kept[-1] // 2
        activations = [self.activation] * (len(kept) - 1) + ["none"]
        return tuple(
            Layer(m.weight.detach().numpy()[:k].astype(np.float64), m.bias.detach().numpy()[:k].astype(np.float64), a)
            for m, k, a in zip(self._linear, kept, activations)
        )
