"""What the native trainer is compared with: the same networks, loss and optimiser in torch, float64, from the flat buffer."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch

from puffer_edge.train.algorithms.ppo import Batch, Weights, critic_loss, loss
from puffer_edge.train.native.engine import Shape
from puffer_edge.train.settings import PPOSettings

Array = np.ndarray[Any, Any]
SHAPES = {
    "classic": Shape(4, (64, 64), "tanh", "categorical", (2,)),
    "one layer": Shape(3, (13,), "relu", "categorical", (5,)),
    "three layers": Shape(7, (33, 17, 9), "tanh", "categorical", (3, 4, 2)),
    "critic alone": Shape(5, (16, 24), "relu", "value", ()),
    "gaussian": Shape(6, (20, 31), "tanh", "gaussian", (1, 1, 1)),
    "small gaussian": Shape(2, (7, 5), "relu", "gaussian", (1,)),
    "shared": Shape(4, (48, 32), "relu", "categorical", (2, 3), True),
    "shared gaussian": Shape(3, (8, 8), "tanh", "gaussian", (1, 1), True),
}


def parameters(shape: Shape, seed: int = 0) -> Array:
    """Random ones of a sensible size, float64."""
    rng, parts = np.random.default_rng(seed), []
    for widths in shape.networks:
        for a, b in itertools.pairwise(widths):
            parts += [rng.standard_normal(a * b) / np.sqrt(a), rng.standard_normal(b) * 0.1]
    return np.concatenate([*parts, rng.normal(-0.5, 0.2, shape.spread)])


def outputs(shape: Shape, flat: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(rows, outputs and value)."""
    at, found = 0, []
    for widths in shape.networks:
        y = x
        for k, (a, b) in enumerate(itertools.pairwise(widths)):
            weight, at = flat[at : at + a * b].reshape(b, a), at + a * b
            bias, at = flat[at : at + b], at + b
            y = y @ weight.T + bias
            if k < len(widths) - 2:
                y = torch.tanh(y) if shape.activation == "tanh" else torch.relu(y)
        found.append(y)
    return torch.cat(found, 1)


class Net:
    """Networks on a flat buffer, with the face that ``loss`` asks for."""

    def __init__(self, shape: Shape, flat: torch.Tensor) -> None:
        self.shape, self.flat = shape, flat

    def __call__(self, x: torch.Tensor, allowed: torch.Tensor | None = None) -> tuple[Any, torch.Tensor]:
        out = outputs(self.shape, self.flat, x)
        first, value = out[:, : self.shape.outputs], out[:, self.shape.outputs]
        first = first if allowed is None else first.masked_fill(~allowed, -torch.inf)
        if self.shape.kind == "gaussian":
            from puffer_edge.train.distributions import Gaussian

            return Gaussian(first, self.flat[-self.shape.spread :]), value
        return Groups(first, self.shape.sizes), value


class Groups:
    """Several choices side by side, by torch's own distributions."""

    def __init__(self, logits: torch.Tensor, sizes: tuple[int, ...]) -> None:
        self.each = [torch.distributions.Categorical(logits=part) for part in logits.split(sizes, 1)]

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        return torch.stack([d.log_prob(a) for d, a in zip(self.each, action.unbind(-1))]).sum(0)

    def entropy(self) -> torch.Tensor:
        return torch.stack([d.entropy() for d in self.each]).sum(0)


def masks(shape: Shape, count: int, rng: np.random.Generator) -> Array:
    """(count, outputs) bool: every choice with probability 0.6, and one of each group in any case."""
    groups = [rng.random((count, size)) < 0.6 for size in shape.sizes]
    for group in groups:
        group[np.arange(count), rng.integers(0, group.shape[1], count)] = True
    return np.concatenate(groups, 1)


def samples(shape: Shape, count: int, seed: int = 1, masked: bool = False) -> dict[str, Array]:
    """A rollout's worth of random samples, float64; old probabilities near the new ones, some beyond every clip."""
    rng, flat = np.random.default_rng(seed), torch.from_numpy(parameters(shape))
    x = rng.standard_normal((count, shape.inputs))
    if shape.kind == "value":
        return {"inputs": x} | {name: rng.normal(0, 1, count) for name in ("value", "returns")}
    found = {"allowed": masks(shape, count, rng)} if masked else {}
    policy = Net(shape, flat)(torch.from_numpy(x), torch.from_numpy(found["allowed"]) if masked else None)[0]
    if shape.kind == "gaussian":
        action = policy.mean.numpy() + np.exp(policy.log_std.numpy()) * rng.standard_normal((count, len(shape.sizes)))
    elif masked:
        within = np.split(found["allowed"] * (1 + rng.random((count, shape.outputs))), np.cumsum(shape.sizes)[:-1], 1)
        action = np.stack([group.argmax(1) for group in within], 1)
    else:
        action = np.stack([rng.integers(0, size, count) for size in shape.sizes], 1)
    log_prob = policy.log_prob(torch.from_numpy(action)).numpy() + rng.normal(0, 0.4, count)
    found |= {"inputs": x, "action": action, "log_prob": log_prob}
    return found | {name: rng.normal(0, 1, count) for name in ("value", "advantage", "returns")}


def total(shape: Shape, flat: torch.Tensor, data: dict[str, Array], rows: Array, settings: PPOSettings, weights: Weights) -> Any:
    """The loss of some samples and its statistics."""
    part = {name: torch.from_numpy(x[rows]) for name, x in data.items()}
    if shape.kind == "value":
        none = torch.zeros(len(rows))
        batch = Batch(part["inputs"], none, none, part["value"], none, part["returns"])
        error, nil = critic_loss(outputs(shape, flat, part["inputs"])[:, 0], batch, settings), torch.zeros((), dtype=torch.float64)
        return settings.value_weight * error, torch.stack([nil, error.detach(), nil, nil, nil])
    batch = Batch(*(part[name] for name in ("inputs", "action", "log_prob", "value", "advantage", "returns")), part.get("allowed"))
    batch = batch.normalized() if settings.normalize_advantage else batch
    return loss(Net(shape, flat), batch, settings, weights)  # type: ignore[arg-type]
