"""The rules that an environment keeps: each a function that yields what breaks it, with the line to change."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable

import numpy as np

from puffer_edge.envs import native
from puffer_edge.envs.checking.places import Place, of_error
from puffer_edge.envs.checking.scalar_rules import compiled, compiled_masks, plain_observe, plain_reset, plain_step
from puffer_edge.envs.checking.subject import EPISODES, RANDOM, ROWS, Finding, Findings, Rule, Subject, at_fault, wrong_array
from puffer_edge.errors import PufferEdgeError
from puffer_edge.integer.shield import Shield

HELD_STEPS = 500


def sizes(s: Subject) -> Findings:
    """Numbers that must agree before anything runs."""
    e, c = s.environment, s.environment.contract
    if e.max_steps < 1:
        yield Finding(f"max_steps must be at least 1, not {e.max_steps}", s.source.call("of_scalars", "max_steps"))
    if e.state_size < 1:
        yield Finding(f"the state needs at least 1 number, not {e.state_size}", s.source.call("Dynamics", "n_state"))
    if s.scalars is not None:
        d = s.scalars
        for what, has, wanted in (("observations", d.n_observation, c.n_observations), ("actions", d.n_action, c.n_actions)):
            if has != wanted:
                yield Finding(f"the dynamics say {has} {what} of one agent, the contract has {wanted}", s.source.call("Dynamics"))


def shield(s: Subject) -> Findings:
    """The default shield is built for the contract."""
    try:
        Shield.build(s.environment.contract, s.environment.shield)
    except PufferEdgeError as error:
        yield Finding(str(error), s.source.call("of_scalars", "shield"), error)


def starts(s: Subject) -> Findings:
    """Start states: right, and made of the draws alone."""
    e = s.environment
    state = e.start(s.seed, EPISODES)
    if wrong := wrong_array("reset gives states", state, (ROWS, e.state_size), np.float64):
        yield Finding(wrong, at_fault(s.source, "reset", wrong, state))
        return
    again, alone = e.start(s.seed, EPISODES), e.start(s.seed, EPISODES[1:2])
    if not e.pure:  # the number of an instance is in the state: what it shows is compared
        state, again, alone = e.observe(state), e.observe(again), e.observe(alone)
    if not np.array_equal(state, again):
        yield Finding("reset draws from something else than the draws it is given", s.source.named("reset", RANDOM))
    elif not np.array_equal(state[1:2], alone):
        yield Finding("the start of an episode depends on the episodes beside it", s.source.function("reset"))


def walked(rule: str) -> Callable[[Subject], Findings]:
    """What the rollout met of one rule."""
    return lambda s: iter(s.walk.found[rule].values())


def ranges(s: Subject) -> Findings:
    """Every observation lies in its channel's range."""
    walk = s.walk
    for channel, lowest, highest in zip(s.environment.contract.observations, walk.lowest, walk.highest):
        if lowest < channel.low or highest > channel.high:
            yield Finding(
                f"{channel.name} reached {lowest:g} … {highest:g}, its range is {channel.low:g} … {channel.high:g}", s.source.channel(channel.name)
            )


def steps(s: Subject) -> Findings:
    """What the rollout met of its steps; how long its episodes were is a note."""
    lengths, most = s.walk.lengths, s.environment.max_steps
    ended = f"{len(lengths)} episodes ended by themselves, after {np.mean(lengths):.1f} steps on average" if lengths else "no episode ended by itself"
    s.notes["step"] = f"{ended}; max_steps is {most}"
    yield from s.walk.found["step"].values()


def used(s: Subject) -> Findings:
    """Every action does something at one end of its range that it does not at the other."""
    e, middle = s.environment, (s.low + s.high) / 2
    idle = np.ones(len(s.low), bool)
    for elapsed, state in s.walk.moments:
        for k in np.flatnonzero(idle):
            gave = []
            for end in (s.low[k], s.high[k]):
                action = np.broadcast_to(middle, (ROWS, e.agents, len(middle))).copy()
                action[..., k] = end
                gave.append(e.advance(state, s.shaped(action), s.seed, EPISODES, elapsed))
            idle[k] = all(np.array_equal(a, b) for a, b in zip(*gave))
    for k in np.flatnonzero(idle):
        channel = e.contract.actions[k]
        yield Finding(f"the action {channel.name} changes nothing between {channel.low:g} and {channel.high:g}", s.source.channel(channel.name))


