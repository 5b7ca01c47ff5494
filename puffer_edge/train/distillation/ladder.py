"""The students there could be, and what each would take: known before any is trained, for it depends on the shape alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from puffer_edge.contract import Contract
from puffer_edge.device.limits import Budget, Limit, Need
from puffer_edge.errors import DoesNotFit, InvalidInput
from puffer_edge.integer import vectors
from puffer_edge.integer.image import Image
from puffer_edge.integer.program import Program
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import Layer, Policy
from puffer_edge.spaces import Floats
from puffer_edge.train.distillation.settings import DistilSettings

WIDTHS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
Hidden = tuple[int, ...]
SHAPES: tuple[Hidden, ...] = ((), *((width,) for width in WIDTHS), *((width, width) for width in WIDTHS))
"""Widths of the hidden layers: none, one, or two of one width."""
SAMPLE = 256
"""Observations on which a shape without training is put into integers: what it takes does not depend on them."""


@dataclass(frozen=True)
class Candidate:
    """A student's shape in a profile.

    Attributes:
        hidden: widths of its hidden layers.
        profile: of the integers.
        need: what it takes.
    """

    hidden: Hidden
    profile: str
    need: Need

    @property
    def name(self) -> str:
        """For people."""
        return f"{title(self.hidden)}, {self.profile}"


def title(hidden: Hidden) -> str:
    """A shape for people."""
    return "×".join(map(str, hidden)) or "linear"


def candidates(teacher: Policy, shield: Shield, budget: Budget, settings: DistilSettings, seen: Floats, most: float) -> list[Candidate]:
    """Every shape of ``SHAPES`` in every profile that fits, most products first.

    Args:
        teacher: decides inputs and outputs.
        shield: of the image.
        budget: the limits.
        settings: profiles and activation.
        seen: (N, n_observations) physical observations.
        most: products of the teacher: a student with more of them is none.

    Raises:
        DoesNotFit: none fits; the message says what the one that comes nearest needs.
        InvalidInput: every student has more products than the teacher.
    """
    sample = seen[np.linspace(0, len(seen) - 1, min(SAMPLE, len(seen))).astype(int)]
    every = []
    for hidden in SHAPES:
        student = untrained(teacher, hidden, settings.activation)
        for profile in settings.profiles:
            need = budget.need(image_of(quantize(student, sample, None, profile), shield, sample))
            if need.macs > most:
                break
            every.append(Candidate(hidden, profile, need))
    if not every:
        raise InvalidInput(f"the teacher has {most:,} products, every student more: there is nothing to distil")
    found = [one for one in every if budget.fits(one.need, teacher.contract.rate_hz)]
    if not found:
        raise _refusal(every, budget, teacher.contract)
    return sorted(found, key=lambda one: -one.need.macs)


def image_of(program: Program, shield: Shield, seen: Floats) -> Image:
    """The image that a board would get, but for which steps its self-test has."""
    ints = program.contract.observe(seen)[0]
    return Image(program.contract, program, shield, vectors.make(program, shield, ints, steps=vectors.SELF_TEST_STEPS))


def untrained(teacher: Policy, hidden: Hidden, activation: str) -> Policy:
    """A student of a shape with weights that are as large as those at the start of a training."""
    rng, widths = np.random.default_rng(0), (teacher.contract.n_observations, *hidden, teacher.contract.n_outputs)
    layers = [
        Layer(rng.normal(0, 1 / np.sqrt(n), (m, n)), np.zeros(m), activation if k < len(hidden) else "none")
        for k, (n, m) in enumerate(zip(widths, widths[1:]))
    ]
    return Policy(teacher.contract, tuple(layers), teacher.normalizer, teacher.head)


def spread(fitting: Sequence[Candidate], most: int) -> tuple[Hidden, ...]:
    """At most so many of the shapes, evenly over their order, the first and the last among them."""
    shapes = list(dict.fromkeys(one.hidden for one in fitting))
    picks = np.linspace(0, len(shapes) - 1, min(most, len(shapes))).round().astype(int)
    return tuple(shapes[k] for k in picks)


def _refusal(every: Sequence[Candidate], budget: Budget, contract: Contract) -> DoesNotFit:
    """What is said where no candidate fits: of the one whose worst limit is the least exceeded, that limit and the others it breaks."""

    def broken(one: Candidate) -> list[Limit]:
        return sorted((limit for limit in budget.limits(one.need, contract.rate_hz) if limit.share > 1), key=lambda limit: -limit.share)

    nearest = min(every, key=lambda one: broken(one)[0].share)
    worst, *others = broken(nearest)
    more = "".join(f", and {limit.needs:.4g} {limit.what} of {limit.has:.4g}" for limit in others)
    advice = f"that is the student that comes nearest ({nearest.name}){more}: raise the budget to what it needs"
    return DoesNotFit(worst.what, round(worst.needs, 2), worst.has, "the budget", advice)
