"""Device code: C and MicroPython sources, the shared protocol table, and the prebuilt image. The host imports only ``firmware.shared``."""
