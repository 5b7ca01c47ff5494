"""The robots' physics: what conserves energy conserves it, what balances stays, and constants of a data sheet come out of the equations."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.envs import balancer, furuta, quadrotor, rover, servo, swingup
from puffer_edge.envs.check import check
from puffer_edge.envs.dynamics import Dynamics
from puffer_edge.envs.environment import Environment
from puffer_edge.spaces import Floats

ROBOTS = ("balancer", "furuta", "quadrotor", "rover", "servo", "swingup")


def with_parameters(name: str, **values: float) -> Environment:
    """The environment with other constants."""
    e = envs.load(name)
    d = e.dynamics
    assert d is not None
    parameters = tuple(replace(p, value=values.pop(p.name, p.value)) for p in d.parameters)
    assert not values
    other = Dynamics(d.n_state, d.n_observation, d.n_action, d.reset, d.observe, d.step, parameters)
    return Environment.of_scalars(e.contract, other, max_steps=e.max_steps, solved=e.solved)


def states(e: Environment, start: list[float], action: float | list[float], steps: int) -> Floats:
    """(steps + 1, S) of one row under one action."""
    found, acting = [np.array([start])], np.array([np.atleast_1d(action)], np.float64)
    for _ in range(steps):
        found.append(e.step(found[-1], acting)[0])
    return np.concatenate(found)


@pytest.mark.parametrize("name", ROBOTS)
def test_it_is_a_sound_environment(name: str) -> None:
    check(envs.load(name))


def test_the_servo_goes_to_the_speed_and_with_the_time_constant_of_its_data_sheet() -> None:
    """ω(t) = U/K·(1 − exp(−t/τ)), τ = J·R/K²; the substeps' error falls with their length."""
    e = with_parameters("servo", current_limit=1e3)
    r, k, j = (p.value for p in servo.PARAMETERS[:3])
    seen = states(e, [0.0, 0.0, 0.0, 0.0], 0.1, 400)
    time = np.arange(401) / e.contract.rate_hz
    wanted = 0.1 / k * (1 - np.exp(-time * k * k / (j * r)))
    np.testing.assert_allclose(seen[:, 1], wanted, atol=0.006 * 0.1 / k)
    assert seen[-1, 1] == pytest.approx(0.1 / k, rel=1e-6) and seen[-1, 2] == pytest.approx(0.0, abs=1e-6)
    assert k / r * 10.0 == pytest.approx(0.05)  # stall torque at 10 V, N·m


def test_the_servos_driver_holds_the_current_and_the_cost_sees_it() -> None:
    e = envs.load("servo")
    state, _, cost, over = e.step(np.array([[0.0, 0.0, 0.0, 1.0]] * 2), np.array([[10.0], [4.0]]))
    k, j = servo.PARAMETERS[1].value, servo.PARAMETERS[2].value
    assert state[0, 1] == pytest.approx(0.005 * k * 1.0 / j)  # 1 A throughout, where 10 V would drive 1.19 A
    assert cost.tolist() == [1.0, 0.0] and not over.any()
    assert e.step(np.array([[2.499, 50.0, 0.0, 0.0]]), np.array([[0.0]]))[3].all()


def test_the_swingups_energy_is_kept_without_friction_and_force() -> None:
    e = with_parameters("swingup", rail_friction=0.0, joint_friction=0.0)
    g, cart, pole, half = (p.value for p in swingup.PARAMETERS[:4])
    seen = states(e, [0.0, 2.0, 0.3, 1.0], 0.0, 500)
    a, v, w = seen[:, 1], seen[:, 2], seen[:, 3]
    kinetic = (cart + pole) * v**2 / 2 + pole * half * np.cos(a) * v * w + 2 / 3 * pole * half**2 * w**2
    energy = kinetic + pole * g * half * np.cos(a)
    momentum = (cart + pole) * v + pole * half * np.cos(a) * w
    np.testing.assert_allclose(energy, energy[0], atol=2e-4)
    np.testing.assert_allclose(momentum, momentum[0], atol=1e-5)


