"""Frame stacking: an environment whose observation holds the last ones too, newest first, as channels of its contract.

What runs on a board then needs the last observations as well: its ``read`` gives them, in this order. At the start of an episode the past is
the first observation.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Row
from puffer_edge.errors import InvalidInput, Unsupported

MOST = 16


def stack(environment: Environment, frames: int) -> Environment:
    """The environment, named ``NAME-framesK``, whose contract observes ``CHANNEL`` and ``CHANNEL_1`` … for so many steps before.

    Args:
        environment: one of scalar functions and one agent.
        frames: observations in all, the present one among them.

    Raises:
        InvalidInput: the number of frames is out of range, or the contract would have too many channels.
        Unsupported: the environment is written as numpy functions, or has several agents.
    """
    if isinstance(frames, bool) or not isinstance(frames, int) or not 2 <= frames <= MOST:
        raise InvalidInput(f"frames must lie in 2 … {MOST}, not {frames!r}")
    inner = environment.scalars
    if inner is None or environment.agents > 1:
        raise Unsupported(f"{environment.name} is not written as scalar functions of one agent: its frames cannot be stacked")
    c, size, n = environment.contract, inner.n_state, inner.n_observation
    inner_reset, inner_observe, inner_step, past = inner.reset, inner.observe, inner.step, (frames - 1) * n

    def reset(draw: Row, state: Row, parameters: Row) -> None:
        inner_reset(draw, state[:size], parameters)
        inner_observe(state[:size], state[size : size + n])
        for k in range(n, past):
            state[size + k] = state[size + k - n]

    def observe(state: Row, observation: Row) -> None:
        inner_observe(state[:size], observation[:n])
        for k in range(past):
            observation[n + k] = state[size + k]

    def step(draw: Row, state: Row, action: Row, parameters: Row) -> Any:
        for k in range(past - 1, n - 1, -1):
            state[size + k] = state[size + k - n]
        inner_observe(state[:size], state[size : size + n])
        return inner_step(draw, state[:size], action, parameters)

    older = tuple(replace(channel, name=f"{channel.name}_{k}") for k in range(1, frames) for channel in c.observations)
    contract = replace(c, observations=(*c.observations, *older))
    faces: dict[str, Any] = {"reset": reset, "observe": observe, "step": step, "allow": inner.allow_within(), "around": inner}
    dynamics = replace(inner, n_state=size + past, n_observation=n * frames, **faces)
    about: dict[str, Any] = {"max_steps": environment.max_steps, "solved": environment.solved, "shield": environment.shield}
    about["draw"] = environment.draw  # its state comes first
    made = Environment.of_scalars(contract, dynamics, name=f"{environment.name}-frames{frames}", **about)
    return replace(made, imperfections=environment.imperfections, unstacked=environment)


def named(name: str) -> tuple[str, int]:
    """The environment's own name and the number of frames, 1 where ``name`` asks for no stack."""
    base, mark, count = name.rpartition("-frames")
    return (base, int(count)) if mark and count.isdigit() else (name, 1)
