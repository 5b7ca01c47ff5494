"""One TOML file a target: its name is the file's name."""
