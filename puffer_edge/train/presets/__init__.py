"""Settings that suit an environment: a file of this folder holds them, under the environment's name, with one table an algorithm."""
