"""Normalisers that lie in a file of their own: Stable-Baselines3's VecNormalize, or mean and variance in a ``.npz``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.intake import pickles
from puffer_edge.intake.archives import read_arrays, read_bounded, short
from puffer_edge.intake.pickles import MAX_PICKLE, Made
from puffer_edge.policy import Normalizer
from puffer_edge.spaces import Floats

EPSILON = 1e-8
"""Added to the variance by Stable-Baselines3 and Gymnasium alike."""
CLIP = 10.0


def read_normalizer(path: str | os.PathLike[str], keys: Sequence[str] = ()) -> Normalizer | None:
    """A normaliser: ``clip((x − mean) / sqrt(var + epsilon), ±clip)``.

    Args:
        path: a VecNormalize pickle, or a ``.npz`` with ``mean`` and ``var`` (or ``std``), and where they differ from 1e-8 and 10
            ``epsilon`` and ``clip``.
        keys: parts of a dictionary observation, in order; empty for a plain one.

    Returns:
        None where the file says that observations were left alone.

    Raises:
        InvalidInput: the file is none of these, or a number in it is impossible.
        Unsupported: some parts of the observation are normalised and some are not.
    """
    with open(path, "rb") if os.path.isfile(path) else open(os.devnull, "rb") as file:
        start = file.read(4)
    if start[:1] == b"\x80":
        return _vec_normalize(pickles.read(read_bounded(path, MAX_PICKLE), os.fspath(path)), os.fspath(path), keys)
    arrays: Mapping[str, Any] = read_arrays(path)
    if "mean" not in arrays or not ("var" in arrays or "std" in arrays):
        raise InvalidInput(f"{os.fspath(path)} holds {short(', '.join(arrays))}: a normaliser has 'mean' and 'var' (or 'std')")
    if "std" in arrays:
        return _normalizer(arrays["mean"], np.square(arrays["std"]), 0.0, arrays.get("clip", CLIP), os.fspath(path))
    return _normalizer(arrays["mean"], arrays["var"], arrays.get("epsilon", EPSILON), arrays.get("clip", CLIP), os.fspath(path))


def _vec_normalize(value: Any, what: str, keys: Sequence[str]) -> Normalizer | None:
    state = pickles.mapping(value)
    name = pickles.class_name(value)
    if not isinstance(value, Made) or not name.endswith(".VecNormalize") or "norm_obs" not in state:
        raise InvalidInput(f"{what} holds {name or 'no object'}, not a VecNormalize of Stable-Baselines3")
    if not state["norm_obs"]:
        return None
    statistics = state.get("obs_rms")
    epsilon, clip = state.get("epsilon", EPSILON), state.get("clip_obs", CLIP)
    if isinstance(statistics, dict):
        chosen = state.get("norm_obs_keys")
        missing = [key for key in keys if key not in statistics or (isinstance(chosen, list) and key not in chosen)]
        if missing or not keys:
            raise Unsupported(f"{what} normalises {short(', '.join(map(str, statistics)))} and not {short(', '.join(missing))}: all parts, or none")
        parts = [pickles.mapping(statistics[key]) for key in keys]
    else:
        parts = [pickles.mapping(statistics)]
    if any("mean" not in part or "var" not in part for part in parts):
        raise InvalidInput(f"{what} holds no running mean and variance of observations")
    mean, var = (np.concatenate([pickles.array(part[k], f"{k} in {what}").reshape(-1) for part in parts]) for k in ("mean", "var"))
    return _normalizer(mean, var, pickles.plain(epsilon, f"epsilon in {what}"), pickles.plain(clip, f"clip_obs in {what}"), what)


def _normalizer(mean: Any, var: Any, epsilon: Any, clip: Any, what: str) -> Normalizer:
    centre, variance = np.asarray(mean, np.float64).reshape(-1), np.asarray(var, np.float64).reshape(-1)
    small, bound = (np.asarray(v, np.float64).reshape(-1) for v in (epsilon, clip))
    if centre.shape != variance.shape or small.size != 1 or bound.size != 1:
        raise InvalidInput(f"{what}: {centre.size} means, {variance.size} variances, {small.size} epsilons, {bound.size} clips do not go together")
    if not np.isfinite(centre).all() or not np.isfinite(variance).all() or not (variance >= 0).all() or not (small[0] >= 0 and bound[0] > 0):
        raise InvalidInput(f"{what} holds a mean, variance, epsilon or clip that is negative, NaN or infinite")
    std: Floats = np.sqrt(variance + small[0])
    if not (std > 0).all():
        raise InvalidInput(f"{what} holds a standard deviation of zero")
    return Normalizer(centre, std, float(min(bound[0], 1e9)))
