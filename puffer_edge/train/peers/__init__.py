"""Other trainers' side of the throughput benchmark: scripts that run in a process, and where wished an environment, of their own."""
