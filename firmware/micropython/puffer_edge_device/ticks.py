"""Microseconds that wrap within a small integer; on CPython, where the tests run, ones that do not."""

try:
    from time import ticks_add, ticks_diff, ticks_us
except ImportError:
    from time import perf_counter_ns

    def ticks_us():
        return perf_counter_ns() // 1000

    def ticks_add(a, b):
        return a + b

    def ticks_diff(a, b):
        return a - b
