"""Multilayer perceptrons, after convolutions where a picture is seen, on one flat buffer: an actor and a critic, of which the actor is deployed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from puffer_edge.contract import Contract
from puffer_edge.policy import AnyLayer
from puffer_edge.train.distributions import Distribution, distribution_of
from puffer_edge.train.integers import Integers
from puffer_edge.train.native import autograd
from puffer_edge.train.native.engine import Engine
from puffer_edge.train.nets import encoder


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
        image: (channels, height, width) of what is observed, where it is a picture.
        filters: of each convolution that it goes through first.

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
        image: Sequence[int] = (),
        filters: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.activation, self.contract, self.shared = activation, contract, shared
        n, outputs, picture = contract.n_observations, contract.n_outputs, (image, filters)
        self.actor = encoder.network(n, (*hidden, outputs), activation, 0.01, generator, *picture)
        self.critic = encoder.network(n, (*hidden, 1), activation, 1.0, generator, *picture)
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
        actor, critic = (encoder.weighted(network) for network in (self.actor, self.critic))
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
            return self._of(self.integers.outputs(encoder.weighted(self.actor), self.flat, inputs)[0], allowed)
        if self.kernels is not None:
            return self(inputs, allowed)[0]  # type: ignore[no-any-return]
        if hasattr(self, "log_std") and self.log_std.dim() == 2:
            features = self.actor[:-1](inputs)
            return distribution_of(self.contract, self.actor[-1](features), allowed, self.log_std, features)
        return self._of(self.actor(inputs), allowed)

    def forward(self, inputs: torch.Tensor, allowed: torch.Tensor | None = None) -> tuple[Distribution, torch.Tensor]:
        """The policy at (B, n_observations) normalised observations, and (B,) values: in one pass of the kernels where there are any.

        Args:
            inputs: (B, n_observations).
            allowed: (B, n_outputs) bool excludes choices; None excludes none.

        Raises:
            InvalidInput: choices are excluded from a head that gives numbers.
        """
        if self.kernels is None or self.integers is not None:
            return self.distribution(inputs, allowed), self.value(inputs)
        out = autograd.outputs(self.kernels, self.flat, self._inner, inputs)
        return self._of(out[:, :-1], allowed), out[:, -1]

    def _of(self, outputs: torch.Tensor, allowed: torch.Tensor | None) -> Distribution:
        """The policy whose parameters are these (B, n_outputs)."""
        return distribution_of(self.contract, outputs, allowed, getattr(self, "log_std", None))

    def value(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B,) values of (B, n_observations) normalised observations, or what the actor takes in integers."""
        if self.integers is not None:
            inputs = self.integers.whitened(inputs)
        values: torch.Tensor = self.critic(inputs)[:, 0]
        return values

    def layers(self) -> tuple[AnyLayer, ...]:
        """The actor, as the layers of a ``Policy``."""
        return encoder.layers(self.actor, self.activation)
