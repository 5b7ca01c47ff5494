"""Small policies with random weights, one of every kind of layer, for tests that compare engines."""

from __future__ import annotations

import numpy as np

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.layers import AnyLayer, Conv, Layer, Pool, Recurrent
from puffer_edge.policy import Head, Normalizer, Policy
from puffer_edge.spaces import Floats

WIDTH = 24
"""Observations of every net here: an image of 2 channels of 3 by 4, or a signal of 3 channels of 8 samples."""
KINDS = ("dense", "conv1d", "conv2d", "depthwise", "average", "max", "gru", "lstm", "conv_gru", "gru_lstm")
HEADS = {"conv1d": "tanh", "depthwise": "multi_discrete", "lstm": "discrete", "gru_lstm": "tanh"}
"""Head of a kind where the integers are compared; "clip" for the others."""


def contract(head: str = "clip") -> Contract:
    """24 observations of different ranges, three actions."""
    observations = tuple(ObservationChannel(f"s{i}", "1", -1.0 - 0.1 * i, 2.0 + 0.2 * i, 12) for i in range(WIDTH))
    actions = tuple(ActionChannel(f"servo{j}", "us", 1000, 2000, 1500, 1500, 8 + j) for j in range(3))
    levels: dict[str, tuple[tuple[float, ...], ...]] = {
        "discrete": ((1000.0, 1500.0, 2000.0), (2000.0, 1250.0, 1000.0), (1100.0, 1900.0, 1500.0), (1500.0, 1500.0, 1500.0)),
        "multi_discrete": ((1000.0, 2000.0), (1000.0, 1250.0, 1500.0, 2000.0), (1100.0, 1500.0, 1900.0)),
    }
    return Contract("nets", observations, actions, head, 100.0, levels=levels.get(head, ()))


def policy(kind: str, head: str = "clip", activation: str = "relu", seed: int = 0) -> Policy:
    """A policy of a kind in ``KINDS``."""
    rng = np.random.default_rng(seed)
    c = contract(head)
    layers = _layers(kind, activation, rng)
    gain = (0.4 if kind == "max" else 1.5) / np.sqrt(layers[-1].n_out)  # actions inside their range most of the time
    layers = [*layers, _dense(rng, layers[-1].n_out, c.n_outputs, "none", gain)]
    low, high = np.array([ch.low for ch in c.observations]), np.array([ch.high for ch in c.observations])
    return Policy(c, tuple(layers), Normalizer((low + high) / 2, (high - low) / 4, 5.0), Head(head, np.full(3, 500.0), np.full(3, 1500.0)))


def observations(c: Contract, rows: int, seed: int = 1) -> Floats:
    """(rows, 24) physical observations inside the contract, on the grid of its fixed point: a walk in time, as of a plant."""
    rng = np.random.default_rng(seed)
    low, high = c.physical_observation(c.observation_low), c.physical_observation(c.observation_high)
    walk = np.sin(np.cumsum(rng.standard_normal((rows, WIDTH)) * 0.3, axis=0) + rng.uniform(0, 6, WIDTH))
    ints, _, _ = c.observe((low + high) / 2 + walk * (high - low) / 2)
    return c.physical_observation(ints)


def _layers(kind: str, activation: str, rng: np.random.Generator) -> list[AnyLayer]:
    """All but the last."""
    if kind == "dense":
        return [_dense(rng, WIDTH, 16, activation), _dense(rng, 16, 12, activation)]
    if kind == "conv1d":
        return [_conv(rng, (5, 3, 1, 3), activation, (3, 1, 8), (1, 2), (0, 1, 0, 1))]
    if kind in ("conv2d", "depthwise", "average", "max"):
        depthwise = kind == "depthwise"
        first = _conv(rng, (4, 1 if depthwise else 2, 3, 3), activation, (2, 3, 4), (1, 1), (1, 1, 1, 1), depthwise)
        return [first, Pool(kind, first.out_shape)] if kind in ("average", "max") else [first, _dense(rng, first.n_out, 12, activation)]
    if kind == "conv_gru":
        first = _conv(rng, (4, 3, 1, 3), activation, (3, 1, 8), (1, 2), (0, 1, 0, 1))
        return [first, _cell(rng, "gru", first.n_out, 6)]
    if kind == "gru_lstm":
        return [_cell(rng, "gru", WIDTH, 6), _cell(rng, "lstm", 6, 5)]
    return [_dense(rng, WIDTH, 10, activation), _cell(rng, kind, 10, 8)]


def _dense(rng: np.random.Generator, inputs: int, outputs: int, activation: str, gain: float | None = None) -> Layer:
    gain = 1.3 / np.sqrt(inputs) if gain is None else gain
    return Layer(rng.standard_normal((outputs, inputs)) * gain, rng.standard_normal(outputs) * 0.1, activation)


def _conv(
    rng: np.random.Generator,
    weight: tuple[int, int, int, int],
    activation: str,
    shape: tuple[int, int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    depthwise: bool = False,
) -> Conv:
    values = rng.standard_normal(weight) * 1.3 / np.sqrt(np.prod(weight[1:]))
    return Conv(values, rng.standard_normal(weight[0]) * 0.1, activation, shape, stride, padding, depthwise)


def _cell(rng: np.random.Generator, kind: str, inputs: int, hidden: int) -> Recurrent:
    rows = hidden * (3 if kind == "gru" else 4)
    given, kept = rng.standard_normal((rows, inputs)) * 1.2 / np.sqrt(inputs), rng.standard_normal((rows, hidden)) * 1.2 / np.sqrt(hidden)
    return Recurrent(kind, given, kept, rng.standard_normal(rows) * 0.1, rng.standard_normal(rows) * 0.1)
