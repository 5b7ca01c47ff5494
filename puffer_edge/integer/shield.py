"""The shield: stages of integer expressions between the policy's proposal and the actuator, built once for every engine."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from puffer_edge.contract import Contract
from puffer_edge.errors import BundleError, InvalidInput
from puffer_edge.integer import bytecode, expression, shields
from puffer_edge.integer.expression import Int, lift, where
from puffer_edge.spaces import ACTION_LIMIT

MAX_STAGES = 8


@dataclass(frozen=True, eq=False)
class Signals:
    """What a stage sees while it is traced.

    Attributes:
        contract: names, units, ranges.
        x: observation channels by name, in 16 bits: physical value × 2^(fraction bits − shield shift).
        action: what the stage before proposes, one node an action channel, fixed point.
        previous: the last applied action, one node a channel.
    """

    contract: Contract
    x: Mapping[str, Int]
    action: tuple[Int, ...]
    previous: tuple[Int, ...]


@dataclass(frozen=True, eq=False)
class Shield:
    """A traced shield. Build one with ``Shield.build``; ``Shield.none`` passes proposals through, clamped to the contract.

    Attributes:
        contract: the contract whose integers it works on.
        outputs: the applied actions, then the stage bits.
        stages: name of each stage; bit k of the reasons belongs to stage k.
        specification: what it was built from (empty when it was read back from bytecode).
        packed: the bytes it was read from, where it was read back from bytecode.
    """

    contract: Contract
    outputs: tuple[Int, ...]
    stages: tuple[str, ...]
    specification: tuple[Mapping[str, Any], ...] = ()
    packed: bytes = b""

    @staticmethod
    def build(contract: Contract, specification: Sequence[Mapping[str, Any]]) -> Shield:
        """Trace a chain of stages.

        Args:
            contract: names, ranges and rate.
            specification: one mapping a stage: ``{"stage": name, …fields of that stage}``, in order of application.

        Raises:
            InvalidInput: unknown stage, field or channel, or more than 8 stages.
            RangeError: a value may leave the range that every engine shares.
        """
        if len(specification) > MAX_STAGES:
            raise InvalidInput(f"a shield has at most {MAX_STAGES} stages, not {len(specification)}")
        variables = [expression.variable(k, *about) for k, about in enumerate(input_ranges(contract))]
        n, m = contract.n_observations, contract.n_actions
        x = {c.name: v for c, v in zip(contract.observations, variables[:n])}
        raw, previous, fallback = tuple(variables[n : n + m]), tuple(variables[n + m : n + 2 * m]), variables[-1]
        action, bits = raw, lift(0)
        for k, spec in enumerate(specification):
            action, active = _stage(spec)(Signals(contract, x, action, previous), spec)
            bits = bits + active * (1 << k)
        applied = tuple(where(fallback, r, a) for r, a in zip(raw, action)) if specification else raw
        reasons = where(fallback, 0, bits)
        return Shield(contract, (*applied, reasons), tuple(str(s["stage"]) for s in specification), tuple(dict(s) for s in specification))

    @staticmethod
    def none(contract: Contract) -> Shield:
        """No stages at all: the proposal is applied as it is."""
        return Shield.build(contract, ())

    @staticmethod
    def from_bytecode(contract: Contract, data: bytes, stages: Sequence[str] = ()) -> Shield:
        """Read a packed shield, proving every bound anew.

        Raises:
            BundleError: damaged, or made for another contract.
            RangeError: a value may leave the shared range.
        """
        if not data:
            return Shield.none(contract)
        outputs, n_stages = bytecode.unpack(data, input_ranges(contract))
        if len(outputs) != contract.n_actions + 1:
            raise BundleError(f"the shield drives {len(outputs) - 1} actions, the contract has {contract.n_actions}")
        bits = outputs[-1]
        if bits.lo < 0 or bits.hi >= 1 << max(n_stages, 1):
            raise BundleError(f"the shield's stage bits may reach {bits.lo} … {bits.hi}, it has {n_stages} stages")
        names = tuple(stages) if len(stages) == n_stages else tuple(f"stage{k}" for k in range(n_stages))
        return Shield(contract, tuple(outputs), names, packed=data)

    @cached_property
    def bytecode(self) -> bytes:
        """The packed form; empty for a shield without stages."""
        return self.packed or (bytecode.pack(self.outputs, len(self.stages)) if self.stages else b"")

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the packed form."""
        return hashlib.sha256(self.bytecode).digest()

    @property
    def instructions(self) -> int:
        """Instructions of the packed form: the work of one tick."""
        return len(expression.in_order(self.outputs)) if self.stages else 0

    @cached_property
    def _merged(self) -> tuple[list[expression.Int], list[expression.Int]]:
        return expression.merge(self.outputs)

    def apply(self, last: Any, raw: Any, previous: Any, fallback: Any, xp: Any = np) -> tuple[Any, Any]:
        """Run the shield on arrays.

        Args:
            last: (N, n) int32 last good observation, fixed point.
            raw: (N, m) int32 proposed action.
            previous: (N, m) int32 last applied action.
            fallback: (N,) int32, 1 where the fallback acts.
            xp: ``numpy`` or ``torch``.

        Returns:
            (N, m) int32 applied action, (N,) int32 stage bits.
        """
        c = self.contract
        shift = c.shield_shift if xp is np else xp.from_numpy(c.shield_shift)
        x = xp.clip(last >> shift, -32768, 32767)
        columns = [x[..., i] for i in range(c.n_observations)] + [raw[..., j] for j in range(c.n_actions)]
        columns += [previous[..., j] for j in range(c.n_actions)] + [fallback]
        results = [xp.broadcast_to(r, fallback.shape) for r in expression.compute(*self._merged, columns, xp)]
        return xp.stack(results[:-1], -1), results[-1]

    def names(self, reasons: int) -> tuple[str, ...]:
        """Names of the stages whose bits are set."""
        return tuple(name for k, name in enumerate(self.stages) if reasons >> k & 1)

    def to_c(self, name: str) -> str:
        """The shield as one C99 function ``void name(const int32_t *v, int32_t *out)``."""
        return expression.to_c(name, self.outputs)

    def to_micropython(self, name: str = "shield") -> str:
        """The shield as one MicroPython function ``def name(v, out)``."""
        return expression.to_micropython(name, self.outputs)


