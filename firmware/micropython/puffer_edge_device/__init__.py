"""puffer-edge on MicroPython: a policy in integers, behind its shield, at a fixed rate."""

VERSION = (0, 1, 0)
