"""Runs on both ends of the line, under CPython and MicroPython."""
