"""The bundle's ONNX files in ONNX Runtime: the integer ones bit for bit, the float and QDQ ones within a bound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge import envs
from puffer_edge.engines import Case, Row
from puffer_edge.engines._steps import Steps
from puffer_edge.envs import closed_loop
from puffer_edge.errors import BundleError, MissingExtra
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer import vectors
from puffer_edge.integer.reference import InFloat
from puffer_edge.integer.scales import over_time
from puffer_edge.spaces import Floats

FLOAT_BOUND = 1e-4
"""float32 against float64, as a share of an action's range."""
QDQ_TIMES, QDQ_LEAST, QDQ_OTHERS = 2.0, 0.1, 0.25
"""A QDQ model, int8 throughout, may be off the float policy by so many times what an int8 program is off it on the same vectors, at least by
this share of the range or of the choices; beside a program of another profile by the last number."""
EPISODES, ROLLOUT_SEED = 64, 9_000_000
SAME = 1e-6
BEYOND = 1e9
"""What NaN or an infinite action counts as, in ranges of the action: JSON knows neither."""
ROWS = 50_000
"""Rows of one call."""


def rows(case: Case) -> Iterator[Row]:
    """A row a model."""
    if not any(name.endswith(".onnx") for name in case.bundle.manifest["files"]):
        return
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("onnx", "verifying the ONNX files") from None
    engine = f"ONNX Runtime {onnxruntime.__version__}"
    if case.holds("policy.fixed.onnx"):
        yield _exact(case, engine, "policy.fixed.onnx", physical=False)
    if case.holds("policy.integer.onnx"):
        yield _exact(case, engine, "policy.integer.onnx", physical=True)
    if case.holds("policy.shielded.onnx"):
        yield _shielded(case, engine)
    yield from _floats(case, engine)


