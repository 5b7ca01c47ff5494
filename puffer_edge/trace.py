"""What happened, step by step: the record of a closed loop, from a reference, a board or a log."""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import BundleError, InvalidInput
from puffer_edge.files import write_atomic

FORMAT = 1
DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error, InvalidInput)
"""What reading a damaged archive of arrays may raise."""


@dataclass(frozen=True, eq=False)
class Trace:
    """Columns of equal length, one row a tick.

    Attributes:
        time_us: (steps,) int64, microseconds since the trace began, by the base rate.
        episode: (steps,) int32, index of the episode.
        observation: (steps, n) int32 fixed point, as the device received it.
        raw: (steps, m) int32 fixed point, proposed by the policy.
        applied: (steps, m) int32 fixed point, after the shield.
        outcome: (steps,) uint32, flags and reasons (``docs/tick.md``).
        state: (steps,) uint32, state digest after the tick.
        reward: (steps,) float64.
        cost: (steps,) float64.
        terminated: (steps,) bool.
        truncated: (steps,) bool.
        round_trip_us: (steps,) float64 wall time of one exchange with the board; 0 where there is none.
        cycles_policy: (steps,) uint32, cycles of the network; 0 where the board counts none.
        cycles_shield: (steps,) uint32, cycles of the shield.
        source: who computed it ("reference", or the board's identity).
        seed: seed of the episodes.
        about: contract digest, versions, whatever belongs to the record; plain JSON values.
    """

    time_us: npt.NDArray[np.int64]
    episode: npt.NDArray[np.int32]
    observation: npt.NDArray[np.int32]
    raw: npt.NDArray[np.int32]
    applied: npt.NDArray[np.int32]
    outcome: npt.NDArray[np.uint32]
    state: npt.NDArray[np.uint32]
    reward: npt.NDArray[np.float64]
    cost: npt.NDArray[np.float64]
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    round_trip_us: npt.NDArray[np.float64]
    cycles_policy: npt.NDArray[np.uint32]
    cycles_shield: npt.NDArray[np.uint32]
    source: str
    seed: int
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in COLUMNS}
        if len(set(lengths.values())) != 1:
            raise InvalidInput(f"the columns of a trace must have one length: {lengths}")

    def __len__(self) -> int:
        return len(self.time_us)

    def returns(self) -> npt.NDArray[np.float64]:
        """(episodes,) sum of rewards of each episode."""
        episodes = int(self.episode.max()) + 1 if len(self) else 0
        return np.bincount(self.episode, self.reward, minlength=episodes).astype(np.float64)

    def compare(self, other: Trace) -> npt.NDArray[np.int64]:
        """Steps at which another trace gave different bits (observation, raw, applied, outcome or state).

        Raises:
            InvalidInput: the traces have different lengths.
        """
        if len(self) != len(other):
            raise InvalidInput(f"traces of {len(self)} and {len(other)} steps cannot be compared")
        different = np.zeros(len(self), bool)
        for name in ("observation", "raw", "applied", "outcome", "state"):
            a, b = getattr(self, name), getattr(other, name)
            different |= (a != b).any(axis=tuple(range(1, a.ndim)))
        return np.flatnonzero(different)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one ``.npz`` file, atomically."""
        about = json.dumps({"format": FORMAT, "source": self.source, "seed": self.seed, "about": self.about})
        buffer = io.BytesIO()
        np.savez_compressed(buffer, about=np.frombuffer(about.encode(), np.uint8), **{name: getattr(self, name) for name in COLUMNS})
        write_atomic(path, buffer.getvalue())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Trace:
        """Read a trace written by ``save``; nothing in the file is executed.

        Raises:
            InvalidInput: there is no such file.
            BundleError: the file is damaged, not a trace, or from a newer version.
        """
        if not Path(path).is_file():
            raise InvalidInput(f"there is no trace at {os.fspath(path)}")
        try:
            with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as file:
                about = json.loads(file["about"].tobytes())
                columns: dict[str, Any] = {name: file[name] for name in COLUMNS}
            if about["format"] > FORMAT:
                raise BundleError(f"{os.fspath(path)} has format {about['format']}, this version reads up to {FORMAT}: upgrade puffer-edge")
            return Trace(**columns, source=about["source"], seed=about["seed"], about=about["about"])
        except DAMAGE as error:
            raise BundleError(f"{os.fspath(path)} is not a trace of this package, or it is damaged: {error}") from None


COLUMNS = tuple(f.name for f in fields(Trace) if f.name not in ("source", "seed", "about"))
