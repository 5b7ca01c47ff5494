"""The native trainer: rollouts, advantages and PPO's update in C, for the networks that fit a microcontroller."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

from puffer_edge.errors import Unsupported
from puffer_edge.train.native import structs
from puffer_edge.train.native.build import VARIANTS, library, variants

VERSION = 6
"""``PE_NATIVE_VERSION`` of the libraries that this code speaks with."""
HERE = Path(__file__).parent
BUILD = "python -m puffer_edge.train.native"


def why_not() -> str:
    """Why there is no native trainer here; empty where there is one."""
    try:
        load()
    except Unsupported as error:
        return str(error)
    return ""


def load(variant: str = "", folder: Path = HERE) -> Any:
    """The library of a variant.

    Args:
        variant: one of ``VARIANTS``; empty for the best that this processor runs, or what PUFFER_EDGE_NATIVE names.
        folder: where libraries lie.

    Raises:
        Unsupported: it was not built, this processor does not run it, or it is of another version.
    """
    return _load(variant or os.environ.get("PUFFER_EDGE_NATIVE", ""), folder)


@cache
def _load(variant: str, folder: Path) -> Any:
    if variant and variant not in VARIANTS:
        raise Unsupported(f"the native trainer has no variant {variant!r}: it has {', '.join(VARIANTS)}")
    built = [name for name in variants() if library(name, folder).is_file()]
    if "portable" not in built or (variant and variant not in built):
        raise Unsupported(f"the native trainer{f' for {variant}' if variant else ''} is not built here: {BUILD} builds it, with a C compiler")
    level = _open(library("portable", folder)).pe_native_level()
    runs = [name for name in built if VARIANTS[name][0] <= level]
    if variant and variant not in runs:
        raise Unsupported(f"this processor does not run the native trainer for {variant}: it runs {', '.join(runs)}")
    found = _open(library(variant or runs[0], folder))
    found.variant = variant or runs[0]
    return found


def _open(path: Path) -> Any:
    """A library whose versions are ours, its functions declared.

    Raises:
        Unsupported: it does not load, or its version is another, or it lacks a function.
    """
    try:
        found = ctypes.CDLL(str(path))
        version = found.pe_native_version()
    except (OSError, AttributeError) as error:
        raise Unsupported(f"{path.name} does not load: {error}; build it again: {BUILD}") from None
    if version != VERSION:
        raise Unsupported(f"{path.name} has version {version}, this code speaks {VERSION}; build it again: {BUILD}")
    p, i64, i32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    sequence = ctypes.POINTER(structs.Sequence)
    signatures: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "pe_engine_new": (p, (i32, p, p, ctypes.c_char_p, i32)),
        "pe_engine_free": (None, (p,)),
        "pe_engine_flat": (i64, (p,)),
        "pe_engine_forward": (None, (p, p, i64, p, p)),
        "pe_engine_backward": (None, (p, p, i64, p, p, p)),
        "pe_engine_rollout": (None, (p, p, p, p, p)),
        "pe_engine_reset": (None, (p, p)),
        "pe_engine_advantages": (None, (p, p)),
        "pe_engine_update": (i32, (p, p)),
        "pe_engine_moments": (None, (p, i64, i32, p, p, p, p)),
        "pe_engine_order": (i32, (p, p, i32, p)),
        "pe_cells_forward": (None, (i32, sequence, *[p] * 7)),
        "pe_cells_backward": (None, (i32, sequence, *[p] * 8)),
        "pe_sac_new": (p, (i32, p, ctypes.c_char_p, i32)),
        "pe_sac_free": (None, (p,)),
        "pe_sac_flat": (i64, (p,)),
        "pe_sac_start": (None, (p, p)),
        "pe_sac_run": (i32, (p, p)),
        "pe_native_philox": (None, (p, p, p)),
        "pe_native_functions": (None, (i64, *[p] * 6)),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(found, name, None)
        if function is None:
            raise Unsupported(f"{path.name} lacks {name}, though its version is {version}; build it again: {BUILD}")
        function.restype, function.argtypes = result, arguments
    return found


__all__ = ["load", "structs", "why_not"]
