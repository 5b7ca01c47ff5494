"""The sanity set: each environment proves one feature of a trainer, and is solved within 100,000 steps by one that has it."""
