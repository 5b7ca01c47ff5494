"""Train a policy, put it into integers, export it, install it on a board, and check that the board does what the trainer said."""

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.errors import PufferEdgeError
from puffer_edge.policy import Head, Layer, Normalizer, Policy
from puffer_edge.trace import Trace

__version__ = "0.1.0"

__all__ = [
    "ActionChannel",
    "Contract",
    "Head",
    "Layer",
    "Normalizer",
    "ObservationChannel",
    "Policy",
    "PufferEdgeError",
    "Trace",
    "__version__",
]
