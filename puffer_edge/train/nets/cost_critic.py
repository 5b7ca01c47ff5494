"""A critic of costs: a network, an optimiser and generators of its own, so that a policy which prices costs at nothing is that of no constraint."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from puffer_edge.spaces import Floats
from puffer_edge.train.nets import encoder


class CostCritic:
    """V_c, which learns discounted costs by the mean squared error.

    Orthogonal start, as that of ``ActorCritic``'s critic. All parameters are views on one tensor, in the order that the native trainer takes.

    Args:
        widths: of inputs, hidden layers, and 1.
        activation: "relu" or "tanh".
        learning_rate: Adam's.
        max_grad_norm: L2 norm that a gradient is scaled down to.
        seeds: of the weights, and of the order of samples.

    Attributes:
        net: the network.
        flat: (size,) float32, its parameters.
        optimizer: Adam.
        shuffle_seed: of the order of samples: with ``updates`` it names each.
        updates: made so far.
    """

    def __init__(self, widths: tuple[int, ...], activation: str, learning_rate: float, max_grad_norm: float, seeds: tuple[int, int]) -> None:
        self.net = encoder.network(widths[0], widths[1:], activation, 1.0, torch.Generator().manual_seed(seeds[0]))
        self.flat = torch.cat([p.detach().reshape(-1) for p in self.net.parameters()])
        edges = [0, *itertools.accumulate(p.numel() for p in self.net.parameters())]
        for p, (a, b) in zip(self.net.parameters(), itertools.pairwise(edges)):
            p.data = self.flat[a:b].view(p.shape)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=learning_rate, eps=1e-5, fused=True)
        self.max_grad_norm, self.shuffle_seed, self.updates = max_grad_norm, seeds[1], 0

    def values(self, inputs: torch.Tensor) -> Floats:
        """(B,) float64 values of (B, n) normalised observations."""
        with torch.no_grad():
            found: Floats = self.net(inputs)[:, 0].double().numpy()
        return found

    def learn(self, inputs: torch.Tensor, returns: Floats, epochs: int, minibatch: int) -> float:
        """Epochs of gradient steps on B samples; the mean loss of the minibatches.

        Args:
            inputs: (B, n) normalised observations.
            returns: (B,) what to learn there.
            epochs: how many.
            minibatch: samples of a step.
        """
        target, rng, seen = torch.from_numpy(returns.astype(np.float32)), np.random.default_rng([self.shuffle_seed, self.updates]), []
        for _ in range(epochs):
            for rows in torch.split(torch.from_numpy(rng.permutation(len(inputs))), minibatch):
                self.optimizer.zero_grad()
                loss = (self.net(inputs[rows])[:, 0] - target[rows]).square().mean()
                loss.backward()
                nn.utils.clip_grad_norm_(self.net.parameters(), self.max_grad_norm)
                self.optimizer.step()
                seen.append(loss.detach())
        self.updates += 1
        return torch.stack(seen).double().mean().item()

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All that changes, by name; arrays of a checkpoint."""
        found = {"flat": self.flat.numpy(), "updates": np.array([self.updates])}
        for k, p in enumerate(self.net.parameters()):
            found |= {f"optimizer.{k}.{key}": np.atleast_1d(value.numpy()) for key, value in self.optimizer.state[p].items()}
        return found

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what ``arrays`` gave."""
        self.flat.copy_(torch.from_numpy(arrays["flat"]))
        self.updates = int(arrays["updates"][0])
        for k, p in enumerate(self.net.parameters()):
            start = f"optimizer.{k}."
            state = {key.removeprefix(start): torch.from_numpy(value) for key, value in arrays.items() if key.startswith(start)}
            if state:
                self.optimizer.state[p] = state | {"step": state["step"][0]}