def test_the_furutas_energy_is_kept_without_friction_and_current() -> None:
    e = with_parameters("furuta", resistance=1e12, arm_friction=0.0, pendulum_friction=0.0)
    p = {q.name: q.value for q in furuta.PARAMETERS}
    m, r, half = p["pendulum_mass"], p["arm_length"], p["pendulum_length"] / 2
    j = 4 / 3 * m * half**2
    seen = states(e, [0.0, 2.0, 3.0, 1.0], 0.0, 500)
    a, v, w = seen[:, 1], seen[:, 2], seen[:, 3]
    arm = p["arm_mass"] * r**2 / 3 + p["rotor_inertia"] + m * r**2 + j * np.sin(a) ** 2
    energy = arm * v**2 / 2 + m * half * r * np.cos(a) * v * w + j * w**2 / 2 + m * p["gravity"] * half * np.cos(a)
    np.testing.assert_allclose(energy, energy[0], atol=2e-3 * np.ptp(m * p["gravity"] * half * np.cos(a)))
    turning = arm * v + m * half * r * np.cos(a) * w  # about the motor's axis, which nothing turns then
    np.testing.assert_allclose(turning, turning[0], atol=1e-2 * np.abs(turning).max())


def test_the_furuta_hangs_at_its_natural_frequency() -> None:
    """With the arm held by its inertia alone, small swings about hanging: ω² = (a/(a·J − b²))·m·g·l."""
    e = with_parameters("furuta", resistance=1e12, arm_friction=0.0, pendulum_friction=0.0)
    p = {q.name: q.value for q in furuta.PARAMETERS}
    m, r, half = p["pendulum_mass"], p["arm_length"], p["pendulum_length"] / 2
    a, b, j = p["arm_mass"] * r**2 / 3 + p["rotor_inertia"] + m * r**2, m * half * r, 4 / 3 * m * half**2
    wanted = math.sqrt(a / (a * j - b * b) * m * p["gravity"] * half)
    seen = states(e, [0.0, math.pi - 0.01, 0.0, 0.0], 0.0, 300)
    aside = np.sin(seen[:, 1])
    crossings = np.flatnonzero(np.diff(np.sign(aside)))
    found = math.pi * (len(crossings) - 1) / ((crossings[-1] - crossings[0]) / e.contract.rate_hz)
    assert found == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize("module", [balancer, swingup, furuta])
def test_upright_at_rest_is_an_equilibrium_that_does_not_hold(module: object) -> None:
    e = envs.load(module.__name__.rpartition(".")[2])  # type: ignore[attr-defined]
    still = states(e, [0.0] * 4, 0.0, 100)
    assert not still.any()
    falls = np.abs(states(e, [0.0, 1e-6, 0.0, 0.0], 0.0, 60)[:, 1])
    assert falls[-1] > 10 * falls[0]


def test_the_balancers_equations_are_those_of_its_linearisation() -> None:
    """Yamamoto (2008), eq. 3.24 ff.: E·(θ'', ψ'') + F·(θ', ψ') + G·(θ, ψ) = H·U near upright."""
    p = {q.name: q.value for q in balancer.PARAMETERS}
    m, r, body, height, rotor = (p[k] for k in ("wheel_mass", "wheel_radius", "body_mass", "centre_height", "rotor_inertia"))
    alpha = p["torque_constant"] / p["resistance"]
    beta = p["torque_constant"] * p["back_emf"] / p["resistance"] + p["friction"]
    wheel, pitching = m * r**2 / 2, body * height**2 / 3
    mass = np.array(
        [
            [(2 * m + body) * r**2 + 2 * wheel + 2 * rotor, body * height * r - 2 * rotor],
            [body * height * r - 2 * rotor, body * height**2 + pitching + 2 * rotor],
        ]
    )
    damping, stiffness, drive = (
        2 * np.array([[beta, -beta], [-beta, beta]]),
        np.array([[0, 0], [0, -body * p["gravity"] * height]]),
        2 * np.array([alpha, -alpha]),
    )
    rng = np.random.default_rng(0)
    values = np.array([q.value for q in balancer.PARAMETERS])
    for _ in range(50):
        pitch, wheel_speed, pitch_speed, voltage = rng.uniform(-1e-5, 1e-5, 4)
        torque = balancer.motor(voltage, wheel_speed - pitch_speed, values)
        found = balancer.accelerations(pitch, wheel_speed, pitch_speed, torque, values)
        wanted = np.linalg.solve(mass, drive * voltage - damping @ [wheel_speed, pitch_speed] - stiffness @ [0.0, pitch])
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-12)


