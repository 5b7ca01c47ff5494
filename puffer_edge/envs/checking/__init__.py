"""The checker of environments: its rules, what they examine, and where in a text they point."""
