"""Observations to calibrate integers on: the file that a run keeps them in, and the reader of anybody's."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import InvalidInput
from puffer_edge.files import OBSERVATIONS, write_atomic
from puffer_edge.intake.archives import MAX_FILE, read_arrays
from puffer_edge.spaces import Bools, Floats


def read_observations(path: str | os.PathLike[str], n: int) -> dict[str, npt.NDArray[Any]]:
    """Observations to calibrate on: ``observations`` (N, n), and ``starts`` (N,) where a file says at which an episode starts.

    Args:
        path: a ``.npy``, or a ``.npz`` with ``observations`` and perhaps ``starts``.
        n: observations of the contract.

    Raises:
        InvalidInput: another shape, NaN, or none at all.
    """
    arrays = read_arrays(path)
    rows = np.asarray(arrays.get("observations", arrays.get("", np.zeros(0))), np.float64)
    if rows.ndim != 2 or rows.shape[1] != n or not len(rows):
        raise InvalidInput(f"{os.fspath(path)} must hold observations of shape (N, {n}), not {rows.shape}")
    if not np.isfinite(rows).all():
        raise InvalidInput(f"{os.fspath(path)} holds {int((~np.isfinite(rows).all(1)).sum())} rows with NaN or infinite numbers")
    starts = np.array(arrays.get("starts", np.arange(len(rows)) == 0), bool)
    if starts.shape != (len(rows),):
        raise InvalidInput(f"{os.fspath(path)} has {len(rows)} observations and 'starts' of shape {starts.shape}")
    starts[:1] = True
    return {"observations": rows, "starts": starts}


def write_observations(folder: Path, observations: Floats, starts: Bools) -> None:
    """Write what ``read_observations`` reads into a run's folder, whole or not at all."""
    stream = io.BytesIO()
    np.savez_compressed(stream, observations=observations, starts=starts)
    if stream.tell() > MAX_FILE:
        raise InvalidInput(f"the observations take {stream.tell():,} bytes, at most {MAX_FILE:,}: give fewer")
    write_atomic(folder / OBSERVATIONS, stream.getvalue())