def test_the_balancer_keeps_what_a_falling_rod_keeps() -> None:
    """Without motors, friction and gravity the momentum along the floor, seen at the wheels' axle, stays."""
    e = with_parameters("balancer", gravity=0.0, resistance=1e12, friction=0.0)
    p = {q.name: q.value for q in balancer.PARAMETERS}
    m, r, body, height, rotor = (p[k] for k in ("wheel_mass", "wheel_radius", "body_mass", "centre_height", "rotor_inertia"))
    seen = states(e, [0.0, 0.1, 1.0, 0.5], 0.0, 50)
    pitch, wheel, pitching = seen[:, 1], seen[:, 2], seen[:, 3]
    momentum = ((2 * m + body) * r**2 + m * r**2 + 2 * rotor) * wheel + (body * height * r * np.cos(pitch) - 2 * rotor) * pitching
    np.testing.assert_allclose(momentum, momentum[0], rtol=1e-3)


def flying(**values: float) -> list[float]:
    """A quadrotor's state: level, at rest, its rotors hovering, but for what is given by name and number."""
    state = [0.0] * 3 + [1.0, 0.0, 0.0, 0.0] + [0.0] * 6 + [quadrotor.HOVER_KRPM] * 4
    names = ("x", "y", "z", "qw", "qx", "qy", "qz", "vx", "vy", "vz", "p", "q", "r", "n1", "n2", "n3", "n4")
    for name, value in values.items():
        state[names.index(name)] = value
    return state


def test_the_quadrotor_hovers_where_thrust_is_weight_and_falls_where_there_is_none() -> None:
    e = envs.load("quadrotor")
    still = states(e, flying(), [quadrotor.HOVER_KRPM] * 4, 300)
    np.testing.assert_allclose(still, np.tile(still[0], (301, 1)), atol=1e-9)
    dropped = with_parameters("quadrotor", thrust=0.0)
    seen = states(dropped, flying(), [quadrotor.HOVER_KRPM] * 4, 30)
    time = np.arange(31) / e.contract.rate_hz
    np.testing.assert_allclose(seen[:, 9], -9.81 * time, rtol=1e-12)
    np.testing.assert_allclose(seen[:, 2], -9.81 * time * (time + 0.0025) / 2, rtol=1e-9)  # the integrator's own parabola


@pytest.mark.parametrize("fast", [0, 1, 2, 3])
def test_a_faster_rotor_turns_the_body_as_its_place_and_drag_say(fast: int) -> None:
    e = envs.load("quadrotor")
    speeds = [quadrotor.HOVER_KRPM] * 4
    speeds[fast] *= 1.01
    turned = states(e, flying(), speeds, 1)[-1, 10:13]
    right, front, clockwise = fast in (0, 1), fast in (0, 3), fast in (0, 2)
    assert np.sign(turned).tolist() == [-1 if right else 1, -1 if front else 1, -1 if clockwise else 1]
    p = {q.name: q.value for q in quadrotor.PARAMETERS}
    assert abs(turned[2] / turned[0]) == pytest.approx(p["torque_ratio"] / p["arm"] * p["inertia_xy"] / p["inertia_z"], rel=1e-3)


def test_the_rotors_follow_with_their_time_constant() -> None:
    e = with_parameters("quadrotor", thrust=0.0)
    seen = states(e, flying(), [20.0] * 4, 15)[:, 13]
    left = (20.0 - seen) / (20.0 - seen[0])
    np.testing.assert_allclose(left, np.exp(-np.arange(16) / 15), atol=0.01)  # 150 ms are 15 steps


