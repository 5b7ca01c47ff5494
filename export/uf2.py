"""UF2: one file to drag onto a Pico, our prebuilt firmware with the policy and its shield in their own flash region."""

from __future__ import annotations

from pathlib import Path

import puffer_edge.firmware
from puffer_edge.device.uf2 import rp2040_uf2
from puffer_edge.errors import Unsupported
from puffer_edge.export.source import Source

PREBUILT = Path(puffer_edge.firmware.__file__).parent / "prebuilt"


def files(source: Source) -> dict[str, bytes]:
    """``NAME.uf2``.

    Raises:
        Unsupported: there is no prebuilt firmware for the target.
    """
    firmware = PREBUILT / f"{source.target.name}.bin"
    if not firmware.is_file():
        raise Unsupported(f"there is no prebuilt firmware for {source.target.name}; 'make firmware' builds {firmware.name}")
    return {f"{source.name}.uf2": rp2040_uf2(firmware.read_bytes(), source.image.data)}