def held(s: Subject) -> Findings:
    """Actions held at an end of their range do not drive the numbers to infinity."""
    e = s.environment
    for word, end in (("lowest", s.low), ("highest", s.high)):
        state, going = e.start(s.seed, EPISODES), np.ones(ROWS, bool)
        action = s.shaped(np.broadcast_to(end, (ROWS, e.agents, len(end))).copy())
        for elapsed in range(min(e.max_steps, HELD_STEPS)):
            following, reward, cost, terminated = e.advance(state, action, s.seed, EPISODES, elapsed)[:4]
            going &= ~terminated.reshape(ROWS, -1).all(-1)
            if not np.isfinite(following[going]).all():
                column = int(np.argwhere(~np.isfinite(following[going]))[0, 1])
                place = s.source.written("step", 1, column)
                yield Finding(f"actions held at their {word} drive state[{column}] to NaN or infinity after {elapsed + 1} steps", place)
                return
            if not (np.isfinite(reward.reshape(ROWS, -1)[going]).all() and np.isfinite(cost.reshape(ROWS, -1)[going]).all()):
                yield Finding(f"actions held at their {word} give a reward or cost that is not finite", s.source.returned("step"))
                return
            if not going.any():
                break
            state = np.where(going[:, None], following, state)


def gymnasiums(s: Subject) -> Findings:
    """Gymnasium's own check of its environments; what it only warns of is a note."""
    from gymnasium.utils.env_checker import check_env

    with warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always")
        try:
            check_env(s.instance, skip_render_check=True)
        except Exception as error:  # its assertions, and whatever the environment raises
            yield Finding(f"{type(error).__name__}: {_plain(str(error))}", _place(s, error))
    s.notes["gymnasium"] = "; ".join(dict.fromkeys(_plain(str(warning.message)) for warning in met))


def _place(s: Subject, error: Exception) -> Place | None:
    """The line of the environment that Gymnasium's check complains of: what it says, not where in its own text it says it."""
    place, text = of_error(error), str(error)
    if place is not None and not place.file.endswith(("env_checker.py", "env_match.py", "data_equivalence.py")):
        return place
    part = "reset" if "reset" in text else "step"
    return s.source.function(part) if "argument" in text else s.source.returned(part)


def _plain(text: str) -> str:
    """Without the colours that Gymnasium writes for a terminal."""
    return re.sub(r"\x1b\[\d*m", "", text).removeprefix("WARN: ")


def _is_scalar(s: Subject) -> bool:
    return s.scalars is not None


def _is_compiled(s: Subject) -> bool:
    return s.scalars is not None and native.available()


def _is_masked(s: Subject) -> bool:
    return _is_compiled(s) and s.environment.allowed is not None


def _is_pure(s: Subject) -> bool:
    return s.environment.pure


_PLAIN = ("sizes", "plain reset", "plain observe", "plain step")
_RUNS = (*_PLAIN, "compiled", "reset")
_STEPS = (*_RUNS, "observe", "step")

RULES = (
    Rule("sizes", "contract, dynamics and max_steps agree", sizes),
    Rule("shield", "the default shield fits the contract, and its numbers stay in range", shield),
    Rule(
        "plain reset", "reset writes all of the state that an episode depends on, from its draws alone", plain_reset, ("sizes",), "reset", _is_scalar
    ),
    Rule("plain observe", "observe writes the whole observation, and no more", plain_observe, _PLAIN[:2], "observe", _is_scalar),
    Rule("plain step", "step gives reward, cost and terminated, of all agents, and says if it draws", plain_step, _PLAIN[:2], "step", _is_scalar),
    Rule("compiled", "compiled by numba it gives the bits of plain Python", compiled, _PLAIN, "step", _is_compiled),
    Rule("compiled masks", "compiled it gives the masks of plain Python", compiled_masks, (*_PLAIN, "compiled"), "step", _is_masked),
    Rule("reset", "starts are finite, of the right shape, and made of the draws alone", starts, (*_PLAIN, "compiled"), "reset"),
    Rule("observe", "observations are finite, of the right shape, and leave the state alone", walked("observe"), _RUNS, "observe"),
    Rule("step", "steps are finite, of the right shape, and leave their arguments alone", steps, (*_RUNS, "observe")),
    Rule("draws", "the same step gives the same result", walked("draws"), _STEPS, "step", _is_pure),
    Rule("rows", "a row does not depend on the rows beside it", walked("rows"), (*_STEPS, "draws"), "step", _is_pure),
    Rule("masks", "whoever acts has a choice in each group", walked("masks"), _STEPS, "step", lambda s: s.environment.allowed is not None),
    Rule("ranges", "every observation lies in its channel's range", ranges, _STEPS, "observe"),
    Rule("actions", "every action does something", used, (*_STEPS, "draws"), "step", _is_pure),
    Rule("held", "actions held at an end of their range drive nothing to infinity", held, _STEPS, "step", _is_pure),
    Rule("gymnasium", "Gymnasium's own check passes", gymnasiums, (), "step", lambda s: s.instance is not None),
)
