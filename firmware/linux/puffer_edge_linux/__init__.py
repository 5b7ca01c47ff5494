"""The runtime of firmware/micropython on a Linux computer: the same device, link and shield, another board and other engines."""
