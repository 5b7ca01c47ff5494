"""Hardware in the loop: proves on the line that a board, real or simulated, does what the trainer said."""
