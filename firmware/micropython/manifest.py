"""Freezes the runtime into a MicroPython build (``FROZEN_MANIFEST``); ``main.py``, ``user.py`` and policies stay files."""

metadata(version="0.1.0", description="puffer-edge: a policy in integers, behind its shield")
package("puffer_edge_device")
