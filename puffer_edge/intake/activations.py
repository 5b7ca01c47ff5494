"""Activations by the names that other projects give them, and the nearest one where there is none."""

from __future__ import annotations

from puffer_edge.errors import Unsupported
from puffer_edge.intake.archives import short
from puffer_edge.layers import ACTIVATIONS

BY_CLASS = {
    "Tanh": "tanh",
    "ReLU": "relu",
    "ELU": "elu",
    "SiLU": "silu",
    "LeakyReLU": "leaky_relu",
    "GELU": "gelu",
    "Sigmoid": "sigmoid",
    "Identity": "none",
}
NEAREST = {
    "Mish": "SiLU",
    "Hardswish": "SiLU",
    "SELU": "ELU",
    "CELU": "ELU",
    "PReLU": "LeakyReLU",
    "RReLU": "LeakyReLU",
    "ReLU6": "ReLU",
    "Softplus": "ReLU",
    "Threshold": "ReLU",
    "Hardtanh": "Tanh",
    "Softsign": "Tanh",
    "Hardsigmoid": "Sigmoid",
    "LogSigmoid": "Sigmoid",
}
"""What behaves most alike; a policy has to be trained with it, not merely renamed."""


def from_class(name: str, place: str) -> str:
    """The activation of a torch module class.

    Args:
        name: dotted name ("torch.nn.modules.activation.Tanh").
        place: where it was found, for the message.

    Raises:
        Unsupported: it is not one of torch's, or has no counterpart.
    """
    package, _, last = name.rpartition(".")
    if package.startswith("torch.nn") and last in BY_CLASS:
        return BY_CLASS[last]
    nearest = f"the nearest is {NEAREST[last]}; " if last in NEAREST else ""
    raise Unsupported(f"{place} is {short(name or 'a function of the training script')}: {nearest}known are {', '.join(BY_CLASS)}")


def check(name: object, place: str) -> str:
    """An activation by our own name.

    Raises:
        Unsupported: there is none of that name.
    """
    if isinstance(name, str) and name in ACTIVATIONS:
        return name
    raise Unsupported(f"{place} is {short(name)}: one of {', '.join(ACTIVATIONS)}")
