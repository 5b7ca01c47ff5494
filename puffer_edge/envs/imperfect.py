"""An environment with the imperfections of a real plant, as scalar functions around its own: what comes out is an environment again.

They lie below the shield and fixed point, so that training on either engine, evaluation, calibration and a board's closed loop meet the same:

    plant → sensors → fixed point → policy → shield → actuators → plant

Time. Control step j begins at j·T, T being ``hold_steps`` steps of the plant. The action computed from what was measured then takes effect at
j·T + d, d = ``delay_us`` plus a draw of ``jitter_us``. At any moment the newest action that has taken effect acts, the contract's initial one
before any has. The plant steps with the mean over its step of what acts, which gives a linear actuator the right impulse; each action has gone
through the actuator before. Rewards and costs of the steps of one control step are added up.

Random numbers are draws of their own, so that an episode starts in the state, and meets the chance, that it would without.
"""

from __future__ import annotations

from dataclasses import replace

from puffer_edge.contract import Contract, ObservationChannel
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.faults import Pieces
from puffer_edge.envs.frames import stack
from puffer_edge.envs.imperfect_living import surrounded
from puffer_edge.envs.imperfections import Imperfections
from puffer_edge.errors import Unsupported


def imperfect(environment: Environment, imperfections: Imperfections, contract: Contract | None = None) -> Environment:
    """The environment, under its own name, with these imperfections.

    Its contract's rate is that of the control steps, its ``expected_delay_us`` the mean delay, and pending actions are channels of it.

    Args:
        environment: without any.
        imperfections: an ideal plant's leave it as it is.
        contract: of a policy that was trained with other imperfections and is to meet these; its ``expected_delay_us`` is taken.

    Raises:
        InvalidInput: a name that the environment does not have, or a delay longer than an episode.
        Unsupported: it is made of numpy functions, has imperfections already, has several agents and is to hold actions, or masks choices
            and is to hold or delay them; or it lives, and ``imperfect_living`` says what it cannot have.
    """
    if environment.imperfections != Imperfections():
        raise Unsupported(f"{environment.name} has imperfections already")
    expected = round(imperfections.middle_us) if contract is None else contract.expected_delay_us
    if imperfections == Imperfections():
        same = expected == environment.contract.expected_delay_us or contract is None
        return environment if same else replace(environment, contract=replace(environment.contract, expected_delay_us=expected))
    if (inside := environment.unstacked) is not None:  # a frame is what the sensor gave then
        return stack(imperfect(inside, imperfections, contract), environment.contract.n_observations // inside.contract.n_observations)
    if environment.agents > 1 and imperfections.hold_steps > 1:
        raise Unsupported(f"{environment.name} has {environment.agents} agents, which may come and go: their actions cannot be held (hold_steps = 1)")
    if environment.allowed is not None and (imperfections.most_us > 0.0 or imperfections.hold_steps > 1):
        late = "one that comes late, or is held, may not be allowed by then (delay_us = 0, hold_steps = 1)"
        raise Unsupported(f"{environment.name} masks its choices: {late}")
    if environment.living is not None:
        return surrounded(environment, imperfections, _contract(environment.contract, imperfections, expected))
    inner = environment.scalars
    if inner is None:
        raise Unsupported(
            f"{environment.name} is written as numpy functions: the imperfections of a plant are composed around scalar functions "
            "(Environment.of_scalars), or around an environment that lives (Gymnasium's, PettingZoo's, world.Living)"
        )
    imperfections.check(environment.contract, tuple(p.name for p in inner.parameters), environment.max_steps)
    pieces = Pieces.of(environment.contract, inner, imperfections)
    reset, observe = pieces.beginning()
    whole = Dynamics(
        pieces.at["end"].start,
        inner.n_observation + imperfections.pending * inner.n_action,
        inner.n_action,
        reset,
        observe,
        pieces.step() if inner.agents == 1 else pieces.step_many(),
        inner.parameters,
        inner.agents,
        random_steps=inner.random_steps or pieces.random,
        scratch=inner.scratch,
        allow=inner.allow_within(),
        n_choices=inner.n_choices,
        around=inner,
    )
    made = Environment.of_scalars(
        _contract(environment.contract, imperfections, expected),
        whole,
        max_steps=environment.max_steps // imperfections.hold_steps,
        solved=environment.solved,
        shield=environment.shield,
        name=environment.name,
        draw=environment.draw,  # its state comes first
    )
    return replace(made, imperfections=imperfections)


def _contract(c: Contract, imperfections: Imperfections, expected_delay_us: int) -> Contract:
    older = tuple(
        ObservationChannel(f"{a.name}_{k}", a.unit, a.low, a.high, a.fraction_bits) for k in range(1, imperfections.pending + 1) for a in c.actions
    )
    return replace(c, observations=(*c.observations, *older), rate_hz=c.rate_hz / imperfections.hold_steps, expected_delay_us=expected_delay_us)
