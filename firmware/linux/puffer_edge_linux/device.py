"""The device and the link of firmware/micropython, with another engine inside and the words of this firmware."""

import argparse
from collections.abc import Callable
from typing import Any

from puffer_edge_device import device, engine, link
from puffer_edge_device.device import FAILED, Refused, load
from puffer_edge_device.image import Image
from puffer_edge_device.protocol import KINDS

from .bundle import Bundle
from .compute import OtherPolicy, choose
from .networks import EngineFault
from .options import EXACT, say

FLAGS = 0xFFFF  # of an outcome; above them are the reasons


class Engine(engine.Engine):
    """A tick whose step 3 is computed by what was chosen; all else is the runtime's."""

    clear: Callable[[], None] | None = None

    def __init__(self, image: Image, compute: Any) -> None:
        super().__init__(image)
        run, self.clear = compute.bind(self)
        if run is not None:
            self._run = run

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        if self.clear is not None:
            self.clear()


class Device(device.Device):
    """A device that computes with what ``choose`` gives for the image it holds."""

    def __init__(self, board: Any, driver: Any, options: argparse.Namespace, bundle: Bundle) -> None:
        self.options, self.bundle = options, bundle
        self.compute: Any = None
        super().__init__(board, driver, str(options.folder))

    @property
    def may_leave(self) -> bool:
        """There is no prompt to leave for."""
        return False

    @property
    def kind(self) -> int:
        """Which firmware this is, for the greeting."""
        return int(KINDS["linux" if self.options.engine in EXACT else "linux_float"])

    def step(self, flags: int, beyond: bool) -> int:
        """One tick; an engine that fails ends in the safe output."""
        try:
            return int(super().step(flags, beyond))
        except EngineFault as fault:
            say(f"{fault}: the safe output acts until the board is disarmed")
            self.engine.reset()
            self.state = FAILED
            self._write(self.engine.safe)
            raise Refused("self_test") from fault

    def poll(self) -> int:
        """As the runtime's; a tick that could not be computed ends free running."""
        try:
            return int(super().poll())
        except Refused:
            return -1

    def commit(self) -> int:
        """As the runtime's; an engine that was built for the bundle's own policy takes no other."""
        try:
            return int(super().commit())
        except OtherPolicy as other:
            say(f"an install was refused: {other}")
            self._back("not_here")
            raise  # not reached: _back raises what the host is told

    def _use(self, image: Image) -> None:
        super()._use(image)
        self.compute = choose(self.options, self.bundle, image)
        self.engine = Engine(image, self.compute)
        say(f"{image.path}: {self.compute.words}")

    def _self_test(self) -> None:
        try:
            if self.compute.exact:
                super()._self_test()
            else:
                self._float_self_test()
        except Refused:  # the engine failed in it
            self.failed_step, self.state = 0, FAILED
        self.engine.reset()

    def _float_self_test(self) -> None:
        """The image's vectors within the bundle's bounds: flags as the program's, actions near its own, other bits not compared."""
        image, bounds = self.image, self.bundle.bounds
        worst, flips = [0] * image.m, 0
        for k, row in enumerate(image.vectors()):
            expected = memoryview(bytes(row))[4 + 4 * image.n :].cast("i")
            beyond = load(row, 4, self.observation, image.n)
            outcome = self.step(row[0], beyond)
            apart = [abs(self.engine.raw[j] - expected[j]) for j in range(image.m)]
            worst, flips = [max(a, b) for a, b in zip(worst, apart)], flips + any(apart)
            too_far = flips > max(1, round(bounds.flips * image.steps)) if bounds.discrete else any(a > b for a, b in zip(apart, bounds.action))
            if too_far or (outcome ^ expected[2 * image.m]) & FLAGS:
                self.failed_step, self.state = k, FAILED
                break
            self.board.feed()
        found = f"{flips} of {image.steps} choices differ" if bounds.discrete else f"differences up to {worst}, bounds {list(bounds.action)}"
        verdict = "passed" if self.failed_step < 0 else f"FAILED at step {self.failed_step}"
        say(f"float self-test {verdict}: {found} (fixed-point units of each action)")


class Link(link.Link):
    """The runtime's link; the greeting names this firmware."""

    def _hello(self, request: Any, reply: str) -> int:
        size = int(super()._hello(request, reply))
        self.body[link.AT + 2] = self.device.kind  # after the protocol's version
        return size
