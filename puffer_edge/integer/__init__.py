"""From a float policy to integers: expressions, shields, operations, the program, its numpy definition and its packed image."""
