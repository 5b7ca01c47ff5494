"""The plant as it is, and the shield in the loop: what they cost in speed, and what training with them is good for.

Speed: steps a second through the pointer of pe_env.h, one thread, processor time; whole PPO trainings on the native engine; and ``Plant``
of the torch engine. Both sides of every ratio take turns, and the median of the turns counts.

Delay: policies of the servo (200 Hz) trained on an ideal plant, on one that is 20 ms late, and on that one with the actions on their way
in the observation; each in int8 on a plant of every delay, behind the default shield. Shield: what a policy has learnt behind a slow shield
that only acts, that has a price, or that masks, with and without it.

python benchmarks/plant.py [--seeds 5] [--turns 5] [--seconds 0.3] [--only speed|delay|shield]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
from environments import rate
from record import save, show

from puffer_edge import envs
from puffer_edge.envs import closed_loop
from puffer_edge.envs.composition import compose
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.imperfect import imperfect
from puffer_edge.envs.imperfections import Actuator, Imperfections, Jitter, Sensor
from puffer_edge.envs.interventions import Interventions
from puffer_edge.envs.plant import Plant
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.reference import InFloat
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import Policy
from puffer_edge.train import preset
from puffer_edge.train.algorithms.ppo import PPO

ENVIRONMENTS = ("cartpole", "pendulum", "servo", "furuta")
ROWS = 48
DELAYS_US = (0, 5_000, 10_000, 20_000, 30_000)
LATE_US = 20_000
EPISODES = 100
SEED = 9_000_000


def chains(environment: Environment) -> dict[str, Any]:
    """Shields by name: a stage each, and the default."""
    c = environment.contract
    first, action = c.observations[0], c.actions[0]
    rates = {a.name: (a.high - a.low) * c.rate_hz / 8 for a in c.actions}
    law = {action.name: {first.name: 0.25 * action.high / first.high}}
    return {
        "limit": ({"stage": "limit"},),
        "slew": ({"stage": "slew", "per_second": rates},),
        "envelope": ({"stage": "envelope", "bounds": {first.name: (first.low / 2, first.high / 2)}, "law": law},),
        "default": environment.shield,
        "all three": (
            {"stage": "envelope", "bounds": {first.name: (first.low / 2, first.high / 2)}, "law": law},
            {"stage": "slew", "per_second": rates},
            {"stage": "limit"},
        ),
    }


def training_rate(environment: Environment, shield: Any) -> float:
    """Steps a second of PPO's whole loop on the native engine."""
    learner = PPO(environment, replace(preset(environment.name), engine="native", threads=1, steps=10**9), shield=shield)
    learner.learn(8192)
    before, began = learner.steps, time.process_time()
    learner.learn(32_768)
    return (learner.steps - before) / (time.process_time() - began)


def plant_rate(environment: Environment, shield: Shield, seconds: float, terms: Interventions | None = None) -> float:
    """Steps a second of ``Plant``."""
    plant, c = Plant(environment, ROWS, 0, shield, interventions=terms), environment.contract
    proposals = np.random.default_rng(0).uniform([a.low for a in c.actions], [a.high for a in c.actions], (ROWS, c.n_actions))
    plant.step(proposals)
    steps, began = 0, time.process_time()
    while time.process_time() - began < seconds:
        plant.step(proposals)
        steps += ROWS
    return steps / (time.process_time() - began)


def ratios(turns: int, measure: dict[str, Any]) -> dict[str, float]:
    """Of each way to the first one; they take turns."""
    found: dict[str, list[float]] = {name: [] for name in measure}
    for _ in range(turns):
        for name, way in measure.items():
            found[name].append(way())
    first = next(iter(measure))
    return {name: median(seen) / median(found[first]) for name, seen in found.items()}


