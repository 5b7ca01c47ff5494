"""Which of two policies is better under a limit on costs, and what is to be said of the one that is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def rank(gained: float, cost: float, limit: float | None) -> tuple[bool, float]:
    """What policies are ordered by: those that keep the limit come last and so are best, by their return; the others by how little they cost.

    Args:
        gained: mean return of an episode.
        cost: what it costs, at most: the mean of an episode and a standard error of that. Several policies that lie at the limit are tried,
            and the mean alone would choose those that had luck.
        limit: what that may be; None for anything.
    """
    return (True, gained) if limit is None or cost <= limit else (False, -cost)


def verdict(limit: float, environment: str, found: Mapping[str, Any], chosen: Mapping[str, Any], cost_seen: bool) -> dict[str, Any]:
    """Whether the policy kept keeps its limit, as plain JSON values, with what a user must know in words.

    Args:
        limit: what an episode may cost in the mean.
        environment: its name.
        found: summary of the fresh episodes of the policy kept.
        chosen: what the evaluation said by which it was kept: "steps", "cost", "cost_error", and "sampled", a summary of the same policy
            sampled from.
        cost_seen: whether any step of the training had a cost.
    """
    cost, sampled = found["cost"], chosen["sampled"]
    kept, words = cost <= limit, []
    if not cost_seen:
        words.append(
            f"no step of the training had a cost, so the limit of {limit:g} bound nothing: either {environment} has no costs (one of "
            'Gymnasium\'s says them as info["cost"]), or the policy never met one'
        )
    if chosen["cost"] + chosen["cost_error"] > limit:
        words.append(
            f"no policy that was evaluated kept the limit of {limit:g} by a standard error: the lowest cost found was {chosen['cost']:.4g} ± "
            f"{chosen['cost_error']:.2g} an episode, at step {chosen['steps']:,}, and that policy is kept; more --steps, more "
            "--evaluation-episodes or a higher --cost-limit may help"
        )
    elif not kept:
        words.append(
            f"the policy kept breaks the limit on fresh episodes: {cost:.4g} an episode, allowed are {limit:g}; on those that it was chosen by "
            f"it cost {chosen['cost']:.4g} ± {chosen['cost_error']:.2g}: more --evaluation-episodes or a lower --cost-limit leave a margin"
        )
    if min(cost, chosen["cost"]) > limit >= sampled["cost"]:
        words.append(
            f"sampled from, as it was trained, this policy costs {sampled['cost']:.4g} and keeps the limit; what is deployed always takes its "
            "likeliest action, and breaks it: the best policy under a limit may need chance, so leave a margin by a lower --cost-limit"
        )
    return {"cost_limit": limit, "kept": kept, "cost": cost, "chosen": dict(chosen), "words": words}
