"""Living environments in processes of their own, all arrays in memory that they share."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import time
import weakref
from collections.abc import Mapping
from multiprocessing import shared_memory
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge import errors
from puffer_edge.envs.environment import Environment
from puffer_edge.errors import InvalidInput, Unsupported, WorkerFailed
from puffer_edge.spaces import Floats
from puffer_edge.train.settings import cores
from puffer_edge.train.vector.rows import Sizes, where
from puffer_edge.train.vector.saving import Saving, pack, unpack
from puffer_edge.train.vector.worker import (
    BUSY,
    CLOSE,
    COMMAND,
    FAILED,
    LENGTH,
    LOAD,
    ROW,
    SAVE,
    SAVED,
    START,
    STATUS,
    STEP,
    Job,
    memory_bytes,
    views,
    work,
)

STEP_TIMEOUT_S = 60.0
START_TIMEOUT_S = 120.0
LOOKS_S = 0.2
"""How often it is looked whether a worker that lets wait is still alive."""
SPIN_S = 50e-6
"""So long it is looked without sleeping, where there are more cores than workers."""


class Processes:
    """N living environments in W processes, which keep ``world.World``; each has rows that follow each other.

    Processes are spawned, on every system: a script of your own that trains needs ``if __name__ == "__main__":``. The memory loses its name
    as soon as all have it, so that nothing stays behind, however this process ends; workers end when it has gone.

    Args:
        environment: the task, whose factory can be pickled.
        n: N.
        workers: W; 0: one for each core.
        timeout_s: for one step of one worker's rows.

    Attributes:
        blocks: first and last row (exclusive) of each worker.

    Raises:
        InvalidInput: more workers than rows, or a factory that cannot be pickled.
        Unsupported: the environment is made of functions.
        WorkerFailed: an environment raised, hung, or its process died; all workers have been stopped then.
    """

    def __init__(self, environment: Environment, n: int, workers: int = 0, timeout_s: float = STEP_TIMEOUT_S) -> None:
        if environment.living is None:
            raise Unsupported(f"{environment.name} is made of functions: a plant steps them without a world")
        workers = workers or min(cores(), n)
        if not 1 <= workers <= n:
            raise InvalidInput(f"{n} rows need 1 to {n} workers, not {workers}")
        try:
            pickle.dumps(environment.living)
        except Exception as error:
            raise InvalidInput(f"{environment.name} cannot be made in another process ({error}): define its class or function in a module") from None
        self.sizes, self.timeout_s = Sizes.of(environment, n), timeout_s
        edges = np.linspace(0, n, workers + 1).round().astype(int).tolist()
        self.blocks = tuple(zip(edges[:-1], edges[1:]))
        self._memory = shared_memory.SharedMemory(create=True, size=memory_bytes(self.sizes, workers))
        self.rows, self._control, self._messages = views(self.sizes, workers, self._memory.buf)
        self.rows.clear()
        self._control[...] = 0
        context = multiprocessing.get_context("spawn")
        self._done = context.Semaphore(0)
        self._go = [context.Semaphore(0) for _ in range(workers)]
        self._processes: list[Any] = []
        self._pipes: list[Any] = []
        self._saving = Saving(environment, timeout_s)
        self._waiting: dict[int, float] = dict.fromkeys(range(workers), time.monotonic() + START_TIMEOUT_S)
        self._told = 0  # semaphores taken whose workers' words have not been read yet
        self._spin = SPIN_S if cores() > workers else 0.0
        self._finalizer = weakref.finalize(self, _stop, self._processes, self._memory)
        try:
            for index, (first, last) in enumerate(self.blocks):
                job = Job(environment.living, self.sizes, self._memory.name, workers, index, first, last)
                mine, theirs = context.Pipe()
                self._pipes.append(mine)
                self._processes.append(context.Process(target=work, args=(job, self._go[index], self._done, theirs), daemon=True))
                self._processes[-1].start()
                theirs.close()  # so that a worker's end is the end of its pipe
            self._wait(set(range(workers)))
        except BaseException:
            self.close()
            raise
        _unlink(self._memory)
        r = self.rows
        self.seen, self.reward, self.cost, self.terminated, self.cut, self.alive = r.seen, r.reward, r.cost, r.terminated, r.cut, r.alive
        self.allowed = r.allowed if environment.allowed is not None else None

    def start(self, rows: npt.NDArray[np.int64], seed: int, episodes: npt.NDArray[np.int64], stride: int = 0) -> None:
        """Start these rows in these episodes of a seed; the next one of each is expected ``stride`` further on (0: N), as a plant has it.

        A worker begins the expected one as soon as an episode has ended, so that it is there when it is asked for; any other is started now.

        Raises:
            InvalidInput: the seed has more than 64 bits.
        """
        self._open()
        if seed >= 2**64:
            raise InvalidInput(f"processes take seeds of at most 64 bits, not {seed}")
        r = self.rows
        ready = r.begun[rows] & (r.episode[rows] == episodes) & (r.origin[rows] == seed)
        begun, rows, episodes = rows[ready], rows[~ready], episodes[~ready]
        r.seen[begun], r.allowed[begun], r.begun[begun] = r.first[begun], r.choices[begun], False
        if not len(rows):
            return
        r.origin[rows], r.episode[rows], r.stride[rows] = seed, episodes, stride or self.sizes.environments
        r.begun[rows], r.fresh[rows] = False, True
        told = {index for index, (first, last) in enumerate(self.blocks) if self.rows.fresh[first:last].any()}
        for index in told:
            self._tell(index, START)
        self._wait(told)

    def step(self, action: Floats) -> None:
        """One step of every row: (N, A, m) physical actions."""
        self._open()
        self.rows.action[...] = action
        for index in range(len(self.blocks)):
            self._tell(index, STEP)
        self._wait(set(range(len(self.blocks))))

    def send(self, index: int, action: Floats) -> None:
        """Let one worker step its rows, and go on: (rows, A, m) physical actions."""
        self._open()
        first, last = self.blocks[index]
        self.rows.action[first:last] = action
        self._tell(index, STEP)

    def receive(self, among: set[int], count: int) -> set[int]:
        """Wait until so many of these workers have done what they were sent; those that have."""
        self._open()
        self._wait(among, count)
        return among - self._waiting.keys()

    def save_state(self) -> dict[str, npt.NDArray[Any]]:
        """The rows and the environments behind them.

        Raises:
            Unsupported: an environment holds what cannot be saved, or would go on otherwise.
            WorkerFailed: a worker died or hung.
        """
        self._open()
        self._saving.check()
        states = []
        for index, (first, last) in enumerate(self.blocks):
            self._tell(index, SAVE)
            states += [self._heard(index) for _ in range(first, last)]
            self._wait({index})
        for state in states:
            if state[:1] != SAVED:
                raise Unsupported(state[1:].decode())
        return pack(self.rows, [state[1:] for state in states])

    def load_state(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what ``save_state`` gave.

        Raises:
            Unsupported: it cannot; all rows must be started then.
            WorkerFailed: a worker died or hung.
        """
        self._open()
        states, said = unpack(self.rows, arrays), []
        for index, (first, last) in enumerate(self.blocks):
            self._tell(index, LOAD)
            with contextlib.suppress(OSError):  # it has died: who waits for its answer says so
                for state in states[first:last]:
                    self._pipes[index].send_bytes(state)
            said.append(self._heard(index).decode())
            self._wait({index})
        for reason in filter(None, said):
            raise Unsupported(reason)

    def close(self) -> None:
        """Stop all workers and give the memory back; more than once does nothing."""
        if not self._finalizer.alive:
            return
        for index, process in enumerate(self._processes):
            if process.is_alive() and index not in self._waiting:
                self._tell(index, CLOSE)
        until = time.monotonic() + 2.0
        for process in self._processes:
            if process.pid is not None:
                process.join(max(0.0, until - time.monotonic()))
        for pipe in self._pipes:
            pipe.close()
        for name in ("_go", "_done", "rows", "_control", "_messages", "seen", "reward", "cost", "terminated", "cut", "alive", "allowed"):
            self.__dict__.pop(name, None)  # what looks into the memory must go before it
        self._finalizer()

    def _open(self) -> None:
        if not self._finalizer.alive:
            raise WorkerFailed(f"the processes of {self.sizes.name} have been stopped: start the training again, with --resume")

    def _tell(self, index: int, command: int) -> None:
        self._control[index, COMMAND], self._control[index, STATUS] = command, BUSY
        self._waiting[index] = time.monotonic() + self.timeout_s
        self._go[index].release()

    def _wait(self, among: set[int], count: int = 0) -> None:
        """Until so many of these workers, or all, have done what they were told.

        Raises:
            WorkerFailed, PufferEdgeError: what one of them ended with.
        """
        spin, left = time.monotonic() + self._spin, len(among) - (count or len(among))
        while len(among & self._waiting.keys()) > left:
            if self._acquired(spin):
                self._told += 1
            else:
                self._look()
            spoken = [index for index in self._waiting if self._control[index, STATUS] != BUSY]
            if len(spoken) > self._told:
                continue  # a word is in memory before its semaphore: until that has come, other processors may not see what belongs to it
            self._told -= len(spoken)
            for index in spoken:
                if self._control[index, STATUS] == FAILED:
                    self._fail(index)
                del self._waiting[index]

    def _heard(self, index: int) -> bytes:
        """The next message of a worker."""
        pipe = self._pipes[index]
        try:
            while not pipe.poll(LOOKS_S):
                self._look()
            message: bytes = pipe.recv_bytes()
        except (EOFError, OSError):
            self._wait({index})  # raises what it ended with
            raise WorkerFailed(f"worker {index} of {self.sizes.name} said nothing") from None
        return message

    def _acquired(self, spin: float) -> bool:
        while time.monotonic() < spin:
            if self._done.acquire(False):
                return True
        found: bool = self._done.acquire(timeout=LOOKS_S)
        return found

    def _look(self) -> None:
        """See whether a worker that lets wait has died, or takes too long."""
        for index, until in sorted(self._waiting.items()):
            process = self._processes[index]
            if not process.is_alive() and self._control[index, STATUS] != FAILED:
                code = process.exitcode
                started = "" if self._control[index, COMMAND] else "; a script that trains with processes needs if __name__ == '__main__':"
                self._stop_with(WorkerFailed(f"worker {index} of {self.sizes.name} died with exit code {code} {self._at(index)}{started}"))
            if time.monotonic() > until:
                allowed = self.timeout_s if self._control[index, COMMAND] else START_TIMEOUT_S
                self._stop_with(WorkerFailed(f"worker {index} of {self.sizes.name} has not answered for {allowed:g} s {self._at(index)}"))

    def _at(self, index: int) -> str:
        return where(self.rows, int(self._control[index, ROW]))

    def _fail(self, index: int) -> None:
        """Raise what a worker reported."""
        text = self._messages[index, : self._control[index, LENGTH]].tobytes().decode(errors="replace")
        kind, place, words, trace = (text.split("\0", 3) + ["", "", ""])[:4]
        known = getattr(errors, kind, None) if kind else None
        if known in (errors.InvalidInput, errors.Unsupported, errors.ContractError):
            self._stop_with(known(f"{words} {place}".strip()))
        self._stop_with(WorkerFailed(f"{self.sizes.name} {place} {words}\n{trace}"))

    def _stop_with(self, error: errors.PufferEdgeError) -> None:
        for process in self._processes:
            process.kill()
        self.close()
        raise error


def _unlink(memory: shared_memory.SharedMemory) -> None:
    with contextlib.suppress(FileNotFoundError):
        memory.unlink()


def _stop(processes: list[Any], memory: shared_memory.SharedMemory) -> None:
    """Whatever is left of workers and memory; called once."""
    for process in processes:
        if process.pid is not None and process.is_alive():
            process.kill()
            process.join(5.0)
    _unlink(memory)
    with contextlib.suppress(BufferError):  # somebody still looks at an array: the memory goes with the last of them
        memory.close()
