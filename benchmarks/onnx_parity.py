"""Does ONNX Runtime compute what the policy is? The integer models bit for bit, the float and QDQ models within what is measured here.

The integer models get random rows, an eighth of the numbers edges (bounds, their neighbours, the ends of int32), a tenth of the rows on
fallback; a row counts as different when one bit of action, memory, applied action or stages is. Rows run side by side, and a memory
goes on from batch to batch. The float and QDQ models get physical observations inside the contract, from cleared memory, and errors
are shares of an action's range; beside them the program's own. Dense nets of several sizes first, then every kind of layer in every
profile.

python benchmarks/onnx_parity.py [--vectors 1000000] [--seed 0]
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from parity import ACTIVATIONS, HEADS, HIDDEN, STAGES, make_policy

from puffer_edge.contract import Contract
from puffer_edge.export.onnx import float_model, integer_model, qdq_model
from puffer_edge.integer.program import Program
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.scales import PROFILES
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import Policy

sys.path.append(str(Path(__file__).parents[1]))  # the nets that the tests compare are measured here at length
from tests.export import nets

BATCH = 20_000
Feeds = dict[str, npt.NDArray[np.int32]]


def session(model: bytes) -> Any:
    """A model in ONNX Runtime, on one core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def batches(c: Contract, count: int, seed: int) -> Iterator[Feeds]:
    """Inputs of the shielded model."""
    rng = np.random.default_rng(seed)
    low, high = c.observation_low.astype(np.int64), c.observation_high.astype(np.int64)
    edges = np.stack([low, high, low - 1, high + 1, low + 1, high - 1, 0 * low, 0 * low - 2**31, 0 * low + 2**31 - 1])
    for start in range(0, count, BATCH):
        shape = (min(BATCH, count - start), c.n_observations)
        picked = np.take_along_axis(edges[:, None], rng.integers(0, len(edges), (1, *shape)), 0)[0]
        x = np.where(rng.random(shape) < 0.125, picked, rng.integers(low, high, shape, endpoint=True))
        yield {
            "observation": x.astype(np.int32),
            "previous": rng.integers(c.action_low, c.action_high, (len(x), c.n_actions), np.int32, endpoint=True),
            "fallback": (rng.random(len(x)) < 0.1).astype(np.int32),
        }


def integers_different(program: Program, shield: Shield, count: int, seed: int) -> tuple[int, int, float]:
    """Rows where the plain model differs, where the shielded one does, and the share of rows on which the shield acted."""
    plain, shielded, c = session(integer_model(program)), session(integer_model(program, shield)), program.contract
    different = guarded = acted = 0
    kept = program.start(BATCH)
    for feeds in batches(c, count, seed):
        last, memory = np.clip(feeds["observation"], c.observation_low, c.observation_high), kept[: len(feeds["observation"])]
        given = {"memory": memory} if program.memory else {}
        action, memory = program.step(last, memory)
        raw = np.where(feeds["fallback"][:, None] != 0, c.action_safe, action).astype(np.int32)
        applied, stages = shield.apply(last, raw, feeds["previous"], feeds["fallback"])
        applied = np.clip(applied, c.action_low, c.action_high)
        remembered = ["memory_out"] if program.memory else []
        got, *after = plain.run(["action", *remembered], {"observation": feeds["observation"]} | given)
        different += int(((got != action).any(1) | np.any([(a != memory).any(1) for a in after], axis=0)).sum())
        again, got_applied, got_stages = shielded.run(["action", "applied", "stages"], feeds | given)
        wrong = (again != action).any(1) | (got_applied != applied).any(1) | (got_stages != stages)
        kept[: len(memory)] = memory
        guarded += int(wrong.sum())
        acted += int((stages != 0).sum())
    return different, guarded, acted / count


