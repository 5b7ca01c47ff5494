"""The interquartile mean of several trainings and how sure one is of it (Agarwal et al., 2021, arXiv 2108.13264)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import InvalidInput
from puffer_edge.spaces import Floats

RESAMPLES = 10_000


def iqm(scores: npt.ArrayLike) -> float:
    """Mean of the middle half: a quarter of all scores, rounded down, is left out at each end (section 4.3).

    Args:
        scores: (runs,), or (runs, tasks) pooled.
    """
    return float(_middle_mean(_checked(scores).reshape(1, -1))[0])


def interval(scores: npt.ArrayLike, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % percentile interval of the IQM by stratified bootstrap: runs are drawn with replacement, for each task on its own (section 4.1).

    With fewer than some five runs it is narrower than it should be: a bootstrap cannot know what it has not seen.

    Args:
        scores: (runs,) or (runs, tasks).
        seed: of the draws.
        resamples: how many.
    """
    table = _checked(scores)
    table = table[:, None] if table.ndim == 1 else table
    runs, tasks = table.shape
    picks = np.random.default_rng(seed).integers(0, runs, (resamples, runs, tasks))
    low, high = np.percentile(_middle_mean(table[picks, np.arange(tasks)].reshape(resamples, -1)), (2.5, 97.5))
    return float(low), float(high)


def _middle_mean(rows: Floats) -> Floats:
    """(k, n) to (k,): the mean of each row without its ⌊n/4⌋ smallest and largest."""
    cut = rows.shape[1] // 4
    middle: Floats = np.sort(rows, axis=1)[:, cut : rows.shape[1] - cut].mean(1)
    return middle


def _checked(scores: npt.ArrayLike) -> Floats:
    table = np.asarray(scores, np.float64)
    if table.ndim not in (1, 2) or not table.size or not np.isfinite(table).all():
        raise InvalidInput(f"scores must be finite numbers of shape (runs,) or (runs, tasks), not {table.shape}")
    return table
