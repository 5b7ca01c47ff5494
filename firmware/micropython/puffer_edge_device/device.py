"""The board's life: load, self-test, arm, tick, disarm. Only the shield's output or the safe output reaches ``write``."""

import gc
from array import array

from . import store
from .engine import Engine
from .engine import store as store_int
from .image import BadDigest, BadImage
from .protocol import (
    ARM_FREE_RUN,
    ARM_LOCK_STEP,
    ERRORS,
    INVALID,
    MAX_STAGES,
    MISSED,
    REASON_SHIFT,
    SATURATED,
    STALE,
    STATES,
    STEP_INVALID,
    STEP_MISSED,
)
from .ticks import ticks_add, ticks_diff, ticks_us

EMPTY, DISARMED, LOCK_STEP, FREE_RUN, FAILED = (STATES[k] for k in ("empty", "disarmed", "lock_step", "free_run", "failed"))
COUNTER_TOP = 0x3FFFFFFF  # counters stop here: one more would be a long integer
WATCHDOG_MS = 1000  # the shortest that the ESP32 port takes
# indices of the counters
TICKS, STAGES = 0, 1
N_INVALID, N_STALE, N_MISSED, N_SATURATED, BAD_FRAMES, REPEATED, DEADLINES, LONGEST = range(1 + MAX_STAGES, 9 + MAX_STAGES)


class Refused(Exception):
    def __init__(self, error, detail=0):
        super().__init__(error, detail)
        self.code = ERRORS[error]
        self.detail = detail


