"""Bridges out: environments of this library as those of Gymnasium and PettingZoo, for trainers and tools that know only these."""
