"""Check a board: replay the bundle's vectors on it, then let it drive the simulated plant in lock-step with the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.contract import Contract
from puffer_edge.device.board import Board, StepReply
from puffer_edge.device.bundle import Bundle
from puffer_edge.envs.closed_loop import Loop, count_reasons, float_returns, integer_returns
from puffer_edge.envs.environment import Environment
from puffer_edge.errors import ContractError
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer.reference import Runner, Tick
from puffer_edge.integer.vectors import Vectors
from puffer_edge.spaces import Ints
from puffer_edge.trace import Trace

Progress = Callable[[str, int, int], None]
FLOAT_NOTE = "the board computes the policy in float: its bits are not the program's, and a check of it measures differences but never passes"


@dataclass(frozen=True, eq=False)
class CheckResult:
    """What a check found.

    Attributes:
        board: identity of the board, as text values.
        target: the bundle's target.
        vectors: vector steps replayed.
        vector_mismatches: vector steps that gave other bits than the reference.
        loop_mismatches: closed-loop steps that gave other bits than the reference.
        first_difference: words about the first differing step, empty when there is none.
        returns: returns of the same episodes: "float", "integer" and "device", (episodes,) each.
        interventions: steps of the closed loop by reason; one step may have several.
        board_counters: the board's own counters since it was armed.
        trace: every step of the board in the closed loop.
        largest_difference: of each proposed action from the reference, in its unit, over vectors and closed loop; by the action's name.
    """

    board: dict[str, Any]
    target: str
    vectors: int
    vector_mismatches: int
    loop_mismatches: int
    first_difference: str
    returns: dict[str, np.ndarray[Any, np.dtype[np.float64]]]
    interventions: dict[str, int]
    board_counters: dict[str, int]
    trace: Trace
    seed: int
    largest_difference: dict[str, float] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def mismatches(self) -> int:
        """Steps that differ, vectors and closed loop together."""
        return self.vector_mismatches + self.loop_mismatches

    def summary(self) -> dict[str, Any]:
        """The figures of ``check --json``; a quantity that the board does not give is null."""
        wall = self.trace.round_trip_us
        ran = (self.trace.outcome & protocol.POLICY_RAN) != 0
        policy, shield = (getattr(self.trace, f"cycles_{part}")[ran].astype(np.int64) for part in ("policy", "shield"))
        counted = self.about.get("cycles_are") is not None and bool(policy.any())
        return {
            "board": self.board,
            "target": self.target,
            "vectors": self.vectors,
            "mismatches": self.mismatches,
            "vector_mismatches": self.vector_mismatches,
            "loop_mismatches": self.loop_mismatches,
            "first_difference": self.first_difference or None,
            "largest_difference": self.largest_difference,
            "episodes": len(self.returns["device"]),
            "steps": len(self.trace),
            "seed": self.seed,
            "return_float": _mean(self.returns["float"]),
            "return_integer": _mean(self.returns["integer"]),
            "return_device": _mean(self.returns["device"]),
            "interventions": int(((self.trace.outcome >> protocol.REASON_SHIFT) != 0).sum()),
            "interventions_by_reason": self.interventions,
            "round_trip_us": {"median": _mean(np.median(wall)), "p99": _mean(np.percentile(wall, 99))} if len(wall) else None,
            "ticks_cycles": _spread(policy + shield) if counted else None,
            "policy_cycles": _spread(policy) if counted else None,
            "shield_cycles": _spread(shield) if counted else None,
            "cycles_are": self.about.get("cycles_are"),
            "board_counters": self.board_counters,
            **{k: v for k, v in self.about.items() if k != "cycles_are"},
        }


def _mean(values: Any) -> float | None:
    return round(float(np.mean(values)), 3) if np.size(values) else None


def _spread(values: Any) -> dict[str, int]:
    return {"median": int(np.median(values)), "max": int(np.max(values))}


def check(bundle: Bundle, board: Board, environment: Environment, episodes: int, seed: int = 0, progress: Progress | None = None) -> CheckResult:
    """Replay, then close the loop.

    Args:
        bundle: what should be on the board.
        board: the board, disarmed.
        environment: the plant.
        episodes: closed-loop episodes, at least 1.
        seed: of the episodes; episode k starts alike for float, integer and device.
        progress: called with a stage's name, steps done and steps in all.

    Raises:
        ContractError: the board holds another policy, contract or shield: which, and how to install.
        Refused: the board refuses to arm, for example because its self-test failed.
        LinkError: the line failed.
    """
    tell = progress or (lambda stage, done, total: None)
    environment = environment.under(bundle.image.contract)
    if environment.contract.digest != bundle.image.contract.digest:
        fields = "; ".join(bundle.image.contract.differences(environment.contract))
        raise ContractError(f"the bundle was made for another contract than the environment {environment.name} has: {fields}")
    board.make_ready()
    same_policy(bundle, board)
    apart = np.zeros(bundle.image.contract.n_actions, np.int64)
    wrong, first = replay(bundle.vectors, bundle.image.contract, board, tell, apart)
    traces = drive(bundle, board, environment, episodes, seed, tell, apart)
    device, differing, loop_first, counters = traces
    first = first or loop_first
    shield, contract = bundle.image.shield, bundle.image.contract
    largest = {ch.name: float(value) for ch, value in zip(contract.actions, apart * np.exp2(-contract.action_bits.astype(np.float64)))}
    returns = {
        "float": float_returns(environment, bundle.policy, shield, episodes, seed),
        "integer": integer_returns(environment, bundle.image.program, shield, episodes, seed),
        "device": device.returns(),
    }
    return CheckResult(
        board=board.identity.summary(),
        target=bundle.target,
        vectors=len(bundle.vectors),
        vector_mismatches=wrong,
        loop_mismatches=differing,
        first_difference=first,
        returns=returns,
        interventions=count_reasons(device.outcome, shield.stages),
        board_counters=counters,
        trace=device,
        seed=seed,
        largest_difference=largest,
        about={
            "contract": contract.digest.hex(),
            "simulated": board.says or None,
            "note": _note(bundle, board),
            "cycles_are": _kind_of_cycles(board),
        },
    )


def _note(bundle: Bundle, board: Board) -> str | None:
    """Words where the board is not what the bundle was made for: the bits are compared all the same."""
    there = board.identity
    if there.kind == "linux_float":
        return FLOAT_NOTE
    simulated_vm = there.simulated and there.kind == "micropython" and "micropython" in bundle.manifest["formats"]
    if there.target == bundle.target or simulated_vm:
        return None
    return f"the bundle is for {bundle.target}, the board says it is {there.target}: this check says nothing of a {bundle.target}"


def _kind_of_cycles(board: Board) -> str | None:
    """What a board's cycle counts are; None where it counts none (MicroPython gives microseconds, the host nanoseconds)."""
    if board.identity.kind != "c" or not board.identity.clock_hz:
        return None
    return "emulated" if board.simulated else "counted by the board"


