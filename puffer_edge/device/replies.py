"""What boards answer, with names: who they are, what they hold, what a tick did, what they counted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from puffer_edge.spaces import Ints


@dataclass(frozen=True)
class Identity:
    """What a board says about itself.

    Attributes:
        kind: firmware, by name of ``protocol.KINDS``.
        version: version of the firmware.
        state: by name of ``protocol.STATES``.
        shield: how the shield runs, by name of ``protocol.SHIELDS``.
        clock_hz: clock of the core; 0 where the board does not know it.
        n_observations: channels of the installed policy, 0 without one.
        n_actions: actions of the installed policy, 0 without one.
        target: name of the target.
        unique_id: serial number of the chip, in hexadecimal.
    """

    kind: str
    version: str
    state: str
    shield: str
    clock_hz: int
    n_observations: int
    n_actions: int
    target: str
    unique_id: str

    @property
    def simulated(self) -> bool:
        """It says of itself that it is no hardware: simulators answer with an id that begins with "PESIM"."""
        return bytes.fromhex(self.unique_id).startswith(b"PESIM")

    @property
    def armed(self) -> bool:
        """It drives, or would drive, an actuator."""
        return self.state in ("lock_step", "free_run")

    def summary(self) -> dict[str, Any]:
        """Plain values for JSON, the version under "firmware"."""
        values = asdict(self)
        return {"firmware": values.pop("version"), **values}


@dataclass(frozen=True)
class Digests:
    """What a board holds.

    Attributes:
        image_bytes: size of the installed image, 0 without one.
        contract_bytes: size of the contract's text.
        installs: how often a policy was installed.
        image: digest of the whole image.
        contract: digest of the contract.
        program: digest of the program.
        shield: digest of the shield.
    """

    image_bytes: int
    contract_bytes: int
    installs: int
    image: bytes
    contract: bytes
    program: bytes
    shield: bytes


@dataclass(frozen=True)
class StepReply:
    """What a board did in one tick.

    Attributes:
        outcome: flags and reasons (``docs/tick.md``).
        state: state digest after the tick.
        cycles_policy: cycles of the network, 0 where the board counts none.
        cycles_shield: cycles of the shield.
        raw: (m,) int32, proposed.
        applied: (m,) int32, after the shield.
        round_trip_us: wall time of the exchange.
    """

    outcome: int
    state: int
    cycles_policy: int
    cycles_shield: int
    raw: Ints
    applied: Ints
    round_trip_us: float


@dataclass(frozen=True)
class Status:
    """A board's counters since it was armed.

    Attributes:
        ticks: ticks in all.
        stages: (8,) ticks at which each stage of the shield acted.
        invalid: ticks with an invalid observation.
        stale: ticks beyond the staleness limit.
        missed: ticks without an observation.
        saturated: ticks with a channel out of range.
        bad_frames: frames that arrived damaged.
        repeated_frames: requests that arrived again.
        deadline_misses: ticks that took longer than the period.
        cycles_max: most cycles of a tick.
    """

    ticks: int
    stages: tuple[int, ...]
    invalid: int
    stale: int
    missed: int
    saturated: int
    bad_frames: int
    repeated_frames: int
    deadline_misses: int
    cycles_max: int

    def summary(self, stages: tuple[str, ...] = ()) -> dict[str, int]:
        """Plain counters, the stages under their names."""
        values = asdict(self)
        counts = values.pop("stages")
        return {**values, **{f"stage{k}_{name}": counts[k] for k, name in enumerate(stages)}}
