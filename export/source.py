"""What every format writes from."""

from __future__ import annotations

from dataclasses import dataclass

from puffer_edge.device.target import Target
from puffer_edge.integer.image import Image
from puffer_edge.integer.vectors import Vectors
from puffer_edge.policy import Policy
from puffer_edge.spaces import Bools, Floats


@dataclass(frozen=True, eq=False)
class Source:
    """A policy ready for a target.

    Attributes:
        policy: the float policy.
        image: its program and shield, packed with the self-test vectors.
        vectors: all test vectors, of which the image holds the first.
        target: the board.
        observations: (N, n) physical observations that the program was calibrated on, in order of time.
        starts: (N,) whether a row begins an episode; None: only the first does.
    """

    policy: Policy
    image: Image
    vectors: Vectors
    target: Target
    observations: Floats
    starts: Bools | None = None

    @property
    def name(self) -> str:
        """The policy's name as an identifier of C and Python."""
        text = "".join(ch if ch.isalnum() and ch.isascii() else "_" for ch in self.policy.name)
        return text if not text[:1].isdigit() else f"_{text}"
