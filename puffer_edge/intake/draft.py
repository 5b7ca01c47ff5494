"""What a file from elsewhere says about a policy, and how it becomes one under a contract."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from puffer_edge.contract import MAX_ACTIONS, MAX_CHOICES, MAX_OBSERVATIONS, Contract
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.policy import AnyLayer, Head, Layer, Normalizer, Policy
from puffer_edge.spaces import Floats

CONTINUOUS = ("clip", "tanh")


@dataclass(frozen=True, eq=False)
class Draft:
    """A network with everything its file tells, before anybody has said what its numbers mean.

    Attributes:
        source: what the file is, for people ("Stable-Baselines3 PPO").
        layers: from normalised observation to outputs.
        head: "discrete", "multi_discrete", "clip", "tanh"; None where the file does not say and the contract decides.
        normalizer: of the observations, its clip infinite where it has none; None for none.
        names: of the observations, where the file tells.
        parts: keys of a dictionary observation, in the order of the network's input; empty for a plain one.
        observation_low: (n,) lowest observation that the training declared, −∞ where it left that open; None where the file does not say.
        observation_high: (n,) highest, likewise.
        action_low: (m,) lowest action of a continuous head; None where the file does not say.
        action_high: (m,) highest, likewise.
        scale: (m,) of the head; None for 1.
        offset: (m,) of the head; None for 0.
        choices: of a discrete head their number, of a multi-discrete one the numbers of all actions in order.
        origin: where it comes from, plain JSON values.
        notes: what whoever imports it has to hear.
    """

    source: str
    layers: tuple[AnyLayer, ...]
    head: str | None = None
    normalizer: Normalizer | None = None
    names: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    observation_low: Floats | None = None
    observation_high: Floats | None = None
    action_low: Floats | None = None
    action_high: Floats | None = None
    scale: Floats | None = None
    offset: Floats | None = None
    choices: tuple[int, ...] = ()
    origin: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def n_observations(self) -> int:
        """Numbers that go in."""
        return self.layers[0].n_in

    @property
    def n_outputs(self) -> int:
        """Numbers that come out of the last layer."""
        return self.layers[-1].n_out

    def check_size(self) -> None:
        """Refuse what no contract can describe.

        Raises:
            Unsupported: too many observations, actions or choices.
        """
        check_observations(self.n_observations, self.source)
        actions = len(self.choices) if self.head == "multi_discrete" else 1 if self.head == "discrete" else self.n_outputs
        limit = MAX_CHOICES if self.head is None else MAX_ACTIONS
        if actions > limit:
            raise Unsupported(f"{self.source}: it drives {actions} actions, a contract has at most {MAX_ACTIONS}")
        if self.choices and max(self.choices) > MAX_CHOICES:
            raise Unsupported(f"{self.source}: it chooses among {max(self.choices)}, a contract has at most {MAX_CHOICES} choices")


def check_observations(count: int, source: str, shape: tuple[int, ...] = ()) -> None:
    """Refuse more observations than a contract has channels.

    Raises:
        Unsupported: with the numbers.
    """
    if count > MAX_OBSERVATIONS:
        times = f" ({' × '.join(map(str, shape))})" if len(shape) > 1 else ""
        raise Unsupported(
            f"{source}: it observes {count:,} numbers{times}, a contract has at most {MAX_OBSERVATIONS} channels: "
            "a policy for a microcontroller sees features, not images"
        )


def clamp_layers(width: int, low: float, high: float) -> tuple[Layer, Layer]:
    """``clip(y, low, high)`` of ``width`` values as two dense layers: ``relu(y − low) − relu(y − high) + low``."""
    eye = np.eye(width)
    split = Layer(np.concatenate([eye, eye]), np.repeat([-low, -high], width), "relu")
    return split, Layer(np.concatenate([eye, -eye], 1), np.full(width, low), "none")


def assemble(draft: Draft, contract: Contract, environment: str | None = None) -> tuple[Policy, tuple[str, ...]]:
    """The policy that a draft is under a contract.

    Args:
        draft: what the file says.
        contract: what its numbers mean. Its head may be the other continuous kind: the file's stands.
        environment: name of the environment whose contract it is, for the policy's origin.

    Returns:
        The policy, and what whoever imports it has to hear.

    Raises:
        InvalidInput: counts, heads or ranges contradict each other.
    """
    notes = list(draft.notes)
    if draft.n_observations != contract.n_observations:
        names = ", ".join(c.name for c in contract.observations)
        raise InvalidInput(f"the model observes {draft.n_observations} numbers, the contract {contract.name} {contract.n_observations} ({names})")
    kind = draft.head or contract.head
    if kind != contract.head:
        if kind not in CONTINUOUS or contract.head not in CONTINUOUS:
            raise InvalidInput(f"the model's head is {kind!r}, that of the contract {contract.name} is {contract.head!r}: another task")
        notes.append(f"the head of the contract was {contract.head!r}; the model's is {kind!r}, and that is kept")
        contract = replace(contract, head=kind)
    _check_choices(draft, contract)
    if draft.n_outputs != contract.n_outputs:
        raise InvalidInput(f"the model gives {draft.n_outputs} outputs, the contract {contract.name} ({kind}) takes {contract.n_outputs}")
    notes += _check_ranges(draft, contract) if kind in CONTINUOUS else []
    m = contract.n_actions
    scale, offset = (np.ones(m) if draft.scale is None else draft.scale), (np.zeros(m) if draft.offset is None else draft.offset)
    origin = dict(draft.origin) | ({"environment": environment} if environment else {})
    policy = Policy(contract, draft.layers, _bounded(draft.normalizer, contract), Head(kind, scale, offset), origin)
    return policy, tuple(notes)


def _bounded(normalizer: Normalizer | None, c: Contract) -> Normalizer:
    """The normaliser; where it has no clip, or where there is none, one that clips nothing within the contract."""
    mean, std = (np.zeros(c.n_observations), np.ones(c.n_observations)) if normalizer is None else (normalizer.mean, normalizer.std)
    if normalizer is not None and math.isfinite(normalizer.clip):
        return normalizer
    bounds = np.array([[ch.low, ch.high] for ch in c.observations]).T
    with np.errstate(all="ignore"):
        reach = float(np.nan_to_num(np.abs((bounds - mean) / std)).max())
    return Normalizer(mean, std, 2.0 ** math.ceil(math.log2(min(max(reach, 1.0), 2.0**60))))


def _check_choices(draft: Draft, c: Contract) -> None:
    if not draft.choices:
        return
    have = (len(c.levels),) if c.head == "discrete" else tuple(len(row) for row in c.levels)
    if have != draft.choices:
        raise InvalidInput(f"the model chooses among {_counts(draft.choices)}, the contract {c.name} lists {_counts(have)}")


def _counts(counts: tuple[int, ...]) -> str:
    return " and ".join(map(str, counts)) or "nothing"


def _check_ranges(draft: Draft, c: Contract) -> list[str]:
    """Compare the ranges of the actions; a policy that clips must not be let beyond its clip."""
    if draft.action_low is None or draft.action_high is None:
        return []
    notes = []
    for ch, low, high in zip(c.actions, draft.action_low, draft.action_high):
        slack = 1e-6 * (high - low)
        if draft.head == "clip" and (ch.low < low - slack or ch.high > high + slack):
            raise InvalidInput(
                f"{ch.name} may reach {ch.low:g} … {ch.high:g} by the contract, but the model was trained with outputs clipped to "
                f"{low:g} … {high:g}: give it that range, or train again"
            )
        if ch.low > low + slack or ch.high < high - slack:
            notes.append(f"{ch.name}: the contract's range {ch.low:g} … {ch.high:g} cuts the model's {low:g} … {high:g}")
    return notes