def test_the_quadrotor_keeps_its_angular_momentum_and_its_unit_quaternion() -> None:
    e = with_parameters("quadrotor", thrust=0.0, gravity=0.0)
    p = {q.name: q.value for q in quadrotor.PARAMETERS}
    seen = states(e, flying(p=3.0, q=1.0, r=2.0), [quadrotor.HOVER_KRPM] * 4, 100)
    w, v, turning = seen[:, 3:4], seen[:, 4:7], seen[:, 10:13]
    np.testing.assert_allclose((w**2)[:, 0] + (v**2).sum(1), 1.0, rtol=1e-12)
    body = turning * np.array([p["inertia_xy"], p["inertia_xy"], p["inertia_z"]])
    world = body + 2 * np.cross(v, np.cross(v, body) + w * body)
    np.testing.assert_allclose(world, np.tile(world[0], (101, 1)), atol=0.02 * np.linalg.norm(world[0]))


def roving(x: float, y: float, heading: float, goal: tuple[float, float] = (1.2, 0.0), obstacle: tuple[float, float] = (9.0, 9.0)) -> list[float]:
    """A rover's state with one obstacle that counts; the others are far outside."""
    return [x, y, heading, 0.0, 0.0, *goal, *obstacle, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0]


def test_the_rover_drives_the_arc_of_its_wheels() -> None:
    """Against the closed form of an arc, once the wheels have reached their speeds."""
    e = envs.load("rover")
    r, d = rover.PARAMETERS[0].value, rover.PARAMETERS[1].value
    state = roving(-1.0, -0.5, 0.3)
    state[rover.LEFT], state[rover.RIGHT] = 4.0, 6.0
    seen = states(e, state, [4.0, 6.0], 50)
    v, w = r * (4.0 + 6.0) / 2, r * (6.0 - 4.0) / d
    time = np.arange(51) * rover.PERIOD_S
    np.testing.assert_allclose(seen[:, 0], -1.0 + v / w * (np.sin(0.3 + w * time) - math.sin(0.3)), atol=1e-8)
    np.testing.assert_allclose(seen[:, 1], -0.5 - v / w * (np.cos(0.3 + w * time) - math.cos(0.3)), atol=1e-8)
    assert r * rover.WHEEL_RAD_S == pytest.approx(0.22)


def test_the_rovers_ranges_are_geometry() -> None:
    """Beams against a march in small steps through the same arena."""
    e, rng = envs.load("rover"), np.random.default_rng(0)
    for _ in range(20):
        state = e.start(int(rng.integers(1000)), [0])[0]
        state[:3] = rng.uniform([-1.3, -1.3, -math.pi], [1.3, 1.3, math.pi])
        centres = state[rover.FIRST :].reshape(-1, 2)
        if (np.hypot(*(centres - state[:2]).T) < rover.OBSTACLE_M).any():
            continue
        ranges = e.observe(state[None])[0, 5:]
        for k, angle in enumerate(rover.BEAMS):
            along = np.arange(0.0, rover.RANGE_M, 1e-3)
            points = state[:2] + along[:, None] * [math.cos(state[2] + angle), math.sin(state[2] + angle)]
            hit = (np.abs(points) > rover.HALF_M).any(1)
            hit |= (np.linalg.norm(points[:, None] - centres, axis=2) < rover.OBSTACLE_M).any(1)
            assert ranges[k] == pytest.approx(along[hit][0] if hit.any() else rover.RANGE_M, abs=2e-3)


def test_the_rover_is_told_where_the_goal_is_and_ends_there_or_at_an_obstacle() -> None:
    e = envs.load("rover")
    seen = e.observe(np.array([roving(0.0, 0.0, math.pi / 2, goal=(1.0, 0.0))]))[0]
    np.testing.assert_allclose(seen[:3], [1.0, 0.0, -1.0], atol=1e-12)  # the goal is to its right
    cases = np.array([roving(1.0, 0.0, 0.0, (1.1, 0.0)), roving(0.0, 0.0, 0.0, obstacle=(0.2, 0.0)), roving(0.0, 0.0, 0.0, obstacle=(0.3, 0.0))])
    _, reward, cost, over = e.step(cases, np.zeros((3, 2)))
    np.testing.assert_allclose(reward, [4.99, -5.01, -0.01])
    assert cost.tolist() == [0.0, 1.0, 1.0] and over.tolist() == [True, True, False]