def shields(name: str, turns: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each shield around an environment: speed as a share of that without one, which is in fixed point too."""
    environment, rows = envs.load(name), []
    built = {"none": Shield.none(environment.contract)} | {k: Shield.build(environment.contract, v) for k, v in chains(environment).items()}
    terms: dict[str, Interventions | None] = dict.fromkeys(built)
    terms |= {"default, priced": Interventions(0.1, 0.1)} | ({"default, masked": Interventions(mask=True)} if environment.contract.levels else {})
    guards = {k: built.get(k, built["default"]) for k in terms}
    composed = {k: compose(environment, guards[k], terms[k]).environment for k in terms}
    stepping = ratios(turns, {k: lambda e=e: rate(e, ROWS, seconds) for k, e in composed.items()})
    training = ratios(max(turns // 2, 1), {k: lambda v=v: training_rate(environment, v.specification) for k, v in built.items()})
    plants = ratios(turns, {k: lambda k=k: plant_rate(environment, guards[k], seconds, terms[k]) for k in terms})
    for k, guard in guards.items():
        about = {"environment": name, "shield": k, "instructions": guard.instructions}
        rows.append(about | {"stepping": stepping[k], "training": training.get(k), "torch_plant": plants[k]})
    return rows[1:]


def imperfections(turns: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each imperfection of the servo: speed as a share of the ideal plant's, behind the default shield."""
    servo = envs.load("servo")
    channels = [c.name for c in servo.contract.observations]
    several = {
        "delay of 20 ms": Imperfections(delay_us=LATE_US),
        "and jitter": Imperfections(delay_us=LATE_US, jitter_us=Jitter("normal", mean_us=0, deviation_us=1000, low_us=-3000, high_us=3000)),
        "and 4 pending": Imperfections(delay_us=LATE_US, pending=4),
        "noise of 3 channels": Imperfections(sensors=dict.fromkeys(channels, Sensor(noise=0.01))),
        "resolution": Imperfections(sensors=dict.fromkeys(channels, Sensor(resolution=0.01))),
        "bias": Imperfections(sensors=dict.fromkeys(channels, Sensor(bias=0.01))),
        "dropout": Imperfections(dropout=0.05),
        "stuck": Imperfections(sensors=dict.fromkeys(channels, Sensor(stuck=0.01, stuck_steps=5))),
        "dead zone, saturation": Imperfections(actuators={"voltage": Actuator(dead_zone=0.2, low=-8, high=8)}),
        "parameters": Imperfections(parameters={"inertia": (1e-5, 3e-5)}),
        "hold of 2": Imperfections(hold_steps=2),
    }
    made = {"ideal": servo} | {name: imperfect(servo, about) for name, about in several.items()}
    composed = {name: compose(e, Shield.build(e.contract, e.shield)).environment for name, e in made.items()}
    found = ratios(turns, {name: lambda e=e: rate(e, ROWS, seconds) for name, e in composed.items()})
    trained = ratios(1, {name: lambda e=made[name]: training_rate(e, True) for name in ("ideal", "and jitter", "noise of 3 channels")})
    return [{"servo with": name, "stepping": found[name], "training": trained.get(name)} for name in list(several)]


def in_integers(policy: Policy, environment: Environment, shield: Shield) -> Any:
    """The int8 program, calibrated on the policy's own rollouts."""
    seen, starts = closed_loop.play(environment, InFloat(policy), shield, 16, SEED + 1).calibration()
    return quantize(policy, environment.contract.physical_observation(seen), starts, "int8")


def learnt(environment: Environment, seed: int, **changes: Any) -> PPO:
    """A learner at the end of its training."""
    learner = PPO(environment, replace(preset(environment.name), **changes), seed=seed)
    learner.learn()
    return learner


def delays(seeds: int, name: str, pending: int) -> list[dict[str, Any]]:
    """A row for each plant that was trained on: return in int8 on each plant that is driven, the median of the seeds, and their range."""
    bare = envs.load(name)
    kinds = {"ideal": Imperfections(), "20 ms late": Imperfections(delay_us=LATE_US)}
    kinds[f"20 ms late, {pending} pending seen"] = Imperfections(delay_us=LATE_US, pending=pending)
    rows = []
    for label, trained in kinds.items():
        returns: dict[int, list[float]] = {delay: [] for delay in DELAYS_US}
        for seed in range(seeds):
            learner = learnt(imperfect(bare, trained), seed)
            policy, shield = learner.policy(), learner.shield
            program = in_integers(policy, learner.environment, shield)
            for delay in DELAYS_US:
                plant = imperfect(bare, replace(trained, delay_us=delay), policy.contract)
                returns[delay].append(float(closed_loop.play(plant, program, shield, EPISODES, SEED).returns.mean()))
        row = {"environment": name, "trained on": label, "seeds": seeds}
        for delay, found in returns.items():
            row |= {f"at_{delay // 1000}_ms": round(median(found), 1), f"at_{delay // 1000}_ms_range": [round(min(found), 1), round(max(found), 1)]}
        rows.append(row)
        print(row, flush=True)
    return rows


def behind(seeds: int) -> list[dict[str, Any]]:
    """A row for each use of a slow shield: with it and without it, the median of the seeds, in float; rates are shares of the steps."""
    rows = []
    for name, share, terms in (
        ("servo", 1 / 40, {"only acts": {}, "price 0.5 a step": {"shield_penalty": 0.5}, "price 4 a change": {"shield_change_penalty": 4.0}}),
        ("cartpole", 0.6, {"only acts": {}, "price 0.2 a step": {"shield_penalty": 0.2}, "masks": {"shield_mask": True}}),
    ):
        environment = envs.load(name)
        c = environment.contract
        guard = ({"stage": "slew", "per_second": {a.name: (a.high - a.low) * c.rate_hz * share for a in c.actions}}, {"stage": "limit"})
        for label, changes in terms.items():
            found: dict[str, list[float]] = {key: [] for key in ("return", "cost", "intervention_rate", "unshielded_return", "unshielded_cost")}
            for seed in range(seeds):
                learner = PPO(environment, replace(preset(name), **changes), seed=seed, shield=guard)
                learner.learn()
                actor = InFloat(learner.policy())
                with_it, alone = (closed_loop.play(environment, actor, s, EPISODES, SEED) for s in (learner.shield, Shield.none(c)))
                for key, value in (
                    ("return", with_it.returns.mean()),
                    ("cost", with_it.costs.mean()),
                    ("intervention_rate", with_it.intervention_rate),
                    ("unshielded_return", alone.returns.mean()),
                    ("unshielded_cost", alone.costs.mean()),
                ):
                    found[key].append(float(value))
            rows.append({"environment": name, "shield": label, "seeds": seeds} | {key: round(median(seen), 3) for key, seen in found.items()})
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--only", choices=("speed", "delay", "shield"))
    options = parser.parse_args()
    about = {"seeds": options.seeds, "turns": options.turns, "seconds": options.seconds, "rows": ROWS, "episodes": EPISODES}
    if options.only in (None, "speed"):
        rows = [row for name in ENVIRONMENTS for row in shields(name, options.turns, options.seconds)]
        show("speed behind a shield, as a share of that without", rows)
        kinds = imperfections(options.turns, options.seconds)
        show("speed with imperfections, as a share of that without", kinds)
        save("plant_speed", settings=about, rows=[*rows, *kinds])
    if options.only in (None, "delay"):
        rows = delays(options.seeds, "servo", 4)
        show("returns in int8 at each delay", rows)
        save("plant_delay", settings=about, rows=rows)
    if options.only in (None, "shield"):
        rows = behind(options.seeds)
        show("what is the shield's merit", rows)
        save("plant_shield", settings=about, rows=rows)


if __name__ == "__main__":
    main()
