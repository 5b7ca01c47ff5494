"""Saving environments that live: their states as arrays of a checkpoint, and the proof that one which is put back goes on to the bit."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.envs import snapshot
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.living import Face
from puffer_edge.envs.world import Living
from puffer_edge.errors import Unsupported
from puffer_edge.train.vector.rows import Rows, Sizes

GAPS = (0, 1, 7, 30, 30)
"""Steps that an environment makes before it is saved, time after time, for the proof."""
FOLLOWED = 30
"""Steps that are compared each time."""
PROOF_S = 5.0
"""After so long it is not tried again; the first three times always are."""


def pack(rows: Rows, states: list[bytes]) -> dict[str, npt.NDArray[Any]]:
    """Rows, and one state each, as arrays by name."""
    ends = np.cumsum([len(state) for state in states])
    return rows.save() | {"living": np.frombuffer(b"".join(states), np.uint8), "ends": ends}


def unpack(rows: Rows, arrays: Mapping[str, npt.NDArray[Any]]) -> list[bytes]:
    """Write what ``pack`` gave into rows; the states.

    Raises:
        Unsupported: something is missing or has another shape.
    """
    rows.load(arrays)
    whole, ends = (arrays.get(name, np.zeros(0, np.int64)) for name in ("living", "ends"))
    edges = [0, *ends.tolist()]
    if len(ends) != len(rows.steps) or sorted(edges) != edges or edges[-1] != len(whole):
        raise Unsupported(f"the saved states of the environments are not {len(rows.steps)} whole ones")
    data = whole.tobytes()
    return [data[first:last] for first, last in zip(edges[:-1], edges[1:])]


class Saving:
    """Whether an environment can be saved, which is tried out the first time that it is asked.

    Args:
        environment: the task, which lives.
    """

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self._doubt: str | None = None

    def check(self) -> None:
        """Pass if what is saved goes on to the bit.

        Raises:
            Unsupported: it does not, or cannot be saved; the message says why.
        """
        if self._doubt is None:
            try:
                _prove(self.environment)
                self._doubt = ""
            except Unsupported as error:
                self._doubt = f"{self.environment.name} cannot be saved: {error}"
        if self._doubt:
            raise Unsupported(self._doubt)


@dataclass(eq=False)
class Twin:
    """One of two environments that are to do the same."""

    living: Living
    rows: Rows

    def start(self, seed: int) -> None:
        """Begin an episode."""
        self.rows.seed[0] = seed
        self.rows.start(self.living, 0)

    def step(self, action: Any) -> None:
        """One step, and the next episode where one has ended."""
        r = self.rows
        r.action[0] = action
        r.step(self.living, 0)
        if r.cut[0] or r.terminated.all():
            self.start(int(r.seed[0]) + 1)

    def known(self, state: bool) -> dict[str, bytes]:
        """All bits that it shows, and its state if asked."""
        shown = {name: held.tobytes() for name, held in self.rows.save().items()}
        return shown | {"state": snapshot.take(self.living)} if state else shown


def _prove(environment: Environment) -> None:
    """Put one environment into the states of another, and step both.

    Raises:
        Unsupported: they do not go on alike.
    """
    assert environment.living is not None
    face = Face.of(environment.contract, environment.agents, environment.allowed is not None)
    sizes, rng, until = Sizes.of(environment, 1), np.random.default_rng(0), time.monotonic() + PROOF_S
    twins: list[Twin] = []
    try:
        for _ in range(2):
            twins.append(Twin(environment.living(), Rows.place(sizes)))
            twins[-1].rows.clear()
        first, second = twins
        first.start(1)
        for number, gap in enumerate(GAPS):
            if number > 2 and time.monotonic() > until:
                break
            for _ in range(gap):
                first.step(face.random(rng, first.rows.allowed[0]))
            second.start(2**31 + number)
            for _ in range(3):
                second.step(face.random(rng, second.rows.allowed[0]))
            snapshot.put(second.living, snapshot.take(first.living))
            second.rows.load(first.rows.save())
            _compare(first, second, "put back")
            for k in range(FOLLOWED):
                action = face.random(rng, first.rows.allowed[0])
                first.step(action)
                second.step(action)
                _compare(first, second, f"{k + 1} steps after it was put back", k == FOLLOWED - 1)
    except Unsupported:
        raise
    except Exception as error:  # the training goes on without
        raise Unsupported(f"while it was tried, the environment raised {type(error).__name__}: {error}") from None
    finally:
        for twin in twins:
            twin.living.close()


def _compare(first: Twin, second: Twin, when: str, state: bool = True) -> None:
    a, b = first.known(state), second.known(state)
    different = [name for name in a if a[name] != b[name]]
    if different:
        raise Unsupported(f"{when} its {different[0]} is not that of the environment that went on")
