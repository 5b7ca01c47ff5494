"""Small policies, shields and bundles that tests share: built by the library itself, nothing faked."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.device import target
from puffer_edge.device.bundle import Bundle
from puffer_edge.envs import closed_loop, load
from puffer_edge.envs.environment import Environment
from puffer_edge.export.bundle import export
from puffer_edge.integer.reference import InFloat
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import Conv, Head, Layer, Normalizer, Policy, Pool, Recurrent
from puffer_edge.spaces import Floats


def policy(contract: Contract, hidden: tuple[int, ...] = (16, 16), activation: str = "relu", seed: int = 0) -> Policy:
    """A policy with random weights for any contract."""
    rng = np.random.default_rng(seed)
    widths = [contract.n_observations, *hidden, contract.n_outputs]
    layers = [
        Layer(
            rng.standard_normal((b, a)) * 1.3 / np.sqrt(a),
            rng.standard_normal(b) * 0.1,
            activation if k < len(hidden) else "none",
        )
        for k, (a, b) in enumerate(zip(widths, widths[1:]))
    ]
    low, high = np.array([c.low for c in contract.observations]), np.array([c.high for c in contract.observations])
    span = np.array([(c.high - c.low) / 2 for c in contract.actions])
    middle = np.array([(c.high + c.low) / 2 for c in contract.actions])
    normalizer = Normalizer((low + high) / 2, (high - low) / 4)
    return Policy(contract, tuple(layers), normalizer, Head(contract.head, span, middle), {"environment": contract.name})


def many_channels(n: int = 7, m: int = 3, head: str = "tanh") -> Contract:
    """A contract with several channels of different formats, ranges and safe outputs."""
    observations = tuple(ObservationChannel(f"s{i}", "1", -1.0 - i, 2.0 + 3 * i, 8 + i) for i in range(n))
    actions = tuple(ActionChannel(f"servo{j}", "us", 1000, 2000, 1500, 1500, 8 + j) for j in range(m))
    return Contract("many", observations, actions, head, 100.0, policy_divider=3, staleness_limit=2)


NETWORKS = ("mlp", "elu", "deep", "conv", "depthwise", "signal", "average", "largest", "gru", "lstm", "two_cells", "conv_gru")
HEADS = ("discrete", "multi_discrete", "clip", "tanh")


def image_contract(head: str, rate_hz: float = 50.0) -> Contract:
    """24 observations, which may be an image of 2 × 3 × 4, and two actions."""
    observations = tuple(ObservationChannel(f"pixel{k}", "1", -4.0, 4.0, 12) for k in range(24))
    actions = (ActionChannel("force", "N", -10, 10, 0.5, -0.25), ActionChannel("brake", "1", 0, 1, 1, 1))
    levels = {"discrete": ((-10.0, 0.0), (0.0, 1.0), (10.0, 0.0)), "multi_discrete": ((-10.0, -2.5, 0.0, 10.0), (0.0, 1.0))}.get(head, ())
    return Contract("network", observations, actions, head, rate_hz, levels, staleness_limit=2)


def network(name: str, head: str = "clip", seed: int = 0) -> Policy:
    """A policy with random weights of one of ``NETWORKS``: between them every kind of layer and activation."""
    rng, c = np.random.default_rng(seed), image_contract(head)

    def dense(inputs: int, outputs: int, activation: str) -> Layer:
        return Layer(rng.standard_normal((outputs, inputs)) * 1.3 / np.sqrt(inputs), rng.standard_normal(outputs) * 0.1, activation)

    def conv(shape: tuple[int, int, int], filters: int, kernel: tuple[int, int], activation: str, **about) -> Conv:
        seen = 1 if about.get("depthwise") else shape[0]
        weight = rng.standard_normal((filters, seen, *kernel)) * 1.3 / np.sqrt(seen * kernel[0] * kernel[1])
        return Conv(weight, rng.standard_normal(filters) * 0.1, activation, shape, **about)

    def cell(kind: str, inputs: int, hidden: int) -> Recurrent:
        rows = hidden * (3 if kind == "gru" else 4)
        weights = rng.standard_normal((rows, inputs)) / np.sqrt(inputs), rng.standard_normal((rows, hidden)) / np.sqrt(hidden)
        return Recurrent(kind, *weights, rng.standard_normal(rows) * 0.2, rng.standard_normal(rows) * 0.2)

    image, out = (2, 3, 4), c.n_outputs
    layers = {
        "mlp": lambda: (dense(24, 16, "tanh"), dense(16, 16, "relu"), dense(16, out, "none")),
        "elu": lambda: (dense(24, 16, "elu"), dense(16, 12, "sigmoid"), dense(12, 12, "silu"), dense(12, 8, "gelu"), dense(8, out, "none")),
        "deep": lambda: (dense(24, 8, "leaky_relu"), dense(8, 8, "none"), dense(8, 8, "tanh"), dense(8, 8, "relu"), dense(8, out, "none")),
        "conv": lambda: (
            conv(image, 5, (3, 3), "relu", padding=(1, 1, 1, 1)),
            conv((5, 3, 4), 4, (2, 2), "tanh", stride=(1, 2)),
            dense(16, 8, "relu"),
            dense(8, out, "none"),
        ),
        "depthwise": lambda: (
            conv(image, 4, (2, 3), "relu", padding=(1, 0, 0, 2), depthwise=True),
            conv((4, 3, 4), 3, (1, 1), "elu"),
            dense(36, out, "none"),
        ),
        "signal": lambda: (
            conv((4, 1, 6), 6, (1, 3), "relu", padding=(0, 1, 0, 1), stride=(1, 2)),
            conv((6, 1, 3), 4, (1, 2), "none"),
            dense(8, out, "none"),
        ),
        "average": lambda: (conv(image, 6, (2, 2), "relu"), Pool("average", (6, 2, 3)), dense(6, out, "none")),
        "largest": lambda: (Pool("max", image), dense(2, 8, "tanh"), dense(8, out, "none")),
        "gru": lambda: (cell("gru", 24, 12), dense(12, out, "none")),
        "lstm": lambda: (dense(24, 16, "tanh"), cell("lstm", 16, 10), dense(10, 8, "tanh"), dense(8, out, "none")),
        "two_cells": lambda: (cell("lstm", 24, 9), cell("gru", 9, 7), dense(7, out, "none")),
        "conv_gru": lambda: (conv(image, 3, (2, 2), "tanh"), cell("gru", 18, 8), dense(8, out, "none")),
    }[name]()
    normalizer = Normalizer(rng.standard_normal(24) * 0.1, np.full(24, 1.2))
    return Policy(c, layers, normalizer, Head(head, np.array([10.0, -0.5]), np.array([0.0, 0.5])), {"environment": "network"})


def episodes(contract: Contract, rows: int = 2000, length: int = 50, seed: int = 0) -> tuple[Floats, np.ndarray]:
    """Slow walks inside the contract, and where each begins."""
    rng = np.random.default_rng(seed)
    high = np.array([ch.high for ch in contract.observations])
    starts = np.arange(rows) % length == 0
    walk = np.zeros((rows, contract.n_observations))
    for k in range(rows):
        walk[k] = rng.normal(0, 0.4, len(high)) if starts[k] else 0.95 * walk[k - 1] + rng.normal(0, 0.1, len(high))
    return np.clip(walk * high / 2, -high, high), starts


def rollout(env: Environment, actor: Policy, episodes: int = 4) -> Floats:
    """Physical observations of a policy's own episodes behind the default shield."""
    guard = Shield.build(env.contract, env.shield)
    return env.contract.physical_observation(closed_loop.play(env, InFloat(actor), guard, episodes).observations)


def bundle(folder: Path, environment: str = "pendulum", board: str = "host", hidden: tuple[int, ...] = (8, 8)) -> Bundle:
    """A bundle of an untrained policy."""
    env = load(environment)
    actor = policy(env.contract, hidden)
    return export(actor, target.load(board), folder, rollout(env, actor), env.shield, {"environment": environment})
