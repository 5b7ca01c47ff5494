"""From a policy to a bundle: quantise, build the shield, record vectors, write every format of the target."""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge import __version__, find
from puffer_edge.device import budget
from puffer_edge.device.bundle import IMAGE, POLICY, VECTORS, Bundle
from puffer_edge.device.target import Target
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.export import page, tflite_converter
from puffer_edge.export.source import Source
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer import image, vectors
from puffer_edge.integer.image import Image
from puffer_edge.integer.quantize import measure, quantize
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import Policy

VECTOR_STEPS = 512


def export(
    policy: Policy,
    target: Target,
    out: str | os.PathLike[str],
    observations: npt.ArrayLike,
    shield: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any] | None = None,
    rate_hz: float | None = None,
    starts: npt.ArrayLike | None = None,
    profile: str = "int8",
    ranges: str | Sequence[str] = "percentile",
    converter: str = "own",
) -> Bundle:
    """Write a bundle.

    Args:
        policy: the float policy.
        target: the board.
        out: the bundle's folder.
        observations: (N, n_observations) physical observations of the policy's own rollouts, for calibration and vectors.
        shield: specification of the shield, one mapping a stage.
        about: further manifest fields, such as the environment's name and returns.
        rate_hz: demand that a tick fit at this rate, by the predicted time; the contract's rate stays.
        starts: (N,) whether a row of the observations begins an episode; None: only the first does.
        profile: of the integers: "int8", "int16x8", "int4" or "shift".
        ranges: how ranges are read off the calibration, as of ``quantize``.
        converter: "own"; or "tensorflow": beside our ``policy.tflite`` the one that TensorFlow's converter makes.

    Returns:
        the bundle, read back and verified.

    Raises:
        DoesNotFit: the image is larger than the target's slot, its working memory than the target's, or a tick than ``rate_hz`` allows.
        InvalidInput, RangeError: the policy or shield cannot be put into integers.
    """
    seen = np.asarray(observations, np.float64)
    program = quantize(policy, seen, starts, profile, ranges)
    built = Shield.build(policy.contract, shield)
    steps = vectors.make(program, built, policy.contract.observe(seen)[0], steps=VECTOR_STEPS)
    source = Source(
        policy,
        Image(policy.contract, program, built, steps.head(vectors.SELF_TEST_STEPS)),
        steps,
        target,
        seen,
        None if starts is None else np.asarray(starts, bool),
    )
    budget.check_size(source.image, target)
    if rate_hz is not None:
        budget.check_rate(source.image, target, rate_hz)
    quality = measure(policy, program, seen, starts)
    files, left_out = _files(source)
    if converter == "tensorflow":
        files[tflite_converter.FILE] = tflite_converter.convert(policy, seen)
    elif converter != "own":
        raise InvalidInput(f"unknown converter {converter!r}: own or tensorflow")
    manifest = {
        "name": policy.name,
        "target": target.name,
        "formats": [name for name in target.formats if name not in left_out],
        "left_out": left_out,
        "digests": {
            "image": source.image.digest.hex(),
            "contract": policy.contract.digest.hex(),
            "program": program.digest.hex(),
            "shield": built.digest.hex(),
        },
        "contract": policy.contract.digest.hex(),
        "shield": {"stages": list(built.stages), "specification": [dict(stage) for stage in shield]},
        "cost": budget.manifest_cost(source.image, target, rate_hz),
        "calibration": {
            "observations": len(seen),
            "agreement": round(quality.agreement, 5),
            "median_action_error": round(quality.median_action_error, 5),
            "worst_action_error": round(quality.worst_action_error, 5),
            "saturated": round(quality.saturated, 6),
            "saturation": {place: list(counts) for place, counts in quality.saturation.items()},
            "profile": profile,
            "ranges": ranges if isinstance(ranges, str) else list(ranges),
        },
        "vectors": {"steps": len(steps), "sequences": int((steps.flags & protocol.STEP_RESET).sum()), "self_test_steps": vectors.SELF_TEST_STEPS},
        "versions": {
            "puffer_edge": __version__,
            "protocol": protocol.VERSION,
            "image": image.VERSION,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "origin": policy.origin,
        **(about or {}),
    }
    files["report.html"] = page.bundle_page(source, manifest, files).encode()
    return Bundle.write(out, manifest, files)


def formats() -> tuple[str, ...]:
    """Every format there is: the modules of this package that write files."""
    return tuple(name for name in find.names("puffer_edge.export", ".py") if hasattr(importlib.import_module(f"puffer_edge.export.{name}"), "files"))


def _files(source: Source) -> tuple[dict[str, bytes], dict[str, str]]:
    """Every file of every format, and the formats left out with the reason."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        source.policy.save(Path(folder) / POLICY)
        files = {IMAGE: source.image.data, VECTORS: source.vectors.pack(), POLICY: (Path(folder) / POLICY).read_bytes()}
    left_out: dict[str, str] = {}
    for name in source.target.formats:
        module = importlib.import_module(f"puffer_edge.export.{name}")
        try:
            files |= module.files(source)
        except Unsupported as error:
            left_out[name] = str(error)
    return files, left_out
