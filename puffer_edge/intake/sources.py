"""The files that together are a policy from elsewhere, as they were given on the command line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any


@dataclass(frozen=True, eq=False)
class Sources:
    """Files that together are a policy.

    Attributes:
        model: the network.
        normalizer: its normaliser, ``"none"`` for surely none, None where nobody said.
        environment: one of ours, whose contract it gets; None with ``contract``.
        contract: a TOML file; None with ``environment``.
        layout: for files that hold nothing but tensors; None where their names are known.
        observations: ``.npy`` or ``.npz`` with (N, n) physical observations to calibrate on; None for none.
        output: for ONNX: name of the graph's output that drives; None where there is no doubt.
    """

    model: Path
    normalizer: str | None = None
    environment: str | None = None
    contract: Path | None = None
    layout: Path | None = None
    observations: Path | None = None
    output: str | None = None

    def command(self, **changes: Any) -> str:
        """The command line with these files, up to ``--out``."""
        now = replace(self, **changes)
        options = {
            "--normalizer": now.normalizer,
            "--env": now.environment,
            "--contract": now.contract,
            "--layout": now.layout,
            "--observations": now.observations,
            "--output": now.output,
        }
        return " ".join(["puffer-edge import", quote(str(now.model)), *(f"{k} {quote(str(v))}" for k, v in options.items() if v is not None)])
