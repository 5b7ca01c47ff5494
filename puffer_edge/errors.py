"""Every error the library raises on purpose, as one tree.

PufferEdgeError
├── InvalidInput        a value from outside is wrong: a name, a NaN, a shape
├── Unsupported         the request is understood, this build or machine cannot do it
│   └── MissingExtra    … until an optional package is installed
├── DoesNotFit          needs more than the target has (needs, has)
├── ReturnLost          no profile of integers keeps enough of the float policy's return
├── Diverged            a training's numbers became NaN or infinite
├── WorkerFailed        an environment raised, hung, or its process died
├── WriteFailed         a run cannot be written on: full disk, no permission
├── RangeError          an integer may leave the range that every engine shares
├── ContractError       two contracts differ, or one is inconsistent
├── BundleError         a bundle, run or image is damaged, incomplete or too new
├── Mismatch            two engines gave different bits (first differing step)
└── LinkError           the line to a board
    ├── PortUnavailable missing, busy or unplugged
    ├── Timeout         the board did not answer in time
    ├── BadFrame        what came back is not a frame
    ├── WrongFirmware   another protocol version, or no puffer-edge firmware
    └── Refused         the board understood and said no (code, detail)
"""

from __future__ import annotations


class PufferEdgeError(Exception):
    """Root of the tree; its message names the numbers and the way out."""

    exit_code = 1


class InvalidInput(PufferEdgeError):
    """A value from outside cannot be used."""

    exit_code = 2


class Unsupported(PufferEdgeError):
    """Understood, but not possible with this build or on this machine."""

    exit_code = 3


class MissingExtra(Unsupported):
    """An optional package is needed.

    Args:
        extra: name of the extra, as in ``pip install 'puffer-edge[extra]'``.
        what: what needs it.
    """

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(f"{what} needs the extra '{extra}': pip install 'puffer-edge[{extra}]'")
        self.extra = extra


class DoesNotFit(PufferEdgeError):
    """A policy needs more of something than the target has.

    Args:
        what: the resource, with its unit ("KiB of flash").
        needs: how much is needed, in that unit.
        has: how much there is, in that unit.
        target: name of the target.
        advice: what to try.
    """

    exit_code = 4

    def __init__(self, what: str, needs: float, has: float, target: str, advice: str) -> None:
        super().__init__(f"the policy needs {needs:g} {what}, {target} has {has:g}: {advice}")
        self.needs = needs
        self.has = has


class ReturnLost(PufferEdgeError):
    """No profile of integers keeps as much of the float policy's return as was asked for."""

    exit_code = 11


class Diverged(PufferEdgeError):
    """A training's numbers became NaN or infinite; the last good policy is kept."""

    exit_code = 10


class WorkerFailed(PufferEdgeError):
    """An environment raised something, did not answer in time, or the process that it lived in died."""

    exit_code = 13


class WriteFailed(PufferEdgeError):
    """A file of a run could not be written; what was there before is untouched and readable."""

    exit_code = 12


class RangeError(PufferEdgeError):
    """An integer may leave the range shared by every engine."""

    exit_code = 5


class ContractError(PufferEdgeError):
    """Two contracts differ, or one is inconsistent."""

    exit_code = 6


class BundleError(PufferEdgeError):
    """A bundle, run or policy image is damaged, incomplete or from a newer version."""

    exit_code = 7


class Mismatch(PufferEdgeError):
    """Two engines gave different bits.

    Args:
        message: what differs, and between whom.
        step: index of the first differing step.
    """

    exit_code = 8

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class LinkError(PufferEdgeError):
    """The line to a board failed."""

    exit_code = 9


class PortUnavailable(LinkError):
    """The port is missing, busy, or went away."""


class Timeout(LinkError):
    """The board did not answer in time."""


class BadFrame(LinkError):
    """What came back is not a frame of this protocol."""


class WrongFirmware(LinkError):
    """Another protocol version, or no puffer-edge firmware at all."""


class Refused(LinkError):
    """The board understood the request and refused it.

    Args:
        message: the reason in words.
        code: error code of ``firmware/shared/protocol.py``.
        detail: number that belongs to the code.
    """

    def __init__(self, message: str, code: int, detail: int) -> None:
        super().__init__(message)
        self.code = code
        self.detail = detail
