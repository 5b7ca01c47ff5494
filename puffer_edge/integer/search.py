"""Choosing a quantisation by what it is for: the return of the closed loop, which a score function tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy.typing as npt

from puffer_edge.errors import RangeError, ReturnLost
from puffer_edge.integer.program import Program
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.scales import RANGES
from puffer_edge.policy import Policy

Score = Callable[[Program], float]
LADDER = ("int8", "int16x8")
"""Profiles that ``keep_return`` tries, the cheapest first."""


@dataclass(frozen=True)
class Choice:
    """A program and how it was chosen.

    Attributes:
        program: the integers.
        profile: their profile.
        ranges: how the range of the input and of each layer was read off the calibration.
        score: what the score function said of it.
        tried: one line for each step of the choice, in order.
    """

    program: Program
    profile: str
    ranges: tuple[str, ...]
    score: float
    tried: tuple[str, ...]


def search(policy: Policy, observations: npt.ArrayLike, score: Score, starts: npt.ArrayLike | None = None, profile: str = "int8") -> Choice:
    """The ranges with the best score: the best single way for all, then layer by layer the others, each kept if it is better.

    Ranges whose integers could overflow are passed over.

    Args:
        policy: the float policy.
        observations: (N, n_observations) physical observations, as of ``quantize``.
        score: of a program, higher is better; deterministic, such as the return over fixed episodes.
        starts: (N,) whether a row begins an episode.
        profile: name of a profile.

    Raises:
        RangeError: no single way for all gives integers that cannot overflow.
    """
    places = ["input", *(f"layer {k}" for k in range(len(policy.layers)))]

    def attempt(ranges: tuple[str, ...]) -> Choice | RangeError:
        try:
            program = quantize(policy, observations, starts, profile, ranges)
        except RangeError as error:
            return error
        return Choice(program, profile, ranges, score(program), ())

    tried = [attempt((name,) * len(places)) for name in RANGES]
    lines = [f"{profile}, {name} everywhere: {f'{one.score:.4g}' if isinstance(one, Choice) else one}" for name, one in zip(RANGES, tried)]
    possible = [one for one in tried if isinstance(one, Choice)]
    if not possible:
        raise next(one for one in tried if isinstance(one, RangeError))
    best = max(possible, key=lambda choice: choice.score)
    for k, place in enumerate(places):
        for name in RANGES:
            if name != best.ranges[k]:
                choice = attempt((*best.ranges[:k], name, *best.ranges[k + 1 :]))
                if isinstance(choice, Choice) and choice.score > best.score:
                    lines.append(f"{profile}, {place} by {name}: {choice.score:.4g}")
                    best = choice
    return Choice(best.program, profile, best.ranges, best.score, tuple(lines))


def kept(float_return: float, integer_return: float) -> float:
    """Share of the float policy's return that the integers keep: 1 where they lose nothing; a loss counts against the size of the return."""
    size = max(abs(float_return), 1e-9)
    return 1.0 - max(0.0, float_return - integer_return) / size


def _plain(policy: Policy, observations: npt.ArrayLike, score: Score, starts: npt.ArrayLike | None, profile: str) -> Choice:
    """A profile with the ranges that ``quantize`` takes by itself."""
    program = quantize(policy, observations, starts, profile)
    return Choice(program, profile, ("percentile",) * (len(policy.layers) + 1), score(program), ())


def keep_return(
    policy: Policy,
    observations: npt.ArrayLike,
    score: Score,
    float_return: float,
    least: float,
    starts: npt.ArrayLike | None = None,
) -> Choice:
    """The cheapest profile whose return is at least ``least`` of the float policy's: int8, int8 by search, then 16-bit activations.

    Args:
        policy: the float policy.
        observations: (N, n_observations) physical observations, as of ``quantize``.
        score: return of a program, over the same episodes as ``float_return``.
        float_return: return of the float policy.
        least: share of it to keep, such as 0.99.
        starts: (N,) whether a row begins an episode.

    Raises:
        ReturnLost: none keeps it; the message says what each kept, and what is left to do.
    """
    lines: list[str] = []
    for profile in LADDER:
        for what, choose in ((profile, _plain), (f"{profile}, ranges by search", search)):
            try:
                found = choose(policy, observations, score, starts, profile)
            except RangeError as error:  # the next one may have room for what this one has not
                lines.append(f"{what}: {error}")
                continue
            share = kept(float_return, found.score)
            lines.append(f"{what}: return {found.score:.4g} of {float_return:.4g}, keeps {share:.2%}")
            if share >= least:
                return Choice(found.program, profile, found.ranges, found.score, tuple(lines))
    raise ReturnLost(
        f"no profile keeps {least:.2%} of the float return: {'; '.join(lines)}. The policy leans on more precision than 8-bit weights have: "
        "train on in the integers themselves ('puffer-edge train --fine-tune RUN --qat int8'), with weight decay, or with tanh in place of ReLU"
    )
