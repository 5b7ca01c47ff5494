"""CartPole, whose dynamics are in ``cartpole.c``: train it with ``puffer-edge train cartpole_in_c:CARTPOLE``."""

from pathlib import Path

from puffer_edge import envs
from puffer_edge.envs.environment import Environment

TASK = envs.load("cartpole")  # its contract and shield are those of the one in Python
CARTPOLE = Environment.of_library(Path(__file__).parent / "libcartpole.so", TASK.contract, solved=TASK.solved, shield=TASK.shield, random_steps=False)
