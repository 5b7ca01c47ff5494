"""What an off-policy algorithm learns from: a ring of steps for each row, written in place by Python or by C.

A row's ring holds its observations in the order in which they were seen, so that the one that follows a step is the next place's, and none
is stored twice. The last observation of an episode has a place of its own, on which no step is made; so has, for now, the latest one. Returns
over n steps are put together when a sample is drawn: exact at terminations and truncations, shorter where the ring ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.envs.draw import philox
from puffer_edge.errors import InvalidInput
from puffer_edge.spaces import Bools, Floats

NO_STEP, STEP, TERMINATED, TRUNCATED = range(4)
"""What a place holds."""
STREAM = 3
"""``STREAM_REPLAY`` of ``pe_sac.h``."""
_RINGS = ("observation", "action", "reward", "cost", "kind")
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


@dataclass(frozen=True, eq=False)
class Sample:
    """B steps of the ring and what followed them within n steps.

    Attributes:
        observation: (B, n) float32 physical, acted on.
        action: (B, m) float32 what the policy proposed, −1 … 1.
        reward: (B,) float64 Σ γ^k r over the steps until ``following``.
        cost: (B,) the same of the costs.
        following: (B, n) float32 observation at which to bootstrap; of a truncated episode its true last one.
        weight: (B,) γ to the number of steps until there; 0 where the episode terminated before.
        place: (B, 2) row and slot.
    """

    observation: npt.NDArray[np.float32]
    action: npt.NDArray[np.float32]
    reward: Floats
    cost: Floats
    following: npt.NDArray[np.float32]
    weight: Floats
    place: npt.NDArray[np.int64]


def slots_for(steps: int, rows: int) -> int:
    """Slots of a row's ring that keeps at least its share of so many steps of episodes that last; each episode's end takes one more."""
    return -(-steps // rows) + 2


def size_bytes(steps: int, rows: int, observations: int, actions: int) -> int:
    """Bytes of the arrays."""
    return rows * slots_for(steps, rows) * (4 * (observations + actions + 2) + 1)


class Replay:
    """N rings.

    Args:
        rows: N.
        steps: that are kept of all rows together; each end of an episode takes the room of one.
        observations: n, numbers of an observation.
        actions: m, numbers of an action.

    Attributes:
        observation: (N, slots, n) float32 physical; enough for observations that come from 32-bit fixed point.
        action: (N, slots, m) float32 what the policy proposed, −1 … 1.
        reward: (N, slots) float32.
        cost: (N, slots) float32.
        kind: (N, slots) uint8: ``NO_STEP``, ``STEP``, ``TERMINATED`` or ``TRUNCATED``.
        place: (N,) places written so far; the latest observation's is this modulo slots.

    Raises:
        InvalidInput: a number is below 1.
    """

    def __init__(self, rows: int, steps: int, observations: int, actions: int) -> None:
        for name, value in (("rows", rows), ("steps", steps), ("observations", observations), ("actions", actions)):
            if value < 1:
                raise InvalidInput(f"a replay needs {name} of at least 1, not {value}")
        self.rows, self.slots = rows, slots_for(steps, rows)
        shape = (rows, self.slots)
        self.observation = np.zeros((*shape, observations), np.float32)
        self.action = np.zeros((*shape, actions), np.float32)
        self.reward, self.cost = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.kind = np.zeros(shape, np.uint8)
        self.place = np.zeros(rows, np.int64)

    def see(self, rows: npt.NDArray[np.int64], observation: npt.ArrayLike) -> None:
        """The rows' next places take (len(rows), n) observations: at the start of a training."""
        self.place[rows] += 1
        slot = self.place[rows] % self.slots
        self.kind[rows, slot] = NO_STEP
        self.observation[rows, slot] = observation

    def write(
        self, action: npt.ArrayLike, reward: Floats, cost: Floats, terminated: Bools, truncated: Bools, final: Floats, observation: Floats
    ) -> None:
        """One step of every row.

        Args:
            action: (N, m) what the policy proposed at the latest observation.
            reward: (N,) of it.
            cost: (N,) of it.
            terminated: (N,) the task ended the episode.
            truncated: (N,) only the clock did.
            final: (N, n) what was seen after the step, before any new start.
            observation: (N, n) what is acted on next.
        """
        every = np.arange(self.rows)
        slot = self.place % self.slots
        self.action[every, slot] = action
        self.reward[every, slot], self.cost[every, slot] = reward, cost
        self.kind[every, slot] = np.where(terminated, TERMINATED, np.where(truncated, TRUNCATED, STEP))
        self.see(every, final)
        ended = np.flatnonzero(terminated | truncated)
        self.see(ended, observation[ended])

    def __len__(self) -> int:
        """Steps that it holds."""
        return int((self.kind[:, : self.limit] != NO_STEP).sum())

    @property
    def limit(self) -> int:
        """Slots that any row has written."""
        return min(int(self.place.max()) + 1, self.slots)

    def draw(self, count: int, seed: int, batch: int) -> npt.NDArray[np.int64]:
        """(count, 2) rows and slots of steps, uniform over all that there are: those that C draws for this seed and batch.

        Raises:
            InvalidInput: there are none.
        """
        limit = self.limit
        if not (self.kind[:, :limit] != NO_STEP).any():
            raise InvalidInput("the replay holds no step to draw from")
        found = np.zeros((count, 2), np.int64)
        left, attempt = np.arange(count), 0
        low, high, k0, k1 = (np.uint64(x) for x in (batch & 0xFFFFFFFF, batch >> 32, seed, STREAM))
        while len(left):
            words = philox(np.full(len(left), attempt, np.uint64), left.astype(np.uint64), low, high, k0, k1)
            row, slot = ((word * np.uint64(n) >> _HALF).astype(np.int64) for word, n in zip(words, (self.rows, limit)))
            found[left, 0], found[left, 1] = row, slot
            left, attempt = left[self.kind[row, slot] == NO_STEP], attempt + 1
        return found

    def sample(self, count: int, seed: int, batch: int, steps: int, discount: float) -> Sample:
        """Draw steps, and follow each over ``steps`` of them.

        Args:
            count: B.
            seed: of the draws, below 2^32.
            batch: how many were drawn before; with the seed it names the draws.
            steps: n of the n-step returns.
            discount: γ.
        """
        return self.at(self.draw(count, seed, batch), steps, discount)

    def at(self, place: npt.NDArray[np.int64], steps: int, discount: float) -> Sample:
        """The sample of (B, 2) rows and slots."""
        row, first = place[:, 0], place[:, 1]
        slot, weight, going = first.copy(), np.ones(len(place)), np.ones(len(place), bool)
        reward, cost = np.zeros(len(place)), np.zeros(len(place))
        for _ in range(steps):
            r, s = row[going], slot[going]
            reward[going] += weight[going] * self.reward[r, s]
            cost[going] += weight[going] * self.cost[r, s]
            kind, after = self.kind[r, s], (s + 1) % self.slots
            weight[going] *= np.where(kind == TERMINATED, 0.0, discount)
            slot[going] = after
            going[going] = (kind == STEP) & (self.kind[r, after] != NO_STEP)
        return Sample(self.observation[row, first], self.action[row, first], reward, cost, self.observation[row, slot], weight, place)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All that was written, by name."""
        return {name: getattr(self, name)[:, : self.limit] for name in _RINGS} | {"place": self.place}

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what ``state`` gave.

        Raises:
            InvalidInput: an array is missing, or was saved for other sizes.
        """
        place = arrays.get("place")
        if place is None or place.shape != self.place.shape:
            raise InvalidInput(f"the replay's saved place is missing, or was saved for another number of rows than {self.rows}")
        self.place[:] = place
        for name in _RINGS:
            held = getattr(self, name)
            wanted = (self.rows, self.limit, *held.shape[2:])
            if name not in arrays or arrays[name].shape != wanted or arrays[name].dtype != held.dtype:
                raise InvalidInput(f"the replay's saved {name} is missing, or of another shape than {wanted}")
            held[:, : self.limit] = arrays[name]