def physical(c: Contract, count: int, seed: int) -> npt.NDArray[np.float32]:
    """(count, n) observations inside the contract, in physical units."""
    low, high = np.array([ch.low for ch in c.observations]), np.array([ch.high for ch in c.observations])
    return np.random.default_rng(seed).uniform(low, high, (count, c.n_observations)).astype(np.float32)


def actions(model: bytes, observation: npt.NDArray[np.float32], memory: int = 0) -> npt.NDArray[np.float32]:
    """(rows, m) what a float or QDQ model does on (rows, n) physical observations, from cleared memory."""
    runner, parts = session(model), []
    for k in range(0, len(observation), BATCH):
        rows = observation[k : k + BATCH]
        cleared = {"memory": np.zeros((len(rows), memory), np.float32)} if memory else {}
        parts.append(runner.run(["action"], {"observation": rows} | cleared)[0])
    return np.concatenate(parts)


def errors(policy: Policy, observation: npt.NDArray[np.float32], got: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(rows,) largest error of an action in every row, as a share of its range, against the policy in float64."""
    span = np.array([ch.high - ch.low for ch in policy.contract.actions])
    worst: npt.NDArray[np.float64] = (np.abs(got - policy.act(observation)) / span).max(1)
    return worst


def row(net: tuple[str, str, str], settings: dict[str, int]) -> dict[str, Any]:
    """One dense net in all four models."""
    size, activation, head = net
    policy, seen = make_policy(HIDDEN[size], activation, head, settings["seed"])
    named = {"net": size, "activation": activation, "head": head, "profile": "int8"}
    return named | measured(policy, quantize(policy, seen), Shield.build(policy.contract, STAGES), seen, settings)


def row_of_kind(kind: str, profile: str, settings: dict[str, int]) -> dict[str, Any]:
    """One kind of layer in one profile, behind a shield that limits the rate of change."""
    policy = nets.policy(kind, nets.HEADS.get(kind, "clip"), seed=settings["seed"])
    seen = nets.observations(policy.contract, 2000, settings["seed"])
    named = {"net": kind, "activation": "relu", "head": policy.head.kind, "profile": profile}
    shield = Shield.build(policy.contract, ({"stage": "slew", "per_second": {"servo1": 7000.0}},))
    return named | measured(policy, quantize(policy, seen, profile=profile), shield, seen, settings)


def measured(policy: Policy, program: Program, shield: Shield, seen: npt.NDArray[np.float64], settings: dict[str, int]) -> dict[str, Any]:
    """What the four models of a policy do."""
    count, seed, c = settings["vectors"], settings["seed"], policy.contract
    different, guarded, acted = integers_different(program, shield, count, seed + 1)
    result: dict[str, Any] = {"vectors": count, "integer_different": different, "shielded_different": guarded, "shield_acted": round(acted, 3)}
    x = physical(c, min(count, 100_000), seed + 2)
    ways = {name: actions(model, x, policy.memory) for name, model in (("float", float_model(policy)), ("qdq", qdq_model(policy, seen)))}
    for name, got in (ways | {"program": c.physical_action(program.run(c.observe(x)[0]))}).items():
        error = errors(policy, x, got)
        result |= {f"{name}_median_error": float(np.median(error)), f"{name}_worst_error": float(error.max())}
        result[f"{name}_within_1_percent"] = float((error <= 0.01).mean())
    return result


def main() -> None:
    """Run every net, print and save the table."""
    from record import save, show

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    settings = vars(parser.parse_args())
    dense = (row(net, settings) for net in itertools.product(("1x8", "2x16", "2x64"), ACTIVATIONS, HEADS))
    kinds = (row_of_kind(kind, profile, settings) for kind in nets.KINDS for profile in PROFILES)
    rows = []
    for found in itertools.chain(dense, kinds):
        rows.append(found)
        print(*found.values(), flush=True)
    import onnx
    import onnxruntime

    show("ONNX Runtime against the program, and against the policy in float64", rows)
    save("onnx_parity", settings=settings | {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}, rows=rows)


if __name__ == "__main__":
    main()
