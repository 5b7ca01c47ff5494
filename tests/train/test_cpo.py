"""Trust regions under a limit on costs: what nothing limits is TRPO to the bit, every step of CPO is within its bounds, and both go on exactly."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from puffer_edge import envs  # noqa: E402
from puffer_edge.envs.sanity import cmdp  # noqa: E402
from puffer_edge.errors import InvalidInput, Unsupported  # noqa: E402
from puffer_edge.policy import Policy  # noqa: E402
from puffer_edge.train import CPOSettings, TRPOLagrangianSettings, TRPOSettings, preset, resume, train  # noqa: E402
from puffer_edge.train.algorithms.cpo import CPO  # noqa: E402
from puffer_edge.train.algorithms.trpo import TRPO  # noqa: E402
from puffer_edge.train.algorithms.trpo_lagrangian import TRPOLagrangian  # noqa: E402
from puffer_edge.train.trust_region import CUT, FREE, INSIDE, RECOVERABLE, UNREACHABLE  # noqa: E402

SMALL: dict[str, Any] = {"steps": 1024, "rows": 8, "horizon": 32, "minibatch": 64, "epochs": 2, "hidden": (16,)}
KINDS: dict[Any, Any] = {CPO: CPOSettings, TRPOLagrangian: TRPOLagrangianSettings}


def flat(learner: Any) -> bytes:
    return b"".join(p.detach().numpy().tobytes() for p in learner.net.parameters())


def make(kind: Any, name: str = "cartpole", seed: int = 1, **changes: Any) -> Any:
    return kind(envs.load(name), KINDS[kind](**{**SMALL, "cost_limit": 5.0, **changes}), seed=seed)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [(TRPOLagrangian, {"multiplier": 0.0, "multiplier_rate": 0.0}), (CPO, {"cost_limit": 1e9})],
    ids=["trpo-lagrangian", "cpo"],
)
@pytest.mark.parametrize("name", ["cartpole", "rover"])
def test_a_limit_that_asks_for_nothing_leaves_trpo_to_the_bit(kind: Any, changes: dict[str, Any], name: str) -> None:
    """CPO makes no step before the first episode has ended, which is when it knows of a cost: episodes end in each rollout here."""
    plain = TRPO(name, TRPOSettings(**SMALL | {"horizon": 256 if name == "rover" else 32}), seed=3)
    free = make(kind, name, 3, horizon=plain.settings.horizon, **changes)
    plain.learn()
    free.learn()
    assert any(free.recent_costs) and list(free.recent_returns) == list(plain.recent_returns), "a test without costs says nothing"
    assert flat(free) == flat(plain)


def test_every_step_of_cpo_is_within_its_bounds() -> None:
    """In all cases that come up, measured anew between copies of the network."""
    seen = set()
    for limit, seed in ((0.0, 0), (0.3, 1), (1.5, 2), (1e3, 3)):
        learner = make(CPO, "cmdp", seed, cost_limit=limit, horizon=64)
        for _ in range(8):
            before, rollout = copy.deepcopy(learner.net), learner._collect()
            found = learner.update(rollout)
            learner.steps += rollout.reward.size
            inputs, action = learner.inputs(rollout.observation.reshape(-1, 6)), torch.from_numpy(rollout.action.ravel())
            old, new = (net.distribution(inputs) for net in (before, learner.net))
            assert old.kl(new).mean().item() <= learner.settings.target_kl * (1 + 1e-4)
            ratio = (new.log_prob(action) - old.log_prob(action)).exp().detach().numpy().astype(np.float64)
            costs = learner.costs.advantage.ravel()
            c = (learner.cost_estimate - limit) / np.mean(learner.recent_lengths)
            assert np.mean((ratio - 1) * (costs - costs.mean())) <= max(-c, 0) + 1e-6
            assert (c > 0) == (found["case"] in (UNREACHABLE, RECOVERABLE))
            if found["case"] > RECOVERABLE:
                assert found["policy_loss"] <= 1e-6, "what was feasible loses no reward"
            seen.add(found["case"])
    assert seen >= {UNREACHABLE, RECOVERABLE, CUT, INSIDE}


def test_without_costs_it_is_free_and_before_an_episode_has_ended_it_waits() -> None:
    learner, seen = make(CPO, "stochastic", cost_limit=0.0), []
    learner.cost_critic.flat.zero_()
    learner.learn(256, callback=lambda p: seen.append(p.metrics))
    assert seen[0]["case"] == FREE and seen[0]["kl"] > 0
    pendulum = make(CPO, "pendulum", cost_limit=0.0)  # 200 steps an episode, 32 a rollout
    before = flat(pendulum)
    actor = [p.detach().clone() for p in pendulum.policy_parameters]
    pendulum.learn(32 * 8, callback=lambda p: seen.append(p.metrics))
    assert np.isnan(seen[-1]["case"]) and np.isnan(seen[-1]["cost_estimate"]) and flat(pendulum) != before
    assert all(torch.equal(p, old) for p, old in zip(pendulum.policy_parameters, actor)), "the critics alone have learnt"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["cmdp", "cartpole"])
def test_stopping_and_going_on_gives_the_bits_of_never_stopping(kind: Any, name: str, tmp_path: Path) -> None:
    about: Any = {"settings": KINDS[kind](**SMALL, cost_limit=0.4, evaluations=2, evaluation_episodes=2), "seed": 5}
    whole = train(name, kind.name, out=tmp_path / "whole", **about)
    run = train(name, kind.name, out=tmp_path / "parts", progress=lambda p: p.steps < 512, **about)
    assert run.result["status"] == "stopped"
    run = resume(run.path)
    assert run.result["resumed"] == [{"steps": 512, "exact": True, "because": []}]
    first, second = (kind.load(one.checkpoints()[-1]) for one in (run, whole))
    assert flat(first) == flat(second) and torch.equal(first.cost_critic.flat, second.cost_critic.flat)
    assert run.result["evaluation"] == whole.result["evaluation"]
    Policy.load(run.path / "policy.safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wrong_is_told(kind: Any) -> None:
    with pytest.raises(InvalidInput, match=r"needs a limit.*--cost-limit"):
        kind("cartpole", KINDS[kind]())
    with pytest.raises(InvalidInput, match="at least 0 that an episode may cost, or None, not -1"):
        KINDS[kind](cost_limit=-1)
    with pytest.raises(InvalidInput, match="target_kl must lie in"):
        KINDS[kind](cost_limit=1, target_kl=0)
    with pytest.raises(Unsupported, match=f"{kind.name} has no native form"):
        make(kind, engine="native")


def test_a_preset_starts_from_that_of_trpo() -> None:
    pendulum = preset("pendulum", "cpo")
    assert isinstance(pendulum, CPOSettings) and (pendulum.discount, pendulum.horizon) == (0.9, 128)
    assert preset("cmdp", "cpo").to_dict()["cost_limit"] == cmdp.LIMIT


@pytest.mark.slow
def test_cpo_comes_to_the_optimum_of_a_linear_program() -> None:
    """Exactly valued; five seeds, and TRPO-Lagrangian, are in benchmarks/cmdp.py."""
    learner = CPO("cmdp", preset("cmdp", "cpo"), seed=0).learn()
    logits = learner.policy().outputs(cmdp.observations().reshape(-1, 6)).reshape(cmdp.STEPS, len(cmdp.STATES), -1)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    gained, spent = cmdp.value(weights / weights.sum(-1, keepdims=True))
    assert gained >= 0.95 * cmdp.OPTIMUM and spent <= 1.05 * cmdp.LIMIT
