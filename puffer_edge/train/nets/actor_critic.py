"""Multilayer perceptrons on one flat buffer, an actor and a critic: the actor alone is deployed."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import nn

from puffer_edge.contract import Contract
from puffer_edge.errors import InvalidInput
from puffer_edge.policy import Layer
from puffer_edge.train.distributions import Categorical, Choices, Distribution, Gaussian, StateDependent, forbid
from puffer_edge.train.integers import Integers
from puffer_edge.train.native import autograd
from puffer_edge.train.native.engine import Engine

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


class ActorCritic(nn.Module):
    """Actor, critic and, for continuous heads, a log standard deviation that does not depend on the state.

    Orthogonal start with gain √2 in the hidden layers, 0.01 in the actor's last one and 1 in the critic's
    (Andrychowicz et al., 2021): the first policy is nearly uniform, or centred.

    All parameters are views on one tensor, in the order that the native trainer takes: weight (outputs, inputs) and bias of each layer of
    the actor, then of the critic, then the log standard deviation. With a shared trunk the two last layers are one, the value's row below
    the actor's.

    Args:
        contract: decides inputs, outputs and head.
        hidden: widths of the hidden layers.
        activation: "relu" or "tanh".
        log_std: start of the log standard deviation.
        generator: draws the weights.
        exploration: "independent" noise, or "state" for ``StateDependent``, whose deviation has a row for each feature.
        shared: the actor's hidden layers are the critic's too.

    Attributes:
        flat: (size,) float32, all parameters.
        kernels: what computes ``forward`` in the place of torch's modules, if it is there.
        integers: what computes the actor in integers, if it is there; observations then are int32 in the contract's fixed point.
    """

    kernels: Engine | None = None
    integers: Integers | None = None

    def __init__(
        self,
        contract: Contract,
        hidden: tuple[int, ...],
        activation: str,
        log_std: float,
        generator: torch.Generator,
        exploration: str = "independent",
        shared: bool = False,
    ) -> None:
        super().__init__()
        self.activation, self.head, self.shared = activation, contract.head, shared
        self.sizes = tuple(len(levels) for levels in contract.levels) if contract.head == "multi_discrete" else ()
        n, outputs = contract.n_observations, contract.n_outputs
        self.actor = _mlp((n, *hidden, outputs), activation, 0.01, generator)
        self.critic = _mlp((n, *hidden, 1), activation, 1.0, generator)
        if shared:
            self.critic = nn.Sequential(*list(self.actor)[:-1], self.critic[-1])
        if contract.head not in ("discrete", "multi_discrete"):
            features = (hidden[-1],) if exploration == "state" else ()
            self.log_std = nn.Parameter(torch.full((*features, contract.n_actions), log_std))
        self._inner: tuple[torch.Tensor, ...] = ()
        """All parameters but the log standard deviation, in the order of the flat buffer."""
        self.flat = self._flatten()

    def _flatten(self) -> torch.Tensor:
        """Move all parameters into one tensor, of which they become views."""
        actor, critic = (_linear(network) for network in (self.actor, self.critic))
        places: list[tuple[nn.Module, str]] = []
        if self.shared:
            places = [(layer, name) for layer in actor[:-1] for name in ("weight", "bias")]
            places += [(last, name) for name in ("weight", "bias") for last in (actor[-1], critic[-1])]
        else:
            places = [(layer, name) for layer in actor + critic for name in ("weight", "bias")]
        if hasattr(self, "log_std"):
            places.append((self, "log_std"))
        flat = torch.cat([getattr(module, name).detach().reshape(-1) for module, name in places])
        at = 0
        for module, name in places:
            old = getattr(module, name)
            setattr(module, name, nn.Parameter(flat[at : at + old.numel()].view(old.shape)))
            at += old.numel()
        self._inner = tuple(getattr(module, name) for module, name in places if module is not self)
        return flat

    def distribution(self, inputs: torch.Tensor, allowed: torch.Tensor | None = None) -> Distribution:
        """The policy alone; see ``forward``."""
        if self.integers is not None:
            return self._of(self.integers.outputs(_linear(self.actor), self.flat, inputs), allowed)
        if self.kernels is not None:
            return self(inputs, allowed)[0]  # type: ignore[no-any-return]
        if hasattr(self, "log_std") and self.log_std.dim() == 2:
            features = self.actor[:-1](inputs)
            return StateDependent(self.actor[-1](features), features.detach(), self.log_std)
        return self._of(self.actor(inputs), allowed)

    def forward(self, inputs: torch.Tensor, allowed: torch.Tensor | None = None) -> tuple[Distribution, torch.Tensor]:
        """The policy at (B, n_observations) normalised observations, and (B,) values: in one pass of the kernels where there are any.

        Args:
            inputs: (B, n_observations).
            allowed: (B, n_outputs) bool excludes choices; None excludes none.

        Raises:
            InvalidInput: choices are excluded from a head that gives numbers.
        """
        if self.integers is not None:
            return self.distribution(inputs, allowed), self.value(self.integers.whitened(self.flat, inputs))
        if self.kernels is None:
            return self.distribution(inputs, allowed), self.value(inputs)
        out = autograd.outputs(self.kernels, self.flat, self._inner, inputs)
        return self._of(out[:, :-1], allowed), out[:, -1]

    def _of(self, outputs: torch.Tensor, allowed: torch.Tensor | None) -> Distribution:
        """The policy whose parameters are these (B, n_outputs)."""
        if self.head in ("discrete", "multi_discrete"):
            logits = outputs if allowed is None else forbid(outputs, allowed)
            return Categorical(logits) if self.head == "discrete" else Choices(logits, self.sizes)
        if allowed is not None:
            raise InvalidInput(f"a mask excludes choices, and the head {self.head!r} gives numbers")
        return Gaussian(outputs, self.log_std)

    def value(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B,) values of (B, n_observations) normalised observations."""
        values: torch.Tensor = self.critic(inputs)[:, 0]
        return values

    def layers(self) -> tuple[Layer, ...]:
        """The actor, as the layers of a ``Policy``."""
        linear = _linear(self.actor)
        activations = [self.activation] * (len(linear) - 1) + ["none"]
        return tuple(
            Layer(m.weight.detach().numpy().astype(np.float64), m.bias.detach().numpy().astype(np.float64), a) for m, a in zip(linear, activations)
        )


def _linear(network: nn.Sequential) -> list[nn.Linear]:
    return [module for module in network if isinstance(module, nn.Linear)]


def _mlp(widths: tuple[int, ...], activation: str, last_gain: float, generator: torch.Generator) -> nn.Sequential:
    modules: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        linear = nn.Linear(inputs, outputs)
        nn.init.orthogonal_(linear.weight, math.sqrt(2), generator=generator)
        nn.init.zeros_(linear.bias)
        modules += [linear, ACTIVATIONS[activation]()]
    nn.init.orthogonal_(linear.weight, last_gain, generator=generator)
    return nn.Sequential(*modules[:-1])
