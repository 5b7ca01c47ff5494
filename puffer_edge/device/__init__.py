"""A program to something that answers: targets, bundles, the link, and boards that are real, simulated or in this process."""