class _Session:
    """A model of the bundle on one core.

    Raises:
        BundleError: ONNX Runtime does not load it, or it takes and gives other tensors than our models do.
    """

    def __init__(self, case: Case, name: str) -> None:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        self._name = name
        own = tuple(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
        self._failures: tuple[type[Exception], ...] = (*own, ValueError, RuntimeError)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(case.read(name), options, providers=["CPUExecutionProvider"])
        except self._failures as error:
            raise BundleError(f"{name} does not load: {error}") from None

    def run(self, outputs: list[str], feeds: dict[str, Any]) -> Any:
        """The named outputs."""
        try:
            return self._session.run(outputs, feeds)
        except self._failures as error:
            raise BundleError(f"{self._name} does not run: {error}") from None


def _good(case: Case, most: int) -> tuple[Steps, npt.NDArray[np.bool_]]:
    """Steps, and (sequences, length) whether an observation came: a model knows nothing of misses."""
    steps, _ = case.few(most)
    return steps, (steps.flags & (protocol.STEP_MISSED | protocol.STEP_INVALID)) == 0


def _exact(case: Case, engine: str, name: str, physical: bool) -> Row:
    """Proposals and memory of all sequences side by side, step by step."""
    steps, good = _good(case, case.count)
    c, program, session = case.image.contract, case.image.program, _Session(case, name)
    memory = program.start(len(steps.flags))
    got = memory.copy()
    different, largest, tried = 0, 0.0, 0
    output = "action_fixed" if physical else "action"
    for t in range(steps.flags.shape[1]):
        seen = np.clip(steps.observation[:, t], c.observation_low, c.observation_high)
        reset = (steps.flags[:, t] & protocol.STEP_RESET) != 0
        memory[reset], got[reset] = 0, 0
        feeds = {"observation": c.physical_observation(steps.observation[:, t]) if physical else steps.observation[:, t]}
        wanted, after = program.step(seen, memory)
        if program.memory:
            action, kept = session.run([output, "memory_out"], feeds | {"memory": got})
        else:
            (action,), kept = session.run([output], feeds), got
        rows_ = good[:, t]
        apart = (action != wanted).any(1) | (kept != after).any(1)
        different += int(apart[rows_].sum())
        largest = max(largest, float(np.abs(action.astype(np.int64) - wanted)[rows_].max(initial=0)))
        memory[rows_], got[rows_] = after[rows_], kept[rows_]
        tried += int(rows_.sum())
    return Row(name, engine, case.profile, tried, different, largest, 0)


def _shielded(case: Case, engine: str) -> Row:
    """Applied actions and stage bits: steps 4 to 6 of ``docs/tick.md``, from cleared memory."""
    rng, c = np.random.default_rng(case.seed), case.image.contract
    steps, _ = case.few(case.count)
    seen = steps.observation.reshape(steps.count, -1)
    previous = rng.integers(c.action_low, c.action_high, (steps.count, c.n_actions), np.int32, endpoint=True)
    fallback = (rng.random(steps.count) < 0.1).astype(np.int32)
    last = np.clip(seen, c.observation_low, c.observation_high)
    session, different, largest = _Session(case, "policy.shielded.onnx"), 0, 0.0
    for k in range(0, steps.count, ROWS):
        part = slice(k, k + ROWS)
        raw = np.where(fallback[part, None] != 0, c.action_safe, case.image.program.run(last[part])).astype(np.int32)
        applied, stages = case.image.shield.apply(last[part], raw, previous[part], fallback[part])
        applied = np.clip(applied, c.action_low, c.action_high)
        feeds = {"observation": c.physical_observation(seen[part]), "previous": previous[part], "fallback": fallback[part]}
        if case.image.program.memory:
            feeds["memory"] = case.image.program.start(len(raw))
        got, bits = session.run(["applied_fixed", "stages"], feeds)
        different += int(((got != applied).any(1) | (bits != stages)).sum())
        largest = max(largest, float(np.abs(got.astype(np.int64) - applied).max()))
    return Row("policy.shielded.onnx", engine, case.profile, steps.count, different, largest, 0)


def _floats(case: Case, engine: str) -> Iterator[Row]:
    """The float and QDQ models beside the float policy, on what the policy meets in its task."""
    models = [name for name in ("policy.onnx", "policy.qdq.onnx", "tensorrt/policy.qdq.onnx") if case.holds(name)]
    if not models:
        return
    policy, c = case.bundle.policy, case.image.contract
    ints, starts, note = _met(case)
    exact, program = (c.physical_action(over_time(p.step, ints, starts, p.start(1))) for p in (InFloat(policy), case.image.program))
    span = np.array([ch.high - ch.low for ch in c.actions])
    for name in models:
        got = _model_actions(case, ints, starts, _Session(case, name))
        apart, own = np.nan_to_num(np.abs(got - exact) / span, nan=BEYOND, posinf=BEYOND), np.abs(program - exact) / span
        kind = "float" if name == "policy.onnx" else "qdq"
        if c.levels:  # a choice is the same or another: the share of others counts
            apart, own = (np.full((len(x), 1), float((x > SAME).any(1).mean())) for x in (apart, own))
        near = max(QDQ_LEAST, QDQ_TIMES * float(own.max())) if case.profile == "int8" else QDQ_OTHERS
        bound = FLOAT_BOUND if kind == "float" else near
        beyond = int((apart > bound).any(1).sum())
        unit = "share of choices" if c.levels else "share of range"
        yield Row(name, engine, kind, len(got), beyond, float(apart.max()), bound, unit, f"against the float policy, on {note}")


def _met(case: Case) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], str]:
    """About as many (N, n) fixed-point observations as the case asks for, and where episodes begin: rollouts in the task, or what lies
    between the bundle's own ones where there is no environment.
    """
    policy = case.bundle.policy
    if case.bundle.environment:
        env = envs.load(case.bundle.environment)
        episodes = max(EPISODES, -(-case.count // env.max_steps))
        found = closed_loop.play(env, InFloat(policy), case.image.shield, episodes, ROLLOUT_SEED + case.seed)
        observations, starts = found.calibration()
        return observations, starts, f"{episodes} fresh episodes"
    held = case.bundle.vectors
    good = ((held.flags & (protocol.STEP_MISSED | protocol.STEP_INVALID)) == 0) & vectors.own(held)
    c = case.image.contract
    own = np.clip(held.observation[good], c.observation_low, c.observation_high)
    return *_between(own, (held.flags[good] & protocol.STEP_RESET) != 0, case.count, case.seed), "mixtures of the bundle's own episodes"


def _between(x: npt.NDArray[np.int32], starts: npt.NDArray[np.bool_], count: int, seed: int) -> tuple[Any, npt.NDArray[np.bool_]]:
    """At least ``count`` rows that lie between those of ``x``, (N, n): each sequence is a mixture of two, in a proportion of its own."""
    rng, begin = np.random.default_rng(seed), np.flatnonzero(starts | (np.arange(len(x)) == 0))
    length = np.diff(np.append(begin, len(x)))
    pairs = rng.integers(0, len(begin), (-(-count // int(length.min())), 2))
    size = length[pairs].min(1)
    first = np.append(0, np.cumsum(size)[:-1])
    t, which = np.arange(size.sum()) - np.repeat(first, size), np.repeat(np.arange(len(size)), size)
    share = rng.random((len(size), 1))[which]
    a, b = (x[begin[pairs[which, side]] + t] for side in (0, 1))
    return np.rint(share * a + (1 - share) * b).astype(np.int32), t == 0


def _model_actions(case: Case, ints: npt.NDArray[np.int32], starts: npt.NDArray[np.bool_], session: _Session) -> Floats:
    """(N, m) physical actions of a float model."""
    c, memory = case.image.contract, case.bundle.policy.memory

    def step(x: npt.NDArray[np.int32], kept: npt.NDArray[np.float32]) -> tuple[Any, Any]:
        feeds = {"observation": c.physical_observation(x).astype(np.float32)}
        if memory:
            action, after = session.run(["action", "memory_out"], feeds | {"memory": kept})
            return action, after
        return session.run(["action"], feeds)[0], kept

    return over_time(step, ints, starts, np.zeros((1, memory), np.float32)).astype(np.float64)