def same_policy(bundle: Bundle, board: Board) -> None:
    """Raise unless the board holds this bundle's image.

    Raises:
        ContractError: which digest differs, and for the contract which fields.
    """
    held = board.digests()
    mine = bundle.image
    differing = []
    if held.contract != mine.contract.digest:
        differing.append("contract (" + "; ".join(mine.contract.differences(board.contract())) + ")" if held.image_bytes else "contract")
    differing += [name for name in ("program", "shield") if getattr(held, name) != getattr(mine, name).digest]
    if not differing and held.image != mine.digest:
        differing = ["image (name or self-test vectors)"]
    if differing:
        what = "holds no policy" if not held.image_bytes else f"differs from the bundle in {', '.join(differing)}"
        raise ContractError(f"the board {what}: install first with 'puffer-edge install {bundle.path} --board …'")


def replay(vectors: Vectors, contract: Contract, board: Board, tell: Progress, apart: npt.NDArray[np.int64] | None = None) -> tuple[int, str]:
    """Run every vector on the disarmed board; ``apart`` (m,) is raised to the largest difference of a proposal, in fixed point.

    Returns:
        steps that differ, and words about the first of them.
    """
    wrong, first = 0, ""
    for k in range(len(vectors)):
        reply = board.replay(vectors.observation[k], int(vectors.flags[k]))
        expected = Tick(vectors.raw[k : k + 1], vectors.applied[k : k + 1], vectors.outcome[k : k + 1], vectors.state[k : k + 1])
        difference = _difference(reply, expected, 0)
        wrong += bool(difference)
        _widen(apart, reply, vectors.raw[k])
        first = first or (f"vector {k}: {difference}" if difference else "")
        tell("vectors", k + 1, len(vectors))
    return wrong, first


def _widen(apart: npt.NDArray[np.int64] | None, reply: StepReply, raw: Ints) -> None:
    """Raise ``apart`` (m,) to this step's distance between two proposals (m,)."""
    if apart is not None:
        np.maximum(apart, np.abs(reply.raw.astype(np.int64) - raw), out=apart)


def _difference(reply: StepReply, tick: Tick, row: int) -> str:
    """Words about how a board's answer differs from the reference, or nothing."""
    parts = []
    for name in ("raw", "applied"):
        here, there = getattr(tick, name)[row], getattr(reply, name)
        if not np.array_equal(here, there):
            parts.append(f"{name} {there.tolist()} on the board, {here.tolist()} in the reference")
    for name in ("outcome", "state"):
        here, there = int(getattr(tick, name)[row]), int(getattr(reply, name))
        if here != there:
            parts.append(f"{name} 0x{there:x} on the board, 0x{here:x} in the reference")
    return "; ".join(parts)


def drive(
    bundle: Bundle,
    board: Board,
    environment: Environment,
    episodes: int,
    seed: int,
    tell: Progress,
    apart: npt.NDArray[np.int64] | None = None,
) -> tuple[Trace, int, str, dict[str, int]]:
    """Let the board drive the plant, the reference beside it, step by step; ``apart`` is as of ``replay``.

    Returns:
        the board's trace, steps that differ, words about the first of them, and the board's counters.
    """
    image = bundle.image
    reference = Runner(image.program, image.shield)
    loop = Loop(environment, seed, source=str(board.identity.summary()["target"]))
    differing, first = 0, ""
    board.arm(image.contract.digest, image.program.digest, image.shield.digest, expected=image.contract)
    try:
        for episode in range(episodes):
            observation, flags = loop.begin(episode)
            while True:
                reply = board.step(observation, flags)
                expected = reference.tick(observation[None], flags)
                difference = _difference(reply, expected, 0)
                differing += bool(difference)
                _widen(apart, reply, expected.raw[0])
                first = first or (f"episode {episode}, step {loop.step}: {difference}" if difference else "")
                following = loop.advance(reply)
                tell("closed loop", episode * environment.max_steps + loop.step, episodes * environment.max_steps)
                if following is None:
                    break
                observation, flags = following
        counters = board.status().summary(image.shield.stages)
    finally:
        board.disarm()
    return loop.trace({"contract": image.contract.digest.hex(), "program": image.program.digest.hex()}), differing, first, counters
