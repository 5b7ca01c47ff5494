"""Test vectors: sequences that reach every kind of tick, and their packed form."""

from __future__ import annotations

import numpy as np
import pytest

from puffer_edge.errors import BundleError
from puffer_edge.firmware.shared import protocol as p
from puffer_edge.integer.shield import Shield
from puffer_edge.integer.vectors import Vectors, make, record
from tests.integer import cart


def vectors(rollout_rows: int = 100, **changes) -> Vectors:
    program = cart.program("clip", (8,), policy_divider=2)
    shield = Shield.build(program.contract, cart.STAGES)
    rollout = program.contract.observe(cart.observations(program.contract, 100))[0][:rollout_rows]
    return make(program, shield, rollout, **changes)


def test_at_least_256_steps_in_whole_sequences() -> None:
    v = vectors()
    assert len(v) == 256
    assert (np.flatnonzero(v.flags & p.STEP_RESET) == np.arange(0, 256, 16)).all()
    assert len(vectors(steps=257)) == 272


def test_every_flag_and_reason_occurs() -> None:
    v = vectors()
    seen = int(np.bitwise_or.reduce(v.outcome))
    assert seen & 0xFFFF == p.SATURATED | p.MISSED | p.INVALID | p.STALE | p.POLICY_RAN
    assert seen >> p.REASON_SHIFT & (p.REASON_INVALID | p.REASON_STALE) == p.REASON_INVALID | p.REASON_STALE
    assert seen >> p.REASON_SHIFT & 3 == 3  # envelope and slew; a limit behind them never acts


def test_edges_and_numbers_beyond_the_range_occur() -> None:
    v, c = vectors(), cart.contract()
    for number in (-(2**31), 2**31 - 1, int(c.observation_low[0]), int(c.observation_high[0]) + 1, 0):
        assert (v.observation[:, 0] == number).any()


def test_real_observations_occur_as_they_followed_each_other() -> None:
    v, c = vectors(), cart.contract()
    rollout = c.observe(cart.observations(c, 100))[0]
    starts = [int(np.flatnonzero((rollout == v.observation[k]).all(1))[0]) for k in range(0, 256, 32)]
    for k, start in zip(range(0, 256, 32), starts):
        assert (v.observation[k : k + 16] == rollout[start : start + 16]).all()


@pytest.mark.parametrize("rows", [0, 5, 16])
def test_a_short_or_missing_rollout_is_enough(rows: int) -> None:
    assert len(vectors(rows)) == 256


def test_same_seed_same_vectors() -> None:
    assert vectors(seed=3).pack() == vectors(seed=3).pack() != vectors(seed=4).pack()


def test_packed_form_round_trips() -> None:
    v, c = vectors(), cart.contract()
    data = v.pack()
    assert len(data) == 256 * Vectors.row_bytes(c) == 256 * 36
    again = Vectors.unpack(c, data)
    assert again.pack() == data
    assert again.observation.dtype == np.int32 and (again.observation == v.observation).all() and (again.outcome == v.outcome).all()


def test_packed_row_is_the_documented_one() -> None:
    v = vectors()
    row = np.frombuffer(v.pack()[36:72], "<i4").astype(np.int64) & 0xFFFFFFFF
    wanted = [v.flags[1], *v.observation[1], *v.raw[1], *v.applied[1], v.outcome[1], v.state[1]]
    assert row.tolist() == [int(w) & 0xFFFFFFFF for w in wanted]


def test_a_part_of_a_step_is_refused() -> None:
    with pytest.raises(BundleError, match="no whole number"):
        Vectors.unpack(cart.contract(), vectors().pack()[:-4])


def test_head_keeps_the_first_steps() -> None:
    v = vectors()
    assert len(v.head(16)) == 16 and v.head(16).pack() == v.pack()[: 16 * 36]


def test_record_replays_to_the_same() -> None:
    program = cart.program("clip", (8,), policy_divider=2)
    v = vectors()
    assert record(program, Shield.build(program.contract, cart.STAGES), v.observation, v.flags).pack() == v.pack()
