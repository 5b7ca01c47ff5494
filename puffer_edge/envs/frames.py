"""Frame stacking: an environment whose observation holds the last ones too, newest first, as channels of its contract.

What runs on a board then needs the last observations as well: its ``read`` gives them, in this order. At the start of an episode the past is
the first observation; to one of several agents that comes back, what it sees then.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.scalar import Row
from puffer_edge.errors import InvalidInput, Unsupported

MOST = 16


def stack(environment: Environment, frames: int) -> Environment:
    """The environment, named ``NAME-framesK``, whose contract observes ``CHANNEL`` and ``CHANNEL_1`` … for so many steps before.

    Args:
        environment: one of scalar functions; of several agents each one's own past is stacked.
        frames: observations in all, the present one among them.

    Raises:
        InvalidInput: the number of frames is out of range, or the contract would have too many channels.
        Unsupported: the environment is written as numpy functions.
    """
    if isinstance(frames, bool) or not isinstance(frames, int) or not 2 <= frames <= MOST:
        raise InvalidInput(f"frames must lie in 2 … {MOST}, not {frames!r}")
    inner = environment.scalars
    if inner is None:
        raise Unsupported(f"{environment.name} is not written as scalar functions: its frames cannot be stacked")
    c, faces = environment.contract, _one(inner, frames) if inner.agents == 1 else _many(inner, frames)
    older = tuple(replace(channel, name=f"{channel.name}_{k}") for k in range(1, frames) for channel in c.observations)
    contract = replace(c, observations=(*c.observations, *older))
    dynamics = replace(inner, n_observation=inner.n_observation * frames, allow=inner.allow_within(), around=inner, **faces)
    about: dict[str, Any] = {"max_steps": environment.max_steps, "solved": environment.solved, "shield": environment.shield}
    about["draw"] = environment.draw  # its state comes first
    made = Environment.of_scalars(contract, dynamics, name=f"{environment.name}-frames{frames}", **about)
    return replace(made, imperfections=environment.imperfections, unstacked=environment)


def _one(inner: Dynamics, frames: int) -> dict[str, Any]:
    """State and functions of a stack; behind the state itself lies the past, the last observation first."""
    size, n = inner.n_state, inner.n_observation
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

    return {"n_state": size + past, "reset": reset, "observe": observe, "step": step}


def _many(inner: Dynamics, frames: int) -> dict[str, Any]:
    """The same of several agents; behind the state lie all frames, the present one first, agent by agent in each."""
    size, n, agents = inner.n_state, inner.n_observation, inner.agents
    inner_reset, inner_observe, inner_step, frame = inner.reset, inner.observe, inner.step, agents * n
    whole = frames * frame

    def reset(draw: Row, state: Row, parameters: Row) -> None:
        inner_reset(draw, state[:size], parameters)
        inner_observe(state[:size], state[size : size + frame].reshape((agents, n)))
        for k in range(frame, whole):
            state[size + k] = state[size + k - frame]

    def observe(state: Row, observation: Row) -> None:
        for k in range(frames):
            for a in range(agents):
                for j in range(n):
                    observation[a, k * n + j] = state[size + k * frame + a * n + j]

    def step(draw: Row, state: Row, action: Row, parameters: Row, reward: Row, cost: Row, terminated: Row, alive: Row) -> None:
        for k in range(whole - 1, frame - 1, -1):
            state[size + k] = state[size + k - frame]
        inner_step(draw, state[:size], action, parameters, reward, cost, terminated, alive)
        inner_observe(state[:size], state[size : size + frame].reshape((agents, n)))
        for a in range(agents):
            if alive[a] == 0:
                for k in range(1, frames):
                    for j in range(n):
                        state[size + k * frame + a * n + j] = state[size + a * n + j]

    return {"n_state": size + whole, "reset": reset, "observe": observe, "step": step}


def named(name: str) -> tuple[str, int]:
    """The environment's own name and the number of frames, 1 where ``name`` asks for no stack."""
    base, mark, count = name.rpartition("-frames")
    return (base, int(count)) if mark and count.isdigit() else (name, 1)
