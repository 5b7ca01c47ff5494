"""The tick of ``docs/tick.md``: each rule by itself, then all of them against a second implementation in plain Python."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import pytest

from puffer_edge.contract import Contract
from puffer_edge.errors import ContractError, InvalidInput
from puffer_edge.firmware.shared import protocol as p
from puffer_edge.integer import bytecode
from puffer_edge.integer.expression import lift, variable
from puffer_edge.integer.reference import InFloat, Runner, Tick
from puffer_edge.integer.shield import Shield
from tests import samples
from tests.integer import cart, trees

SAFE, INITIAL, ONE = 32768, -16384, 65536
"""The cart's safe output (0.5 N), initial value (-0.25 N) and one newton."""


@dataclass(frozen=True)
class Echo:
    """Proposes the first observation: what ran when is plain to see."""

    contract: Contract

    def start(self, rows: int) -> np.ndarray:
        """No memory."""
        return np.zeros((rows, 0), np.int16)

    def step(self, observation: np.ndarray, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(rows, n) to (rows, 1)."""
        return observation[:, :1], memory


def runner(shield: Shield | None = None, rows: int = 1, **changes) -> Runner:
    c = cart.contract(**changes)
    return Runner(Echo(c), shield or Shield.none(c), rows)


def tick(r: Runner, first: int = 0, flags: int = 0) -> Tick:
    return r.tick([[first, 0, 0, 0]], flags)


def flags_of(t: Tick) -> int:
    return int(t.outcome[0]) & 0xFFFF


def reasons_of(t: Tick) -> int:
    return int(t.outcome[0]) >> p.REASON_SHIFT


def test_a_good_observation_runs_the_policy() -> None:
    t = tick(runner(), 1234)
    assert (int(t.raw[0, 0]), int(t.applied[0, 0]), int(t.outcome[0])) == (1234, 1234, p.POLICY_RAN)


def test_before_the_first_observation_the_safe_output_acts() -> None:
    t = tick(runner(), flags=p.STEP_MISSED)
    assert int(t.applied[0, 0]) == SAFE
    assert (flags_of(t), reasons_of(t)) == (p.MISSED | p.STALE, p.REASON_STALE)


def test_a_missed_observation_holds_the_proposal_until_the_limit() -> None:
    r = runner(staleness_limit=2)
    tick(r, 1234)
    for _ in range(2):
        t = tick(r, 9, p.STEP_MISSED)
        assert (int(t.applied[0, 0]), int(t.outcome[0])) == (1234, p.MISSED)
    t = tick(r, 9, p.STEP_MISSED)
    assert (int(t.raw[0, 0]), int(t.applied[0, 0])) == (SAFE, SAFE)
    assert (flags_of(t), reasons_of(t)) == (p.MISSED | p.STALE, p.REASON_STALE)
    assert int(tick(r, 77).applied[0, 0]) == 77


def test_a_limit_of_zero_falls_back_at_the_first_miss() -> None:
    r = runner(staleness_limit=0)
    tick(r, 1234)
    assert reasons_of(tick(r, 0, p.STEP_MISSED)) == p.REASON_STALE


def test_the_stale_count_stops_above_the_limit() -> None:
    r = runner(staleness_limit=2)
    for _ in range(10):
        tick(r, 0, p.STEP_MISSED)
    assert r.stale.tolist() == [3]


def test_an_invalid_observation_falls_back_at_once_and_is_ignored() -> None:
    r = runner()
    tick(r, 1234)
    t = tick(r, 99, p.STEP_INVALID)
    assert int(t.applied[0, 0]) == SAFE
    assert (flags_of(t), reasons_of(t)) == (p.INVALID, p.REASON_INVALID)
    assert r.last[0, 0] == 1234
    assert int(tick(r, 0, p.STEP_MISSED).applied[0, 0]) == 1234  # not yet stale: the held proposal again


def test_invalid_wins_over_missed_and_over_stale() -> None:
    r = runner()
    t = tick(r, 0, p.STEP_INVALID | p.STEP_MISSED)
    assert (flags_of(t), reasons_of(t)) == (p.INVALID | p.STALE, p.REASON_INVALID)


def test_an_observation_beyond_its_range_is_clamped_and_flagged() -> None:
    r = runner()
    high = int(r.contract.observation_high[0])
    t = tick(r, high + 1)
    assert flags_of(t) == p.SATURATED | p.POLICY_RAN and r.last[0, 0] == high
    assert flags_of(tick(r, high)) == p.POLICY_RAN
    assert flags_of(tick(r, -(2**31))) == p.SATURATED | p.POLICY_RAN


def test_the_policy_runs_every_divider_th_tick_and_the_phase_always_advances() -> None:
    r = runner(policy_divider=3)
    ran = [flags_of(tick(r, k, p.STEP_MISSED if k in (3, 4) else 0)) & p.POLICY_RAN != 0 for k in range(10)]
    assert ran == [True, False, False, False, False, False, True, False, False, True]
    assert r.held[0, 0] == 9


def test_a_first_observation_between_policy_ticks_leaves_the_safe_output() -> None:
    r = runner(policy_divider=2)
    tick(r, 0, p.STEP_MISSED)
    t = tick(r, 1234)
    assert (int(t.applied[0, 0]), int(t.outcome[0])) == (SAFE, 0)
    assert int(tick(r, 1234).applied[0, 0]) == 1234


def test_reset_clears_everything_before_the_tick() -> None:
    r = runner(policy_divider=2)
    tick(r, 1234)
    t = tick(r, 0, p.STEP_RESET | p.STEP_MISSED)
    assert reasons_of(t) == p.REASON_STALE
    fresh = runner(policy_divider=2)
    assert tick(fresh, 0, p.STEP_MISSED).state == t.state


def test_reset_takes_a_mask_of_rows() -> None:
    r = runner(rows=2)
    r.tick([[5, 0, 0, 0], [6, 0, 0, 0]])
    r.reset(np.array([False, True]))
    assert r.previous[:, 0].tolist() == [5, INITIAL] and r.held[:, 0].tolist() == [5, SAFE] and r.stale.tolist() == [0, 3]


def test_previous_is_what_was_applied_fallback_included() -> None:
    slew = Shield.build(cart.contract(), [{"stage": "slew", "per_second": {"force": 50.0}}])
    r = runner(slew)
    assert int(tick(r, 5 * ONE).applied[0, 0]) == INITIAL + ONE
    assert int(tick(r, 5 * ONE).applied[0, 0]) == INITIAL + 2 * ONE
    assert int(tick(r, 0, p.STEP_INVALID).applied[0, 0]) == SAFE  # without a ramp
    t = tick(r, 5 * ONE)
    assert int(t.applied[0, 0]) == SAFE + ONE and reasons_of(t) == 1


def test_the_shield_runs_on_missed_ticks_with_the_last_observation() -> None:
    shield = Shield.build(cart.contract(), [{"stage": "envelope", "bounds": {"position": (-2.0, 2.0)}}])
    r = runner(shield)
    tick(r, 3 * ONE)
    t = tick(r, 0, p.STEP_MISSED)
    assert (int(t.raw[0, 0]), int(t.applied[0, 0]), reasons_of(t)) == (3 * ONE, SAFE, 1)


def test_whatever_the_shield_says_is_clamped_to_the_contract() -> None:
    """A hostile bytecode that doubles every proposal."""
    c = cart.contract()
    raw = variable(4, "raw_force", -(2**28) + 1, 2**28 - 1)
    r = runner(Shield.from_bytecode(c, bytecode.pack([raw * 2 + (1 << 22), lift(0)], 1)))
    assert int(tick(r, 0).applied[0, 0]) == int(c.action_high[0])
    assert r.previous[0, 0] == c.action_high[0]


def test_state_digest_is_the_crc_of_the_packed_state() -> None:
    r = runner(policy_divider=4)
    t = tick(r, 1234)
    assert int(t.state[0]) == zlib.crc32(struct.pack("<8i", 1234, 1234, 1234, 0, 0, 0, 1, 0))


def test_digests_can_be_left_out() -> None:
    assert runner().tick([[1, 0, 0, 0]], digest=False).state.tolist() == [0]


def test_shape_and_contract_are_checked() -> None:
    with pytest.raises(InvalidInput, match=r"\(1, 4\)"):
        runner().tick([[1, 2, 3]])
    with pytest.raises(ContractError, match="staleness_limit: 2 here, 7 there"):
        Runner(Echo(cart.contract()), Shield.none(cart.contract(staleness_limit=7)))


def test_a_float_policy_can_stand_in() -> None:
    policy = samples.policy(cart.contract(), (8,))
    inside = InFloat(policy)
    x = policy.contract.observe(cart.observations(policy.contract, 50))[0]
    wanted = policy.contract.fixed_action(policy.act(policy.contract.physical_observation(x)))
    assert (inside.run(x) == wanted).all() and inside.contract is policy.contract


class Plain:
    """``docs/tick.md`` once more, for one row, in Python integers, with the shield as bytecode."""

    def __init__(self, program, shield: Shield) -> None:
        self.program, self.code, self.c = program, shield.bytecode, program.contract
        self.reset()

    def reset(self) -> None:
        c = self.c
        self.previous, self.held, self.last = c.action_initial.tolist(), c.action_safe.tolist(), [0] * c.n_observations
        self.phase, self.stale = 0, c.staleness_limit + 1
        self.memory = self.program.start(1)

    def tick(self, observation: list[int], flags: int) -> tuple[list[int], list[int], int, int]:
        c = self.c
        if flags & p.STEP_RESET:
            self.reset()
        invalid, good = bool(flags & p.STEP_INVALID), not flags & (p.STEP_INVALID | p.STEP_MISSED)
        outcome = p.INVALID if invalid else 0 if good else p.MISSED
        if good:
            self.last = [min(max(o, int(lo)), int(hi)) for o, lo, hi in zip(observation, c.observation_low, c.observation_high)]
            outcome |= p.SATURATED if self.last != observation else 0
            self.stale = 0
        else:
            self.stale = min(self.stale + 1, c.staleness_limit + 1)
        stale = self.stale > c.staleness_limit
        outcome |= p.STALE if stale else 0
        if good and self.phase == 0:
            held, self.memory = self.program.step(np.array([self.last], np.int32), self.memory)
            self.held = held[0].tolist()
            outcome |= p.POLICY_RAN
        self.phase = (self.phase + 1) % c.policy_divider
        raw = c.action_safe.tolist() if invalid or stale else self.held
        x = [min(max(v >> int(s), -32768), 32767) for v, s in zip(self.last, c.shield_shift)]
        *applied, stages = trees.interpret(self.code, [*x, *raw, *self.previous, int(invalid or stale)])
        self.previous = [min(max(a, int(lo)), int(hi)) for a, lo, hi in zip(applied, c.action_low, c.action_high)]
        reasons = stages | (p.REASON_INVALID if invalid else p.REASON_STALE if stale else 0)
        state = zlib.crc32(struct.pack(f"<{len(raw) * 2 + len(x) + 2}i", *self.previous, *self.held, *self.last, self.phase, self.stale))
        state = zlib.crc32(struct.pack(f"<{self.memory.size}h", *self.memory[0].tolist()), state)
        return list(raw), self.previous, outcome | reasons << 16, state


@pytest.mark.parametrize("head", ["discrete", "clip", "tanh"])
@pytest.mark.parametrize("divider", [1, 3])
def test_reference_is_the_plain_tick(head: str, divider: int) -> None:
    program = cart.program(head, (8,), policy_divider=divider)
    shield = Shield.build(program.contract, cart.STAGES)
    reference, plain = Runner(program, shield), Plain(program, shield)
    rng = np.random.default_rng(divider)
    for _ in range(400):
        observation = rng.integers(program.contract.observation_low.astype(np.int64) * 1.05, program.contract.observation_high * 1.05).tolist()
        flags = int(rng.choice([0, 1, 2, 4, 3, 6], p=[0.7, 0.03, 0.2, 0.03, 0.02, 0.02]))
        t = reference.tick([observation], flags)
        assert (t.raw[0].tolist(), t.applied[0].tolist(), int(t.outcome[0]), int(t.state[0])) == plain.tick(observation, flags)


def test_rows_are_independent() -> None:
    program = cart.program("clip", (8,), policy_divider=2)
    shield = Shield.build(program.contract, cart.STAGES)
    rng = np.random.default_rng(3)
    together, apart = Runner(program, shield, 5), [Runner(program, shield) for _ in range(5)]
    for _ in range(50):
        o = rng.integers(program.contract.observation_low, program.contract.observation_high, (5, 4))
        flags = rng.choice([0, 1, 2, 4], 5, p=[0.6, 0.1, 0.2, 0.1])
        t = together.tick(o, flags)
        single = [r.tick(o[k : k + 1], flags[k]) for k, r in enumerate(apart)]
        for field in dataclasses.fields(Tick):
            assert (getattr(t, field.name) == np.concatenate([getattr(s, field.name) for s in single])).all()
