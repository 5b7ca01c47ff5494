"""Layers from observations to features: convolutions where they are a picture, then dense ones; and torch's modules as those of a ``Policy``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn

from puffer_edge.errors import InvalidInput
from puffer_edge.policy import AnyLayer, Conv, Layer
from puffer_edge.spaces import Floats

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}
KERNEL, STRIDE, PADDING = 3, 2, 1
"""Of every convolution: height and width are halved, and rounded up."""


def modules(
    n: int, widths: Sequence[int], activation: str, generator: torch.Generator, image: Sequence[int] = (), filters: Sequence[int] = ()
) -> list[nn.Module]:
    """Layers, each with its activation after it; orthogonal start with gain √2.

    Args:
        n: numbers that are observed.
        widths: of the dense layers.
        activation: one of ``ACTIVATIONS``.
        generator: draws the weights.
        image: (channels, height, width) of a picture, or nothing.
        filters: of each convolution.

    Raises:
        InvalidInput: the picture has another size than what is observed.
    """
    found: list[nn.Module] = []
    if image:
        if math.prod(image) != n:
            raise InvalidInput(f"a picture of {'×'.join(map(str, image))} has {math.prod(image)} numbers, {n} are observed: set image to its shape")
        found.append(nn.Unflatten(-1, tuple(image)))
        for channels, count in itertools.pairwise((image[0], *filters)):
            found += [_drawn(nn.Conv2d(channels, count, KERNEL, STRIDE, PADDING), generator), ACTIVATIONS[activation]()]
        found.append(nn.Flatten())
        height, width = image[1:]
        for _ in filters:
            height, width = -(-height // STRIDE), -(-width // STRIDE)
        n = filters[-1] * height * width
    for inputs, outputs in itertools.pairwise((n, *widths)):
        found += [_drawn(nn.Linear(inputs, outputs), generator), ACTIVATIONS[activation]()]
    return found


def network(
    n: int,
    widths: Sequence[int],
    activation: str,
    last_gain: float,
    generator: torch.Generator,
    image: Sequence[int] = (),
    filters: Sequence[int] = (),
) -> nn.Sequential:
    """``modules`` without the last activation, and with another gain of the last layer's start."""
    *inner, last, _ = modules(n, widths, activation, generator, image, filters)
    assert isinstance(last, nn.Linear)
    nn.init.orthogonal_(last.weight, last_gain, generator=generator)
    return nn.Sequential(*inner, last)


def _drawn(layer: nn.Linear | nn.Conv2d, generator: torch.Generator) -> nn.Module:
    nn.init.orthogonal_(layer.weight, math.sqrt(2), generator=generator)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def weighted(network: Iterable[nn.Module]) -> list[nn.Linear | nn.Conv2d]:
    """Those of the modules that have weights."""
    return [module for module in network if isinstance(module, (nn.Linear, nn.Conv2d))]


def layers(network: Iterable[nn.Module], activation: str) -> tuple[AnyLayer, ...]:
    """Modules as layers of a ``Policy``.

    Args:
        network: as ``modules`` gives them, and what was put after them.
        activation: of those that have one after them.
    """
    placed, found = list(network), list[AnyLayer]()
    shape: tuple[int, int, int] = (0, 0, 0)
    for module, following in itertools.pairwise((*placed, None)):
        name = activation if isinstance(following, tuple(ACTIVATIONS.values())) else "none"
        if isinstance(module, nn.Unflatten):
            channels, height, width = module.unflattened_size
            shape = (int(channels), int(height), int(width))
        elif isinstance(module, nn.Conv2d):
            conv = Conv(numbers(module.weight), numbers(module.bias), name, shape, (STRIDE, STRIDE), (PADDING,) * 4)  # type: ignore[arg-type]
            found.append(conv)
            shape = conv.out_shape
        elif isinstance(module, nn.Linear):
            found.append(Layer(numbers(module.weight), numbers(module.bias), name))
    return tuple(found)


def numbers(parameter: torch.Tensor) -> Floats:
    """A parameter as a ``Policy`` has it."""
    return parameter.detach().numpy().astype(np.float64)
