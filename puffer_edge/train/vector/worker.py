"""What a worker process does: it makes its environments, and starts and steps them on command, in shared memory.

Each worker has a row of ``CONTROL`` numbers in shared memory: what it is to do, what it has done, and the bytes of its message. A semaphore
wakes it; another, which all share, tells that one has finished. Nothing is pickled but the factory, once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, parent_process, shared_memory
from typing import Any

import numpy as np

from puffer_edge.envs import snapshot
from puffer_edge.envs.living import seed_of
from puffer_edge.envs.world import Living, over
from puffer_edge.errors import PufferEdgeError, Unsupported
from puffer_edge.train.vector.rows import Rows, Sizes, bytes_of, where

COMMAND, STATUS, LENGTH, ROW, CONTROL = 0, 1, 2, 3, 4
START, STEP, CLOSE, SAVE, LOAD = 1, 2, 3, 4, 5
BUSY, DONE, FAILED = 0, 1, 2
SAVED, UNSAVED = b"+", b"-"
"""Before the state of an environment, and before the reason why there is none."""
MESSAGE = 8192
"""Most bytes of an error's name and traceback."""
GRACE_S = 1.0
"""So long a worker whose parent has gone may take to finish its step and close its environments."""


@dataclass(frozen=True)
class Job:
    """Everything that a worker is told.

    Attributes:
        factory: makes one environment.
        sizes: of all rows.
        memory: name of the shared memory.
        workers: how many there are.
        index: which of them this is.
        first: its first environment.
        last: one behind its last.
    """

    factory: Callable[[], Living]
    sizes: Sizes
    memory: str
    workers: int
    index: int
    first: int
    last: int


def memory_bytes(sizes: Sizes, workers: int) -> int:
    """Shared memory of rows, controls and messages."""
    return bytes_of(sizes) + workers * (8 * CONTROL + MESSAGE)


def views(sizes: Sizes, workers: int, buffer: Any) -> tuple[Rows, Any, Any]:
    """Rows, (workers, CONTROL) int64 and (workers, MESSAGE) bytes in shared memory."""
    at = bytes_of(sizes)
    control = np.ndarray((workers, CONTROL), np.int64, buffer, at)
    return Rows.place(sizes, buffer), control, np.ndarray((workers, MESSAGE), np.uint8, buffer, at + control.nbytes)


def work(job: Job, go: Any, done: Any, pipe: Any) -> None:
    """A worker's life, in a process of its own; through the pipe go states that are saved, and nothing else."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    orphaned = threading.Event()
    threading.Thread(target=_end_with_parent, args=(go, orphaned), daemon=True).start()
    memory = shared_memory.SharedMemory(job.memory)
    rows, control, messages = views(job.sizes, job.workers, memory.buf)
    mine = control[job.index]
    living: list[Living] = []
    mine[ROW] = job.first
    try:
        living += [job.factory() for _ in range(job.first, job.last)]
        mine[STATUS] = DONE
        done.release()
        while (command := _next(mine, go, orphaned)) != CLOSE:
            begun: list[int] = []
            if command == SAVE:
                _save(living, pipe)
            elif command == LOAD:
                _load(living, pipe)
            elif command == START:
                _start(living, rows, mine, job.first)
            else:
                begun = _step(living, rows, mine, job)
            mine[STATUS] = DONE
            done.release()
            for k in begun:  # while nobody waits: ``seed_of`` keeps what it found
                seed_of(int(rows.origin[k]), int(rows.episode[k] + rows.stride[k]))
    except BaseException as error:  # whatever it is, the parent must hear of it
        _report(error, rows, mine, messages[job.index])
        done.release()
    finally:
        for environment in living:
            with contextlib.suppress(Exception):
                environment.close()
        del rows, control, messages, mine
        memory.close()
        os._exit(0)  # no exit handler of a library may hang a worker


def _start(living: list[Living], rows: Rows, mine: Any, first: int) -> None:
    for k, environment in enumerate(living, first):
        if rows.fresh[k]:
            mine[ROW] = k
            rows.seed[k] = seed_of(int(rows.origin[k]), int(rows.episode[k]))
            rows.start(environment, k)


def _step(living: list[Living], rows: Rows, mine: Any, job: Job) -> list[int]:
    """Step all, and begin the next episodes of those that have ended; which they are."""
    for k, environment in enumerate(living, job.first):
        mine[ROW] = k
        rows.step(environment, k)
    own = slice(job.first, job.last)
    ended = over(rows.terminated[own], rows.alive[own], rows.cut[own]) & (rows.stride[own] > 0)
    begun: list[int] = (np.flatnonzero(ended) + job.first).tolist()
    for k in begun:
        mine[ROW] = k
        rows.begin(living[k - job.first], k)
    return begun


def _save(living: list[Living], pipe: Any) -> None:
    for environment in living:
        try:
            state = SAVED + snapshot.take(environment)
        except Unsupported as error:
            state = UNSAVED + str(error).encode()
        pipe.send_bytes(state)


def _load(living: list[Living], pipe: Any) -> None:
    states, said = [pipe.recv_bytes() for _ in living], ""  # all of them first: who sends must not wait for an environment
    try:
        for environment, state in zip(living, states):
            snapshot.put(environment, state)
    except Unsupported as error:
        said = str(error)
    pipe.send_bytes(said.encode())


def _next(mine: Any, go: Any, orphaned: threading.Event) -> int:
    """The next command, or CLOSE where the parent has gone."""
    go.acquire()
    return CLOSE if orphaned.is_set() else int(mine[COMMAND])


def _end_with_parent(go: Any, orphaned: threading.Event) -> None:
    """When the parent has gone, wake the worker to close; end it where a step hangs (one that holds Python's lock cannot be ended so)."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        orphaned.set()
        go.release()
        time.sleep(GRACE_S)
        os._exit(1)


def _report(error: BaseException, rows: Rows, mine: Any, message: Any) -> None:
    """The error's class, a zero, its words, a zero, and the end of its traceback."""
    kind = type(error).__name__ if isinstance(error, PufferEdgeError) else ""
    text = str(error) if kind else f"raised {type(error).__name__}: {error}"
    place = where(rows, int(mine[ROW])) if rows.steps[int(mine[ROW])] or rows.seed[int(mine[ROW])] else ""
    said = f"{kind}\0{place}\0{text[:2000]}\0".encode()
    trace = "".join(traceback.format_exception(error)).encode()
    whole = (said + trace[-(MESSAGE - len(said)) :])[:MESSAGE]
    message[: len(whole)] = np.frombuffer(whole, np.uint8)
    mine[LENGTH], mine[STATUS] = len(whole), FAILED
