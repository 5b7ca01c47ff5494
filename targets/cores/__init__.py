"""One TOML file a core: what each kind of work in a tick costs there, by engine, and how that is known (``docs/targets.md``)."""
