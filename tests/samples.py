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
from puffer_edge.integer.reference import InFloat, Runner
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import Head, Layer, Normalizer, Policy
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


def rollout(env: Environment, actor: Policy, episodes: int = 4) -> Floats:
    """Physical observations of a policy's own episodes behind the default shield."""
    guard = Shield.build(env.contract, env.shield)
    return env.contract.physical_observation(closed_loop.run(env, Runner(InFloat(actor), guard, episodes)).observations)


def bundle(folder: Path, environment: str = "pendulum", board: str = "host", hidden: tuple[int, ...] = (8, 8)) -> Bundle:
    """A bundle of an untrained policy."""
    env = load(environment)
    actor = policy(env.contract, hidden)
    return export(actor, target.load(board), folder, rollout(env, actor), env.shield, {"environment": environment})
