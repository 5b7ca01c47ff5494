"""A small image that device tests install, and the walk that every board must pass."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from puffer_edge.contract import Contract
from puffer_edge.device.board import Board
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer import vectors
from puffer_edge.integer.image import Image
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.shield import Shield
from tests import samples


@lru_cache
def image(hidden: int = 8, seed: int = 0, name: str = "many") -> Image:
    """An image of random weights behind a limit on every servo."""
    c = samples.many_channels()
    contract = Contract(name, c.observations, c.actions, c.head, c.rate_hz, policy_divider=c.policy_divider, staleness_limit=c.staleness_limit)
    policy = samples.policy(contract, (hidden,), seed=seed)
    low, high = contract.physical_observation(contract.observation_low), contract.physical_observation(contract.observation_high)
    seen = np.random.default_rng(seed).uniform(low, high, (200, contract.n_observations))
    program = quantize(policy, seen)
    shield = Shield.build(contract, [{"stage": "limit", "low": {"servo0": 1200.0}, "high": {"servo0": 1700.0}}])
    return Image(contract, program, shield, vectors.make(program, shield, contract.observe(seen)[0], steps=64).head(16))


def walk(board: Board, steps: int = 64) -> None:
    """Install, replay and drive: every bit must be the reference's."""
    this = image()
    seen: list[tuple[int, int]] = []
    held = board.install(this.data, lambda done, total: seen.append((done, total)))
    assert (held.image, held.contract, held.program, held.shield) == (this.digest, this.contract.digest, this.program.digest, this.shield.digest)
    assert seen[-1] == (len(this.data), len(this.data))
    assert board.contract() == this.contract
    assert (board.identity.n_observations, board.identity.n_actions, board.identity.state) == (7, 3, "disarmed")
    v = vectors.make(this.program, this.shield, this.vectors.observation, steps=steps)
    for armed in (False, True):
        if armed:
            board.arm(held.contract, held.program, held.shield)
            assert board.identity.armed
        for k in range(len(v)):
            reply = (board.step if armed else board.replay)(v.observation[k], int(v.flags[k]))
            assert (reply.raw.tolist(), reply.applied.tolist()) == (v.raw[k].tolist(), v.applied[k].tolist())
            assert (reply.outcome, reply.state) == (v.outcome[k], v.state[k])
    status = board.status()
    assert status.ticks == len(v)
    assert status.missed == int(((v.outcome & protocol.MISSED) != 0).sum())
    board.disarm()
    assert not board.identity.armed
