"""Saving environments that live: their states as arrays of a checkpoint, and the proof that one which is put back goes on to the bit."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
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
START_S = 30.0
"""So long a process of its own may take to start."""


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
        apart_s: try it in a process of its own, which may take so many seconds beside those of the proof: an environment that hangs, or ends
            its process, then does so there. None: in this one.
    """

    def __init__(self, environment: Environment, apart_s: float | None = None) -> None:
        self.environment, self.apart_s = environment, apart_s
        self._doubt: str | None = None

    def check(self) -> None:
        """Pass if what is saved goes on to the bit.

        Raises:
            Unsupported: it does not, or cannot be saved; the message says why.
        """
        if self._doubt is None:
            doubt = self._tried()
            self._doubt = f"{self.environment.name} cannot be saved: {doubt}" if doubt else ""
        if self._doubt:
            raise Unsupported(self._doubt)

    def _tried(self) -> str:
        """Why it cannot be saved; empty where it can."""
        e = self.environment
        assert e.living is not None
        given = e.living, Face.of(e.contract, e.agents, e.allowed is not None), Sizes.of(e, 1)
        return _doubt(*given) if self.apart_s is None else _apart(given, PROOF_S + self.apart_s)


def _doubt(living: Callable[[], Living], face: Face, sizes: Sizes) -> str:
    """Why an environment cannot be saved; empty where it can."""
    try:
        _prove(living, face, sizes)
    except Unsupported as error:
        return str(error)
    except (Exception, SystemExit) as error:  # the training goes on without
        return f"while it was tried, the environment raised {type(error).__name__}: {error}"
    return ""


def _apart(given: tuple[Callable[[], Living], Face, Sizes], most_s: float) -> str:
    """What ``_doubt`` says in a process of its own, or how that ended."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(*given, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if mine.poll(START_S):
            mine.recv_bytes()  # it runs
        if not mine.poll(most_s):
            return f"while it was tried, the environment did not answer for {most_s:g} s"
        return mine.recv_bytes().decode()
    except (EOFError, OSError):
        process.join(1.0)
        return f"while it was tried, its process ended with exit code {process.exitcode}"
    finally:
        mine.close()
        process.kill()
        process.join()


def _answer(living: Callable[[], Living], face: Face, sizes: Sizes, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    pipe.send_bytes(b"")
    pipe.send_bytes(_doubt(living, face, sizes).encode())
    os._exit(0)  # no exit handler of a library may hang it


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


def _prove(living: Callable[[], Living], face: Face, sizes: Sizes) -> None:
    """Put one environment into the states of another, and step both.

    Raises:
        Unsupported: they do not go on alike.
    """
    rng, until = np.random.default_rng(0), time.monotonic() + PROOF_S
    twins: list[Twin] = []
    try:
        for _ in range(2):
            twins.append(Twin(living(), Rows.place(sizes)))
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
    finally:
        for twin in twins:
            twin.living.close()


def _compare(first: Twin, second: Twin, when: str, state: bool = True) -> None:
    a, b = first.known(state), second.known(state)
    different = [name for name in a if a[name] != b[name]]
    if different:
        raise Unsupported(f"{when} its {different[0]} is not that of the environment that went on")
