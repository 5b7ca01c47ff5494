"""Run on a board before another bundle is put there: ``mpremote run clean.py`` removes the runtime, the shield and every policy.

A policy with a higher number would count as the newer one, and MicroPython takes engine.py before engine.mpy.
"""

import os

here = os.listdir()
old = [name for name in here if name.startswith("policy") and name.endswith((".bin", ".part")) or name in ("shield.py", "shield.mpy")]
if "puffer_edge_device" in here:
    old += ["puffer_edge_device/" + name for name in os.listdir("puffer_edge_device")]
for name in old:
    os.remove(name)
    print("removed", name)
