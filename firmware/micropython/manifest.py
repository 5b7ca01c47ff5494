"""Freezes the runtime into a MicroPython build (``FROZEN_MANIFEST``); ``main.py``, ``user.py`` and policies stay files."""

metadata(version="0.1.0", description="puffer-edge runtime")  # noqa: F821
package("puffer_edge_device")  # noqa: F821
module("puffer_edge_device/frames.py", base_path="../shared")  # noqa: F821