def input_ranges(contract: Contract) -> list[tuple[str, int, int]]:
    """Name and range of every input of a shield: x[n], raw[m], previous[m], fallback.

    Zero counts as an observation (the value after a reset). A proposal is trusted no further than its 29 bits; what was
    applied lies in the contract's range.
    """
    rows = []
    for channel, low, high, shift in zip(contract.observations, contract.observation_low, contract.observation_high, contract.shield_shift):
        rows.append((f"x_{channel.name}", min(0, int(low) >> int(shift)), max(0, int(high) >> int(shift))))
    rows += [(f"raw_{ch.name}", -ACTION_LIMIT, ACTION_LIMIT) for ch in contract.actions]
    rows += [(f"previous_{ch.name}", int(lo), int(hi)) for ch, lo, hi in zip(contract.actions, contract.action_low, contract.action_high)]
    return [*rows, ("fallback", 0, 1)]


def stage_names() -> list[str]:
    """The stages that exist: the files of ``integer/shields``."""
    return sorted(module.name for module in pkgutil.iter_modules(shields.__path__))


def _stage(spec: Any) -> Any:
    if not isinstance(spec, Mapping):
        raise InvalidInput(f"a shield stage is a mapping such as {{'stage': 'limit'}}, not {spec!r}")
    name = spec.get("stage")
    if name not in stage_names():
        raise InvalidInput(f"unknown shield stage {name!r}: one of {', '.join(stage_names())}")
    module = importlib.import_module(f"{shields.__name__}.{name}")
    unknown = set(spec) - {"stage"} - set(module.FIELDS)
    if unknown:
        raise InvalidInput(f"the shield stage {name!r} has no field {', '.join(sorted(unknown))}: it takes {', '.join(module.FIELDS)}")
    return module.trace
