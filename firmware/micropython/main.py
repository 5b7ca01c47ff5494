"""Starts the runtime at power-on. While it is disarmed, ``mpremote`` (or carriage return and Ctrl-C) gets the prompt."""

from puffer_edge_device.runtime import run

run()
