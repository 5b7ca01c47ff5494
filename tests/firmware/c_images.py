"""Policies with random weights, as images: what the C side is tested with."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import numpy as np

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.integer.image import Image
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.shield import Shield
from puffer_edge.integer.vectors import make
from puffer_edge.policy import Head, Layer, Normalizer, Policy

NAMES = ("discrete", "tanh", "clip", "bare")


def contract(kind: str, n: int, m: int) -> Contract:
    """A contract of ``n`` observations and ``m`` actions; safe outputs and initial values are not zero."""
    observations = tuple(ObservationChannel(f"o{i}", "1", -1.0 - i, 2.0 + i, 12 + i % 8) for i in range(n))
    actions = tuple(ActionChannel(f"a{j}", "V", -2.0, 3.0 + j, safe=0.5, initial=-0.25) for j in range(m))
    levels = tuple(tuple(float((k * 7 + j * 3) % 5) - 2.0 for j in range(m)) for k in range(2 if n == 4 else 5)) if kind == "discrete" else ()
    return Contract(kind, observations, actions, kind, rate_hz=100.0, levels=levels, policy_divider=1 if n == 4 else 3, staleness_limit=2)


@cache
def image(name: str, steps: int = 64) -> Image:
    """One of ``NAMES``: "discrete" is 4-64-64-2, "tanh" and "clip" have odd widths, "bare" has no shield."""
    kind, n, m, hidden, activation = {
        "discrete": ("discrete", 4, 1, (64, 64), "relu"),
        "tanh": ("tanh", 3, 2, (33, 18), "tanh"),
        "clip": ("clip", 9, 3, (21,), "none"),
        "bare": ("discrete", 5, 2, (), "relu"),
    }[name]
    rng = np.random.default_rng(sum(name.encode()))
    c = contract(kind, n, m)
    sizes = [n, *hidden, c.n_outputs]
    layers = tuple(
        Layer(rng.normal(0, 1.2 / np.sqrt(i), (o, i)), rng.normal(0, 0.1, o), activation if k < len(hidden) else "none")
        for k, (i, o) in enumerate(zip(sizes, sizes[1:]))
    )
    head = Head(kind, np.linspace(0.5, -1.5, m), np.linspace(0, 0.5, m))
    low, high = np.array([[ch.low, ch.high] for ch in c.observations]).T
    policy = Policy(c, layers, Normalizer((low + high) / 3, (high - low) / 3), head)
    seen = rng.uniform(low, high, (2000, n))
    program = quantize(policy, seen)
    shield = Shield.none(c) if name == "bare" else Shield.build(c, STAGES)
    rollout, _, _ = c.observe(seen)
    return Image(c, program, shield, make(program, shield, rollout, seed=1, steps=steps))


STAGES: tuple[dict[str, Any], ...] = (
    {"stage": "envelope", "bounds": {"o0": (-0.8, 1.5)}, "law": {"a0": {"o0": -0.7, "o1": 0.3}}},
    {"stage": "slew", "per_second": {"a0": 40.0}},
    {"stage": "limit"},
)


def sealed(body: bytes | bytearray) -> bytes:
    """An image whose trailer is made to fit: all but the last 32 bytes of ``body`` count."""
    return bytes(body[:-32]) + hashlib.sha256(bytes(body[:-32])).digest()