class Device:
    """``driver`` has ``read`` and ``write`` (docs: firmware/micropython/README.md), or is None."""

    def __init__(self, board, driver=None, folder=""):
        self.board, self.driver = board, driver
        self.store = store.Store(folder, board.feed)
        self.counters = array("i", bytes(4 * (9 + MAX_STAGES)))
        self.halves = [0, 0]
        self.image = self.engine = None
        self.installs = self.due = 0
        self.state, self.failed_step = EMPTY, -1
        self._load()

    @property
    def armed(self):
        return self.state == LOCK_STEP or self.state == FREE_RUN

    @property
    def may_leave(self):
        """The prompt may be given: nothing runs, and no watchdog that the prompt would not feed."""
        return not self.armed and not self.board.watched

    def arm(self, mode, contract, program, shield):
        self.check_disarmed()
        if not self.engine:
            raise Refused("no_policy")
        if self.failed_step >= 0:
            raise Refused("self_test", self.failed_step)
        have = self.image.digests
        wrong = (contract != have[1]) | (program != have[2]) << 1 | (shield != have[3]) << 2
        if wrong:
            raise Refused("digest_mismatch", wrong)
        if mode not in (ARM_LOCK_STEP, ARM_FREE_RUN):
            raise Refused("not_here", mode)
        if mode == ARM_FREE_RUN and not self.driver:
            raise Refused("no_driver", mode)
        self.engine.reset()
        self._write(self.engine.safe)
        if self.state == FAILED:  # the driver did not take it
            raise Refused("no_driver", mode)
        if mode == ARM_FREE_RUN and not self.board.start_watchdog(WATCHDOG_MS):
            raise Refused("not_here", mode)
        self.store.abandon()
        for k in range(len(self.counters)):
            if k not in (BAD_FRAMES, REPEATED):
                self.counters[k] = 0
        gc.collect()  # so that the next collection is far away
        self.state = FREE_RUN if mode == ARM_FREE_RUN else LOCK_STEP
        self.due = ticks_us()

    def disarm(self):
        """Also takes back the failure of a driver, if it takes the safe output now."""
        if self.armed or self.state == FAILED:
            self.rest()

    def rest(self):
        """Nothing runs any more, and the safe output is written, whatever was before."""
        if self.engine:
            self.engine.reset()
            self.state = DISARMED if self.failed_step < 0 else FAILED
            self._write(self.engine.safe)

    def step(self, flags, beyond):
        """One tick on ``self.observation``; ``beyond`` is what ``load`` said of it. Actuators move in free running alone."""
        outcome = self.engine.tick(self.observation, flags)
        if beyond and not flags & (STEP_MISSED | STEP_INVALID):
            outcome |= SATURATED
        if self.armed:
            self._count(outcome)
        if self.state == FREE_RUN:
            self._write(self.engine.applied)
        return outcome

    def poll(self):
        """Run the tick if it is due; returns microseconds until the next one, or -1 while nothing runs."""
        if self.state != FREE_RUN:
            return -1
        late = ticks_diff(ticks_us(), self.due)
        if late >= 0:
            self.step(self._read(), False)
            period = self.image.period_us
            self.due = ticks_add(self.due, period)
            late = ticks_diff(ticks_us(), self.due)
            if late >= 0:  # the next tick is due already: skip what cannot be made up
                skipped = late // period + 1
                self.add(DEADLINES, skipped)
                self.due = ticks_add(self.due, skipped * period)
                late = ticks_diff(ticks_us(), self.due)
        return -late if late < 0 else 0

    def begin(self, total, digest):
        self.check_disarmed()
        if total > self.board.free_bytes():
            raise Refused("too_large", self.board.free_bytes())
        try:
            self.store.begin(total, digest)
        except OSError:
            raise Refused("flash")

    def receive(self, at, data):
        self.check_disarmed()
        try:
            return self.store.write(at, data)
        except store.BadOrder as e:
            raise Refused("bad_order", e.args[0])
        except store.TooLarge as e:
            raise Refused("too_large", e.args[0])
        except OSError:
            raise Refused("flash", at)

    def commit(self):
        """Replace the policy by what arrived, if it is sound and its self-test passes; else the old one stays."""
        self.check_disarmed()
        try:
            self._replace()
            if self.failed_step >= 0:
                self._back("self_test", self.failed_step)
        except store.BadOrder as e:
            self._back("bad_order", e.args[0])
        except BadDigest:
            self._back("bad_digest")
        except BadImage as e:
            self._back("bad_image", e.args[0])
        except MemoryError:
            self._back("too_large", gc.mem_free())
        except OSError:
            self._back("flash")
        return self.installs

    def check_disarmed(self):
        if self.armed:
            raise Refused("armed")

    def add(self, which, amount):
        counters = self.counters
        if counters[which] < COUNTER_TOP - amount:
            counters[which] += amount

    def _load(self):
        """Use the newest image: put the actuators into its safe output, and only then test it."""
        self._drop()
        image, self.installs = self.store.open()
        if image:
            self._use(image)
            self._write(self.engine.safe)
            self._self_test()

    def _replace(self):
        self._drop()  # room for the new one
        self._use(self.store.candidate())
        self._self_test()
        if self.failed_step < 0:
            self.installs = self.store.commit(self.image)
            self._write(self.engine.safe)

    def _back(self, error, detail=0):
        """Nothing was replaced: go on with what is installed."""
        self._load()
        raise Refused(error, detail)

    def _drop(self):
        self.image = self.engine = None
        self.state, self.failed_step = EMPTY, -1
        gc.collect()

    def _use(self, image):
        self.image, self.engine = image, Engine(image)
        self.observation = array("i", bytes(4 * image.n))
        self.action = array("i", bytes(4 * image.m))
        self.state = DISARMED

    def _self_test(self):
        n, m = self.image.n, self.image.m
        size = 8 * m + 8
        got = bytearray(size)
        for k, row in enumerate(self.image.vectors()):
            beyond = load(row, 4, self.observation, n)
            outcome = self.step(row[0], beyond)
            self.result(outcome, got, 8 * m, 0)
            if got != row[4 + 4 * n :]:
                self.failed_step = k
                self.state = FAILED
                break
            self.board.feed()
        self.engine.reset()

    def result(self, outcome, buffer, outcome_at, actions_at):
        """Lay out what a tick gave: outcome and state digest, raw and applied."""
        engine = self.engine
        store_int(buffer, outcome_at, outcome)
        engine.digest(self.halves)
        store_int(buffer, outcome_at + 4, self.halves[0])
        buffer[outcome_at + 6] = self.halves[1] & 255
        buffer[outcome_at + 7] = self.halves[1] >> 8
        for j in range(engine.m):
            store_int(buffer, actions_at + 4 * j, engine.raw[j])
            store_int(buffer, actions_at + 4 * (engine.m + j), engine.applied[j])

    def _read(self):
        """Ask the driver; whatever goes wrong there is an invalid observation."""
        try:
            got = self.driver.read(self.observation)
            return STEP_MISSED if got is False else STEP_INVALID if got != got else 0
        except Exception:
            return STEP_INVALID

    def _write(self, values):
        """Hand a copy to the driver. A driver that fails gets the safe output, and nothing runs until it was disarmed."""
        if not self.driver:
            return
        action = self.action
        try:
            for j in range(len(action)):
                action[j] = values[j]
            self.driver.write(action)
        except Exception:
            self.state = FAILED
            if values is not self.engine.safe:
                self._write(self.engine.safe)

    def _count(self, outcome):
        self.add(TICKS, 1)
        for k in range(MAX_STAGES):
            self.add(STAGES + k, outcome >> REASON_SHIFT >> k & 1)
        self.add(N_INVALID, 1 if outcome & INVALID else 0)
        self.add(N_STALE, 1 if outcome & STALE else 0)
        self.add(N_MISSED, 1 if outcome & MISSED else 0)
        self.add(N_SATURATED, 1 if outcome & SATURATED else 0)
        us = (self.engine.policy_us + self.engine.shield_us) if self.board.clock_hz else 0
        if us > self.counters[LONGEST]:
            self.counters[LONGEST] = us


def load(buffer, at, values, n):
    """Read n int32 into ``values``; True if one needed more than 31 bits (it is stored as the nearest that does not)."""
    beyond = False
    for i in range(n):
        top = (buffer[at + 3] ^ 128) - 128
        if top >= 64:
            values[i] = 0x3FFFFFFF
            beyond = True
        elif top < -64:
            values[i] = -0x40000000
            beyond = True
        else:
            values[i] = top << 24 | buffer[at + 2] << 16 | buffer[at + 1] << 8 | buffer[at]
        at += 4
    return beyond
