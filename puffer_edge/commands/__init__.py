"""The commands, one file a close group; their docstrings are what --help shows."""
