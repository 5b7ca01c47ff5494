"""Algorithms: one file each, with its loss and its update; the loop is shared."""
