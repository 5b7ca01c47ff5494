"""Networks, as torch modules that can be written out as the layers of a policy."""
